// The persistent forward kernels of variants, in the same geometries as the plain LSTM's.
#include "persistent_forward.cuh"
#include "persistent_variant.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_variant_forward(const PersistentVariantForward& call, const Plan& plan,
                                       cudaStream_t stream) {
  return launch_persistent_forward(call, plan, stream);
}

}  // namespace lstm_kernels::cuda
