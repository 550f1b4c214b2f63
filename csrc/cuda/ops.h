// The ops of ../schema.cpp on CUDA tensors, by the names they have there.
#pragma once
#include <tuple>
#include <vector>

#include "../tensor.h"

namespace lstm_kernels::cuda {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sequence_forward(
    const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
    const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
    const OptionalTensor& batch_sizes, const OptionalTensor& lengths, const OptionalTensor& reset,
    bool save_cell, bool save_gates, bool allow_tf32);

std::tuple<Tensor, Tensor, Tensor, Tensor> sequence_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_h_n,
    const OptionalTensor& grad_c_n, const OptionalTensor& grad_cell,
    const OptionalTensor& grad_gates, const OptionalTensor& c0, const std::vector<Tensor>& weights,
    bool has_biases, bool bidirectional, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const Tensor& cell,
    const Tensor& gates, bool allow_tf32);

std::tuple<Tensor, Tensor, Tensor> cell_forward(const Tensor& input, const Tensor& h0,
                                                const Tensor& c0, const Tensor& w_ih,
                                                const Tensor& w_hh, const OptionalTensor& b_ih,
                                                const OptionalTensor& b_hh, bool save_gates);

std::tuple<Tensor, Tensor> cell_backward(const OptionalTensor& grad_h, const OptionalTensor& grad_c,
                                         const OptionalTensor& grad_gates, const Tensor& c0,
                                         const Tensor& c, const Tensor& gates);

}  // namespace lstm_kernels::cuda
