#include "persistent_backward.cuh"
#include "persistent_forward.cuh"
#include "small_geometry.h"

namespace lstm_kernels::cuda {

cudaError_t small_persistent_forward(const PersistentForward& call, const Plan& plan,
                                     cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    using S = Shape<2, 2, 2>;
    return launch_persistent<S>(
        plan.exchange == Exchange::tagged
            ? persistent_forward_kernel<E, S, TaggedExchange, PersistentForward>
            : persistent_forward_kernel<E, S, CounterExchange, PersistentForward>,
        call, plan, stream);
  });
}

cudaError_t small_persistent_backward(const PersistentBackward& call, const Plan& plan,
                                      cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    using S = Shape<2, 1, 8>;
    return launch_persistent<S>(
        plan.exchange == Exchange::tagged
            ? persistent_backward_kernel<E, S, TaggedExchange, PersistentBackward>
            : persistent_backward_kernel<E, S, CounterExchange, PersistentBackward>,
        call, plan, stream);
  });
}

}  // namespace lstm_kernels::cuda
