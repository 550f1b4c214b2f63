// Layer norm of one row, in vectors.
//
// A row is kWidth streams of H numbers each: the four gates, or the cell state alone. `read(unit,
// v)` is the vector of stream v at that unit; its lanes past H may hold anything. The variance is
// the mean of the squared distances from the mean, which takes a second pass: what the difference
// of two large sums would lose is worth more than reading again a row that is in L1.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace lstm_kernels::LSTM_ISA {

template <class T>
LSTM_INLINE vec<T> first_lanes(vec<T> v, int64_t n) {  // the others zero
  T lane[lanes<T>];
  store(lane, v);
  return load_n(lane, n);
}
template <class T>
LSTM_INLINE T total(vec<T> v) {
  T lane[lanes<T>];
  store(lane, v);
  LSTM_UNROLL for (int half = lanes<T> / 2; half > 0; half /= 2)
      LSTM_UNROLL for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

// The sum of a row of what `read` gives.
template <class T, int kWidth, class Read>
LSTM_INLINE T row_total(int64_t H, Read read) {
  constexpr int L = lanes<T>;
  vec<T> sum[kWidth] = {};
  int64_t unit = 0;
  for (; unit + L <= H; unit += L)
    LSTM_UNROLL for (int v = 0; v < kWidth; ++v) sum[v] += read(unit, v);
  if (unit < H)
    LSTM_UNROLL for (int v = 0; v < kWidth; ++v) sum[v] += first_lanes<T>(read(unit, v), H - unit);
  LSTM_UNROLL for (int v = 1; v < kWidth; ++v) sum[0] += sum[v];
  return total<T>(sum[0]);
}

template <class T>
struct Moments {
  T mean, scale;  // scale: 1 / sqrt(variance + eps)

  LSTM_INLINE vec<T> normalised(vec<T> x) const { return (x - mean) * scale; }
};
template <class T, int kWidth, class Read>
LSTM_INLINE Moments<T> moments(int64_t H, T eps, Read read) {
  const T count = T(kWidth * H), mean = row_total<T, kWidth>(H, read) / count;
  const T squares = row_total<T, kWidth>(H, [&](int64_t unit, int v) {
    const vec<T> distance = read(unit, v) - mean;
    return distance * distance;
  });
  return {mean, T(1 / __builtin_sqrt(double(squares / count + eps)))};
}

// The norms of one direction's steps.
template <class S>
struct StepNorms {
  using T = compute<S>;

  const int64_t H;
  const T eps;
  const S *gain, *cell_gain;  // null: there is no such norm; the cell state's bias follows its gain
  T* const updated;           // (H): memory for a row of c~ before its norm

  StepNorms(const Variant& variant, int64_t H, int direction, T* updated)
      : H(H),
        eps(T(variant.norm_eps)),
        gain(of(variant.norm_gates, direction * variant.branches() * kGates * H)),
        cell_gain(of(variant.norm_cell, direction * 2 * H)),
        updated(updated) {}

  LSTM_NOINLINE Moments<T> cell_moments() const {
    if (!cell_gain) return {};
    return moments<T, 1>(H, eps, [&](int64_t unit, int) { return load(updated + unit); });
  }
  // c~ of a row with these moments after its norm, or where there is none, as it is.
  LSTM_INLINE vec<T> normalised_cell(const Moments<T>& of_cell, int64_t unit) const {
    const vec<T> before = load(updated + unit);
    if (!cell_gain) return before;
    const int64_t valid = H - unit;
    return of_cell.normalised(before) * load_n(cell_gain + unit, valid) +
           load_n(cell_gain + H + unit, valid);
  }

 private:
  static const S* of(const void* parameters, int64_t first) {
    return parameters ? (const S*)parameters + first : nullptr;
  }
};

// The gradient of a norm's argument, from g, those of what it normalised times the gains:
//   (g - mean(g) - x^ * mean(g * x^)) * scale,   x^ = (x - mean(x)) * scale
template <class T>
struct NormGradient {
  Moments<T> of;
  T mean, product;

  // x: read like a row; g(unit, v, x^) once for each vector.
  template <int kWidth, class X, class G>
  static LSTM_INLINE NormGradient made(int64_t H, const Moments<T>& of, X x, G g) {
    constexpr int L = lanes<T>;
    vec<T> sum[kWidth] = {}, products[kWidth] = {};
    for (int64_t unit = 0; unit < H; unit += L) LSTM_UNROLL for (int v = 0; v < kWidth; ++v) {
        const vec<T> normalised = of.normalised(x(unit, v));
        const vec<T> one = g(unit, v, normalised), both = one * normalised;
        const bool whole = unit + L <= H;
        sum[v] += whole ? one : first_lanes<T>(one, H - unit);
        products[v] += whole ? both : first_lanes<T>(both, H - unit);
      }
    LSTM_UNROLL for (int v = 1; v < kWidth; ++v) sum[0] += sum[v], products[0] += products[v];
    const T count = T(kWidth * H);
    return {of, total<T>(sum[0]) / count, total<T>(products[0]) / count};
  }
  LSTM_INLINE vec<T> argument(vec<T> normalised, vec<T> g) const {
    return (g - mean - normalised * product) * of.scale;
  }
};

}  // namespace lstm_kernels::LSTM_ISA
