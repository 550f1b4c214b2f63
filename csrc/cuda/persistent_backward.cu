// The persistent backward kernels that are compiled: kBackwardGeometries of choose.h.
#include "persistent_backward.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_backward(const PersistentBackward& call, const Plan& plan,
                                cudaStream_t stream) {
  switch (call.type) {
    case DataType::float16:
      return launch_persistent_backward<__half, Shape<8, 1, 16>>(call, plan, stream);
    case DataType::bfloat16:
      return launch_persistent_backward<__nv_bfloat16, Shape<8, 1, 16>>(call, plan, stream);
    case DataType::float32:
      return launch_persistent_backward<float, Shape<8, 1, 16>>(call, plan, stream);
    case DataType::float64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace lstm_kernels::cuda
