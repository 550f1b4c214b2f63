// The cell of a variant and its gradient, for one hidden unit (docs/variants.md has the equations).
// cell.cuh is the plain LSTM's.
//
// What a variant does is known at run time. Each question has the same answer for all units, so
// that no warp diverges.
#pragma once
#include "../variant.h"
#include "cell.cuh"

namespace lstm_kernels::cuda {

DEV float exponential_minus_1(float x) { return expm1f(x); }
DEV double exponential_minus_1(double x) { return expm1(x); }
DEV float logarithm_of_1_plus(float x) { return log1pf(x); }
DEV double logarithm_of_1_plus(double x) { return log1p(x); }

// NaN stays NaN.
template <class A>
DEV A bounded(A x, A low, A high) {
  return x < low ? low : x > high ? high : x;
}
template <class A>
DEV A magnitude(A x) {
  return x < A(0) ? -x : x;
}

// The activations, as ONNX defines them.
template <class A>
DEV_CALLED A activate(ActivationKind kind, A alpha, A beta, A z) {
  switch (kind) {
    case ActivationKind::kSigmoid:
      return Exact::sigmoid(z);
    case ActivationKind::kTanh:
      return Exact::tanh(z);
    case ActivationKind::kRelu:
      return z < A(0) ? A(0) : z;
    case ActivationKind::kAffine:
      return alpha * z + beta;
    case ActivationKind::kLeakyRelu:
      return z < A(0) ? alpha * z : z;
    case ActivationKind::kThresholdedRelu:
      return z > alpha ? z : A(0);
    case ActivationKind::kScaledTanh:
      return alpha * Exact::tanh(beta * z);
    case ActivationKind::kHardSigmoid:
      return bounded(alpha * z + beta, A(0), A(1));
    case ActivationKind::kElu:
      return z < A(0) ? alpha * exponential_minus_1(z) : z;
    case ActivationKind::kSoftsign:
      return z / (A(1) + magnitude(z));
    default:  // softplus
      return (z < A(0) ? A(0) : z) + logarithm_of_1_plus(exponential(-magnitude(z)));
  }
}

// The derivative of an activation, from its value y alone.
template <class A>
DEV_CALLED A slope(ActivationKind kind, A alpha, A beta, A y) {
  switch (kind) {
    case ActivationKind::kSigmoid:
      return y * (A(1) - y);
    case ActivationKind::kTanh:
      return A(1) - y * y;
    case ActivationKind::kRelu:
      return y > A(0) ? A(1) : A(0);
    case ActivationKind::kAffine:
      return alpha;
    case ActivationKind::kLeakyRelu:
      return y < A(0) ? alpha : A(1);
    case ActivationKind::kThresholdedRelu:
      return y == A(0) ? A(0) : A(1);
    case ActivationKind::kScaledTanh:
      return beta * (alpha - y * y / alpha);
    case ActivationKind::kHardSigmoid:
      return y > A(0) && y < A(1) ? alpha : A(0);
    case ActivationKind::kElu:
      return y < A(0) ? y + alpha : A(1);
    case ActivationKind::kSoftsign: {
      const A rest = A(1) - magnitude(y);
      return rest * rest;
    }
    default:  // softplus
      return -exponential_minus_1(-y);
  }
}

template <class A>
DEV A zoned_out(A keep, A before, A after) {
  return keep * before + (A(1) - keep) * after;
}

// What a unit reads at a step. What a variant lacks is not read.
template <class A>
struct VariantGiven {
  A c_before;
  A peephole[3];                 // of i, f, o
  A input_gate, candidate_mask;  // of g
  A keep_cell;                   // zoneout
};

// Functions: sigmoid and tanh where no bound asks for exact ones. A gradient finds by its value
// what a bound has cut off, and that value may have been computed by another kernel. Numbers: where
// those of the variant are, itself or VariantFloats.
template <class A, class Functions = Exact, class Numbers = Variant>
struct VariantCell {
  using Given = VariantGiven<A>;
  const Variant& variant;
  const Numbers& numbers;

  // The first half of a step: i, f and g of `to`, and returned c~. z: the pre-activations.
  DEV A begin(Cell<A>& to, const A (&z)[kGates], const Given& from) const {
    A z_i = z[kInputGate], z_f = z[kForgetGate], i = A(0), f = A(0);
    if (variant.peephole) {
      z_i += from.peephole[0] * from.c_before;
      z_f += from.peephole[1] * from.c_before;
    }
    if (variant.input_gate.data)
      i = from.input_gate;
    else if (variant.coupled != Coupled::kInput)
      i = activated(kOfGates, z_i);
    f = variant.coupled == Coupled::kForget ? A(1) - i : activated(kOfGates, z_f);
    if (variant.coupled == Coupled::kInput) i = A(1) - f;
    to.gate[kInputGate] = i, to.gate[kForgetGate] = f;
    to.gate[kCandidate] = activated(kOfCandidate, z[kCandidate]);
    return update(to.gate, from);
  }
  // The second half: o, the cell state after the step and o * a_cell(seen).
  DEV void finish(Cell<A>& to, A z_o, A updated, A seen, const Given& from) const {
    if (variant.peephole) z_o += from.peephole[2] * updated;
    to.gate[kOutputGate] = activated(kOfGates, z_o);
    to.h = to.gate[kOutputGate] * squashed(seen);
    to.c = updated;
    if (zones_out_cell()) to.c = zoned_out(from.keep_cell, from.c_before, updated);
  }

