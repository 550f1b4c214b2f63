// A 64-bit fingerprint of a layer's weights, which tells whether prepacked weights are still
// theirs.
//
// It is of the contents, because nothing else can tell: `.data`, NumPy views, other processes and
// inference mode change weights without leaving a trace. Accumulation follows XXH3 (Y. Collet):
// each 64-bit word d adds lo32(d ^ key) * hi32(d ^ key) to one sum and d to another, so that a
// change of a single word never goes unnoticed; any other does with a probability of about 2^-64.
// Keys differ along the way, so that exchanged rows are noticed too. No adversary is expected.
//
// Slices of kSlice bytes are hashed by themselves, and their hashes, which depend on where the
// slices are, add up in any order: the same number for any number of threads.
// Bound: reading the weights once.
#pragma once
#include "kernels.h"
#include "panels.h"
#include "team.h"

namespace lstm_kernels::LSTM_ISA {

using vec_u64 = vec<uint64_t>;

constexpr int64_t kSlice = 64 << 10;
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;

// The finalizer of splitmix64 (Steele, Lea & Flood 2014): a bijection.
LSTM_INLINE uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// The product of the lower and the upper half of each word.
LSTM_INLINE vec_u64 multiply_halves(vec_u64 v) {
// GCC 12 does not see that the factors fit into 32 bits.
#if defined(LSTM_AVX512)
  return (vec_u64)_mm512_mul_epu32((__m512i)v, (__m512i)(v >> 32));
#elif defined(LSTM_AVX2)
  return (vec_u64)_mm256_mul_epu32((__m256i)v, (__m256i)(v >> 32));
#else
  return (v & 0xffffffff) * (v >> 32);
#endif
}

LSTM_NOINLINE inline uint64_t hash_slice(const char* data, int64_t bytes, uint64_t seed) {
  constexpr int64_t kWidth = int64_t(sizeof(vec_u64)), kStripe = 2 * kWidth;
  vec_u64 key, a = {}, b = {};
  for (int i = 0; i < lanes<uint64_t>; ++i) key[i] = mixed(seed + uint64_t(i + 1) * kGolden);
  auto add = [&](const char* p) {
    const vec_u64 first = load_as<vec_u64>(p), second = load_as<vec_u64>(p + kWidth);
    a += multiply_halves(first ^ key) + second;
    b += multiply_halves(second ^ key) + first;
    key += kGolden;
  };
  for (; bytes >= kStripe; bytes -= kStripe, data += kStripe) add(data);
  if (bytes) {  // zeros behind it: how long it is, the caller's seed knows
    char padded[kStripe] = {};
    __builtin_memcpy(padded, data, size_t(bytes));
    add(padded);
  }
  uint64_t hash = seed;
  for (int i = 0; i < lanes<uint64_t>; ++i) hash = mixed(mixed(hash ^ a[i]) ^ b[i]);
  return hash;
}

// The arrays of a layer's weights one after the other, cut into slices.
struct WeightArrays {
  struct Array {
    const char* data;
    int64_t bytes;
  };
  Array arrays[10];
  int count = 0;
  int64_t slices = 0, bytes = 0;
  uint64_t seed = kGolden;  // of everything but the contents

  WeightArrays(const cpu::LayerWeights& a, int64_t number) {
    const Sizes& s = a.size;
    auto add = [&](const void* data, int64_t numbers) {
      seed = mixed(seed + uint64_t(data ? numbers : 0) + kGolden);
      if (!data) return;
      arrays[count++] = {(const char*)data, numbers * number};
      slices += ceil_div(numbers * number, kSlice), bytes += numbers * number;
    };
    const int64_t sizes[] = {int64_t(a.dtype), s.I, s.H, s.P, s.D};
    for (int64_t size : sizes) seed = mixed(seed + uint64_t(size));
    for (int d = 0; d < s.D; ++d) {
      const DirectionWeights& w = a.weights[d];
      add(w.w_ih, 4 * s.H * s.I), add(w.w_hh, 4 * s.H * s.P);
      add(w.b_ih, 4 * s.H), add(w.b_hh, 4 * s.H), add(w.w_hr, s.P * s.H);
    }
  }

  // The sum of the hashes of slices first .. last - 1.
  uint64_t hash(int64_t first, int64_t last) const {
    uint64_t sum = 0;
    int64_t slice = 0;
    for (int i = 0; i < count; ++i)
      for (int64_t at = 0; at < arrays[i].bytes; at += kSlice, ++slice)
        if (first <= slice && slice < last)
          sum += hash_slice(arrays[i].data + at, min_of(kSlice, arrays[i].bytes - at),
                            mixed(seed + uint64_t(slice) * kGolden));
    return sum;
  }
};

template <class S>
uint64_t fingerprint(const cpu::LayerWeights& a) {
  struct Call {
    WeightArrays arrays;
    int parts;
    uint64_t sum;
  } call{{a, int64_t(sizeof(S))}, 1, 0};
  auto body = [](void* context, int part) {
    Call& c = *(Call*)context;
    const int64_t n = c.arrays.slices;
    __atomic_fetch_add(&c.sum, c.arrays.hash(n * part / c.parts, n * (part + 1) / c.parts),
                       __ATOMIC_RELAXED);
  };
  call.parts = int(max_of(1, min_of(a.threads.count, call.arrays.bytes / cpu::kFingerprintBytes)));
  cpu::run_each(call.parts, body, &call);
  return mixed(call.arrays.seed ^ call.sum);
}

}  // namespace lstm_kernels::LSTM_ISA
