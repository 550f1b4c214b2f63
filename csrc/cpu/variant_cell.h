// The cell of a variant, one vector of hidden units at a time, forward and backward: peepholes,
// coupled gates, bounds, other activations, an input gate from outside, dropout of the candidate
// and zoneout (docs/variants.md has the equations). cell.h is the plain LSTM's.
//
// What a variant does is known at run time. Each question is the same for all units of a call, so
// that the branches cost little compared with the activations.
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
LSTM_NOINLINE vec<T> other_activation(const Activation& a, vec<T> z) {
  const T alpha = T(a.alpha), beta = T(a.beta);
  const vec<T> zero = {};
  switch (a.kind) {
    case ActivationKind::kRelu:
      return larger(zero, z);
    case ActivationKind::kAffine:
      return alpha * z + beta;
    case ActivationKind::kLeakyRelu:
      return chosen<T>(z < zero, alpha * z, z);
    case ActivationKind::kThresholdedRelu:
      return chosen<T>(z <= zero + alpha, zero, z);
    case ActivationKind::kScaledTanh:
      return alpha * tanh<T>(beta * z);
    case ActivationKind::kHardSigmoid:
      return clamp<T>(alpha * z + beta, 0, 1);
    case ActivationKind::kElu:
      return chosen<T>(z < zero, alpha * exp_minus_1<T>(z), z);
    case ActivationKind::kSoftsign:
      return z / (T(1) + magnitude<T>(z));
    default:
      return softplus<T>(z);
  }
}
template <class T>
LSTM_INLINE vec<T> activate(const Activation& a, vec<T> z) {
  if (a.kind == ActivationKind::kSigmoid) return sigmoid<T>(z);
  if (a.kind == ActivationKind::kTanh) return tanh<T>(z);
  return other_activation<T>(a, z);
}

// The derivative of an activation, from its value y alone.
template <class T>
LSTM_NOINLINE vec<T> other_slope(const Activation& a, vec<T> y) {
  const T alpha = T(a.alpha), beta = T(a.beta);
  const vec<T> zero = {}, one = zero + T(1);
  switch (a.kind) {
    case ActivationKind::kRelu:
      return chosen<T>(y > zero, one, zero);
    case ActivationKind::kAffine:
      return zero + alpha;
    case ActivationKind::kLeakyRelu:
      return chosen<T>(y < zero, zero + alpha, one);
    case ActivationKind::kThresholdedRelu:
      return chosen<T>(y == zero, zero, one);
    case ActivationKind::kScaledTanh:
      return beta * (alpha - y * y / alpha);
    case ActivationKind::kHardSigmoid:
      return chosen<T>((y > zero) & (y < one), zero + alpha, zero);
    case ActivationKind::kElu:
      return chosen<T>(y < zero, y + alpha, one);
    case ActivationKind::kSoftsign: {
      const vec<T> rest = T(1) - magnitude<T>(y);
      return rest * rest;
    }
    default:  // softplus
      return -exp_minus_1<T>(-y);
  }
}
template <class T>
LSTM_INLINE vec<T> slope(const Activation& a, vec<T> y) {
  if (a.kind == ActivationKind::kSigmoid) return y * (T(1) - y);
  if (a.kind == ActivationKind::kTanh) return T(1) - y * y;
  return other_slope<T>(a, y);
}

// What one vector of cells reads. What a variant lacks is not read.
template <class T>
struct VariantGiven {
  vec<T> c_before;
  vec<T> peephole[3];                 // of i, f, o
  vec<T> input_gate, candidate_mask;  // of g
  vec<T> keep_cell;                   // zoneout
};

template <class T>
LSTM_INLINE vec<T> zoned_out(vec<T> keep, vec<T> before, vec<T> after) {
  return keep * before + (T(1) - keep) * after;
}

// The equations of a variant, with all that is the same for the units of a layer. kCommon: the
// activations are the plain LSTM's, which the compiler then knows.
template <class T, bool kCommon>
struct VariantCell {
  using Given = VariantGiven<T>;
  const Variant& variant;
  const bool clips, clips_cell;
  const T clip, cell_clip;
  T at_bounds[2][2];  // what the activations of gates and candidate make of -clip and clip

  // slopes: a backward pass asks for slopes.
  VariantCell(const Variant& variant, bool slopes)
      : variant(variant),
        clips(variant.clip > 0),
        clips_cell(variant.cell_clip > 0),
        clip(T(variant.clip)),
        cell_clip(T(variant.cell_clip)) {
    if (clips && slopes) find_bounds();
  }

