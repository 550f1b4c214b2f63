// The ops of ../schema.cpp on CPU tensors, by the names they have there.
#pragma once
#include <torch/headeronly/core/ScalarType.h>

#include <string>

#include "../arguments.h"

namespace lstm_kernels::cpu {

ForwardResults sequence_forward(const ForwardArguments& given);

Tensor prepack_weights(const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
                       std::optional<torch::headeronly::ScalarType> weight_dtype);

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> prepacked_forward(
    const ForwardArguments& given, const Tensor& prepacked);

// ---- inference_ops.cpp --------------------------------------------------------------------------

struct OwnedArguments {
  const Tensor& input;
  const OptionalTensor &h0, &c0;
  const Tensor& owned;
  int64_t num_layers, hidden_size, h_size;
  bool bidirectional;
  RaggedArguments ragged;
};
// hidden, h_n, c_n, cell, gates
using OwnedStates =
    std::tuple<std::vector<Tensor>, Tensor, Tensor, std::vector<Tensor>, std::vector<Tensor>>;

Tensor own_weights(const std::vector<Tensor>& weights, int64_t num_layers, bool has_biases,
                   bool bidirectional, std::optional<torch::headeronly::ScalarType> weight_dtype,
                   bool reduced_precision);

Tensor own_quantized(const std::vector<Tensor>& weights, const std::vector<Tensor>& scales,
                     int64_t num_layers, bool has_biases, bool bidirectional);

std::tuple<Tensor, Tensor, Tensor> owned_forward(const OwnedArguments& given);

OwnedStates owned_states(const OwnedArguments& given, bool save_gates);

std::tuple<Tensor, Tensor, Tensor> owned_cell(const Tensor& input, const Tensor& h0,
                                              const Tensor& c0, const Tensor& owned,
                                              bool save_gates);

Tensor owned_step(const Tensor& input, const Tensor& h, const Tensor& c, const Tensor& owned,
                  const OptionalTensor& reset);

// ---- ops.cpp
// --------------------------------------------------------------------------------------

BackwardResults sequence_backward(const BackwardArguments& given);

std::tuple<Tensor, Tensor, Tensor> weight_gradients(
    const Tensor& grad_preactivations, const Tensor& input, const OptionalTensor& h0,
    const Tensor& output, int64_t direction, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const OptionalTensor& gate_masks,
    bool reduced_precision);

Tensor input_gradient(const Tensor& grad_preactivations, const std::vector<Tensor>& w_ih,
                      const OptionalTensor& lengths, bool reduced_precision);

std::tuple<Tensor, Tensor, Tensor> cell_forward(const Tensor& input, const Tensor& h0,
                                                const Tensor& c0, const Tensor& w_ih,
                                                const Tensor& w_hh, const OptionalTensor& b_ih,
                                                const OptionalTensor& b_hh, bool save_gates);

std::tuple<Tensor, Tensor> cell_backward(const OptionalTensor& grad_h, const OptionalTensor& grad_c,
                                         const OptionalTensor& grad_gates, const Tensor& c0,
                                         const Tensor& gates);

}  // namespace lstm_kernels::cpu
