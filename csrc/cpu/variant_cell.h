// The cell of a variant, one vector of hidden units at a time, forward and backward: peepholes,
// coupled gates, bounds, other activations, an input gate from outside, dropout of the candidate
// and zoneout (docs/variants.md has the equations). cell.h is the plain LSTM's.
//
// What a variant does is known at run time. Each question is the same for all units of a call, so
// that the branches cost little beside the activations.
#pragma once
#include "cell.h"
#include "kernels.h"

namespace lstm_kernels::LSTM_ISA {

template <class T>
LSTM_INLINE vec<T> chosen(vec<typename exp_constants<T>::bits> where, vec<T> a, vec<T> b) {
  return where ? a : b;
}
template <class T>
LSTM_INLINE vec<T> magnitude(vec<T> x) {
  return larger(-x, x);
}
// e^x - 1; e^x of x beyond the largest finite result is infinite.
template <class T>
LSTM_INLINE vec<T> exp_minus_1(vec<T> x) {
  vec<T> s, p;
  exp_parts<T>(clamp<T>(x, exp_constants<T>::min_exp, exp_constants<T>::max_exp), s, p);
  return s * p + (s - T(1));
}
// log(1 + e^x) by Newton's method on e^y = 1 + e^x, from the larger of 0 and x.
template <class T>
LSTM_INLINE vec<T> softplus(vec<T> x) {
  // With u = e^-|x|, the rest is log(1 + u), which lies between u log(2) and u.
  vec<T> s, p;
  exp_parts<T>(clamp<T>(-magnitude<T>(x), exp_constants<T>::min_exp, T(0)), s, p);
  const vec<T> u = s * (p + T(1));
  vec<T> y = u * (T(1) - u * (T(0.5) - u * T(0.19314718)));
  for (int i = 0; i < (sizeof(T) == 8 ? 4 : 2); ++i) {
    const vec<T> e = exp_minus_1<T>(y);
    y += (u - e) / (e + T(1));
  }
  return larger(vec<T>{}, x) + y;
}

// The activations that are less common than sigmoid and tanh.
template <class T>
LSTM_NOINLINE vec<T> other_activation(const cpu::Activation& a, vec<T> z) {
  const T alpha = T(a.alpha), beta = T(a.beta);
  const vec<T> zero = {};
  switch (a.kind) {
    case cpu::ActivationKind::kRelu:
      return larger(zero, z);
    case cpu::ActivationKind::kAffine:
      return alpha * z + beta;
    case cpu::ActivationKind::kLeakyRelu:
      return chosen<T>(z < zero, alpha * z, z);
    case cpu::ActivationKind::kThresholdedRelu:
      return chosen<T>(z <= zero + alpha, zero, z);
    case cpu::ActivationKind::kScaledTanh:
      return alpha * tanh<T>(beta * z);
    case cpu::ActivationKind::kHardSigmoid:
      return clamp<T>(alpha * z + beta, 0, 1);
    case cpu::ActivationKind::kElu:
      return chosen<T>(z < zero, alpha * exp_minus_1<T>(z), z);
    case cpu::ActivationKind::kSoftsign:
      return z / (T(1) + magnitude<T>(z));
    default:
      return softplus<T>(z);
  }
}
template <class T>
LSTM_INLINE vec<T> activate(const cpu::Activation& a, vec<T> z) {
  if (a.kind == cpu::ActivationKind::kSigmoid) return sigmoid<T>(z);
  if (a.kind == cpu::ActivationKind::kTanh) return tanh<T>(z);
  return other_activation<T>(a, z);
}

// The derivative of an activation, from its value y alone.
template <class T>
LSTM_NOINLINE vec<T> other_slope(const cpu::Activation& a, vec<T> y) {
  const T alpha = T(a.alpha), beta = T(a.beta);
  const vec<T> zero = {}, one = zero + T(1);
  switch (a.kind) {
    case cpu::ActivationKind::kRelu:
      return chosen<T>(y > zero, one, zero);
    case cpu::ActivationKind::kAffine:
      return zero + alpha;
    case cpu::ActivationKind::kLeakyRelu:
      return chosen<T>(y < zero, zero + alpha, one);
    case cpu::ActivationKind::kThresholdedRelu:
      return chosen<T>(y == zero, zero, one);
    case cpu::ActivationKind::kScaledTanh:
      return beta * (alpha - y * y / alpha);
    case cpu::ActivationKind::kHardSigmoid:
      return chosen<T>((y > zero) & (y < one), zero + alpha, zero);
    case cpu::ActivationKind::kElu:
      return chosen<T>(y < zero, y + alpha, one);
    case cpu::ActivationKind::kSoftsign: {
      const vec<T> rest = T(1) - magnitude<T>(y);
      return rest * rest;
    }
    default:  // softplus
      return -exp_minus_1<T>(-y);
  }
}
template <class T>
LSTM_INLINE vec<T> slope(const cpu::Activation& a, vec<T> y) {
  if (a.kind == cpu::ActivationKind::kSigmoid) return y * (T(1) - y);
  if (a.kind == cpu::ActivationKind::kTanh) return T(1) - y * y;
  return other_slope<T>(a, y);
}

// The equations of a variant, with all that is the same for the units of a layer.
template <class T>
struct VariantCell {
  const cpu::Variant& variant;
  bool clips, clips_cell;
  T clip, cell_clip, keep_cell, keep_hidden;