  // After a step: the gates, the cell state, and o * a_cell(c~). pre: [gate][lane].
  LSTM_INLINE Cell<T> advance(const T* pre, const Given& from) const {
    Cell<T> to;
    const vec<T> updated = begin(to, pre, from);
    finish(to, load(pre + kOutputGate * lanes<T>), updated, updated, from);
    return to;
  }
  // Its first half: i, f, g, and returned c~.
  LSTM_INLINE vec<T> begin(Cell<T>& to, const T* pre, const Given& from) const {
    constexpr int L = lanes<T>;
    vec<T> z_i = load(pre + kInputGate * L), z_f = load(pre + kForgetGate * L);
    if (variant.peephole) {
      z_i += from.peephole[0] * from.c_before;
      z_f += from.peephole[1] * from.c_before;
    }
    if (variant.input_gate.data)
      to.i = from.input_gate;
    else if (variant.coupled != Coupled::kInput)
      to.i = activated(kOfGates, z_i);
    if (variant.coupled == Coupled::kForget)
      to.f = T(1) - to.i;
    else
      to.f = activated(kOfGates, z_f);
    if (variant.coupled == Coupled::kInput) to.i = T(1) - to.f;
    to.g = activated(kOfCandidate, load(pre + kCandidate * L));
    return update(to.i, to.f, to.g, from);
  }
  // Its second half: o, the cell state and o * a_cell(seen).
  LSTM_INLINE void finish(Cell<T>& to, vec<T> z_o, vec<T> updated, vec<T> seen,
                          const Given& from) const {
    if (variant.peephole) z_o += from.peephole[2] * updated;
    to.o = activated(kOfGates, z_o);
    to.h = to.o * squashed(seen);
    to.c = updated;
    if (variant.zones_out_cell()) to.c = zoned_out<T>(from.keep_cell, from.c_before, updated);
  }

  // c~, from gates and the state before.
  LSTM_INLINE vec<T> update(vec<T> i, vec<T> f, vec<T> g, const Given& from) const {
    vec<T> c = f * from.c_before + i * (variant.candidate_mask.data ? g * from.candidate_mask : g);
    if (clips_cell) c = clamp<T>(c, -cell_clip, cell_clip);
    return c;
  }
  LSTM_INLINE vec<T> squashed(vec<T> c) const {
    if constexpr (kCommon) return tanh<T>(c);
    return activate<T>(variant.activations[kOfCell], c);
  }

  struct Gradient : CellGradient<T> {
    vec<T> input_gate;
  };
  // c~ of a step, from the cell state after it.
  LSTM_INLINE vec<T> updated(vec<T> c, const Given& from, const vec<T> (&gate)[kGates]) const {
    if (!variant.zones_out_cell()) return c;
    return update(gate[kInputGate], gate[kForgetGate], gate[kCandidate], from);
  }
  // As `retreat` in cell.h; dh is the gradient of o * a_cell(c~).
  LSTM_INLINE Gradient retreat(vec<T> dh, vec<T> dc, vec<T> updated, const Given& from,
                               const vec<T> (&gate)[kGates], const vec<T> (&extra)[kGates]) const {
    const AtOutput at = retreat_output(dh, dc, squashed(updated), from, gate, extra);
    return retreat_update(at.updated + at.seen, updated, dc, at.o, from, gate, extra);
  }
  // Its first half: the gradients of c~ past a_cell, of what a_cell was given, and of o before its
  // activation. squashed: what a_cell gave.
  struct AtOutput {
    vec<T> updated, seen, o;
  };
  LSTM_INLINE AtOutput retreat_output(vec<T> dh, vec<T> dc, vec<T> squashed, const Given& from,
                                      const vec<T> (&gate)[kGates],
                                      const vec<T> (&extra)[kGates]) const {
    const vec<T> o = gate[kOutputGate];
    AtOutput to;
    to.o = (dh * squashed + extra[kOutputGate]) * gate_slope(o);
    to.seen = dh * o * slope_of(kOfCell, squashed);
    to.updated = variant.zones_out_cell() ? dc * (T(1) - from.keep_cell) : dc;
    if (variant.peephole) to.updated += to.o * from.peephole[2];
    return to;
  }
  // Its second half, from the whole gradient of c~. dc: of the cell state after the step.
  LSTM_INLINE Gradient retreat_update(vec<T> of_updated, vec<T> updated, vec<T> dc, vec<T> do_,
                                      const Given& from, const vec<T> (&gate)[kGates],
                                      const vec<T> (&extra)[kGates]) const {
    const vec<T> i = gate[kInputGate], f = gate[kForgetGate], g = gate[kCandidate], zero = {};
    if (clips_cell)
      of_updated = chosen<T>(magnitude<T>(updated) >= zero + cell_clip, zero, of_updated);
    const vec<T> dropped = variant.candidate_mask.data ? g * from.candidate_mask : g;
    vec<T> di = of_updated * dropped + extra[kInputGate];
    vec<T> df = of_updated * from.c_before + extra[kForgetGate];
    if (variant.coupled == Coupled::kInput) df -= di, di = zero;
    if (variant.coupled == Coupled::kForget) di -= df, df = zero;
    Gradient to;
    to.input_gate = di;
    di = variant.input_gate.data ? zero : di * gate_slope(i);
    df *= gate_slope(f);
    vec<T> dg = of_updated * i;
    if (variant.candidate_mask.data) dg *= from.candidate_mask;
    to.preactivation[kInputGate] = di;
    to.preactivation[kForgetGate] = df;
    to.preactivation[kCandidate] = (dg + extra[kCandidate]) * bounded_slope(kOfCandidate, g);
    to.preactivation[kOutputGate] = do_;
    to.c_before = of_updated * f;
    if (variant.zones_out_cell()) to.c_before += from.keep_cell * dc;
    if (variant.peephole) to.c_before += di * from.peephole[0] + df * from.peephole[1];
    return to;
  }

