// Matrix products on weights in panels: the one hot loop of the library.
//
// A weight matrix is laid out in panels [k][vector][lane]: NV vectors of output columns side by
// side, so that a panel is read front to back at cache speed. In the forward pass the NV = 4
// vectors of a panel are the gates i, f, g, o of the same hidden units, which is why the cell can
// be computed from one panel's result alone.
//
// A tile of up to kMaxRows rows times NV vectors stays in registers for a block of k. Between
// blocks it rests in `pre`, [row][vector][lane]: small, and in L1. The k block keeps a panel's part
// in a near cache while all rows pass over it. The sum over k runs in the same order for every tile
// height, block length and thread count, so a row's result does not depend on what is computed
// with it. Bound: the FMA peak when there are many rows, the bandwidth of the cache holding the
// weights when there are few.
#pragma once
#include "amx.h"
#include "formats.h"

namespace lstm_kernels::LSTM_ISA {

// Asks for lines before they are needed: into L2, for L1 is in use.
LSTM_INLINE void prefetch_line(const char* at) { __builtin_prefetch(at, 0, 2); }
LSTM_INLINE void prefetch(const char* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) prefetch_line(from + i);
}

// Vector v of the NV that a panel has for one k. In bfloat16 two vectors lie interleaved, number by
// number, the even one in the lower halves: a shift or a mask then widens it, while widening 16-bit
// numbers that lie side by side takes a shuffle too.
// `crowded`: no register is left to hold a pair or the mask, and the odd vector reads both again.
constexpr vec_u32 kUpperHalves = vec_u32{} + 0xffff0000;
template <int NV, bool crowded = false, class W>
LSTM_INLINE auto load_column(const W* w, int v) {
  constexpr int L = lanes<compute<W>>;
  if constexpr (is_same<W, bf16>)
    if ((v | 1) < NV) {
      const W* pair = w + (v & ~1) * L;
      if (!(v & 1)) return (vec<float>)(load_as<vec_u32>(pair) << 16);
      const vec_u32* mask = &kUpperHalves;
      if constexpr (crowded) asm("" : "+r"(pair), "+r"(mask));  // the compiler thinks them new
      return (vec<float>)(load_as<vec_u32>(pair) & *mask);
    }
  return load(w + v * L);
}

// pre[r][v] += sum over k of rows[r][k] * w[k][v]; a k of bf16_pair is two numbers.
// step: numbers from w[k] to w[k + 1]. kFetch: each k also asks for the lines at `ahead`, which
// goes on by `stride` bytes: at most half of what a k has, for there are two tiles or more.
template <bool kFetch, int MR, int NV, class T, class X, class W>
LSTM_NOINLINE void tile(const X* const* rows, int64_t k_begin, int64_t K, const W* w, int64_t step,
                        T* pre, const char* ahead, int64_t stride) {
  constexpr int L = lanes<T>, kLines = int(ceil_div(NV * L * int(sizeof(W)), 2 * 64));
  constexpr bool crowded = MR * NV + MR + 2 > kVectorRegisters;
  const X* a[MR];
  vec<T> sum[MR][NV];
  LSTM_UNROLL for (int r = 0; r < MR; ++r) {
    a[r] = rows[r] + k_begin;
    LSTM_UNROLL for (int v = 0; v < NV; ++v) sum[r][v] = load(pre + (r * NV + v) * L);
  }
#pragma GCC unroll 1
  for (int64_t k = 0; k < K; ++k, w += step) {
    if constexpr (kFetch) {
      LSTM_UNROLL for (int l = 0; l < kLines; ++l) prefetch_line(ahead + 64 * l);
      ahead += stride;
    }
    if constexpr (MR > NV) {  // the weights of this k stay in registers
      decltype(load_column<NV>(w, 0)) b[NV];
      LSTM_UNROLL for (int v = 0; v < NV; ++v) b[v] = load_column<NV>(w, v);
      LSTM_UNROLL for (int r = 0; r < MR; ++r) {
        const auto s = spread(a[r][k]);
        LSTM_UNROLL for (int v = 0; v < NV; ++v) add_product(sum[r][v], s, b[v]);
      }
    } else {  // the broadcasts stay in registers
      decltype(spread(a[0][k])) s[MR];
      LSTM_UNROLL for (int r = 0; r < MR; ++r) s[r] = spread(a[r][k]);
      LSTM_UNROLL for (int v = 0; v < NV; ++v) {
        const auto b = load_column<NV, crowded>(w, v);
        LSTM_UNROLL for (int r = 0; r < MR; ++r) add_product(sum[r][v], s[r], b);
      }
    }
  }
  LSTM_UNROLL for (int r = 0; r < MR; ++r) LSTM_UNROLL for (int v = 0; v < NV; ++v)
      store(pre + (r * NV + v) * L, sum[r][v]);
}

