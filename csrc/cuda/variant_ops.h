// The ops of variants on CUDA tensors: see ../schema.cpp.
#pragma once
#include "../variant_arguments.h"

namespace lstm_kernels::cuda {

VariantForwardResults variant_forward(const ForwardArguments& given,
                                      const VariantArguments& of_variant);

VariantBackwardResults variant_backward(const BackwardArguments& given,
                                        const VariantArguments& of_variant, const Tensor& products);

}  // namespace lstm_kernels::cuda
