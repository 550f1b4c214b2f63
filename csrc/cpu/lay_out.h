// Laying row-major weights out in panels (see panels.h). S is the element type of the weights,
// W that of the panels. Lanes beyond the matrix are zero.
#pragma once
#include "panels.h"

namespace lstm_kernels::LSTM_ISA {

// Writes vector v of the nv that the panel has for k, in the order of k and v. bf16_pair has two k
// in one number, and load_column two vectors of bfloat16: first comes what is in the lower halves.
template <class W>
LSTM_INLINE void store_column(W* panel, int64_t k, int v, int nv, vec<compute<W>> column) {
  constexpr int L = lanes<compute<W>>;
  constexpr bool along_k = is_same<W, bf16_pair>;
  W* w = panel + ((along_k ? k / 2 : k) * nv + v) * L;
  if constexpr (along_k || is_same<W, bf16>)
    if (along_k || (v | 1) < nv) {
      const bool upper = (along_k ? k : v) & 1;
      W* to = upper && !along_k ? w - L : w;
      const vec_u32 bits = bf16_bits(column);
      const vec_u32 both = upper ? load_as<vec_u32>(to) | bits << 16 : bits;
      __builtin_memcpy(to, &both, sizeof both);
      return;
    }
  if constexpr (!along_k) store(w, column);
}

// One vector of output columns: lane l is row l of `rows`, a (count, K) row-major matrix.
template <class S>
struct ColumnsFromRows {
  const S* rows;
  int64_t count;  // at most lanes
};

// Output columns are rows of the source: w_ih and w_hh in the forward pass, w_hr for h_t.
template <class S, class W>
LSTM_NOINLINE void lay_out_transposed(const ColumnsFromRows<S>* columns, int nv, int64_t K,
                                      W* out) {
  using T = compute<S>;
  constexpr int L = lanes<T>;
  for (int64_t k = 0; k < K; k += L) {
    const int64_t length = min_of(L, K - k);
    for (int v = 0; v < nv; ++v) {
      const S* src = columns[v].rows + k;
      const int64_t count = columns[v].count;
      vec<T> block[L];
      if (__builtin_expect(length == L && count == L, 1)) {  // no test for each row and column
        LSTM_UNROLL for (int l = 0; l < L; ++l) {
          block[l] = load(src + l * K);
          prefetch_line((const char*)(src + l * K + 2 * L));  // too many rows for the hardware
        }
        transpose<T>(block);
        LSTM_UNROLL for (int l = 0; l < L; ++l) store_column(out, k + l, v, nv, block[l]);
      } else {
        for (int l = 0; l < L; ++l) block[l] = l < count ? load_n(src + l * K, length) : vec<T>{};
        transpose<T>(block);
        for (int64_t l = 0; l < length; ++l) store_column(out, k + l, v, nv, block[l]);
      }
    }
  }
}

// Output columns are columns of the source, (K, columns) row-major: the backward products.
template <class S, class W>
LSTM_NOINLINE void lay_out_straight(const S* w, int64_t columns, int64_t first, int nv, int64_t K,
                                    W* out) {
  constexpr int L = lanes<compute<S>>;
  for (int64_t k = 0; k < K; ++k, w += columns)
    for (int v = 0; v < nv; ++v) {
      const int64_t column = first + v * L;
      store_column(out, k, v, nv, load_n(w + column, columns - column));
    }
}

// Calls f with panel p as the numbers that its format says.
template <class S, class F>
LSTM_INLINE void with_format(const Panels<compute<S>>& of, int64_t p, F f) {
  char* const panel = of.panel(p);
  if (of.format == Format::kCompute) f((compute<S>*)panel);
  if constexpr (is_same<S, float> || is_same<S, bf16>)
    if (of.format == Format::kBFloat16) f((bf16*)panel);
  if constexpr (kMultipliesPairs && is_same<compute<S>, float>)
    if (of.format == Format::kPairs) {
      f((bf16_pair*)panel);
      of.end_pairs(p);
    }
  if constexpr (kWidensFloat16 && (is_same<S, float> || is_same<S, fp16>))
    if (of.format == Format::kFloat16) f((fp16*)panel);
}

// w (4 * H, K): panel p holds the four gates of hidden units p * L ..
template <class S>
LSTM_INLINE void lay_out_gates(const Panels<compute<S>>& to, int64_t p, const S* w, int64_t H) {
  constexpr int L = lanes<compute<S>>;
  const int64_t unit = p * L;
  ColumnsFromRows<S> gates[kGates];
  for (int g = 0; g < kGates; ++g) gates[g] = {w + (g * H + unit) * to.K, min_of(L, H - unit)};
  with_format<S>(to, p, [&](auto* out) { lay_out_transposed(gates, kGates, to.K, out); });
}
// w (columns, K): panel p holds output columns p * width * L ..
template <class S>
LSTM_INLINE void lay_out_rows(const Panels<compute<S>>& to, int64_t p, const S* w,
                              int64_t columns) {
  constexpr int L = lanes<compute<S>>;
  ColumnsFromRows<S> vectors[kMaxVectors];
  for (int v = 0; v < to.width_of(p); ++v) {
    const int64_t column = (p * to.width + v) * L;
    vectors[v] = {w + column * to.K, min_of(L, columns - column)};
  }
  with_format<S>(to, p, [&](auto* out) { lay_out_transposed(vectors, to.width_of(p), to.K, out); });
}
// w (K, columns)
template <class S>
LSTM_INLINE void lay_out_columns(const Panels<compute<S>>& to, int64_t p, const S* w,
                                 int64_t columns) {
  const int64_t first = p * to.width * lanes<compute<S>>;
  with_format<S>(
      to, p, [&](auto* out) { lay_out_straight(w, columns, first, to.width_of(p), to.K, out); });
}

}  // namespace lstm_kernels::LSTM_ISA