 private:
  LSTM_INLINE vec<T> activated(ActivationUse use, vec<T> z) const {
    if (clips) z = clamp<T>(z, -clip, clip);
    if constexpr (kCommon) return use == kOfGates ? sigmoid<T>(z) : tanh<T>(z);
    return activate<T>(variant.activations[use], z);
  }
  LSTM_INLINE vec<T> slope_of(ActivationUse use, vec<T> y) const {
    if constexpr (kCommon) return use == kOfGates ? y * (T(1) - y) : T(1) - y * y;
    return slope<T>(variant.activations[use], y);
  }
  LSTM_INLINE vec<T> gate_slope(vec<T> y) const { return bounded_slope(kOfGates, y); }
  // Zero where a bound was reached.
  LSTM_INLINE vec<T> bounded_slope(ActivationUse use, vec<T> y) const {
    const vec<T> of = slope_of(use, y), zero = {};
    if (!clips) return of;
    return chosen<T>((y == zero + at_bounds[use][0]) | (y == zero + at_bounds[use][1]), zero, of);
  }
  LSTM_NOINLINE void find_bounds() {
    const vec<T> zero = {};
    const ActivationUse uses[] = {kOfGates, kOfCandidate};
    for (const ActivationUse use : uses) {
      at_bounds[use][0] = activated(use, zero - clip)[0];
      at_bounds[use][1] = activated(use, zero + clip)[0];
    }
  }
};

// Calls f with the VariantCell that serves the variant.
template <class T, class F>
LSTM_INLINE void with_cell(const Variant& v, bool slopes, F f) {
  const bool common = v.activations[kOfGates].kind == ActivationKind::kSigmoid &&
                      v.activations[kOfCandidate].kind == ActivationKind::kTanh &&
                      v.activations[kOfCell].kind == ActivationKind::kTanh;
  if (common)
    f(VariantCell<T, true>(v, slopes));
  else
    f(VariantCell<T, false>(v, slopes));
}

// Where the numbers of one row of a step stand, of hidden unit 0; null where the variant has none.
template <class S>
struct VariantRow {
  using T = compute<S>;
  const S *peephole, *input_gate, *candidate_mask, *keep_cell, *keep_hidden;
  T cell_probability, hidden_probability;  // of zoneout, where there is no mask
  int64_t H;

  // Of direction d, sequence n and time t. keep_hidden is of column 0.
  VariantRow(const Variant& v, const Sizes& s, int d, int64_t t, int64_t n)
      : peephole((const S*)v.peephole + (v.peephole ? d * 3 * s.H : 0)),
        input_gate(row(v.input_gate, t, n, s.D, d, s.H)),
        candidate_mask(row(v.candidate_mask, t, n, s.D, d, s.H)),
        keep_cell(row(v.cell_zoneout, t, n, s.D, d, s.H)),
        keep_hidden(row(v.hidden_zoneout, t, n, s.D, d, s.P)),
        cell_probability(T(v.keep_cell)),
        hidden_probability(T(v.keep_hidden)),
        H(s.H) {}

  static LSTM_INLINE const S* row(const StepArray& a, int64_t t, int64_t n, int64_t D, int64_t d,
                                  int64_t F) {
    return a.data ? (const S*)a.data + t * a.step + (n * D + d) * F : nullptr;
  }

  // kWhole: the vector ends before the row does.
  template <bool kWhole>
  LSTM_INLINE VariantGiven<T> at(int64_t unit) const {
    auto read = [&](const S* p) {
      if constexpr (kWhole) return load(p + unit);
      return load_n(p + unit, H - unit);
    };
    const vec<T> none = {};
    // Each by itself: zeroing all at once became an instruction that takes 40 cycles.
    VariantGiven<T> to;
    to.c_before = none;
    LSTM_UNROLL for (int k = 0; k < 3; ++k) to.peephole[k] =
        peephole ? read(peephole + k * H) : none;
    to.input_gate = input_gate ? read(input_gate) : none;
    to.candidate_mask = candidate_mask ? read(candidate_mask) : none;
    to.keep_cell = keep_cell ? read(keep_cell) : none + cell_probability;
    return to;
  }
  LSTM_INLINE vec<T> keeps_hidden(int64_t column, int64_t valid) const {
    return keep_hidden ? load_n(keep_hidden + column, valid) : vec<T>{} + hidden_probability;
  }
};

}  // namespace lstm_kernels::LSTM_ISA
