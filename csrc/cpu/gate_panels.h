// The recurrent product where each gate has its own dropout mask, Keras' recurrent dropout:
//
//   z_g = W_g (m_g * h'),   and backward dh' = sum over gates of m_g * (W_g^T dz_g)
//
// W_hh is then four matrices, one for each gate, each in separate panels. The tiles of panels.h
// serve both passes: forward, a panel's vectors are units of one gate, which share the operand
// m_g * h'. With panels of four gates a tile would need four operands for each row, and loads of
// them would bound it, not multiply-adds. A product is left in `partial` first, which is small and
// in L1: forward, its place lies between those of other gates; backward, a mask comes after it.
#pragma once
#include "arena.h"
#include "lay_out.h"

namespace lstm_kernels::LSTM_ISA {

template <class T>
struct GatePanels {
  static constexpr int L = lanes<T>;

  Panels<T> gates[kGates];  // of one shape

  void take(Format format, int64_t K, int64_t columns, int width, Arena& memory) {
    for (Panels<T>& of : gates) {
      of = {nullptr, format, K, ceil_div(columns, L), width};
      of.data = memory.take<char>(of.bytes());
    }
  }
  LSTM_INLINE int64_t count() const { return gates[0].count(); }
  LSTM_INLINE int width_of(int64_t p) const { return gates[0].width_of(p); }

  // For each gate calls use(gate, partial), where partial is the product of its n rows with its
  // panel p, [row][vector][lane]. rows: [gate][row]. next: the panel used afterwards, or -1.
  template <class X, class Use>
  LSTM_INLINE void each_product(int64_t p, int64_t next, const X* const* rows, int64_t n,
                                T* partial, Use use) const {
    for (int g = 0; g < kGates; ++g) {
      const char* then = nullptr;
      if (g + 1 < kGates)
        then = gates[g + 1].panel(p);
      else if (next >= 0)
        then = gates[0].panel(next);
      __builtin_memset(partial, 0, size_t(n * width_of(p) * L) * sizeof(T));
      gates[g].accumulate(p, then, rows + g * n, n, partial);
      use(g, partial);
    }
  }
  // The same for one row and the full panels p and p + 1, [vector of both][lane].
  template <class X, class Use>
  LSTM_INLINE void each_product_of_two(int64_t p, const X* const* rows, T* partial, Use use) const {
    T* const second = partial + kMaxVectors * L;
    for (int g = 0; g < kGates; ++g) {
      __builtin_memset(partial, 0, 2 * kMaxVectors * L * sizeof(T));
      gates[g].accumulate_pair(p, p + 1, rows[g], partial, second);
      use(g, partial);
    }
  }
};

}  // namespace lstm_kernels::LSTM_ISA
