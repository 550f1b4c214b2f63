// The arguments of the variants' ops, for every device: read, and checked for memory safety.
#pragma once
#include <tuple>
#include <vector>

#include "arguments.h"
#include "variant.h"

namespace lstm_kernels {

// An array of all T steps, or of one that stands for all. features: what it has for each step and
// sequence.
inline OptionalTensor checked_steps(const OptionalTensor& given, const char* name, const Sizes& s,
                                    std::initializer_list<int64_t> features, const Kind& kind) {
  if (!given) return given;
  require(given->dim() > 0, "masks and input gate: expected (1 or T, N, ...)");
  TensorShape shape{given->size(0) == 1 ? 1 : s.T, s.N};
  return checked_dense(given, name, shape.append(features), kind);
}
inline StepArray step_array(const OptionalTensor& dense) {
  if (!dense) return {nullptr, 0};
  return {dense->const_data_ptr(), dense->size(0) == 1 ? 0 : dense->stride(0)};
}

// The arguments that only a variant's op has.
struct VariantArguments {
  const OptionalTensor &peephole, &norm_gates, &norm_cell, &input_gate, &hidden_mask, &gate_masks,
      &candidate_mask, &zoneout_cell, &zoneout_hidden;
  const std::vector<double>& options;
};

// output, h_n, c_n, cell, gates, products
using VariantForwardResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
// grad_preactivations, grad_h0, grad_c0, grad_hidden, grad_input_gate, grad_input_product,
// grad_parameters
using VariantBackwardResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

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
inline TensorShape products_of(const Layer& layer, const Variant& variant) {
  return layer.rows.of({layer.size.D, variant.branches(), kGates * layer.size.H});
}

}  // namespace lstm_kernels
