// The cells of a row where a step has a layer norm (docs/variants.md).
//
// A norm needs the products of all 4 * H units before the first cell, and that of the cell state
// all cells before the first output. So these steps go row by row, over products that the step has
// left in memory: for their moments, for the cells, and with a norm of the cell state again for the
// outputs. The row is in L1 from the second pass on. Bound: some ten operations for each number,
// after P multiply-adds for it in the product.
#pragma once
#include "layer_norm.h"
#include "variant_cell.h"

namespace lstm_kernels::LSTM_ISA {

// One row of products: the gates of unit L * p at `data + p * step`, [gate][lane].
template <class T>
struct ProductRow {
  T* data;
  int64_t step;

  LSTM_INLINE T* at(int64_t unit) const { return data + unit / lanes<T> * step; }
  LSTM_INLINE vec<T> read(int64_t unit, int gate) const { return load(at(unit) + gate * lanes<T>); }
  LSTM_INLINE void write(int64_t unit, int gate, vec<T> v) const {
    store(at(unit) + gate * lanes<T>, v);
  }
};

// z = bias + norm(z) * gain, or where the norms are separate, bias + norm(input) * gain +
// norm(z) * the gain that follows. What is normalised goes to `products`, too, unless that is null.
template <class S>
LSTM_NOINLINE void normalise_gates(ProductRow<compute<S>> input, ProductRow<compute<S>> z,
                                   const S* gain, const compute<S>* bias, bool separate, int64_t H,
                                   compute<S> eps, S* products) {
  using T = compute<S>;
  auto moments_of = [&](ProductRow<T> row) {
    return moments<T, kGates>(H, eps, [&](int64_t unit, int g) { return row.read(unit, g); });
  };
  const Moments<T> of_z = moments_of(z), of_input = separate ? moments_of(input) : Moments<T>{};
  const int64_t second = separate ? kGates * H : 0;
  for (int64_t unit = 0; unit < H; unit += lanes<T>) LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
      const int64_t at = g * H + unit, valid = H - unit;
      vec<T> sum = load(bias + unit * kGates + g * lanes<T>);
      auto add = [&](const Moments<T>& of, vec<T> x, int64_t at) {
        sum += of.normalised(x) * load_n(gain + at, valid);
        if (products) store_n(products + at, x, valid);
      };
      if (separate) add(of_input, input.read(unit, g), at);
      add(of_z, z.read(unit, g), second + at);
      z.write(unit, g, sum);
    }
}

// Part: the ForwardPart whose row it is.
template <class Part, class VariantCell>
struct NormForward {
  using S = typename Part::Stored;
  using T = compute<S>;
  static constexpr int L = lanes<T>;

  const Part& part;
  const VariantCell& cell;
  const Variant& variant;
  const int64_t H;
  const StepNorms<S> norms;

  NormForward(const Part& part, const VariantCell& cell)
      : part(part),
        cell(cell),
        variant(part.call.variant),
        H(part.size.H),
        norms(variant, H, part.direction, part.work.updated) {}

  // j: the row of the step. input: W_ih x where the norms are separate. z: the recurrent product,
  // or the sum of both, and with the biases where there is no norm of the gates.
  LSTM_NOINLINE void row(int64_t j, ProductRow<T> input, ProductRow<T> z) const {
    if (variant.norm_gates) {
      const int64_t width = variant.branches() * kGates * H;
      S* const products = (S*)part.call.products;
      normalise_gates<S>(input, z, norms.gain, part.own.weights.bias, variant.separate, H,
                         norms.eps, products ? products + part.work.at[j] * width : nullptr);
    }
    const VariantRow<S>& given = part.work.given[j];
    update_cells(j, given, z);
    const Moments<T> of_cell = norms.cell_moments();
    for (int64_t unit = 0; unit < H; unit += L) {
      Cell<T> to;
      to.i = z.read(unit, kInputGate), to.f = z.read(unit, kForgetGate);
      to.g = z.read(unit, kCandidate);
      const vec<T> seen = norms.normalised_cell(of_cell, unit);
      const vec<T> after = variant.carries_norm ? seen : load(norms.updated + unit);
      cell.finish(to, z.read(unit, kOutputGate), after, seen, given_at(j, given, unit));
      part.template keep_cell<false>(j, unit, to);
    }
  }

 private:
  LSTM_INLINE VariantGiven<T> given_at(int64_t j, const VariantRow<S>& row, int64_t unit) const {
    auto given = row.template at<false>(unit);
    if (part.work.h[j] != part.pass.zeros)
      given.c_before = load(part.own.c + part.share.rank(j) * part.pass.c_stride + unit);
    return given;
  }
  // c~ of the row, and i, f and g in the place of what they were made from.
  LSTM_NOINLINE void update_cells(int64_t j, const VariantRow<S>& given, ProductRow<T> z) const {
    for (int64_t unit = 0; unit < H; unit += L) {
      Cell<T> to{};  // GCC does not see that every coupling sets i and f
      store(norms.updated + unit, cell.begin(to, z.at(unit), given_at(j, given, unit)));
      z.write(unit, kInputGate, to.i), z.write(unit, kForgetGate, to.f);
      z.write(unit, kCandidate, to.g);
    }
  }
};

}  // namespace lstm_kernels::LSTM_ISA
