// The products of one step of a direction on weights as they are stored (see direct.h).
#pragma once
#include "direct.h"
#include "schedule.h"
#include "weight_panels.h"

namespace lstm_kernels::LSTM_ISA {

// Operands of a step, of the compute type: n rows of x and of h.
template <class T>
struct Operands {
  const T *const *x, *const *h;
  int64_t n;
};

template <class S>
struct DirectGates {
  using T = compute<S>;
  static constexpr int L = lanes<T>;
  static constexpr int64_t kPanel = kGates * L;
  // As many operands as a tile has vectors for; those of a group lie together where interleaved.
  static constexpr int64_t kGroup = kMaxVectors * L;

  const DirectionWeights& weights;
  const Sizes& size;
  T* interleaved;  // x, then h, of each group: [group][k][vector][lane]
  T* sums;         // of a panel with a group: [gate][unit][vector][operand]

  // Numbers that `interleaved` and `sums` take for a step of n operands.
  static int64_t interleaved_numbers(const Sizes& s, int64_t n) {
    return (s.I + s.P) * round_up(n, L);
  }
  static int64_t sums_numbers(int64_t n) { return kPanel * round_up(n, L); }

  // Calls use(p, pre) for every panel of the order, with pre = bias + x W_ih^T + h W_hh^T, the
  // pre-activations [operand][gate][lane] of its units. `pre` has room for one panel.
  template <class Use>
  LSTM_INLINE void each_panel(const PanelOrder& order, const Operands<T>& of, T* pre, Use use) {
    const bool interleave = is_same<S, T> && interleaves_operands<T>(of.n);
    if (interleave)
      each_group(of.n, [&](int64_t j, int64_t count, T* to) {
        interleave_operands(of.x + j, count, size.I, to);
        interleave_operands(of.h + j, count, size.P, to + size.I * round_up(count, L));
      });
    for (int64_t i = 0; i < order.count(); ++i) {
      const int64_t p = order.panel(i);
      if (interleave)
        each_group(of.n, [&](int64_t j, int64_t count, const T* operands) {
          gates_of_group(p, count, operands, pre + j * kPanel);
        });
      else
        gates(p, order.after(i), of, pre);
      use(p, pre);
    }
  }

  // Adds the product with columns of W_hr from `column` on, at most L of them, to n rows of `to`.
  void project(int64_t column, const T* const* unprojected, int64_t n, T* to, int64_t step) const {
    const S* rows = (const S*)weights.w_hr + column * size.H;
    const Product<S, T> product{rows, size.H, unprojected, rows + L * size.H};
    add_products({product}, size.P - column, n, to, step);
  }

 private:
  template <class Visit>
  LSTM_INLINE void each_group(int64_t n, Visit visit) {
    for (int64_t j = 0; j < n; j += kGroup)
      visit(j, min_of(kGroup, n - j), interleaved + j * (size.I + size.P));
  }

  // `next`: the panel read after this one, or -1.
  void gates(int64_t p, int64_t next, const Operands<T>& of, T* pre) {
    vec<T> bias[kGates];
    for (int g = 0; g < kGates; ++g) bias[g] = bias_of<S>(weights, size.H, g, p * L);
    for (int64_t r = 0; r < of.n; ++r)
      for (int g = 0; g < kGates; ++g) store(pre + r * kPanel + g * L, bias[g]);
    for (int g = 0; g < kGates; ++g) {
      const int64_t row = g * size.H + p * L;
      const int64_t after = g + 1 < kGates ? row + size.H : (next < 0 ? p : next) * L;
      auto product = [&](const void* w, int64_t K, const T* const* x) -> Product<S, T> {
        return {(const S*)w + row * K, K, x, (const S*)w + after * K};
      };
      add_products({product(weights.w_ih, size.I, of.x), product(weights.w_hh, size.P, of.h)},
                   size.H - p * L, of.n, pre + g * L, kPanel);
    }
  }

  // The same for n interleaved operands: the roles of weights and operands are exchanged.
  void gates_of_group(int64_t p, int64_t n, const T* operands, T* pre) {
    const int64_t nv = ceil_div(n, L), last = min_of(L, size.H - p * L) - 1;
    const T *input[kPanel], *recurrent[kPanel];
    for (int g = 0; g < kGates; ++g) {
      const vec<T> bias = bias_of<S>(weights, size.H, g, p * L);
      for (int64_t l = 0; l < L; ++l) {
        const int64_t row = g * size.H + p * L + min_of(l, last), to = g * L + l;
        input[to] = (const T*)weights.w_ih + row * size.I;
        recurrent[to] = (const T*)weights.w_hh + row * size.P;
        for (int64_t v = 0; v < nv; ++v) store(sums + (to * nv + v) * L, vec<T>{} + bias[l]);
      }
    }
    const T *x = operands, *h = operands + size.I * nv * L, *none = nullptr;
    with_width(int(nv), [&]<int NV>() {
      accumulate_panel<NV>(input, kPanel, size.I, x, none, sums);
      accumulate_panel<NV>(recurrent, kPanel, size.P, h, none, sums);
    });
    for (int g = 0; g < kGates; ++g)
      for (int64_t v = 0; v < nv; ++v) {
        vec<T> block[L];
        for (int l = 0; l < L; ++l) block[l] = load(sums + ((g * L + l) * nv + v) * L);
        transpose<T>(block);
        for (int64_t l = 0; l < min_of(L, n - v * L); ++l)
          store(pre + (v * L + l) * kPanel + g * L, block[l]);
      }
  }
};

}  // namespace lstm_kernels::LSTM_ISA
