// The ops of variants: unpack, check what memory safety needs, call one kernel, return.
#include "variant_ops.h"

#include "layer_calls.h"
#include "scratch.h"

namespace lstm_kernels::cpu {
namespace {

// The arguments that only a variant's op has.
struct VariantArguments {
  const OptionalTensor &peephole, &norm_gates, &norm_cell, &input_gate, &hidden_mask, &gate_masks,
      &candidate_mask, &zoneout_cell, &zoneout_hidden;
  const std::vector<double>& options;
};

// A Variant, with the tensors that it points to.
class VariantTensors {
 public:
  VariantTensors(const VariantArguments& given, const Sizes& s, const Kind& kind) {
    peephole_ = checked_dense(given.peephole, "peephole", {s.D, 3, s.H}, kind);
    variant_.peephole = data_or_null(peephole_);
    if (given.norm_gates) {
      require(given.norm_gates->dim() == 3, "norm_gates: expected (D, 1 or 2, 4*H)");
      variant_.separate = given.norm_gates->size(1) == 2;
      norm_gates_ = checked_dense(given.norm_gates, "norm_gates",
                                  {s.D, variant_.branches(), kGates * s.H}, kind);
    }
    variant_.norm_gates = data_or_null(norm_gates_);
    norm_cell_ = checked_dense(given.norm_cell, "norm_cell", {s.D, 2, s.H}, kind);
    variant_.norm_cell = data_or_null(norm_cell_);
    variant_.input_gate = steps(given.input_gate, "input_gate", s, {s.D * s.H}, kind);
    variant_.hidden_mask = steps(given.hidden_mask, "hidden_mask", s, {s.D * s.P}, kind);
    variant_.gate_masks = steps(given.gate_masks, "gate_masks", s, {s.D, kGates, s.P}, kind);
    variant_.candidate_mask = steps(given.candidate_mask, "candidate_mask", s, {s.D * s.H}, kind);
    variant_.cell_zoneout = steps(given.zoneout_cell, "zoneout_cell", s, {s.D * s.H}, kind);
    variant_.hidden_zoneout = steps(given.zoneout_hidden, "zoneout_hidden", s, {s.D * s.P}, kind);
    read(given.options);
  }
  VariantTensors(const VariantTensors&) = delete;
  VariantTensors& operator=(const VariantTensors&) = delete;
  const Variant& variant() const { return variant_; }

 private:
  StepArray steps(const OptionalTensor& given, const char* name, const Sizes& s,
                  std::initializer_list<int64_t> features, const Kind& kind) {
    const OptionalTensor& dense =
        steps_.emplace_back(checked_steps(given, name, s, features, kind));
    return step_array(dense);
  }

  // In the order that ../schema.cpp says.
  void read(const std::vector<double>& options) {
    require(options.size() == 7 + 3 * kActivationUses, "options: expected 16 numbers");
    const double coupled = options[0];
    require(coupled == 0 || coupled == 1 || coupled == 2, "options: unknown coupling");
    variant_.coupled = Coupled(int(coupled));
    variant_.clip = options[1];
    variant_.cell_clip = options[2];
    variant_.keep_cell = options[3];
    variant_.keep_hidden = options[4];
    variant_.carries_norm = norm_cell_ && options[5] != 0;
    variant_.norm_eps = options[6];
    for (size_t use = 0; use < kActivationUses; ++use) {
      const double* numbers = &options[7 + 3 * use];
      require(numbers[0] >= 0 && numbers[0] < double(ActivationKind::kActivations),
              "options: unknown activation");
      variant_.activations[use] = {ActivationKind(int(numbers[0])), numbers[1], numbers[2]};
    }
  }

