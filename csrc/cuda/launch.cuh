// The one way kernels are launched.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace lstm_kernels::cuda {

// Cooperative: all blocks run at the same time, or the launch fails; none can wait for one that
// never starts.
enum class Launch { plain, cooperative };

template <class... P, class... A>
cudaError_t launch(Launch kind, void (*kernel)(P...), dim3 grid, dim3 block, int64_t shared_bytes,
                   cudaStream_t stream, A&&... arguments) {
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return error;
  }
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
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, P(std::forward<A>(arguments))...);
  if (error != cudaSuccess) (void)cudaGetLastError();  // reported here, not to the next caller
  return error;
}

}  // namespace lstm_kernels::cuda
