// The persistent backward kernels of the plain LSTM that are compiled: kBackwardGeometries of
// choose.h, with every exchange.
#include "persistent_backward.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_backward(const PersistentBackward& call, const Plan& plan,
                                cudaStream_t stream) {
  return launch_persistent_backward(call, plan, stream);
}

}  // namespace lstm_kernels::cuda
