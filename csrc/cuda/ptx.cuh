// Every PTX instruction the kernels use, and their shared memory, as small functions.
//
// Kernels contain no inline assembly, no <<<>>> (launch.cuh) and no __shared__ variable, so that
// the same sources compile as plain C++ against the stand-in that tests/cuda_on_cpu provides.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define DEV __device__ __forceinline__

#ifndef __CUDACC__
#include "ptx_on_cpu.h"
#else
namespace lstm_kernels::cuda {

// d (16 x 8) += a (16 x k) * b (k x 8) in fp32, by one warp. Fragments as the PTX ISA lays them
// out: k = 16 for __nv_bfloat16 and __half, 8 for float, which is multiplied as TF32.
template <class E>
DEV void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
             uint32_t b1);
#define LSTM_KERNELS_MMA(E, shape)                                                                \
  template <>                                                                                     \
  DEV void mma<E>(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, \
                  uint32_t b1) {                                                                  \
    asm volatile("mma.sync.aligned." shape " {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"  \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                 \
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));                         \
  }
LSTM_KERNELS_MMA(__nv_bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
LSTM_KERNELS_MMA(__half, "m16n8k16.row.col.f32.f16.f16.f32")
LSTM_KERNELS_MMA(float, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef LSTM_KERNELS_MMA

// The nearest TF32 number.
DEV float round_to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

// Flags between blocks. What a thread did, and what others of its block did before a barrier,
// happens before what follows an acquire that reads the release.
DEV void red_release_add(unsigned* p, unsigned v) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
DEV unsigned ld_acquire(const unsigned* p) {
  unsigned v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}

// The same value, of which the compiler knows nothing: what is computed from it is computed here
// and not, ahead of a loop, into registers that the loop cannot spare.
DEV int opaque(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// The dynamic shared memory of the block: all the shared memory there is.
template <class T>
DEV T* shared_memory() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return reinterpret_cast<T*>(shared_bytes);
}

}  // namespace lstm_kernels::cuda
#endif
