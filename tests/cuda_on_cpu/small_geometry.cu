#include "persistent_backward.cuh"
#include "persistent_forward.cuh"
#include "small_geometry.h"

namespace lstm_kernels::cuda {

cudaError_t small_persistent_forward(const PersistentForward& call, const Plan& plan,
                                     cudaStream_t stream) {
  const auto of_type = [&]<class E>(E) {
    return launch_persistent_forward<E, Shape<2, 1, 2>>(call, plan, stream);
  };
  return call.type == DataType::float16    ? of_type(__half())
         : call.type == DataType::bfloat16 ? of_type(__nv_bfloat16())
                                           : of_type(float());
}

cudaError_t small_persistent_backward(const PersistentBackward& call, const Plan& plan,
                                      cudaStream_t stream) {
  const auto of_type = [&]<class E>(E) {
    return launch_persistent_backward<E, Shape<2, 1, 8>>(call, plan, stream);
  };
  return call.type == DataType::float16    ? of_type(__half())
         : call.type == DataType::bfloat16 ? of_type(__nv_bfloat16())
                                           : of_type(float());
}

}  // namespace lstm_kernels::cuda