  // c~, from gates and the state before.
  DEV A update(const A (&gate)[kGates], const Given& from) const {
    const A c = gate[kForgetGate] * from.c_before + gate[kInputGate] * dropped(gate, from);
    if (!(numbers.cell_clip > 0)) return c;
    return bounded(c, A(-numbers.cell_clip), A(numbers.cell_clip));
  }
  DEV A squashed(A c) const { return activated<Functions>(kOfCell, c); }

  // The first half of a step's gradient: those of c~ past a_cell, of what a_cell was given, and of
  // o before its activation. dh: of o * a_cell; squashed: what a_cell gave.
  struct AtOutput {
    A updated, seen, o;
  };
  DEV AtOutput retreat_output(A dh, A dc, A squashed, const Given& from, const A (&gate)[kGates],
                              const A (&extra)[kGates]) const {
    const A o = gate[kOutputGate];
    AtOutput to;
    to.o = (dh * squashed + extra[kOutputGate]) * bounded_slope(kOfGates, o);
    to.seen = dh * o * slope_of(kOfCell, squashed);
    to.updated = zones_out_cell() ? dc * (A(1) - from.keep_cell) : dc;
    if (variant.peephole) to.updated += to.o * from.peephole[2];
    return to;
  }
  // The second half, from the whole gradient of c~. dc: of the cell state after the step.
  struct Gradient : CellGradient<A> {
    A input_gate;
  };
  DEV Gradient retreat_update(A of_updated, A updated, A dc, A of_output, const Given& from,
                              const A (&gate)[kGates], const A (&extra)[kGates]) const {
    const A i = gate[kInputGate], f = gate[kForgetGate], g = gate[kCandidate];
    if (numbers.cell_clip > 0 && magnitude(updated) >= A(numbers.cell_clip)) of_updated = A(0);
    A di = of_updated * dropped(gate, from) + extra[kInputGate];
    A df = of_updated * from.c_before + extra[kForgetGate];
    if (variant.coupled == Coupled::kInput) df -= di, di = A(0);
    if (variant.coupled == Coupled::kForget) di -= df, df = A(0);
    Gradient to;
    to.input_gate = di;
    di = variant.input_gate.data ? A(0) : di * bounded_slope(kOfGates, i);
    df *= bounded_slope(kOfGates, f);
    A dg = of_updated * i;
    if (variant.candidate_mask.data) dg *= from.candidate_mask;
    to.preactivation[kInputGate] = di;
    to.preactivation[kForgetGate] = df;
    to.preactivation[kCandidate] = (dg + extra[kCandidate]) * bounded_slope(kOfCandidate, g);
    to.preactivation[kOutputGate] = of_output;
    to.c_prev = of_updated * f;
    if (zones_out_cell()) to.c_prev += from.keep_cell * dc;
    if (variant.peephole) to.c_prev += di * from.peephole[0] + df * from.peephole[1];
    return to;
  }

 private:
  DEV A dropped(const A (&gate)[kGates], const Given& from) const {
    return variant.candidate_mask.data ? gate[kCandidate] * from.candidate_mask : gate[kCandidate];
  }
  DEV bool zones_out_cell() const { return variant.cell_zoneout.data || numbers.keep_cell > 0; }
  DEV A activated(ActivationUse use, A z) const {
    if (numbers.clip > 0)
      return activated<Exact>(use, bounded(z, A(-numbers.clip), A(numbers.clip)));
    return activated<Functions>(use, z);
  }
  template <class F>
  DEV A activated(ActivationUse use, A z) const {
    const auto& a = numbers.activations[use];
    if constexpr (!std::is_same_v<F, Exact>) {
      if (a.kind == ActivationKind::kSigmoid) return F::sigmoid(z);
      if (a.kind == ActivationKind::kTanh) return F::tanh(z);
    }
    return activate(a.kind, A(a.alpha), A(a.beta), z);
  }
  DEV A slope_of(ActivationUse use, A y) const {
    const auto& a = numbers.activations[use];
    if constexpr (!std::is_same_v<Functions, Exact>) {
      if (a.kind == ActivationKind::kSigmoid) return y * (A(1) - y);
      if (a.kind == ActivationKind::kTanh) return A(1) - y * y;
    }
    return slope(a.kind, A(a.alpha), A(a.beta), y);
  }
  // Zero where the bound was reached: where y is what the activation makes of the bound.
  DEV A bounded_slope(ActivationUse use, A y) const {
    if (numbers.clip > 0 && (y == activated<Exact>(use, A(numbers.clip)) ||
                             y == activated<Exact>(use, A(-numbers.clip))))
      return A(0);
    return slope_of(use, y);
  }
};

}  // namespace lstm_kernels::cuda
