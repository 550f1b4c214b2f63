// The CPU side of the library's ops.
#include <torch/csrc/stable/library.h>

#include <string>

#include "../boxed.h"
#include "kernels.h"
#include "ops.h"
#include "variant_ops.h"

namespace {

using namespace lstm_kernels;

// An op on the weights of a stack; More are its further arguments.
template <auto op, class... More>
auto of_stack(const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
              const Tensor& owned, int64_t num_layers, int64_t hidden_size, int64_t h_size,
              bool bidirectional, const OptionalTensor& batch_sizes, const OptionalTensor& lengths,
              const OptionalTensor& reset, More... more) {
  return op({input,
             h0,
             c0,
             owned,
             num_layers,
             hidden_size,
             h_size,
             bidirectional,
             {batch_sizes, lengths, reset}},
            more...);
}

std::string cpu_isa() { return lstm_kernels::cpu::isa_description(); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CPU, m) {
  boxed::implement_both(m, "sequence_forward",
                        LSTM_BOX(&boxed::sequence_forward<cpu::sequence_forward>));
  m.impl("_prepack_weights", LSTM_BOX(&cpu::prepack_weights));
  m.impl("_prepacked_forward", LSTM_BOX(&boxed::prepacked_forward<cpu::prepacked_forward>));
  m.impl("_own_weights", LSTM_BOX(&cpu::own_weights));
  m.impl("_own_quantized", LSTM_BOX(&cpu::own_quantized));
  m.impl("_owned_forward", LSTM_BOX(&of_stack<cpu::owned_forward>));
  m.impl("_owned_states", LSTM_BOX((&of_stack<cpu::owned_states, bool>)));
  m.impl("_owned_cell", LSTM_BOX(&cpu::owned_cell));
  m.impl("_owned_step", LSTM_BOX(&cpu::owned_step));
  boxed::implement_both(m, "sequence_backward",
                        LSTM_BOX(&boxed::sequence_backward<cpu::sequence_backward>));
  boxed::implement_both(m, "variant_forward",
                        LSTM_BOX(&boxed::variant_forward<cpu::variant_forward>));
  m.impl("_variant_backward", LSTM_BOX(&boxed::variant_backward<cpu::variant_backward>));
  boxed::implement_both(m, "weight_gradients", LSTM_BOX(&cpu::weight_gradients));
  boxed::implement_both(m, "input_gradient", LSTM_BOX(&cpu::input_gradient));
  boxed::implement_both(m, "cell_forward", LSTM_BOX(&cpu::cell_forward));
  boxed::implement_both(m, "cell_backward", LSTM_BOX(&cpu::cell_backward));
}

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", LSTM_BOX(&cpu_isa));
}
