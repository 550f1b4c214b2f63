// What csrc/cuda/ptx.cuh provides, on the machine of machine.h. The atomics carry the memory order
// of the instructions they stand for, so ThreadSanitizer checks it.
#pragma once
#include "cuda_runtime.h"

namespace lstm_kernels::cuda {

template <class E>
void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
         uint32_t b1, machine::Location where = machine::Location::current()) {
  constexpr machine::Mma kind = std::is_same_v<E, __nv_bfloat16> ? machine::Mma::bfloat16
                                : std::is_same_v<E, __half>      ? machine::Mma::float16
                                                                 : machine::Mma::tf32;
  const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
  machine::mma(kind, d, a, b, where);
}

inline float round_to_tf32(float x) {  // to nearest, ties away from zero
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::isfinite(x) ? std::bit_cast<float>((bits + 0x1000) & 0xffffe000) : x;
}

inline void red_release_add(unsigned* p, unsigned v) {
  machine::maybe_yield();
  __atomic_fetch_add(p, v, __ATOMIC_RELEASE);
  machine::notify(p);
}
inline unsigned ld_acquire(const unsigned* p) {
  machine::maybe_yield();
  const unsigned v = __atomic_load_n(p, __ATOMIC_ACQUIRE);
  machine::polled(p, v);
  return v;
}

inline int opaque(int v) { return v; }

template <class T>
T* shared_memory() {
  return static_cast<T*>(machine::shared_memory());
}

}  // namespace lstm_kernels::cuda
