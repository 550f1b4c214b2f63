// Every op of the library, on one page. lstm_kernels.functional checks the arguments.
//
// Most ops have two names for the same kernels. `sequence_forward` is for graphs: what
// torch.compile, torch.export and their like record. lstm_kernels/_graph_ops.py gives it gradients,
// so that a graph has them, whether or not one was wanted when it was recorded.
// `_sequence_forward` is for eager calls and has none: torch calls its kernel at once.
//
//   T time steps   N batch   I input size   H hidden size   D directions (1 or 2)
//   P size of h_t: H, or proj_size where the layer projects
//
// One call computes one layer in all its directions. Direction 1 runs from the last step to the
// first; everything it returns is aligned to the time of its input.
//
// input        (T, N, I), or packed: (R, I), R the sum of batch_sizes, rows of one step side by
//              side
// h0, c0       (D, N, P), (D, N, H); absent means zeros
// weights      per direction, as torch.nn.LSTM lists them: w_ih (4*H, I), w_hh (4*H, P), then
//              b_ih (4*H), b_hh (4*H) where has_biases, then w_hr (P, H) where the layer projects;
//              gates stacked in the order i, f, g, o
// batch_sizes  (T) int64 on the CPU, non-increasing: the input is packed
// lengths      (N) int64 on the input's device: sequence n takes part in steps 0 .. lengths[n] - 1;
//              whatever is returned for later steps is zero, and no state moves there
// reset        (T, N) bool: h and c of the row are zeroed before that step (D = 1 only)
// reduced_precision
//              float32: products may round their factors, to TF32 on CUDA, to bfloat16 on the CPU,
//              as torch's switch for nn.LSTM says; other dtypes, and variants on the CPU, ignore it
// recompute    keep nothing for the backward pass, and run the forward pass again there; a kernel
//              does the same with it and without
// output       (T, N, D*P) or (R, D*P): h_t. h_n (D, N, P) and c_n (D, N, H): the last states
// cell         (T, N, D*H) or (R, D*H): c_t; empty unless save_cell
// gates        (T, N, D, 4, H) or (R, D, 4, H): activated i, f, g, o; empty unless save_gates
//
// Results are contiguous, new tensors of the input's dtype. Nothing is ever written to an argument.
// Input, states and weights may have any strides; an input whose last dimension is contiguous is
// read where it is, and so are states and weights that are contiguous as a whole.
//
// _prepack_weights lays a layer's weights out in panels once for many calls of _prepacked_forward,
// which is CPU only. prepacked: (bytes) uint8, good for this process alone. weight_dtype: bfloat16
// or float16 rounds the matrices of a float32 layer; absent, nothing is rounded. _prepacked_forward
// compares the contents of the weights with those that were packed. Where they differ, or the layer
// has become another one, it packs them again, computes with that, and returns it as `renewed`,
// which is else empty.
//
// _own_weights lays out the weights of a whole stack of layers, listed layer after layer, for the
// ops that a module without Parameters calls, CPU only, too; reduced_precision is for all of these
// calls. _own_quantized takes matrices of int8
// with float32 biases, and a scale for each row of each matrix: (4*H), (4*H), and (P) where the
// layer projects. The ops know nothing but `owned`, (bytes) uint8, good for this process alone, and
// compare nothing. num_layers, hidden_size, h_size (P) and bidirectional say what is in it to
// a caller that has shapes alone. h0, c0, h_n, c_n: (L*D, N, ...). _owned_states returns the hidden
// state, the cell state and, with save_gates, the gates of every step and layer. _owned_cell is
// _cell_forward on them. _owned_step takes one step, input (N, I), in the state that h (L, N, P)
// and c (L, N, H) hold, and leaves the new one there; reset (N) bool; output (N, P).
//
// _sequence_backward returns the gradient of the gates' pre-activations, from which those of the
// input, the weights and the biases follow as plain matrix products, and grad_hidden, the whole
// gradient of h_t, (T, N, D*P), which the gradient of w_hr needs (empty without projection).
// Absent gradients are zero. _weight_gradients and _input_gradient are these products, CPU only:
// of one direction's weights, where grad_bias (4*H) is the gradient of b_ih and of b_hh, and
// gate_masks are those of a variant; and of the input, from the w_ih of every direction.
//
// variant_forward and _variant_backward are the same for a variant of the LSTM (docs/variants.md).
// Their further arguments are absent where the variant lacks them: peephole (D, 3, H), of
// i, f and o; norm_gates (D, 1, 4*H), the gains of the norm of both products' sum, or (D, 2, 4*H),
// of W_ih x and of W_hh h; norm_cell (D, 2, H), gain and bias of the cell state's norm; and arrays
// of all steps, or of one that stands for all, also where the input is packed: input_gate,
// candidate_mask and zoneout_cell (1 or T, N, D*H), hidden_mask and zoneout_hidden (1 or T, N,
// D*P), gate_masks (1 or T, N, D, 4, P), which are hidden masks for the product of each gate.
// options: the coupling (0 none, 1 i = 1 - f, 2 f = 1 - i), clip, cell_clip (0: none), what
// zoneout keeps of c and of h where there is no mask, whether the normalised cell state is carried
// on, what norms add to the variance, then kind, alpha and beta of the activation of the gates, the
// candidate and the cell state; kinds are ActivationKind of variant.h. products, (T, N, D, 1 or
// 2, 4, H) or (R, D, 1 or 2, 4, H), is what the norm of the gates is given; empty unless
// save_gates. grad_hidden is the gradient of h_t before zoneout. grad_input_gate, (T, N, D*H) or
// (R, D*H), is empty without an input gate from outside. Where there is a norm, grad_preactivations
// is the gradient of the normalised product, grad_input_product that of W_ih x (empty unless
// norm_gates has two), and grad_parameters (D, 17, H) has the gradients of peepholes, and with a
// norm of biases and gains, rows as ParameterSum of variant.h says (empty without either).
//
// CUDA only: _tf32_product is the product of two float32 matrices, their elements rounded to TF32;
// _pack_offsets, the sums (T + 1) of batch_sizes, from 0 on, on the device of `rows`.
#include <torch/csrc/stable/library.h>

