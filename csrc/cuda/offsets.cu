// The rows at which the steps of a packed batch start, brought to the device.
//
// batch_sizes lives in host memory. A copy from there would wait for the device or, captured in a
// graph, read memory that is gone at replay; kernel parameters are copied at launch, so the sums
// travel as those, some 500 at a time.
#include <algorithm>

#include "kernels.h"
#include "launch.cuh"

namespace lstm_kernels::cuda {

namespace {
constexpr int kChunk = 500;  // parameters of a kernel are limited to 4 KiB
struct Chunk {
  int64_t values[kChunk];
};

__global__ void write_chunk(const __grid_constant__ Chunk chunk, int64_t* out, int count) {
  const int i = int(threadIdx.x);
  if (i < count) out[i] = chunk.values[i];
}
}  // namespace

cudaError_t pack_offsets(const int64_t* batch_sizes, int64_t steps, int64_t* offsets,
                         cudaStream_t stream) {
  int64_t sum = 0;
  for (int64_t first = 0; first <= steps; first += kChunk) {
    Chunk chunk{};
    const int count = int(std::min<int64_t>(kChunk, steps + 1 - first));
    for (int i = 0; i < count; i++) {
      chunk.values[i] = sum;
      if (first + i < steps) sum += batch_sizes[first + i];
    }
    const cudaError_t error = launch(Launch::plain, write_chunk, dim3(1), dim3(512), 0, stream,
                                     chunk, offsets + first, count);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace lstm_kernels::cuda
