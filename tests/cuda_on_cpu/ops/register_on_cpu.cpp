// The CUDA ops for CPU tensors, in their own namespace; library.py gives them the schemas.
#include <torch/csrc/stable/library.h>

#include "../boxed.h"
#include "machine.h"
#include "ops.h"
#include "variant_ops.h"

namespace {
void set_seed(int64_t seed) { machine::set_seed(uint64_t(seed)); }
void set_room(int64_t blocks) { machine::set_room(unsigned(blocks)); }
}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cuda_on_cpu, m) {
  m.def("set_seed(int seed) -> ()");
  m.def("set_room(int blocks) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(cuda_on_cpu, CompositeExplicitAutograd, m) {
  m.impl("set_seed", LSTM_BOX(&set_seed));
  m.impl("set_room", LSTM_BOX(&set_room));
}
STABLE_TORCH_LIBRARY_IMPL(cuda_on_cpu, CPU, m) {
  using namespace lstm_kernels;
  m.impl("_sequence_forward", LSTM_BOX(&boxed::sequence_forward<cuda::sequence_forward>));
  m.impl("_sequence_backward", LSTM_BOX(&boxed::sequence_backward<cuda::sequence_backward>));
  m.impl("_variant_forward", LSTM_BOX(&boxed::variant_forward<cuda::variant_forward>));
  m.impl("_variant_backward", LSTM_BOX(&boxed::variant_backward<cuda::variant_backward>));
  m.impl("_cell_forward", LSTM_BOX(&cuda::cell_forward));
  m.impl("_cell_backward", LSTM_BOX(&cuda::cell_backward));
  m.impl("_tf32_product", LSTM_BOX(&cuda::tf32_product));
  m.impl("_pack_offsets", LSTM_BOX(&cuda::packed_offsets));
}
