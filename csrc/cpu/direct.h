// Matrix products on the weights as they are, for calls too short to pay for packing: T * N up to
// kDirectRows. Up to there packing was measured to cost more than it gains at every H; in a single
// step, which reads the weights once in any case, that holds for 24 rows, from H = 512 on for 48.
//
// A row of weights and an operand are multiplied lane by lane along k into a vector of partial
// sums, and the vectors of L rows are then added across: a vector of L results, the same place that
// a packed panel's vector has. A tile of several weight rows and operands lets a loaded vector
// serve several multiply-adds; the operands pass over L weight rows while those are in L1. The sums
// are taken in the same order for every tile, but in another one than in panels.h: the one place
// where results depend, to rounding, on T and N.
//
// Backward, where the products are with the weights' columns, a few rows of weights at a time pass
// through the tiles of panels.h: read in the order in which they lie, added in the order of k.
//
// Bound: reading the weights once; with several operands, the FMA peak.
#pragma once
#include "kernels.h"
#include "panels.h"

namespace lstm_kernels::LSTM_ISA {

using cpu::kDirectRows;

// Operands and weight rows of a tile; one operand alone needs more chains of additions, and SSE2 a
// register for each product.
constexpr int kDirectOperands = kVectorBytes == 16 && kVectorRegisters == 16 ? 2 : 3;
template <class T>
constexpr int direct_height(int operands) {
  const int rows = operands == 1 || kVectorRegisters == 32 ? 8 : 4;
  return rows < lanes<T> ? rows : lanes<T>;
}

// sums[m * lanes + r] += w[r] * x[m] lane by lane, for weight rows r of stride K; those after
// `last` repeat it. kWhole: over the whole vectors of K, which is the hot loop; else over what is
// left.
template <bool kWhole, int M, class S, class T>
LSTM_NOINLINE void direct_tile(const S* w, int64_t last, const T* const* x, int64_t K,
                               vec<T>* sums) {
  constexpr int L = lanes<T>, R = direct_height<T>(M);
  const S* rows[R];
  const T* operands[M];
  vec<T> sum[M][R];
  LSTM_UNROLL for (int r = 0; r < R; ++r) rows[r] = w + min_of(r, last) * K;
  LSTM_UNROLL for (int m = 0; m < M; ++m) {
    operands[m] = x[m];
    LSTM_UNROLL for (int r = 0; r < R; ++r) sum[m][r] = sums[m * L + r];
  }
  const int64_t whole = K / L * L;
#pragma GCC unroll 1
  for (int64_t k = kWhole ? 0 : whole; k < (kWhole ? whole : K); k += L) {
    auto part = [&](const auto* p) { return kWhole ? load(p + k) : load_n(p + k, K - k); };
    vec<T> operand[M];
    LSTM_UNROLL for (int m = 0; m < M; ++m) operand[m] = part(operands[m]);
    LSTM_UNROLL for (int r = 0; r < R; ++r) {
      const vec<T> weight = part(rows[r]);
      LSTM_UNROLL for (int m = 0; m < M; ++m) sum[m][r] += weight * operand[m];
    }
  }
  LSTM_UNROLL for (int m = 0; m < M; ++m) LSTM_UNROLL for (int r = 0; r < R; ++r) sums[m * L + r] =
      sum[m][r];
}
template <int M, class S, class T>
LSTM_INLINE void direct_tiles(const S* w, int64_t count, const T* const* x, int64_t K,
                              vec<T>* sums) {
  for (int64_t r = 0; r < lanes<T>; r += direct_height<T>(M)) {
    const int64_t first = min_of(r, count - 1), last = count - 1 - first;
    direct_tile<true, M>(w + first * K, last, x, K, sums + r);
    if (K % lanes<T>) direct_tile<false, M>(w + first * K, last, x, K, sums + r);
  }
}

// sums[j * lanes + l] += w[l] * x[j] lane by lane, for n operands and L rows of w, a (count, K)
// matrix, whose last row is repeated where count is less.
template <class S, class T>
LSTM_NOINLINE void add_products(const S* w, int64_t count, const T* const* x, int64_t n, int64_t K,
                                vec<T>* sums) {
  const int64_t tiles = ceil_div(n, kDirectOperands);
  for (int64_t i = 0, j = 0; i < tiles; ++i) {
    const int64_t operands = ceil_div(n - j, tiles - i);  // 4: 2 2, not 3 1
    vec<T>* to = sums + j * lanes<T>;
    switch (operands) {
      case 1:
        direct_tiles<1>(w, count, x + j, K, to);
        break;
      case 2:
        direct_tiles<2>(w, count, x + j, K, to);
        break;
      default:
        direct_tiles<kDirectOperands>(w, count, x + j, K, to);
        break;
    }
    j += operands;
  }
}

template <class T>
LSTM_INLINE vec<T> add_across(const vec<T>* sums) {
  vec<T> sum[lanes<T>];
  LSTM_UNROLL for (int l = 0; l < lanes<T>; ++l) sum[l] = sums[l];
  transpose<T>(sum);
  LSTM_UNROLL for (int n = lanes<T> / 2; n > 0; n /= 2) LSTM_UNROLL for (int l = 0; l < n; ++l)
      sum[l] += sum[l + n];
  return sum[0];
}

// The rows of weights that pass at a time: their lines stay in L1 for all rows of the batch, and a
// tile reads and writes its sums once for so many k.
constexpr int64_t kDirectSteps = 16;

// pre[r][v] += sum over k of rows[r][k] * w[k][v] for k_begin <= k < k_begin + K and nv vectors v.
template <class T>
LSTM_INLINE void add_direct(const T* const* rows, int64_t n, int64_t k_begin, int64_t K, const T* w,
                            int64_t step, int nv, T* pre) {
  const int64_t tiles = ceil_div(n, kMaxRows);
  for (int64_t i = 0, r = 0; i < tiles; ++i) {
    const int64_t height = ceil_div(n - r, tiles - i);
    T* to = pre + r * nv * lanes<T>;
    switch (nv) {
      case 1:
        tile_of<false, 1>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
      case 2:
        tile_of<false, 2>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
      case 3:
        tile_of<false, 3>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
      default:
        tile_of<false, 4>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
    }
    r += height;
  }
}

}  // namespace lstm_kernels::LSTM_ISA
