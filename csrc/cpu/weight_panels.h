// The weights of one direction as the forward pass reads them: panels of w_ih, w_hh and w_hr (see
// panels.h), and the sum of the biases. Where h has a mask for each gate, w_hh is in gate_panels.h
// instead.
//
// They are laid out in scratch at the start of a call, or once for many calls (prepacked.h). For
// that the layout depends on I, H, P, the format and the instruction set alone: not on T, N or the
// number of threads, and the block they lie in holds no pointers.
#pragma once
#include "arena.h"
#include "gate_panels.h"
#include "kernels.h"
#include "lay_out.h"

namespace lstm_kernels::LSTM_ISA {

// The sum of both biases of L units of a gate, from `unit` on.
template <class S>
LSTM_INLINE vec<compute<S>> bias_of(const DirectionWeights& from, int64_t H, int gate,
                                    int64_t unit) {
  const int64_t at = gate * H + unit, n = H - unit;
  vec<compute<S>> sum = {};
  if (from.b_ih) sum += load_n((const S*)from.b_ih + at, n);
  if (from.b_hh) sum += load_n((const S*)from.b_hh + at, n);
  return sum;
}

template <class S>
struct WeightPanels {
  using T = compute<S>;
  static constexpr int L = lanes<T>;
  static constexpr int64_t kPanel = kGates * L;  // numbers per row in a panel's result

  Panels<T> w_ih, w_hh, w_hr;
  GatePanels<T> w_hh_by_gate;
  T* bias;  // [panel][gate][lane]

  // Takes its place from `memory`; without memory it has its shape, and no numbers.
  // projected: the format of w_hr, whose operand is not rounded. gate_width: of the panels of w_hh
  // by gate; 0 where it is not.
  LSTM_NOINLINE void take(const Sizes& s, bool projects, Format format, Format projected,
                          Arena& memory, int gate_width = 0) {
    auto take = [&](int64_t K, int64_t vectors, int width, Format format) {
      Panels<T> p{nullptr, format, K, vectors, width};
      p.data = memory.take<char>(p.bytes());
      return p;
    };
    const int64_t panels = ceil_div(s.H, L), columns = ceil_div(s.P, L);
    w_ih = take(s.I, kGates * panels, kGates, format);
    w_hh = take(s.P, gate_width ? 0 : kGates * panels, kGates, format);
    w_hh_by_gate = {};
    if (gate_width) w_hh_by_gate.take(format, s.P, s.H, gate_width, memory);
    w_hr = {};
    if (projects) w_hr = take(s.H, columns, int(min_of(kMaxVectors, columns)), projected);
    bias = memory.take<T>(panels * kPanel);
  }

  // Lays out part `id` of `parts`, which together are all weights.
  void lay_out(const DirectionWeights& from, const Sizes& s, int id, int parts) const {
    auto begin = [&](int64_t n) { return n * id / parts; };
    auto end = [&](int64_t n) { return n * (id + 1) / parts; };
    const int64_t panels = w_ih.count();
    for (int64_t p = begin(panels); p < end(panels); ++p) {
      lay_out_gates(w_ih, p, (const S*)from.w_ih, s.H);
      if (w_hh.vectors) lay_out_gates(w_hh, p, (const S*)from.w_hh, s.H);
      for (int g = 0; g < kGates; ++g)
        store(bias + p * kPanel + g * L, bias_of<S>(from, s.H, g, p * L));
    }
    for (int g = 0; g < kGates; ++g) {
      const Panels<T>& of_gate = w_hh_by_gate.gates[g];
      if (!of_gate.vectors) break;
      for (int64_t p = begin(of_gate.count()); p < end(of_gate.count()); ++p)
        lay_out_rows(of_gate, p, (const S*)from.w_hh + g * s.H * s.P, s.H);
    }
    if (!w_hr.vectors) return;
    for (int64_t p = begin(w_hr.count()); p < end(w_hr.count()); ++p)
      lay_out_rows(w_hr, p, (const S*)from.w_hr, s.P);
  }
};

}  // namespace lstm_kernels::LSTM_ISA