// One row on two panels at once: eight chains of additions, where one panel's four would wait for
// the latency of the FMA.
template <class T, class X, class W>
LSTM_NOINLINE void tile_pair(const X* row, int64_t K, const W* w0, const W* w1, T* pre0, T* pre1) {
  constexpr int L = lanes<T>, NV = kMaxVectors;
  vec<T> sum0[NV], sum1[NV];
  LSTM_UNROLL for (int v = 0; v < NV; ++v) sum0[v] = load(pre0 + v * L),
                                           sum1[v] = load(pre1 + v * L);
#pragma GCC unroll 1
  for (int64_t k = 0; k < K; ++k, w0 += NV * L, w1 += NV * L) {
    const auto s = spread(row[k]);
    LSTM_UNROLL for (int v = 0; v < NV; ++v) {
      add_product(sum0[v], s, load_column<NV>(w0, v));
      add_product(sum1[v], s, load_column<NV>(w1, v));
    }
  }
  LSTM_UNROLL for (int v = 0; v < NV; ++v) store(pre0 + v * L, sum0[v]),
      store(pre1 + v * L, sum1[v]);
}

constexpr int rows_or_one(int rows) { return rows <= kMaxRows ? rows : 1; }

template <bool kFetch, int NV, class T, class X, class W>
LSTM_INLINE void tile_of(int64_t height, const X* const* rows, int64_t k, int64_t length,
                         const W* w, int64_t step, T* pre, const char* ahead, int64_t stride) {
  switch (height) {
    case 1:
      return tile<kFetch, 1, NV>(rows, k, length, w, step, pre, ahead, stride);
    case 2:
      return tile<kFetch, 2, NV>(rows, k, length, w, step, pre, ahead, stride);
    case 3:
      return tile<kFetch, 3, NV>(rows, k, length, w, step, pre, ahead, stride);
    case 4:
      return tile<kFetch, rows_or_one(4), NV>(rows, k, length, w, step, pre, ahead, stride);
    case 5:
      return tile<kFetch, rows_or_one(5), NV>(rows, k, length, w, step, pre, ahead, stride);
    default:
      return tile<kFetch, rows_or_one(6), NV>(rows, k, length, w, step, pre, ahead, stride);
  }
}

// `next`: the panel that follows, or null. While the tiles of a k block run, they fetch the block
// after it: where the weights are larger than L2, the first tile would otherwise wait for each
// line.
template <int NV, class T, class X, class W>
LSTM_NOINLINE void accumulate_panel(const X* const* rows, int64_t n, int64_t K, const W* w,
                                    const W* next, T* pre) {
  constexpr bool kFetches = !kAmx;  // only projections come here then, and pay for less code
  constexpr int64_t kStep = NV * lanes<T>, kStepBytes = kStep * int64_t(sizeof(W));
  const int64_t tiles = ceil_div(n, kMaxRows);
  const bool few = tiles <= kFewTiles;
  const int64_t block = tiles > 1 ? kBlockBytes / (few ? 2 : 1) / kStepBytes : max_of(K, 1);
  const int64_t stride = ceil_div(kStepBytes, tiles);
  for (int64_t k = 0; k < K; k += block) {
    const int64_t length = min_of(block, K - k);
    const char* after = (const char*)(k + length < K ? w + (k + length) * kStep : next);
    if (tiles == 1) after = nullptr;
    for (int64_t i = 0, r = 0; i < tiles; ++i) {
      const int64_t height = ceil_div(n - r, tiles - i);  // 16 rows: 3 3 3 3 2 2, not 3 3 3 3 3 1
      const W* from = w + k * kStep;
      T* to = pre + r * kStep;
      const char* ahead = after ? after + i * stride * length : nullptr;
      if (kFetches && few && after) {
        tile_of<kFetches, NV>(height, rows + r, k, length, from, kStep, to, ahead, stride);
      } else {
        if (after) prefetch(ahead, stride * length);
        tile_of<false, NV>(height, rows + r, k, length, from, kStep, to, nullptr, 0);
      }
      r += height;
    }
  }
}

// Calls f with the number of vectors of a panel as a constant.
template <class F>
LSTM_INLINE void with_width(int width, F f) {
  switch (width) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    default:
      return f.template operator()<4>();
  }
}

// A matrix in panels. The weights' element type may be narrower than T: they are widened when used,
// or multiplied in pairs along k with operands that are pairs, too.
template <class T>
struct Panels {
  char* data;
  Format format;
  int64_t K, vectors;    // vectors of output columns in all panels
  int width;             // vectors per panel; the last panel may be narrower
  bool uses_amx = kAmx;  // whether pairs are multiplied by it: amx.h

