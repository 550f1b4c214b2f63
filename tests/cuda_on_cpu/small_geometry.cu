#include "persistent_backward.cuh"
#include "persistent_forward.cuh"
#include "small_geometry.h"

namespace lstm_kernels::cuda {

cudaError_t small_persistent_forward(const PersistentForward& call, const Plan& plan,
                                     cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    return run_forward<E, Shape<2, 2, 2>>(call, plan, stream);
  });
}

cudaError_t small_persistent_backward(const PersistentBackward& call, const Plan& plan,
                                      cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    return run_backward<E, Shape<2, 1, 8>>(call, plan, stream);
  });
}

}  // namespace lstm_kernels::cuda
