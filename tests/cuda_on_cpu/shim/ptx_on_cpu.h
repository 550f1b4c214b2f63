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

inline uint4 ld_exchange(const uint4* p) {
  machine::maybe_yield();
  return *p;
}
template <class E>
void st_exchange(E* p, E v) {
  machine::maybe_yield();
  *p = v;
}

// A thread that finds another tag sleeps until it is the right one, or goes on with what it found:
// either may happen on a device, and the caller must look.
inline uint2 ld_word(const uint2* word, unsigned tag) {
  machine::maybe_yield();
  for (;;) {
    uint64_t bits;
    __atomic_load(reinterpret_cast<const uint64_t*>(word), &bits, __ATOMIC_RELAXED);
    const uint2 v = machine::from_bits<uint2>(bits);
    if (v.y == tag || machine::one_in(4)) return v;
    machine::polled(word, bits);
  }
}
inline uint4 ld_tagged(const uint2* two, unsigned tag) {
  const uint2 first = ld_word(two, tag), second = ld_word(two + 1, tag);
  return {first.x, first.y, second.x, second.y};
}
inline void st_tagged(uint2* word, unsigned data, unsigned tag) {
  machine::maybe_yield();
  const uint64_t bits = uint64_t(tag) << 32 | data;
  __atomic_store(reinterpret_cast<uint64_t*>(word), &bits, __ATOMIC_RELAXED);
  machine::notify(word);
}

inline float exponential_of_2(float x) { return std::exp2(x); }
inline float reciprocal(float x) { return 1.f / x; }

inline int opaque(int v) { return v; }
inline uint4 anything() { return {~0u, ~0u, ~0u, ~0u}; }  // NaNs

template <class T>
T* shared_memory() {
  return static_cast<T*>(machine::shared_memory());
}

}  // namespace lstm_kernels::cuda
