// The gradients of a row's cells where a step has a layer norm: norm_forward.h backwards.
//
// A norm's gradient needs two sums over its whole row, so that the gradients of the recurrent
// product follow when all cells of the row have theirs. The moments are computed again, from the
// products and from the gates that the forward pass returned: a row that is in L1 is read faster
// than they would be kept. Bound: some twenty operations for each number of a row, after those of
// the product.
#pragma once
#include "layer_norm.h"
#include "parameter_sums.h"
#include "variant_cell.h"

namespace lstm_kernels::LSTM_ISA {

// Memory of a part: rows of `stride` numbers.
template <class T>
struct NormRows {
  enum Row : int { kUpdated, kOfNorm, kPastNorm, kOfOutput, kOfGates, kRows = kOfGates + kGates };

  T* data;
  int64_t stride;

  LSTM_INLINE T* of(int row) const { return data + row * stride; }
};

// A row of products before their norm, and its gains, (4, H) each.
template <class S>
struct NormedGates {
  const S *product, *gain;
  int64_t H;
  compute<S> eps;

  LSTM_INLINE vec<compute<S>> read(const S* row, int64_t unit, int gate) const {
    return load_n(row + gate * H + unit, H - unit);
  }
};
// From the gradients of the gates' pre-activations in `rows` to those of the product, which go
// to `to`, and to `kept` unless that is null; what they give to those of the gains is added up.
template <class S, class Kept>
LSTM_NOINLINE void through_gates(NormRows<compute<S>> rows, ParameterSums<compute<S>> sums,
                                 NormedGates<S> of, int gain_sum, Kept* kept, S* to) {
  using T = compute<S>;
  auto x = [&](int64_t unit, int g) { return of.read(of.product, unit, g); };
  auto dz = [&](int64_t unit, int g) { return load(rows.of(rows.kOfGates + g) + unit); };
  auto scaled = [&](int64_t unit, int g) { return dz(unit, g) * of.read(of.gain, unit, g); };
  const auto norm = NormGradient<T>::template made<kGates>(
      of.H, moments<T, kGates>(of.H, of.eps, x), x, [&](int64_t unit, int g, vec<T> normalised) {
        sums.add(gain_sum + g, unit, dz(unit, g) * normalised);
        return scaled(unit, g);
      });
  for (int64_t unit = 0; unit < of.H; unit += lanes<T>)
    LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
      const vec<T> v = norm.argument(norm.of.normalised(x(unit, g)), scaled(unit, g));
      if (kept) store_n(kept + g * of.H + unit, v, of.H - unit);
      store_n(to + g * of.H + unit, v, of.H - unit);
    }
}

// Part: the BackwardPart whose row it is.
template <class Part, class VariantCell>
struct NormBackward {
  using S = typename Part::Stored;
  using T = compute<S>;
  using Rows = NormRows<T>;
  static constexpr int L = lanes<T>;

  const Part& part;
  const VariantCell& cell;
  const Variant& variant;
  const int64_t H;
  const Rows rows;
  const ParameterSums<T> sums;
  const StepNorms<S> norms;

  NormBackward(const Part& part, const VariantCell& cell)
      : part(part),
        cell(cell),
        variant(part.call.variant),
        H(part.size.H),
        rows(part.work.norm),
        sums(part.work.sums),
        norms(variant, H, part.direction, rows.of(Rows::kUpdated)) {}

  // Row j of the n of step s, whose gradient of o * a_cell(c~) is in work.sum.
  LSTM_NOINLINE void row(int64_t s, int64_t j, int64_t n, bool goes_on) const {
    const int64_t rank = part.share.rank(j), t = part.steps.time(s), at = part.at(t, rank);
    const typename Part::CellRow r = part.cell_row(s, rank, goes_on);
    const VariantRow<S> given(variant, part.size, part.direction, t, part.steps.sequence(rank));
    update_cells(r, given);
    const Moments<T> of_cell = norms.cell_moments();
    retreat_outputs(r, given, of_cell, j, n);
    retreat_updates(r, given, of_cell, at);
    if (variant.norm_gates) through_gate_norm(r, at);
  }

 private:
  // What the forward pass and the steps after this one say about the cells from `unit` on.
  struct Unit {
    const int64_t unit, valid, H;
    vec<T> gate[kGates], extra[kGates] = {}, dc;
    VariantGiven<T> given;

