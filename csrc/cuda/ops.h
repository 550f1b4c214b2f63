// The ops of ../schema.cpp on CUDA tensors, by the names they have there.
#pragma once
#include "../arguments.h"

namespace lstm_kernels::cuda {

ForwardResults sequence_forward(const ForwardArguments& given);

BackwardResults sequence_backward(const BackwardArguments& given);

std::tuple<Tensor, Tensor, Tensor> cell_forward(const Tensor& input, const Tensor& h0,
                                                const Tensor& c0, const Tensor& w_ih,
                                                const Tensor& w_hh, const OptionalTensor& b_ih,
                                                const OptionalTensor& b_hh, bool save_gates);

std::tuple<Tensor, Tensor> cell_backward(const OptionalTensor& grad_h, const OptionalTensor& grad_c,
                                         const OptionalTensor& grad_gates, const Tensor& c0,
                                         const Tensor& gates);

Tensor tf32_product(const Tensor& a, const Tensor& b);

Tensor packed_offsets(const Tensor& batch_sizes, const Tensor& rows);

}  // namespace lstm_kernels::cuda
