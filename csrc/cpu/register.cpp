// The CPU side of the library's ops.
#include <torch/csrc/stable/library.h>

#include <string>

#include "../boxed.h"
#include "kernels.h"
#include "ops.h"

namespace {

std::string cpu_isa() { return lstm_kernels::cpu::isa_description(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CPU, m) {
  using namespace lstm_kernels;
  m.impl("_sequence_forward", TORCH_BOX(&boxed::sequence_forward<cpu::sequence_forward>));
  m.impl("_prepack_weights", TORCH_BOX(&cpu::prepack_weights));
  m.impl("_prepacked_forward", TORCH_BOX(&boxed::prepacked_forward<cpu::prepacked_forward>));
  m.impl("_sequence_backward", TORCH_BOX(&boxed::sequence_backward<cpu::sequence_backward>));
  m.impl("_weight_gradients", TORCH_BOX(&cpu::weight_gradients));
  m.impl("_input_gradient", TORCH_BOX(&cpu::input_gradient));
  m.impl("_cell_forward", TORCH_BOX(&cpu::cell_forward));
  m.impl("_cell_backward", TORCH_BOX(&cpu::cell_backward));
}

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&cpu_isa));
}