  explicit VariantCell(const cpu::Variant& variant)
      : variant(variant),
        clips(variant.clip > 0),
        clips_cell(variant.cell_clip > 0),
        clip(T(variant.clip)),
        cell_clip(T(variant.cell_clip)),
        keep_cell(T(variant.keep_cell)),
        keep_hidden(T(variant.keep_hidden)) {}

  // What one vector of cells reads. What a variant lacks is not read.
  struct Given {
    vec<T> c_before;
    vec<T> peephole[3];                 // of i, f, o
    vec<T> input_gate, candidate_mask;  // the latter 1 where there is no mask
    vec<T> keep_cell, keep_hidden;      // zoneout
  };

  // After a step: the gates, the cell state, and o * a_cell(c~).
  LSTM_INLINE Cell<T> advance(const T* pre, const Given& from) const {
    constexpr int L = lanes<T>;
    Cell<T> to;
    vec<T> z[kGates];
    for (int g = 0; g < kGates; ++g) z[g] = load(pre + g * L);
    if (variant.peephole) {
      z[kInputGate] += from.peephole[0] * from.c_before;
      z[kForgetGate] += from.peephole[1] * from.c_before;
    }
    if (variant.input_gate.data)
      to.i = from.input_gate;
    else if (variant.coupled != cpu::Coupled::kInput)
      to.i = activated(cpu::kOfGates, z[kInputGate]);
    if (variant.coupled == cpu::Coupled::kForget)
      to.f = T(1) - to.i;
    else
      to.f = activated(cpu::kOfGates, z[kForgetGate]);
    if (variant.coupled == cpu::Coupled::kInput) to.i = T(1) - to.f;
    to.g = activated(cpu::kOfCandidate, z[kCandidate]);
    const vec<T> updated = update(to.i, to.f, to.g, from);
    if (variant.peephole) z[kOutputGate] += from.peephole[2] * updated;
    to.o = activated(cpu::kOfGates, z[kOutputGate]);
    to.h = to.o * activate<T>(variant.activations[cpu::kOfCell], updated);
    to.c = variant.zones_out_cell() ? zoned_out(from.keep_cell, from.c_before, updated) : updated;
    return to;
  }

  static LSTM_INLINE vec<T> zoned_out(vec<T> keep, vec<T> before, vec<T> after) {
    return keep * before + (T(1) - keep) * after;
  }

  struct Gradient : CellGradient<T> {
    vec<T> input_gate;
  };
  // As `retreat` in cell.h; dh is the gradient of o * a_cell(c~).
  LSTM_INLINE Gradient retreat(vec<T> dh, vec<T> dc, vec<T> c, const Given& from,
                               const vec<T> (&gate)[kGates], const vec<T> (&extra)[kGates]) const {
    const vec<T> i = gate[kInputGate], f = gate[kForgetGate], g = gate[kCandidate],
                 o = gate[kOutputGate], zero = {};
    const vec<T> updated = variant.zones_out_cell() ? update(i, f, g, from) : c;
    const cpu::Activation& cell_activation = variant.activations[cpu::kOfCell];
    const vec<T> seen = activate<T>(cell_activation, updated);
    Gradient to;
    vec<T> direct = zero;  // of the cell state before, past the step
    if (variant.zones_out_cell()) direct = from.keep_cell * dc, dc *= T(1) - from.keep_cell;
    dc += dh * o * slope<T>(cell_activation, seen);
    const vec<T> do_ = (dh * seen + extra[kOutputGate]) * gate_slope(o);
    if (variant.peephole) dc += do_ * from.peephole[2];
    if (clips_cell) dc = chosen<T>(magnitude<T>(updated) >= zero + cell_clip, zero, dc);
    const vec<T> dropped = variant.candidate_mask.data ? g * from.candidate_mask : g;
    vec<T> di = dc * dropped + extra[kInputGate], df = dc * from.c_before + extra[kForgetGate];
    if (variant.coupled == cpu::Coupled::kInput) df -= di, di = zero;
    if (variant.coupled == cpu::Coupled::kForget) di -= df, df = zero;
    to.input_gate = di;
    di = variant.input_gate.data ? zero : di * gate_slope(i);
    df *= gate_slope(f);
    vec<T> dg = dc * i;
    if (variant.candidate_mask.data) dg *= from.candidate_mask;
    to.preactivation[kInputGate] = di;
    to.preactivation[kForgetGate] = df;
    to.preactivation[kCandidate] = (dg + extra[kCandidate]) * bounded_slope(cpu::kOfCandidate, g);
    to.preactivation[kOutputGate] = do_;
    to.c_before = direct + dc * f;
    if (variant.peephole) to.c_before += di * from.peephole[0] + df * from.peephole[1];
    return to;
  }

