// The elementwise part of the backward pass of one step on its own. It computes c_t again, since
// the caller may have written to the one that the step returned. Bound: memory bandwidth.
#pragma once
#include "cell.h"
#include "kernels.h"

namespace lstm_kernels::LSTM_ISA {

template <class S>
void retreat_step(const cpu::CellBackward& a) {
  using T = compute<S>;
  constexpr int L = lanes<T>;
  for (int64_t r = 0; r < a.N; ++r)
    for (int64_t unit = 0; unit < a.H; unit += L) {
      const int64_t at = r * a.H + unit, valid = a.H - unit;
      auto gate_at = [&](int g) { return (r * kGates + g) * a.H + unit; };
      auto read = [&](const void* p, int64_t i) {
        return p ? load_n((const S*)p + i, valid) : vec<T>{};
      };
      vec<T> gate[kGates], extra[kGates];
      for (int g = 0; g < kGates; ++g)
        gate[g] = read(a.gates, gate_at(g)), extra[g] = read(a.grad_gates, gate_at(g));
      const vec<T> c_before = read(a.c0, at);
      const vec<T> c = updated<T>(gate[kInputGate], gate[kForgetGate], gate[kCandidate], c_before);
      const CellGradient<T> to =
          retreat<T>(read(a.grad_h, at), read(a.grad_c, at), c_before, c, gate, extra);
      for (int g = 0; g < kGates; ++g)
        store_n((S*)a.grad_preactivations + gate_at(g), to.preactivation[g], valid);
      store_n((S*)a.grad_c0 + at, to.c_before, valid);
    }
}

}  // namespace lstm_kernels::LSTM_ISA
