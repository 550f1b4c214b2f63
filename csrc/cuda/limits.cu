// What `choose` needs to know of a device.
#include "kernels.h"

namespace lstm_kernels::cuda {

cudaError_t query_limits(int device, DeviceLimits* limits) {
  int shared_bytes = 0, cooperative_launch = 0;
  cudaError_t error =
      cudaDeviceGetAttribute(&limits->multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&cooperative_launch, cudaDevAttrCooperativeLaunch, device);
  limits->shared_bytes = shared_bytes;
  limits->cooperative_launch = cooperative_launch != 0;
  return error;
}

}  // namespace lstm_kernels::cuda
