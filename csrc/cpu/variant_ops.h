// The ops of variants on CPU tensors: see ../schema.cpp.
#pragma once
#include "../arguments.h"

namespace lstm_kernels::cpu {

// output, h_n, c_n, cell, gates, products
using VariantForwardResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
VariantForwardResults variant_forward(
    const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
    const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
    const OptionalTensor& batch_sizes, const OptionalTensor& lengths, const OptionalTensor& reset,
    const OptionalTensor& peephole, const OptionalTensor& norm_gates,
    const OptionalTensor& norm_cell, const OptionalTensor& input_gate,
    const OptionalTensor& hidden_mask, const OptionalTensor& gate_masks,
    const OptionalTensor& candidate_mask, const OptionalTensor& zoneout_cell,
    const OptionalTensor& zoneout_hidden, const std::vector<double>& options, bool save_cell,
    bool save_gates);

// grad_preactivations, grad_h0, grad_c0, grad_hidden, grad_input_gate, grad_input_product,
// grad_parameters
using VariantBackwardResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
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
    const Tensor& products);

}  // namespace lstm_kernels::cpu
