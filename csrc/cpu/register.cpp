// The CPU side of the library's ops.
#include <torch/csrc/stable/library.h>

#include <string>

#include "../boxed.h"
#include "kernels.h"
#include "ops.h"
#include "variant_ops.h"

namespace {

std::string cpu_isa() { return lstm_kernels::cpu::isa_description(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CPU, m) {
  using namespace lstm_kernels;
  boxed::implement_both(m, "sequence_forward",
                        LSTM_BOX(&boxed::sequence_forward<cpu::sequence_forward>));
  m.impl("_prepack_weights", LSTM_BOX(&cpu::prepack_weights));
  m.impl("_prepacked_forward", LSTM_BOX(&boxed::prepacked_forward<cpu::prepacked_forward>));
  boxed::implement_both(m, "sequence_backward",
                        LSTM_BOX(&boxed::sequence_backward<cpu::sequence_backward>));
  boxed::implement_both(m, "variant_forward", LSTM_BOX(&cpu::variant_forward));
  m.impl("_variant_backward", LSTM_BOX(&cpu::variant_backward));
  boxed::implement_both(m, "weight_gradients", LSTM_BOX(&cpu::weight_gradients));
  boxed::implement_both(m, "input_gradient", LSTM_BOX(&cpu::input_gradient));
  boxed::implement_both(m, "cell_forward", LSTM_BOX(&cpu::cell_forward));
  boxed::implement_both(m, "cell_backward", LSTM_BOX(&cpu::cell_backward));
}

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", LSTM_BOX(&cpu_isa));
}
