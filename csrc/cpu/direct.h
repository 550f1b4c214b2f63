// Matrix products on the weights as they are, for calls too short to pay for packing.
//
// Each of L rows of a row-major matrix is multiplied with the operand in its own vector of partial
// sums along k, and the L vectors are then added across: a vector of L results, the same place that
// a packed panel's vector has. Rows of a batch follow each other while the weights are in L1.
// The additions are taken in another order than in panels.h: the one place where results depend, to
// rounding, on T and N.
//
// Backward, where the products are with the weights' columns, a few rows of weights at a time pass
// through the tiles of panels.h: read in the order in which they lie, added in the order of k.
// Bound: reading the weights once; with several rows, the loads, one per multiply-add.
#pragma once
#include "panels.h"

namespace lstm_kernels::LSTM_ISA {

// T * N up to which a call leaves the weights unpacked. Packing was measured to cost as much as
// unpacked weights lose on 13 (H = 1024) to 28 rows (H = 128, 512).
constexpr int64_t kDirectRows = 16;

// sum[l] += w[l][k] * x[k] along k, lane by lane
template <class S, class T>
LSTM_INLINE void add_products(vec<T> (&sum)[lanes<T>], const S* w, int64_t stride, int64_t last,
                              const T* x, int64_t K) {
  constexpr int L = lanes<T>;
  const S* row[L];
  LSTM_UNROLL for (int l = 0; l < L; ++l) row[l] = w + min_of(l, last) * stride;
  int64_t k = 0;
#pragma GCC unroll 1
  for (; k + L <= K; k += L) {
    const vec<T> xk = load(x + k);
    LSTM_UNROLL for (int l = 0; l < L; ++l) sum[l] += load(row[l] + k) * xk;
  }
  if (k < K) {
    const vec<T> xk = load_n(x + k, K - k);
    LSTM_UNROLL for (int l = 0; l < L; ++l) sum[l] += load_n(row[l] + k, K - k) * xk;
  }
}

template <class T>
LSTM_INLINE vec<T> add_across(vec<T> (&sum)[lanes<T>]) {
  transpose<T>(sum);
  LSTM_UNROLL for (int n = lanes<T> / 2; n > 0; n /= 2) LSTM_UNROLL for (int l = 0; l < n; ++l)
      sum[l] += sum[l + n];
  return sum[0];
}

// Rows 0 .. count - 1 of w (count, K) times x (K): lane l holds row l; lanes from count on repeat
// the last row. count may exceed the lanes.
template <class S, class T>
LSTM_NOINLINE vec<T> dots(const S* w, int64_t count, const T* x, int64_t K) {
  vec<T> sum[lanes<T>] = {};
  add_products(sum, w, K, count - 1, x, K);
  return add_across<T>(sum);
}
// The same for two matrices of as many rows: the sum of both products.
template <class S, class T>
LSTM_NOINLINE vec<T> dots(const S* w0, const S* w1, int64_t count, const T* x0, int64_t K0,
                          const T* x1, int64_t K1) {
  vec<T> sum[lanes<T>] = {};
  add_products(sum, w0, K0, count - 1, x0, K0);
  add_products(sum, w1, K1, count - 1, x1, K1);
  return add_across<T>(sum);
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
