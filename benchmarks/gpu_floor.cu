// What the model of a step on a GPU assumes, measured (gpu_floor.py asks and reckons).
//
// Each function queues one kernel that does one thing `rounds` times. Timed with two numbers of
// rounds, the difference is that of the rounds alone: launch, start and end drop out. What a kernel
// leaves behind would be another had it left out a round. Pointers are device memory; 0 is success,
// else a cudaError_t.
#include "persistent.cuh"

namespace lstm_kernels::cuda {
namespace {

constexpr int kThreads = 256;

// All blocks count their arrival and wait for each other: the exchange of the persistent kernels
// without its data.
__global__ void __launch_bounds__(kThreads) exchange_kernel(int rounds, unsigned* counter) {
  for (int round = 1; round <= rounds; round++) {
    __syncthreads();
    if (threadIdx.x == 0) {
      red_release_add(counter, 1);
      while (int(ld_acquire(counter) - gridDim.x * unsigned(round)) < 0) {
      }
    }
    __syncthreads();
  }
}

// Every block reads the same data from L2, as it does h. A round starts when the one before has
// arrived: its address depends on the sum, whose upper bit is never set.
__global__ void __launch_bounds__(kThreads)
    gather_kernel(int rounds, const uint4* data, int count, unsigned* sums) {
  unsigned sum = 0;
  for (int round = 0; round < rounds; round++) {
    const uint4* from = data + (sum >> 31);
#pragma unroll 8
    for (int i = int(threadIdx.x); i < count; i += kThreads) {
      const uint4 v = ld_exchange(from + i);
      sum += v.x + v.y + v.z + v.w;
    }
  }
  sums[blockIdx.x * kThreads + threadIdx.x] = sum;
}

// Tensor core instructions alone, in as many chains as the widest forward kernel has.
template <class E>
__global__ void __launch_bounds__(kThreads)
    products_kernel(int rounds, const uint4* operands, float* sums) {
  constexpr int kRowTiles = 4;
  const uint4 low = __ldg(operands), high = __ldg(operands + 1), b = __ldg(operands + 2);
  float d[kRowTiles][4] = {};
  for (int round = 0; round < rounds; round++)
#pragma unroll
    for (int m = 0; m < kRowTiles; m++) mma_pair<E>(d[m], d[m], low, high, b);
  float sum = 0;
#pragma unroll
  for (int m = 0; m < kRowTiles; m++) sum += d[m][0] + d[m][1] + d[m][2] + d[m][3];
  sums[blockIdx.x * kThreads + threadIdx.x] = sum;
}

// The product of a persistent kernel as it is: the moving factor from L2, weights from registers
// and shared memory, partial sums to shared memory.
template <class E, class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    tile_kernel(int rounds, int pairs, int row_groups, int partials_at, const uint4* stationary,
                const uint4* moving, float* sums) {
  unsigned char* shared = shared_memory<unsigned char>();
  float* partials = reinterpret_cast<float*>(shared + partials_at);
  const StationaryWeights<E, S> weights(
      pairs, reinterpret_cast<uint4*>(shared), [&](int row, int column) {
        return __ldg(stationary + row * pairs * 4 + column / kVector<E>);
      });
  for (int round = 0; round < rounds; round++) {
    __syncthreads();
    weights.multiply(typename CounterExchange<E>::Moving(moving, pairs), row_groups, partials);
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < 8 * S::kRows; i += S::kThreads)  // of the first warp
    sums[blockIdx.x * 8 * S::kRows + i] = partials[weights.sums_at(i / S::kRows) + i % S::kRows];
}

#ifndef __CUDACC__  // what stands in for CUDA on the CPU has no clusters
cudaError_t launch_clusters(int, int, int, unsigned*, cudaStream_t) {
  return cudaErrorNotSupported;
}
#else
// The blocks of a cluster wait for each other.
__global__ void __launch_bounds__(kThreads) cluster_kernel(int rounds, unsigned* done) {
  for (int round = 0; round < rounds; round++) {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
  }
  if (threadIdx.x == 0) done[blockIdx.x] = unsigned(rounds);
}

cudaError_t launch_clusters(int size, int clusters, int rounds, unsigned* done,
                            cudaStream_t stream) {
  int device = 0, major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess && major < 9) return cudaErrorNotSupported;
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(cluster_kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {unsigned(size), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(size * clusters));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  error = cudaLaunchKernelEx(&config, cluster_kernel, rounds, done);
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error;
}
#endif

}  // namespace
}  // namespace lstm_kernels::cuda

#define EXPORT extern "C" __attribute__((visibility("default")))
using namespace lstm_kernels;
using namespace lstm_kernels::cuda;

// counter: one, zeroed; ends as blocks * rounds.
EXPORT int floor_exchange(int blocks, int rounds, unsigned* counter, void* stream) {
  return launch(Launch::cooperative, exchange_kernel, dim3(unsigned(blocks)), dim3(kThreads), 0,
                cudaStream_t(stream), rounds, counter);
}

// data: (count) times 16 bytes, of small numbers. sums: (blocks, 256), of what each thread read.
EXPORT int floor_gather(int blocks, int rounds, const void* data, int count, unsigned* sums,
                        void* stream) {
  return launch(Launch::plain, gather_kernel, dim3(unsigned(blocks)), dim3(kThreads), 0,
                cudaStream_t(stream), rounds, static_cast<const uint4*>(data), count, sums);
}

// operands: 48 bytes of the dtype (a DType). sums: (blocks, 256). A warp does 8 products of a
// 16-row tile with 8 columns per round, each over 32 bytes of k.
EXPORT int floor_products(int dtype, int blocks, int rounds, const void* operands, float* sums,
                          void* stream) {
  return with_operand_dtype(DType(dtype), false, [&]<class E>(E) {
    return launch(Launch::plain, products_kernel<E>, dim3(unsigned(blocks)), dim3(kThreads), 0,
                  cudaStream_t(stream), rounds, static_cast<const uint4*>(operands), sums);
  });
}

// The geometry: 0 and 1 forward, 2 backward, see choose.h. stationary: (rows of a block, pairs, 64
// bytes), moving: (row_groups, pairs, 512 bytes); sums: (blocks, 8, rows), of the first warp.
EXPORT int floor_tile(int dtype, int geometry, int blocks, int rounds, int pairs, int row_groups,
                      const void* stationary, const void* moving, float* sums, void* stream) {
  return with_operand_dtype(DType(dtype), false, [&]<class E>(E) {
    const auto run = [&]<class S>(S, const Geometry& g) {
      const int64_t partials_at = spilled_bytes(g, pairs);
      return launch(Launch::plain, tile_kernel<E, S>, dim3(unsigned(blocks)), dim3(S::kThreads),
                    partials_at + partial_bytes(g, row_groups * 8), cudaStream_t(stream), rounds,
                    pairs, row_groups, int(partials_at), static_cast<const uint4*>(stationary),
                    static_cast<const uint4*>(moving), sums);
    };
    return geometry == 0   ? run(Shape<8, 4, 4>(), kForwardGeometries[0])
           : geometry == 1 ? run(Shape<8, 2, 8>(), kForwardGeometries[1])
                           : run(Shape<8, 1, 16>(), kBackwardGeometries[0]);
  });
}

// done: (size * clusters), each of which ends as rounds. cudaErrorNotSupported before sm_90.
EXPORT int floor_clusters(int size, int clusters, int rounds, unsigned* done, void* stream) {
  return launch_clusters(size, clusters, rounds, done, cudaStream_t(stream));
}
