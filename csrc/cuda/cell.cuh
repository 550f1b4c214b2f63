// The LSTM cell and its gradient, for one hidden unit: the only place where CUDA states them.
//
//   i, f, o = sigmoid(a_i, a_f, a_o)   g = tanh(a_g)   c = f * c_prev + i * g   h = o * tanh(c)
//
// (Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber & Cummins 2000.) A is float or
// double; a is the preactivation. NaN and infinities go through as IEEE arithmetic takes them.
#pragma once
#include "../lstm.h"
#include "number.cuh"

namespace lstm_kernels::cuda {

DEV float exponential(float x) { return expf(x); }
DEV double exponential(double x) { return exp(x); }
DEV float hyperbolic_tangent(float x) { return tanhf(x); }
DEV double hyperbolic_tangent(double x) { return tanh(x); }

// Exact: to a few units in the last place of A.
struct Exact {
  template <class A>
  DEV static A sigmoid(A x) {
    return A(1) / (A(1) + exponential(-x));
  }
  template <class A>
  DEV static A tanh(A x) {
    return hyperbolic_tangent(x);
  }
};
// To about 1e-7, without a branch, so that the instructions of several cells and gates overlap. For
// sums of products of TF32 or 16-bit numbers, which are a thousand times less exact.
struct Fast {
  DEV static float sigmoid(float x) {
    return reciprocal(1.f + exponential_of_2(-1.442695041f * x));
  }
  DEV static float tanh(float x) { return 2.f * sigmoid(2.f * x) - 1.f; }
};

// As Fast, but tanh keeps its digits near zero too: for sums as exact as float32's.
struct FastToFloat : Fast {
  DEV static float tanh(float x) {
    const float x2 = x * x;  // the series, to x^9: below 0.25 to 1e-7 of itself
    const float near =
        x + x * x2 * (-0.33333333f + x2 * (0.13333333f + x2 * (-0.05396825f + x2 * 0.02186949f)));
    return fabsf(x) < 0.25f ? near : Fast::tanh(x);
  }
};

template <class A>
struct Cell {
  A gate[kGates];  // activated
  A c, h;
};

// c, from the activated gates.
template <class A>
DEV A updated(const A (&gate)[kGates], A c_prev) {
  return gate[kForgetGate] * c_prev + gate[kInputGate] * gate[kCandidate];
}

template <class Activation = Exact, class A>
DEV Cell<A> advance(const A (&preactivation)[kGates], A c_prev) {
  Cell<A> cell;
  cell.gate[kInputGate] = Activation::sigmoid(preactivation[kInputGate]);
  cell.gate[kForgetGate] = Activation::sigmoid(preactivation[kForgetGate]);
  cell.gate[kCandidate] = Activation::tanh(preactivation[kCandidate]);
  cell.gate[kOutputGate] = Activation::sigmoid(preactivation[kOutputGate]);
  cell.c = updated(cell.gate, c_prev);
  cell.h = cell.gate[kOutputGate] * Activation::tanh(cell.c);
  return cell;
}

template <class A>
struct CellGradient {
  A preactivation[kGates];
  A c_prev;
};

// From the gradients of h, of c (from later steps and from outside) and of the activated gates.
template <class Activation = Exact, class A>
DEV CellGradient<A> retreat(const A (&gate)[kGates], A c, A c_prev, A grad_h, A grad_c,
                            const A (&grad_gate)[kGates]) {
  const A i = gate[kInputGate], f = gate[kForgetGate], g = gate[kCandidate], o = gate[kOutputGate];
  const A tanh_c = Activation::tanh(c);
  const A dc = grad_c + grad_h * o * (A(1) - tanh_c * tanh_c);
  CellGradient<A> grad;
  grad.preactivation[kInputGate] = (dc * g + grad_gate[kInputGate]) * i * (A(1) - i);
  grad.preactivation[kForgetGate] = (dc * c_prev + grad_gate[kForgetGate]) * f * (A(1) - f);
  grad.preactivation[kCandidate] = (dc * i + grad_gate[kCandidate]) * (A(1) - g * g);
  grad.preactivation[kOutputGate] = (grad_h * tanh_c + grad_gate[kOutputGate]) * o * (A(1) - o);
  grad.c_prev = dc * f;
  return grad;
}

}  // namespace lstm_kernels::cuda