#include <string>

STABLE_TORCH_LIBRARY(lstm_kernels, m) {
  const auto define_both = [&](const std::string& schema) {
    m.def(schema.c_str());
    m.def(("_" + schema).c_str());
  };

  define_both(
      "sequence_forward(Tensor input, Tensor? h0, Tensor? c0, Tensor[] weights, bool has_biases, "
      "bool bidirectional, Tensor? batch_sizes=None, Tensor? lengths=None, Tensor? reset=None, "
      "bool save_cell=False, bool save_gates=False, bool reduced_precision=False, "
      "bool recompute=False) -> (Tensor output, Tensor h_n, Tensor c_n, Tensor cell, "
      "Tensor gates)");
  m.def(
      "_prepack_weights(Tensor[] weights, bool has_biases, bool bidirectional, "
      "ScalarType? weight_dtype) -> Tensor prepacked");
  m.def(
      "_prepacked_forward(Tensor input, Tensor? h0, Tensor? c0, Tensor[] weights, bool has_biases, "
      "bool bidirectional, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, bool save_cell, "
      "bool save_gates, Tensor prepacked) -> (Tensor output, Tensor h_n, Tensor c_n, Tensor cell, "
      "Tensor gates, Tensor renewed)");
  m.def(
      "_own_weights(Tensor[] weights, int num_layers, bool has_biases, bool bidirectional, "
      "ScalarType? weight_dtype, bool reduced_precision) -> Tensor owned");
  m.def(
      "_own_quantized(Tensor[] weights, Tensor[] scales, int num_layers, bool has_biases, "
      "bool bidirectional) -> Tensor owned");
  m.def(
      "_owned_forward(Tensor input, Tensor? h0, Tensor? c0, Tensor owned, int num_layers, "
      "int hidden_size, int h_size, bool bidirectional, Tensor? batch_sizes=None, "
      "Tensor? lengths=None, Tensor? reset=None) -> (Tensor output, Tensor h_n, Tensor c_n)");
  m.def(
      "_owned_states(Tensor input, Tensor? h0, Tensor? c0, Tensor owned, int num_layers, "
      "int hidden_size, int h_size, bool bidirectional, Tensor? batch_sizes, Tensor? lengths, "
      "Tensor? reset, bool save_gates) -> (Tensor[] hidden, Tensor h_n, Tensor c_n, Tensor[] cell, "
      "Tensor[] gates)");
  m.def(
      "_owned_cell(Tensor input, Tensor h0, Tensor c0, Tensor owned, bool save_gates) -> "
      "(Tensor h, Tensor c, Tensor gates)");
  m.def(
      "_owned_step(Tensor input, Tensor(a!) h, Tensor(b!) c, Tensor owned, Tensor? reset=None) -> "
      "Tensor output");
  define_both(
      "sequence_backward(Tensor? grad_output, Tensor? grad_h_n, Tensor? grad_c_n, "
      "Tensor? grad_cell, Tensor? grad_gates, Tensor? c0, Tensor[] weights, bool has_biases, "
      "bool bidirectional, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, Tensor cell, "
      "Tensor gates, bool reduced_precision=False) -> (Tensor grad_preactivations, Tensor grad_h0, "
      "Tensor grad_c0, Tensor grad_hidden)");
  define_both(
      "variant_forward(Tensor input, Tensor? h0, Tensor? c0, Tensor[] weights, bool has_biases, "
      "bool bidirectional, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, Tensor? peephole, "
      "Tensor? norm_gates, Tensor? norm_cell, Tensor? input_gate, Tensor? hidden_mask, "
      "Tensor? gate_masks, Tensor? candidate_mask, Tensor? zoneout_cell, Tensor? zoneout_hidden, "
      "float[] options, bool save_cell, bool save_gates, bool reduced_precision) -> "
      "(Tensor output, Tensor h_n, Tensor c_n, Tensor cell, Tensor gates, Tensor products)");
  m.def(
      "_variant_backward(Tensor? grad_output, Tensor? grad_h_n, Tensor? grad_c_n, "
      "Tensor? grad_cell, Tensor? grad_gates, Tensor? c0, Tensor[] weights, bool has_biases, "
      "bool bidirectional, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, Tensor? peephole, "
      "Tensor? norm_gates, Tensor? norm_cell, Tensor? input_gate, Tensor? hidden_mask, "
      "Tensor? gate_masks, Tensor? candidate_mask, Tensor? zoneout_cell, Tensor? zoneout_hidden, "
      "float[] options, Tensor cell, Tensor gates, Tensor products, bool reduced_precision) -> "
      "(Tensor grad_preactivations, Tensor grad_h0, Tensor grad_c0, Tensor grad_hidden, "
      "Tensor grad_input_gate, Tensor grad_input_product, Tensor grad_parameters)");
  define_both(
      "weight_gradients(Tensor grad_preactivations, Tensor input, Tensor? h0, Tensor output, "
      "int direction, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, "
      "Tensor? gate_masks=None, bool reduced_precision=False) -> (Tensor grad_w_ih, "
      "Tensor grad_w_hh, Tensor grad_bias)");
  define_both(
      "input_gradient(Tensor grad_preactivations, Tensor[] w_ih, Tensor? lengths, "
      "bool reduced_precision=False) -> Tensor grad_input");

  m.def("_tf32_product(Tensor a, Tensor b) -> Tensor product");
  m.def("_pack_offsets(Tensor batch_sizes, Tensor rows) -> Tensor offsets");

  // One step: input (N, I), h0 (N, P = H), c0 (N, H); gates (N, 4, H), empty unless save_gates.
  // Backward makes c again of c0 and the gates, so that the caller may write to the c it got.
  define_both(
      "cell_forward(Tensor input, Tensor h0, Tensor c0, Tensor w_ih, Tensor w_hh, Tensor? b_ih, "
      "Tensor? b_hh, bool save_gates) -> (Tensor h, Tensor c, Tensor gates)");
  define_both(
      "cell_backward(Tensor? grad_h, Tensor? grad_c, Tensor? grad_gates, Tensor c0, Tensor gates) "
      "-> (Tensor grad_preactivations, Tensor grad_c0)");

  // What a bug report needs: the instruction set compiled in and chosen, say "avx2 of
  // baseline,avx2,avx512".
  m.def("_cpu_isa() -> str");
}
