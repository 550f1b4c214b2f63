// The persistent forward kernels of the plain LSTM that are compiled: kForwardGeometries of
// choose.h, with every exchange.
#include "persistent_forward.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_forward(const PersistentForward& call, const Plan& plan,
                               cudaStream_t stream) {
  return launch_persistent_forward(call, plan, stream);
}

}  // namespace lstm_kernels::cuda
