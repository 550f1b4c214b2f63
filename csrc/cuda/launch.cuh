// The one way kernels are launched.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace lstm_kernels::cuda {

// Cooperative: all blocks run at the same time, or the launch fails; none can wait for one that
// never starts.
enum class Launch { plain, cooperative };

// Lets the kernel have all the shared memory of a block: whatever each needs, threads of the host
// that launch it at the same time set the same.
template <class... P>
cudaError_t permit_most_shared_memory(void (*kernel)(P...)) {
  int device = 0, bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  return error;
}

template <class... P, class... A>
cudaError_t launch(Launch kind, void (*kernel)(P...), dim3 grid, dim3 block, int64_t shared_bytes,
                   cudaStream_t stream, A&&... arguments) {
  cudaError_t error = cudaSuccess;
  cudaLaunchAttribute cooperative{};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = kind == Launch::cooperative ? 1 : 0;
  if (shared_bytes > 48 * 1024) error = permit_most_shared_memory(kernel);
  if (error == cudaSuccess)
    error = cudaLaunchKernelEx(&config, kernel, P(std::forward<A>(arguments))...);
  if (error != cudaSuccess) (void)cudaGetLastError();  // reported here, not to the next caller
  return error;
}

}  // namespace lstm_kernels::cuda
