// The persistent forward kernels that are compiled: kForwardGeometries of choose.h.
#include "persistent_forward.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_forward(const PersistentForward& call, const Plan& plan,
                               cudaStream_t stream) {
  const auto of_type = [&]<class E>(E) {
    return plan.units == 16 ? launch_persistent_forward<E, Shape<8, 4, 4>>(call, plan, stream)
                            : launch_persistent_forward<E, Shape<8, 2, 8>>(call, plan, stream);
  };
  switch (call.type) {
    case DataType::float16:
      return of_type(__half());
    case DataType::bfloat16:
      return of_type(__nv_bfloat16());
    case DataType::float32:
      return of_type(float());
    case DataType::float64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace lstm_kernels::cuda