  LSTM_INLINE int64_t count() const { return ceil_div(vectors, width); }
  LSTM_INLINE int width_of(int64_t p) const { return int(min_of(width, vectors - p * width)); }
  // Of one vector of columns: all k, or pairs of them.
  LSTM_INLINE int64_t vector_bytes() const {
    if (format == Format::kPairs) return pair_rows() * lanes<T> * int64_t(sizeof(bf16_pair));
    return K * lanes<T> * (format == Format::kCompute ? int64_t(sizeof(T)) : 2);
  }
  LSTM_INLINE int64_t pair_rows() const { return whole_amx_rows(ceil_div(K, 2)); }
  LSTM_INLINE void end_pairs(int64_t p) const {  // with zeros
    const int64_t row = width_of(p) * lanes<T> * int64_t(sizeof(bf16_pair)), used = ceil_div(K, 2);
    __builtin_memset(panel(p) + used * row, 0, size_t((pair_rows() - used) * row));
  }
  LSTM_INLINE int64_t bytes() const { return vectors * vector_bytes(); }
  LSTM_INLINE char* panel(int64_t p) const { return data + p * width * vector_bytes(); }

  // pre[r][v] += rows[r] . w[v] for the vectors v of panel p. next: the panel used after it, or -1.
  // Where K is odd, the last pair of a row ends with a zero.
  template <class X>
  LSTM_INLINE void accumulate(int64_t p, int64_t next, const X* const* rows, int64_t n,
                              T* pre) const {
    accumulate(p, next < 0 ? nullptr : panel(next), rows, n, pre);
  }
  // next: any panel of this format, or null.
  LSTM_INLINE void accumulate(int64_t p, const char* next, const bf16_pair* const* rows, int64_t n,
                              T* pre) const {
    if constexpr (kAmx) {
      if (uses_amx) return accumulate_amx(p, rows, n, pre);
      accumulate_few(p, rows, n, pre);
    } else {
      accumulate_as<bf16_pair>(p, next, rows, n, pre);
    }
  }
  LSTM_INLINE void accumulate(int64_t p, const char* next, const T* const* rows, int64_t n,
                              T* pre) const {
    if (format == Format::kCompute) accumulate_as<T>(p, next, rows, n, pre);
    if constexpr (is_same<T, float>) {
      if (format == Format::kBFloat16) accumulate_as<bf16>(p, next, rows, n, pre);
      if constexpr (kWidensFloat16)
        if (format == Format::kFloat16) accumulate_as<fp16>(p, next, rows, n, pre);
    }
  }
  // The same for one row and the full panels p0 and p1.
  LSTM_INLINE void accumulate_pair(int64_t p0, int64_t p1, const bf16_pair* row, T* pre0,
                                   T* pre1) const {
    if constexpr (kAmx)
      if (uses_amx) return accumulate_amx(p0, &row, 1, pre0), accumulate_amx(p1, &row, 1, pre1);
    tile_pair(row, ceil_div(K, 2), (const bf16_pair*)panel(p0), (const bf16_pair*)panel(p1), pre0,
              pre1);
  }
  LSTM_INLINE void accumulate_pair(int64_t p0, int64_t p1, const T* row, T* pre0, T* pre1) const {
    if (format == Format::kCompute)
      tile_pair(row, K, (const T*)panel(p0), (const T*)panel(p1), pre0, pre1);
    if constexpr (is_same<T, float>) {
      if (format == Format::kBFloat16)
        tile_pair(row, K, (const bf16*)panel(p0), (const bf16*)panel(p1), pre0, pre1);
      if constexpr (kWidensFloat16)
        if (format == Format::kFloat16)
          tile_pair(row, K, (const fp16*)panel(p0), (const fp16*)panel(p1), pre0, pre1);
    }
  }

 private:
  // Where there is AMX, for panels of gates alone.
  LSTM_INLINE void accumulate_few(int64_t p, const bf16_pair* const* rows, int64_t n,
                                  T* pre) const {
    constexpr int64_t kStep = kGates * lanes<T>;
    auto tiles = [&]<int MR>(int64_t r) {
      for (; r + MR <= n; r += MR)
        tile<false, MR, kGates>(rows + r, 0, ceil_div(K, 2), (const bf16_pair*)panel(p), kStep,
                                pre + r * kStep, nullptr, 0);
      return r;
    };
    const int64_t r = tiles.template operator()<4>(0);
    tiles.template operator()<1>(tiles.template operator()<2>(r));
  }
  LSTM_INLINE void accumulate_amx(int64_t p, const bf16_pair* const* rows, int64_t n,
                                  T* pre) const {
    with_width(width_of(p), [&]<int NV>() {
      each_amx_sum<NV>(rows, 0, n, pair_rows(), panel(p), [&](int64_t r, int v, const char* sums) {
        T* to = pre + (r * NV + v) * lanes<T>;
        store(to, load(to) + load_as<vec<T>>(sums));
      });
    });
  }
  template <class W, class X>
  LSTM_INLINE void accumulate_as(int64_t p, const char* next, const X* const* rows, int64_t n,
                                 T* pre) const {
    const W* w = (const W*)panel(p);
    with_width(width_of(p), [&]<int NV>() {
      accumulate_panel<NV>(rows, n, ceil_div(K, numbers_in<W>), w, (const W*)next, pre);
    });
  }
};

}  // namespace lstm_kernels::LSTM_ISA
