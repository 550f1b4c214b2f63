// The CPU implementations of the ops in schema.cpp: unpack, check what memory safety needs, call
// one kernel, return.
#include "ops.h"

#include "../variant_arguments.h"
#include "layer_calls.h"
#include "prepacked_block.h"
#include "scratch.h"
#include "tuning.h"

namespace lstm_kernels::cpu {
namespace {

LayerWeights layer_of(const SequenceForward& a) {
  return {a.size,         a.dtype, a.reduced_precision, a.threads, {a.weights[0], a.weights[1]},
          a.weight_dtype, {}};
}

// Gives the call what _prepack_weights returned, if that pays. Where it is of other weights, it is
// made anew, as `renewed`.
void set_prepacked(SequenceForward& a, const Tensor& prepacked, const Kind& kind, Tensor& renewed) {
  const PrepackedBlock block(prepacked);
  a.weight_dtype = block.weight_dtype();
  if (a.weight_dtype == WeightDType::kOwn && direct_although_prepacked(a.size)) return;
  const LayerWeights layer = layer_of(a);
  const bool current = block.is_of(layer);
  if (!current) renewed = PrepackedBlock::of(layer, kind);
  a.prepacked = (current ? block : PrepackedBlock(renewed)).weights();
}

void run(const SequenceForward& a) {
  const Scratch scratch(kernels().sequence_forward_scratch(a));
  kernels().sequence_forward(a, scratch.data());
}

// `prepacked`, where given: what _prepack_weights returned.
ForwardResults forward(const ForwardArguments& given, const Tensor* prepacked, Tensor* renewed) {
  const ForwardCall call(given);
  SequenceForward a = call.parameters<SequenceForward>();
  a.reduced_precision = given.reduced_precision;
  if (prepacked) set_prepacked(a, *prepacked, call.layer.kind, *renewed);
  run(a);
  return call.results();
}

}  // namespace

ForwardResults sequence_forward(const ForwardArguments& given) {
  return forward(given, nullptr, nullptr);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> prepacked_forward(
    const ForwardArguments& given, const Tensor& prepacked) {
  Tensor renewed = empty({0}, Kind(prepacked));
  const ForwardResults results = forward(given, &prepacked, &renewed);
  return std::tuple_cat(results, std::make_tuple(renewed));
}

Tensor prepack_weights(const std::vector<Tensor>& tensors, bool has_biases, bool bidirectional,
                       std::optional<torch::headeronly::ScalarType> weight_dtype) {
  require(!tensors.empty(), "weights: expected some");
  const Weights weights({tensors, has_biases, bidirectional}, Kind(tensors[0]));
  LayerWeights layer = call_of<LayerWeights>(weights.size, weights.dtype);
  set_weights(layer.weights, weights);
  layer.weight_dtype = weight_dtype_of(weight_dtype, layer.dtype);
  return PrepackedBlock::of(layer, weights.kind);
}

BackwardResults sequence_backward(const BackwardArguments& given) {
  const BackwardCall call(given);
  SequenceBackward a = call.parameters<SequenceBackward>();
  a.reduced_precision = given.reduced_precision;
  const Scratch scratch(kernels().sequence_backward_scratch(a));
  kernels().sequence_backward(a, scratch.data());
  return call.results();
}

std::tuple<Tensor, Tensor, Tensor> weight_gradients(
    const Tensor& grad_preactivations, const Tensor& input, const OptionalTensor& h0,
    const Tensor& output, int64_t direction, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const OptionalTensor& gate_masks,
    bool reduced_precision) {
  const Kind kind(grad_preactivations);
  const RowShape rows(grad_preactivations,
                      "grad_preactivations: expected (T, N, D, 4, H), or (R, D, 4, H) with "
                      "batch_sizes",
                      3, batch_sizes);
  const int64_t dims = rows.of({0}).dims(), last = dims - 1;  // of input and output
  require(input.dim() == dims && output.dim() == dims,
          "input, output: expected (T, N, ...), or (R, ...) with batch_sizes");
  const int64_t D = grad_preactivations.size(last), H = grad_preactivations.size(last + 2);
  const int64_t I = input.size(last), P = D > 0 ? output.size(last) / D : 0;
  require(direction >= 0 && direction < D, "direction: expected one of the layer's");
  require(H > 0 && I > 0 && P > 0, "expected no empty sizes");
  const Ragged ragged({batch_sizes, lengths, reset}, rows, int(D), kind);
  const Tensor grad =
      checked_dense(grad_preactivations, "grad_preactivations", rows.of({D, kGates, H}), kind);
  const Tensor x = with_dense_rows(input);
  const OptionalTensor first = checked_dense(h0, "h0", {D, rows.N, P}, kind);
  const Tensor h = checked_dense(output, "output", rows.of({D * P}), kind);
  const Sizes size{rows.T, rows.N, I, H, P, int(D)};
  const OptionalTensor masks = checked_steps(gate_masks, "gate_masks", size, {D, kGates, P}, kind);
  const RowLists lists(ragged, rows);
  const Tensor grad_w_ih = results({kGates * H, I}, kind);
  const Tensor grad_w_hh = results({kGates * H, P}, kind);
  const Tensor grad_bias = empty({kGates * H}, kind);

  GradWeights a = call_of<GradWeights>(size, dtype_of(kind));
  a.reduced_precision = reduced_precision;
  a.direction = int(direction);
  a.rows = lists.rows();
  a.grad_preactivations = grad.const_data_ptr();
  set_input(a, x);
  a.h0 = data_or_null(first);
  a.output = h.const_data_ptr();
  a.gate_masks = step_array(masks);
  a.grad_w_ih = grad_w_ih.mutable_data_ptr();
  a.grad_w_hh = grad_w_hh.mutable_data_ptr();
  a.grad_bias = grad_bias.mutable_data_ptr();
  const Scratch scratch(kernels().weight_gradients_scratch(a));
  kernels().weight_gradients(a, scratch.data());
  return {grad_w_ih, grad_w_hh, grad_bias};
}

Tensor input_gradient(const Tensor& grad_preactivations, const std::vector<Tensor>& w_ih,
                      const OptionalTensor& lengths, bool reduced_precision) {
  const Kind kind(grad_preactivations);
  const RowShape rows(grad_preactivations,
                      "grad_preactivations: expected (T, N, D, 4, H), or packed (R, D, 4, H)", 3);
  require(!rows.packed || !lengths, "lengths: packed rows take none");
  const int64_t dims = grad_preactivations.dim();
  const int64_t D = grad_preactivations.size(dims - 3), H = grad_preactivations.size(dims - 1);
  require((D == 1 || D == 2) && w_ih.size() == size_t(D) && w_ih[0].dim() == 2,
          "w_ih: expected one matrix per direction");
  const int64_t I = w_ih[0].size(1);
  require(I > 0 && H > 0, "w_ih: expected no empty sizes");
  const OptionalTensor absent;
  const Ragged ragged({absent, lengths, absent}, rows, int(D), kind);
  const RowLists lists(ragged, rows);
  const Tensor grad =
      checked_dense(grad_preactivations, "grad_preactivations", rows.of({D, kGates, H}), kind);
  const Tensor grad_input = results(rows.of({I}), kind);

  GradInput a = call_of<GradInput>({rows.T, rows.N, I, H, 0, int(D)}, dtype_of(kind));
  a.reduced_precision = reduced_precision;
  a.rows = lists.rows();
  a.grad_preactivations = grad.const_data_ptr();
  std::vector<Tensor> weights;
  for (const Tensor& w : w_ih) weights.push_back(checked_dense(w, "w_ih", {kGates * H, I}, kind));
  for (size_t d = 0; d < weights.size(); ++d) a.weights[d].w_ih = weights[d].const_data_ptr();
  a.grad_input = grad_input.mutable_data_ptr();
  const Scratch scratch(kernels().input_gradient_scratch(a));
  kernels().input_gradient(a, scratch.data());
  return grad_input;
}

// One step is a sequence of length one.
std::tuple<Tensor, Tensor, Tensor> cell_forward(const Tensor& input, const Tensor& h0,
                                                const Tensor& c0, const Tensor& w_ih,
                                                const Tensor& w_hh, const OptionalTensor& b_ih,
                                                const OptionalTensor& b_hh, bool save_gates) {
  const Kind kind(input);
  require(input.dim() == 2 && w_hh.dim() == 2, "_cell_forward: expected matrices");
  const int64_t N = input.size(0), I = input.size(1), H = w_hh.size(1);
  require(I > 0 && H > 0, "_cell_forward: expected non-empty weights");
  require(b_ih.has_value() == b_hh.has_value(), "_cell_forward: expected both biases, or neither");
  const Tensor x = with_dense_rows(input);
  const Tensor h_before = checked_dense(h0, "h0", {N, H}, kind);
  const Tensor c_before = checked_dense(c0, "c0", {N, H}, kind);
  const DirectionTensors weights{checked_dense(w_ih, "w_ih", {kGates * H, I}, kind),
                                 checked_dense(w_hh, "w_hh", {kGates * H, H}, kind),
                                 checked_dense(b_ih, "b_ih", {kGates * H}, kind),
                                 checked_dense(b_hh, "b_hh", {kGates * H}, kind), std::nullopt};
  const Tensor h = empty({N, H}, kind), c = empty({N, H}, kind);
  const Tensor gates = save_gates ? empty({N, kGates, H}, kind) : empty({0}, kind);

  SequenceForward a = call_of<SequenceForward>({1, N, I, H, H, 1}, dtype_of(kind));
  set_input(a, x);
  a.h0 = h_before.const_data_ptr();
  a.c0 = c_before.const_data_ptr();
  a.weights[0] = weights.data();
  a.output = h.mutable_data_ptr();
  a.c_n = c.mutable_data_ptr();
  a.gates = result_or_null(gates);
  run(a);
  return {h, c, gates};
}

std::tuple<Tensor, Tensor> cell_backward(const OptionalTensor& grad_h, const OptionalTensor& grad_c,
                                         const OptionalTensor& grad_gates, const Tensor& c0,
                                         const Tensor& gates) {
  const Kind kind(c0);
  require(c0.dim() == 2, "c0: expected (N, H)");
  const int64_t N = c0.size(0), H = c0.size(1);
  const OptionalTensor into_h = checked_dense(grad_h, "grad_h", {N, H}, kind);
  const OptionalTensor into_c = checked_dense(grad_c, "grad_c", {N, H}, kind);
  const OptionalTensor into_gates = checked_dense(grad_gates, "grad_gates", {N, kGates, H}, kind);
  const Tensor before = checked_dense(c0, "c0", {N, H}, kind);
  const Tensor activated = checked_dense(gates, "gates", {N, kGates, H}, kind);
  const Tensor grad_preactivations = empty({N, kGates, H}, kind), grad_c0 = empty({N, H}, kind);

  CellBackward a{};
  a.N = N;
  a.H = H;
  a.dtype = dtype_of(kind);
  a.grad_h = data_or_null(into_h);
  a.grad_c = data_or_null(into_c);
  a.grad_gates = data_or_null(into_gates);
  a.c0 = before.const_data_ptr();
  a.gates = activated.const_data_ptr();
  a.grad_preactivations = grad_preactivations.mutable_data_ptr();
  a.grad_c0 = grad_c0.mutable_data_ptr();
  kernels().cell_backward(a);
  return {grad_preactivations, grad_c0};
}

}  // namespace lstm_kernels::cpu
