// The CUDA side of the library's ops.
#include <torch/csrc/stable/library.h>

#include <string>

#include "../boxed.h"
#include "ops.h"
#include "variant_ops.h"

namespace {

// The architectures compiled in, as CMake names them, say "80-real,90a-real,90-virtual".
std::string architectures() { return LSTM_CUDA_ARCHITECTURES; }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CUDA, m) {
  using namespace lstm_kernels;
  boxed::implement_both(m, "sequence_forward",
                        LSTM_BOX(&boxed::sequence_forward<cuda::sequence_forward>));
  boxed::implement_both(m, "sequence_backward",
                        LSTM_BOX(&boxed::sequence_backward<cuda::sequence_backward>));
  boxed::implement_both(m, "variant_forward",
                        LSTM_BOX(&boxed::variant_forward<cuda::variant_forward>));
  m.impl("_variant_backward", LSTM_BOX(&boxed::variant_backward<cuda::variant_backward>));
  boxed::implement_both(m, "cell_forward", LSTM_BOX(&cuda::cell_forward));
  boxed::implement_both(m, "cell_backward", LSTM_BOX(&cuda::cell_backward));
  m.impl("_tf32_product", LSTM_BOX(&cuda::tf32_product));
  m.impl("_pack_offsets", LSTM_BOX(&cuda::packed_offsets));
}

STABLE_TORCH_LIBRARY_FRAGMENT(lstm_kernels, m) { m.def("_cuda_architectures() -> str"); }
STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CompositeExplicitAutograd, m) {
  m.impl("_cuda_architectures", LSTM_BOX(&architectures));
}