    LSTM_INLINE Unit(const typename Part::CellRow& r, const VariantRow<S>& row, int64_t unit,
                     int64_t H)
        : unit(unit), valid(H - unit), H(H), given(row.template at<false>(unit)) {
      LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
        gate[g] = read(r.gates + g * H);
        if (r.grad_gates) extra[g] = read(r.grad_gates + g * H);
      }
      dc = load(r.grad_c + unit) + read(r.grad_cell);
      given.c_before = read(r.c_before);
    }
    LSTM_INLINE vec<T> read(const S* row) const { return load_n(row + unit, valid); }
  };

  // c~ before its norm.
  LSTM_NOINLINE void update_cells(const typename Part::CellRow& r,
                                  const VariantRow<S>& given) const {
    for (int64_t unit = 0; unit < H; unit += L) {
      const Unit of(r, given, unit, H);
      store(norms.updated + unit,
            cell.update(of.gate[kInputGate], of.gate[kForgetGate], of.gate[kCandidate], of.given));
    }
  }
  LSTM_INLINE vec<T> updated(int64_t unit) const { return load(norms.updated + unit); }

  // The gradients of o, and of c~ after its norm and past it.
  LSTM_NOINLINE void retreat_outputs(const typename Part::CellRow& r, const VariantRow<S>& given,
                                     const Moments<T>& of_cell, int64_t j, int64_t n) const {
    for (int64_t unit = 0; unit < H; unit += L) {
      const Unit of(r, given, unit, H);
      const vec<T> seen = norms.normalised_cell(of_cell, unit);
      auto at = cell.retreat_output(part.unprojected_gradient(unit, j, n), of.dc,
                                    cell.squashed(seen), of.given, of.gate, of.extra);
      if (!variant.norm_cell) at.updated += at.seen;
      if (variant.carries_norm) at.seen += at.updated, at.updated = vec<T>{};
      store(rows.of(Rows::kPastNorm) + unit, at.updated);
      store(rows.of(Rows::kOfOutput) + unit, at.o);
      if (!variant.norm_cell) continue;
      sums.add(kOfCellGain, unit, at.seen * of_cell.normalised(updated(unit)));
      sums.add(kOfCellBias, unit, at.seen);
      store(rows.of(Rows::kOfNorm) + unit, at.seen * of.read(norms.cell_gain));
    }
  }

  // Those of everything before c~.
  LSTM_NOINLINE void retreat_updates(const typename Part::CellRow& r, const VariantRow<S>& given,
                                     const Moments<T>& of_cell, int64_t at) const {
    S* const input_gate =
        part.call.grad_input_gate ? (S*)part.call.grad_input_gate + at * H : nullptr;
    NormGradient<T> norm{};
    if (variant.norm_cell)
      norm = NormGradient<T>::template made<1>(
          H, of_cell, [&](int64_t unit, int) { return updated(unit); },
          [&](int64_t unit, int, vec<T>) { return load(rows.of(Rows::kOfNorm) + unit); });
    for (int64_t unit = 0; unit < H; unit += L) {
      const Unit of(r, given, unit, H);
      vec<T> du = load(rows.of(Rows::kPastNorm) + unit);
      if (variant.norm_cell)
        du += norm.argument(of_cell.normalised(updated(unit)), load(rows.of(Rows::kOfNorm) + unit));
      const auto to =
          cell.retreat_update(du, updated(unit), of.dc, load(rows.of(Rows::kOfOutput) + unit),
                              of.given, of.gate, of.extra);
      store(r.to_c + unit, to.c_before);
      if (input_gate) store_n(input_gate + unit, to.input_gate, of.valid);
      if (variant.peephole)
        sums.add_peepholes(
            unit, to.preactivation, of.given.c_before,
            variant.carries_norm ? norms.normalised_cell(of_cell, unit) : updated(unit));
      LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
        const vec<T> dz = to.preactivation[g];
        sums.add(kOfBias + g, unit, dz);
        if (variant.norm_gates)
          store(rows.of(Rows::kOfGates + g) + unit, dz);
        else
          keep(r, g, unit, dz);
      }
    }
  }

  // From the gates' pre-activations to the products.
  void through_gate_norm(const typename Part::CellRow& r, int64_t at) const {
    const int64_t branches = variant.branches(), width = kGates * H, last = (branches - 1) * width;
    const S* const products = (const S*)part.call.products + at * branches * width;
    if (branches == 2)
      through_gates<S>(rows, sums, {products, norms.gain, H, norms.eps}, kOfInputGain, (S*)nullptr,
                       (S*)part.call.grad_input_product + at * width);
    through_gates<S>(rows, sums, {products + last, norms.gain + last, H, norms.eps},
                     kOfRecurrentGain, r.kept, r.to_preactivations);
  }

  // The gradient of the recurrent product, for the caller and for the step before.
  LSTM_INLINE void keep(const typename Part::CellRow& r, int gate, int64_t unit, vec<T> v) const {
    const int64_t at = gate * H + unit, valid = H - unit;
    if constexpr (Part::kKeepsG) store_n(r.kept + at, v, valid);
    store_n(r.to_preactivations + at, v, valid);
  }
};

}  // namespace lstm_kernels::LSTM_ISA
