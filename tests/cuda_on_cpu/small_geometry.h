// The persistent kernels with a block so small that little work takes every turn of them: weights
// beyond the registers, several batches of loads, warps without work.
#pragma once
#include "kernels.h"

namespace lstm_kernels::cuda {

constexpr Geometry kSmallForward{2, 2, 2}, kSmallBackward{2, 1, 8};
cudaError_t small_persistent_forward(const PersistentForward& call, const Plan& plan,
                                     cudaStream_t stream);
cudaError_t small_persistent_backward(const PersistentBackward& call, const Plan& plan,
                                      cudaStream_t stream);

}  // namespace lstm_kernels::cuda
