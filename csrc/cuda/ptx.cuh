// Every PTX instruction the kernels use, and their shared memory, as small functions.
//
// Kernels contain no inline assembly, no <<<>>> (launch.cuh) and no __shared__ variable, so that
// the same sources compile as plain C++ against the stand-in that tests/cuda_on_cpu provides.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#define DEV __device__ __forceinline__
// For large functions: a copy at every call would take registers from what is around it.
#define DEV_CALLED __device__ __attribute__((noinline))

namespace lstm_kernels::cuda {
template <class E>
DEV auto bits_of(E v) {
  std::conditional_t<sizeof(E) == 2, uint16_t, uint32_t> bits;
  static_assert(sizeof bits == sizeof v);
  memcpy(&bits, &v, sizeof bits);
  return bits;
}
}  // namespace lstm_kernels::cuda

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

// 2^x and 1 / x, to about two units in the last place, without a branch.
DEV float exponential_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEV float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

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

// What blocks hand each other in L2: reads and writes that no L1 cache answers.
DEV uint4 ld_exchange(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}
template <class E>
DEV void st_exchange(E* p, E v) {
  if constexpr (sizeof(E) == 4)
    asm volatile("st.global.cg.b32 [%0], %1;" ::"l"(p), "r"(bits_of(v)) : "memory");
  else
    asm volatile("st.global.cg.b16 [%0], %1;" ::"l"(p), "h"(bits_of(v)) : "memory");
}
// Words of data (x) and tag (y). Each is read and written whole, and nothing else is promised: not
// even that of two words the first is read first. `tag` is the one that the caller waits for.
DEV uint4 ld_tagged(const uint2* two, unsigned) {
  unsigned long long low, high;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0,%1}, [%2];"
               : "=l"(low), "=l"(high)
               : "l"(two)
               : "memory");
  return make_uint4(unsigned(low), unsigned(low >> 32), unsigned(high), unsigned(high >> 32));
}
DEV void st_tagged(uint2* word, unsigned data, unsigned tag) {
  const unsigned long long v = (unsigned long long)tag << 32 | data;
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(v) : "memory");
}

// The same value, of which the compiler knows nothing: what is computed from it is computed here
// and not, ahead of a loop, into registers that the loop cannot spare.
DEV int opaque(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// Any value, which takes no instruction.
DEV uint4 anything() {
  uint4 v;
  asm("" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w));
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
