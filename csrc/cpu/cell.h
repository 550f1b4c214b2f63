// The LSTM cell, one vector of hidden units at a time, forward and backward.
//
//   c_t = f * c_{t-1} + i * g,   h_t = o * tanh(c_t)
//
// (Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber & Cummins 2000.) The only place
// on the CPU that states these equations; csrc/cuda/cell.cuh is its twin.
#pragma once
#include "../lstm.h"
#include "simd.h"

namespace lstm_kernels::LSTM_ISA {

// One step of a vector of cells: the activated gates, and the states after them.
template <class T>
struct Cell {
  vec<T> i, f, g, o;
  vec<T> c, h;  // h before any projection
};

// c_t
template <class T>
LSTM_INLINE vec<T> updated(vec<T> i, vec<T> f, vec<T> g, vec<T> c_before) {
  return f * c_before + i * g;
}

// gates: the pre-activations, [gate][lane].
template <class T>
LSTM_INLINE Cell<T> advance(const T* gates, vec<T> c_before) {
  constexpr int L = lanes<T>;
  Cell<T> to;
  to.i = sigmoid<T>(load(gates + kInputGate * L)), to.o = sigmoid<T>(load(gates + kOutputGate * L));
  to.f = sigmoid<T>(load(gates + kForgetGate * L));
  to.g = tanh<T>(load(gates + kCandidate * L));
  to.c = updated<T>(to.i, to.f, to.g, c_before);
  to.h = to.o * tanh<T>(to.c);
  return to;
}

// The gradients of one vector of cells.
template <class T>
struct CellGradient {
  vec<T> preactivation[kGates];
  vec<T> c_before;
};

// dh, dc: the gradients of h before any projection, and of c_t. gate: the activated gates; extra:
// gradients that reach them from elsewhere.
template <class T>
LSTM_INLINE CellGradient<T> retreat(vec<T> dh, vec<T> dc, vec<T> c_before, vec<T> c,
                                    const vec<T> (&gate)[kGates], const vec<T> (&extra)[kGates]) {
  const vec<T> i = gate[kInputGate], f = gate[kForgetGate], g = gate[kCandidate],
               o = gate[kOutputGate];
  const vec<T> squashed = tanh<T>(c);
  dc += dh * o * (T(1) - squashed * squashed);
  CellGradient<T> to;
  to.preactivation[kInputGate] = (dc * g + extra[kInputGate]) * i * (T(1) - i);
  to.preactivation[kForgetGate] = (dc * c_before + extra[kForgetGate]) * f * (T(1) - f);
  to.preactivation[kCandidate] = (dc * i + extra[kCandidate]) * (T(1) - g * g);
  to.preactivation[kOutputGate] = (dh * squashed + extra[kOutputGate]) * o * (T(1) - o);
  to.c_before = dc * f;
  return to;
}

}  // namespace lstm_kernels::LSTM_ISA
