// The persistent backward kernels that are compiled: kBackwardGeometries of choose.h, with every
// exchange.
#include "persistent_backward.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_backward(const PersistentBackward& call, const Plan& plan,
                                cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    using S = Shape<8, 1, 16>;
    return launch_persistent<S>(plan.exchange == Exchange::tagged
                                    ? persistent_backward_kernel<E, S, TaggedExchange>
                                    : persistent_backward_kernel<E, S, CounterExchange>,
                                call, plan, stream);
  });
}

}  // namespace lstm_kernels::cuda
