// The ops of variants: unpack, check what memory safety needs, call one kernel, return.
#include "variant_ops.h"

#include "calls.h"
#include "results.h"
#include "rows.h"
#include "scratch.h"

namespace lstm_kernels::cpu {
namespace {

// What a variant's op takes besides those of a plain layer.
struct VariantArguments {
  const OptionalTensor &peephole, &input_gate, &hidden_mask, &candidate_mask, &zoneout_cell,
      &zoneout_hidden;
  const std::vector<double>& options;
};

// A Variant, with the tensors that it points to.
class VariantTensors {
 public:
  VariantTensors(const VariantArguments& given, const Sizes& s, const Kind& kind) {
    peephole_ = checked_dense(given.peephole, "peephole", {s.D, 3, s.H}, kind);
    variant_.peephole = data_or_null(peephole_);
    variant_.input_gate = steps(given.input_gate, "input_gate", s, s.H, kind);
    variant_.hidden_mask = steps(given.hidden_mask, "hidden_mask", s, s.P, kind);
    variant_.candidate_mask = steps(given.candidate_mask, "candidate_mask", s, s.H, kind);
    variant_.cell_zoneout = steps(given.zoneout_cell, "zoneout_cell", s, s.H, kind);
    variant_.hidden_zoneout = steps(given.zoneout_hidden, "zoneout_hidden", s, s.P, kind);
    read(given.options);
  }
  VariantTensors(const VariantTensors&) = delete;
  VariantTensors& operator=(const VariantTensors&) = delete;
  const Variant& variant() const { return variant_; }

 private:
  StepArray steps(const OptionalTensor& given, const char* name, const Sizes& s, int64_t features,
                  const Kind& kind) {
    if (!given) return {nullptr, 0};
    require(given->dim() == 3, "a variant's masks and input gate: expected (1 or T, N, D*F)");
    const bool shared = given->size(0) == 1;
    const TensorShape shape{shared ? 1 : s.T, s.N, s.D * features};
    steps_.push_back(checked_dense(*given, name, shape, kind));
    return {steps_.back().const_data_ptr(), shared ? 0 : s.N * s.D * features};
  }

  // In the order that ../schema.cpp says.
  void read(const std::vector<double>& options) {
    require(options.size() == 5 + 3 * kActivationUses, "options: expected 14 numbers");
    const double coupled = options[0];
    require(coupled == 0 || coupled == 1 || coupled == 2, "options: unknown coupling");
    variant_.coupled = Coupled(int(coupled));
    variant_.clip = options[1];
    variant_.cell_clip = options[2];
    variant_.keep_cell = options[3];
    variant_.keep_hidden = options[4];
    for (size_t use = 0; use < kActivationUses; ++use) {
      const double* numbers = &options[5 + 3 * use];
      require(numbers[0] >= 0 && numbers[0] < double(ActivationKind::kActivations),
              "options: unknown activation");
      variant_.activations[use] = {ActivationKind(int(numbers[0])), numbers[1], numbers[2]};
    }
  }

