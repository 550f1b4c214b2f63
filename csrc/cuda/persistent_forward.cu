// The persistent forward kernels that are compiled: kForwardGeometries of choose.h, with every
// exchange.
#include "persistent_forward.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_forward(const PersistentForward& call, const Plan& plan,
                               cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    const auto run = [&]<class S>(S) {
      return launch_persistent<S>(plan.exchange == Exchange::tagged
                                      ? persistent_forward_kernel<E, S, TaggedExchange>
                                      : persistent_forward_kernel<E, S, CounterExchange>,
                                  call, plan, stream);
    };
    return plan.units == 16 ? run(Shape<8, 4, 4>()) : run(Shape<8, 2, 8>());
  });
}

}  // namespace lstm_kernels::cuda
