// The persistent backward kernels of variants, in the same geometries as the plain LSTM's.
#include "persistent_backward.cuh"
#include "persistent_variant.cuh"

namespace lstm_kernels::cuda {

cudaError_t persistent_variant_backward(const PersistentVariantBackward& call, const Plan& plan,
                                        cudaStream_t stream) {
  return launch_persistent_backward(call, plan, stream);
}

}  // namespace lstm_kernels::cuda