  Variant variant_{};
  OptionalTensor peephole_;
  std::vector<Tensor> steps_;
};

}  // namespace

ForwardResults variant_forward(
    const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
    const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
    const OptionalTensor& batch_sizes, const OptionalTensor& lengths, const OptionalTensor& reset,
    const OptionalTensor& peephole, const OptionalTensor& input_gate,
    const OptionalTensor& hidden_mask, const OptionalTensor& candidate_mask,
    const OptionalTensor& zoneout_cell, const OptionalTensor& zoneout_hidden,
    const std::vector<double>& options, bool save_cell, bool save_gates) {
  const Layer layer(input, "input: expected (T, N, I), or (R, I) with batch_sizes", 1,
                    {weights, has_biases, bidirectional}, {batch_sizes, lengths, reset});
  const auto& [kind, rows, size] = std::tie(layer.kind, layer.rows, layer.size);
  require(input.size(input.dim() - 1) == size.I, "input: its last size is not that of w_ih");
  const int64_t D = size.D;
  const Tensor x = with_dense_rows(input);
  const OptionalTensor h_first = checked_dense(h0, "h0", {D, size.N, size.P}, kind);
  const OptionalTensor c_first = checked_dense(c0, "c0", {D, size.N, size.H}, kind);
  const VariantTensors variant(
      {peephole, input_gate, hidden_mask, candidate_mask, zoneout_cell, zoneout_hidden, options},
      size, kind);
  const RowLists lists(layer.ragged, rows);
  const Tensor output = results(rows.of({D * size.P}), kind);
  const Tensor h_n = empty({D, size.N, size.P}, kind), c_n = empty({D, size.N, size.H}, kind);
  const Tensor cell = results_if(save_cell, rows.of({D * size.H}), kind);
  const Tensor gates = results_if(save_gates, rows.of({D, kGates, size.H}), kind);

  VariantForward a = call_of<VariantForward>(size, layer.dtype);
  a.rows = lists.rows();
  set_input(a, x);
  a.h0 = data_or_null(h_first);
  a.c0 = data_or_null(c_first);
  set_weights(a.weights, layer);
  a.output = output.mutable_data_ptr();
  a.h_n = h_n.mutable_data_ptr();
  a.c_n = c_n.mutable_data_ptr();
  a.cell = result_or_null(cell);
  a.gates = result_or_null(gates);
  a.variant = variant.variant();
  const Scratch scratch(kernels().variant_forward_scratch(a));
  kernels().variant_forward(a, scratch.data());
  return {output, h_n, c_n, cell, gates};
}

VariantBackwardResults variant_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_h_n,
    const OptionalTensor& grad_c_n, const OptionalTensor& grad_cell,
    const OptionalTensor& grad_gates, const OptionalTensor& c0, const std::vector<Tensor>& weights,
    bool has_biases, bool bidirectional, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const OptionalTensor& peephole,
    const OptionalTensor& input_gate, const OptionalTensor& hidden_mask,
    const OptionalTensor& candidate_mask, const OptionalTensor& zoneout_cell,
    const OptionalTensor& zoneout_hidden, const std::vector<double>& options, const Tensor& cell,
    const Tensor& gates) {
  const Layer layer(cell, "cell: expected (T, N, D*H), or (R, D*H) with batch_sizes", 1,
                    {weights, has_biases, bidirectional}, {batch_sizes, lengths, reset});
  const auto& [kind, rows] = std::tie(layer.kind, layer.rows);
  const auto& [T, N, I, H, P, D] = layer.size;
  const TensorShape of_output = rows.of({D * P}), of_cell = rows.of({D * H});
  const TensorShape of_gates = rows.of({D, kGates, H});
  const OptionalTensor into_output = checked_dense(grad_output, "grad_output", of_output, kind);
  const OptionalTensor into_h_n = checked_dense(grad_h_n, "grad_h_n", {D, N, P}, kind);
  const OptionalTensor into_c_n = checked_dense(grad_c_n, "grad_c_n", {D, N, H}, kind);
  const OptionalTensor into_cell = checked_dense(grad_cell, "grad_cell", of_cell, kind);
  const OptionalTensor into_gates = checked_dense(grad_gates, "grad_gates", of_gates, kind);
  const OptionalTensor first = checked_dense(c0, "c0", {D, N, H}, kind);
  const Tensor cells = checked_dense(cell, "cell", of_cell, kind);
  const Tensor activated = checked_dense(gates, "gates", of_gates, kind);
  const VariantTensors variant(
      {peephole, input_gate, hidden_mask, candidate_mask, zoneout_cell, zoneout_hidden, options},
      layer.size, kind);
  const RowLists lists(layer.ragged, rows);
  const Tensor grad_preactivations = results(of_gates, kind);
  const Tensor grad_h0 = empty({D, N, P}, kind), grad_c0 = empty({D, N, H}, kind);
  const Tensor grad_hidden = results_if(layer.projects, of_output, kind);
  const Tensor grad_input_gate = results_if(input_gate.has_value(), of_cell, kind);

  VariantBackward a = call_of<VariantBackward>(layer.size, layer.dtype);
  a.rows = lists.rows();
  a.grad_output = data_or_null(into_output);
  a.grad_h_n = data_or_null(into_h_n);
  a.grad_c_n = data_or_null(into_c_n);
  a.grad_cell = data_or_null(into_cell);
  a.grad_gates = data_or_null(into_gates);
  a.c0 = data_or_null(first);
  set_weights(a.weights, layer);
  a.cell = cells.const_data_ptr();
  a.gates = activated.const_data_ptr();
  a.grad_preactivations = grad_preactivations.mutable_data_ptr();
  a.grad_h0 = grad_h0.mutable_data_ptr();
  a.grad_c0 = grad_c0.mutable_data_ptr();
  a.grad_hidden = result_or_null(grad_hidden);
  a.variant = variant.variant();
  a.grad_input_gate = result_or_null(grad_input_gate);
  const Scratch scratch(kernels().variant_backward_scratch(a));
  kernels().variant_backward(a, scratch.data());
  return {grad_preactivations, grad_h0, grad_c0, grad_hidden, grad_input_gate};
}

}  // namespace lstm_kernels::cpu