  Variant variant_{};
  OptionalTensor peephole_, norm_gates_, norm_cell_;
  std::vector<OptionalTensor> steps_;
};

// The shape of what the norm of the gates is given.
TensorShape products_of(const Layer& layer, const Variant& variant) {
  return layer.rows.of({layer.size.D, variant.branches(), kGates * layer.size.H});
}

}  // namespace

VariantForwardResults variant_forward(
    const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
    const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
    const OptionalTensor& batch_sizes, const OptionalTensor& lengths, const OptionalTensor& reset,
    const OptionalTensor& peephole, const OptionalTensor& norm_gates,
    const OptionalTensor& norm_cell, const OptionalTensor& input_gate,
    const OptionalTensor& hidden_mask, const OptionalTensor& gate_masks,
    const OptionalTensor& candidate_mask, const OptionalTensor& zoneout_cell,
    const OptionalTensor& zoneout_hidden, const std::vector<double>& options, bool save_cell,
    bool save_gates) {
  const ForwardCall call({input,
                          h0,
                          c0,
                          {weights, has_biases, bidirectional},
                          {batch_sizes, lengths, reset},
                          save_cell,
                          save_gates,
                          false});
  const VariantTensors variant({peephole, norm_gates, norm_cell, input_gate, hidden_mask,
                                gate_masks, candidate_mask, zoneout_cell, zoneout_hidden, options},
                               call.layer.size, call.layer.kind);
  VariantForward a = call.parameters<VariantForward>();
  a.variant = variant.variant();
  const Tensor products = results_if(save_gates && a.variant.norm_gates,
                                     products_of(call.layer, a.variant), call.layer.kind);
  a.products = result_or_null(products);
  const Scratch scratch(kernels().variant_forward_scratch(a));
  kernels().variant_forward(a, scratch.data());
  return std::tuple_cat(call.results(), std::make_tuple(products));
}

VariantBackwardResults variant_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_h_n,
    const OptionalTensor& grad_c_n, const OptionalTensor& grad_cell,
    const OptionalTensor& grad_gates, const OptionalTensor& c0, const std::vector<Tensor>& weights,
    bool has_biases, bool bidirectional, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const OptionalTensor& peephole,
    const OptionalTensor& norm_gates, const OptionalTensor& norm_cell,
    const OptionalTensor& input_gate, const OptionalTensor& hidden_mask,
    const OptionalTensor& gate_masks, const OptionalTensor& candidate_mask,
    const OptionalTensor& zoneout_cell, const OptionalTensor& zoneout_hidden,
    const std::vector<double>& options, const Tensor& cell, const Tensor& gates,
    const Tensor& products) {
  const BackwardCall call({grad_output,
                           grad_h_n,
                           grad_c_n,
                           grad_cell,
                           grad_gates,
                           c0,
                           {weights, has_biases, bidirectional},
                           {batch_sizes, lengths, reset},
                           cell,
                           gates,
                           false});
  const VariantTensors variant({peephole, norm_gates, norm_cell, input_gate, hidden_mask,
                                gate_masks, candidate_mask, zoneout_cell, zoneout_hidden, options},
                               call.layer.size, call.layer.kind);
  const Tensor grad_input_gate = results_if(input_gate.has_value(), call.of_cell, call.layer.kind);
  VariantBackward a = call.parameters<VariantBackward>();
  a.variant = variant.variant();
  a.grad_input_gate = result_or_null(grad_input_gate);
  const Tensor of_products =
      a.variant.norm_gates
          ? checked_dense(products, "products", products_of(call.layer, a.variant), call.layer.kind)
          : products;
  const Tensor grad_input_product = results_if(a.variant.separate, call.of_gates, call.layer.kind);
  const Tensor grad_parameters =
      results_if(a.variant.normalises(), {a.size.D, kParameterSums, a.size.H}, call.layer.kind);
  a.products = of_products.const_data_ptr();
  a.grad_input_product = result_or_null(grad_input_product);
  a.grad_parameters = result_or_null(grad_parameters);
  const Scratch scratch(kernels().variant_backward_scratch(a));
  kernels().variant_backward(a, scratch.data());
  return std::tuple_cat(call.results(),
                        std::make_tuple(grad_input_gate, grad_input_product, grad_parameters));
}

}  // namespace lstm_kernels::cpu