 private:
  LSTM_INLINE vec<T> activated(int which, vec<T> z) const {
    if (clips) z = clamp<T>(z, -clip, clip);
    return activate<T>(variant.activations[which], z);
  }
  LSTM_INLINE vec<T> gate_slope(vec<T> y) const { return bounded_slope(cpu::kOfGates, y); }
  // Zero where the bound was reached: where y is what the activation makes of the bound.
  LSTM_INLINE vec<T> bounded_slope(int which, vec<T> y) const {
    const cpu::Activation& a = variant.activations[which];
    const vec<T> of = slope<T>(a, y);
    if (!clips) return of;
    const vec<T> zero = {}, high = activate<T>(a, zero + clip), low = activate<T>(a, zero - clip);
    return chosen<T>((y == high) | (y == low), zero, of);
  }
  // c~
  LSTM_INLINE vec<T> update(vec<T> i, vec<T> f, vec<T> g, const Given& from) const {
    vec<T> c = f * from.c_before + i * (variant.candidate_mask.data ? g * from.candidate_mask : g);
    if (clips_cell) c = clamp<T>(c, -cell_clip, cell_clip);
    return c;
  }
};

// Where the numbers of one row of a step stand, of hidden unit 0; null where the variant has none.
template <class S>
struct VariantRow {
  using T = compute<S>;
  const S *peephole, *input_gate, *candidate_mask, *keep_cell, *keep_hidden;
  int64_t H;

  // Of direction d, sequence n and time t. keep_hidden is of column 0.
  VariantRow(const cpu::Variant& v, const Sizes& s, int d, int64_t t, int64_t n)
      : peephole((const S*)v.peephole + (v.peephole ? d * 3 * s.H : 0)),
        input_gate(row(v.input_gate, t, n, s.D, d, s.H)),
        candidate_mask(row(v.candidate_mask, t, n, s.D, d, s.H)),
        keep_cell(row(v.cell_zoneout, t, n, s.D, d, s.H)),
        keep_hidden(row(v.hidden_zoneout, t, n, s.D, d, s.P)),
        H(s.H) {}

  static LSTM_INLINE const S* row(const cpu::StepArray& a, int64_t t, int64_t n, int64_t D,
                                  int64_t d, int64_t F) {
    return a.data ? (const S*)a.data + t * a.step + (n * D + d) * F : nullptr;
  }

  LSTM_INLINE typename VariantCell<T>::Given at(const VariantCell<T>& cell, int64_t unit,
                                                int64_t valid) const {
    typename VariantCell<T>::Given to = {};
    if (peephole)
      for (int k = 0; k < 3; ++k) to.peephole[k] = load_n(peephole + k * H + unit, valid);
    if (input_gate) to.input_gate = load_n(input_gate + unit, valid);
    if (candidate_mask) to.candidate_mask = load_n(candidate_mask + unit, valid);
    to.keep_cell = keep_cell ? load_n(keep_cell + unit, valid) : vec<T>{} + cell.keep_cell;
    return to;
  }
  LSTM_INLINE vec<T> keeps_hidden(const VariantCell<T>& cell, int64_t column, int64_t valid) const {
    return keep_hidden ? load_n(keep_hidden + column, valid) : vec<T>{} + cell.keep_hidden;
  }
};

}  // namespace lstm_kernels::LSTM_ISA
