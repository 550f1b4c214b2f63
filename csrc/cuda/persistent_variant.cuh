// What the persistent kernels ask of a variant: of those without layer norms, which need sums over
// all units of a sequence at every step, and without masks of each gate, which make four recurrent
// products of one. What remains concerns single cells (variant_cell.cuh): peepholes, coupled gates,
// bounds, other activations, an input gate from outside, dropout of g or of all of h, zoneout.
//
// Activations are exact, unlike the plain LSTM's here: gradients find by its value what a bound has
// cut off, and either pass may take the other path. Bound: as the kernels', and the calls of the
// activations, which no tensor core instruction overlaps.
#pragma once
#include "persistent_cell.cuh"
#include "variant_cell.cuh"

namespace lstm_kernels::cuda {

// Where the arrays of a variant have what belongs to a cell. It holds nothing but the call, whose
// numbers are constants: registers are dear.
template <class E, class Call>
class VariantArrays {
 public:
  DEV explicit VariantArrays(const Call& call) : call_(call) {}
  DEV const Variant& variant() const { return call_.variant; }
  DEV static int direction() { return int(blockIdx.z); }

  // As it is stored, any number where there is no array.
  DEV E ask(const StepArray& array, int t, int n, int unit) const {
    const int64_t row = int64_t(n) * call_.size.D + direction();
    return load_or_any<E>(array.data, t * array.step + row * call_.size.H + unit,
                          call_.w_hh[direction()]);
  }
  DEV float keep(const StepArray& mask, E asked, double expectation) const {
    return mask.data ? widen(asked) : float(expectation);
  }
  DEV float masked(float h, E asked) const {
    return variant().hidden_mask.data ? h * widen(asked) : h;
  }
  DEV VariantGiven<float> given(float c_before, E input_gate, E candidate_mask, E keep_cell,
                                int unit) const {
    VariantGiven<float> to{};
    to.c_before = c_before;
    if (variant().peephole) {  // the same at every step: L1 has them
      const int64_t H = call_.size.H;
      const E* const own = static_cast<const E*>(variant().peephole) + direction() * 3 * H + unit;
#pragma unroll
      for (int k = 0; k < 3; k++) to.peephole[k] = widen(own[k * H]);
    }
    to.input_gate = widen(input_gate);
    to.candidate_mask = widen(candidate_mask);
    to.keep_cell = keep(variant().cell_zoneout, keep_cell, variant().keep_cell);
    return to;
  }

 private:
  const Call& call_;
};

template <class E>
class ForwardCell<E, PersistentVariantForward> {
 public:
  struct Asked {
    E input_gate, candidate_mask, keep_cell, keep_hidden;
    E next_mask;  // of h, in the step after
  };
  DEV ForwardCell(const PersistentVariantForward& call) : arrays_(call), cell_{call.variant} {}

  DEV Asked ask(int t, int t_next, int n, int unit) const {
    const Variant& v = arrays_.variant();
    return {arrays_.ask(v.input_gate, t, n, unit), arrays_.ask(v.candidate_mask, t, n, unit),
            arrays_.ask(v.cell_zoneout, t, n, unit), arrays_.ask(v.hidden_zoneout, t, n, unit),
            arrays_.ask(v.hidden_mask, t_next, n, unit)};
  }
  DEV Cell<float> advance(const float (&preactivation)[kGates], float c, float h,
                          const Asked& asked, int unit) const {
    const Variant& v = arrays_.variant();
    const auto from =
        arrays_.given(c, asked.input_gate, asked.candidate_mask, asked.keep_cell, unit);
    Cell<float> to{};
    const float updated = cell_.begin(to, preactivation, from);
    cell_.finish(to, preactivation[kOutputGate], updated, updated, from);
    if (v.zones_out_hidden())
      to.h = zoned_out(arrays_.keep(v.hidden_zoneout, asked.keep_hidden, v.keep_hidden), h, to.h);
    return to;
  }
  DEV float operand(float h, const Asked& asked) const {
    return arrays_.masked(h, asked.next_mask);
  }
  DEV float first_operand(float h, int t, int n, int unit) const {
    return arrays_.masked(h, arrays_.ask(arrays_.variant().hidden_mask, t, n, unit));
  }

 private:
  VariantArrays<E, PersistentVariantForward> arrays_;
  VariantCell<float> cell_;
};

template <class E>
class BackwardCell<E, PersistentVariantBackward> {
  using Parent = VariantCell<float>;

 public:
  struct Asked {
    E input_gate, candidate_mask, keep_cell, keep_hidden;
    E later_mask;  // of h, in the step undone before
  };
  struct Gradient : Parent::Gradient {
    float h_prev;  // what zoneout passes by the cell
  };
  DEV BackwardCell(const PersistentVariantBackward& call, const Plan& plan)
      : call_(call), plan_(plan), arrays_(call), cell_{call.variant} {
    if (!call.sums) return;
    for (int k = 0; k < kCellParameters; k++) of_peephole(k) = 0;
  }

  DEV Asked ask(int t, int t_after, int n, int unit) const {
    const Variant& v = arrays_.variant();
    return {arrays_.ask(v.input_gate, t, n, unit), arrays_.ask(v.candidate_mask, t, n, unit),
            arrays_.ask(v.cell_zoneout, t, n, unit), arrays_.ask(v.hidden_zoneout, t, n, unit),
            arrays_.ask(v.hidden_mask, t_after, n, unit)};
  }
  DEV float from_later(float grad, const Asked& asked) const {
    return arrays_.masked(grad, asked.later_mask);
  }
  DEV Gradient retreat(const float (&gate)[kGates], float, float c_prev, float dh, float dc,
                       const float (&grad_gate)[kGates], const Asked& asked, int unit) const {
    const Variant& v = arrays_.variant();
    const auto from =
        arrays_.given(c_prev, asked.input_gate, asked.candidate_mask, asked.keep_cell, unit);
    float passed = 0;
    if (v.zones_out_hidden()) {
      passed = arrays_.keep(v.hidden_zoneout, asked.keep_hidden, v.keep_hidden) * dh;
      dh -= passed;
    }
    const float updated = cell_.update(gate, from);
    const auto output =
        cell_.retreat_output(dh, dc, cell_.squashed(updated), from, gate, grad_gate);
    const Gradient to{cell_.retreat_update(output.updated + output.seen, updated, dc, output.o,
                                           from, gate, grad_gate),
                      passed};
    if (call_.sums) {
      of_peephole(0) += to.preactivation[kInputGate] * c_prev;
      of_peephole(1) += to.preactivation[kForgetGate] * c_prev;
      of_peephole(2) += to.preactivation[kOutputGate] * updated;
    }
    return to;
  }
  DEV void store_row(int64_t at, const Gradient& grad) const {
    if (call_.grad_input_gate) store<E>(call_.grad_input_gate, at, grad.input_gate);
  }
  DEV void finish(int row, int unit) const {
    if (!call_.sums) return;
    const int64_t H = call_.size.H;
    float* const to =
        static_cast<float*>(call_.sums) +
        ((int64_t(arrays_.direction()) * call_.rows_of_sums + row) * kParameterSums) * H;
    for (int k = 0; k < kCellParameters; k++) to[(kOfPeephole + k) * H + unit] = of_peephole(k);
  }

 private:
  // The gradient of a peephole from the cells of this thread. In shared memory: registers are dear.
  DEV float& of_peephole(int k) const {
    float* const sums =
        reinterpret_cast<float*>(shared_memory<unsigned char>() + plan_.parameters_at);
    return sums[k * int(blockDim.x) + int(threadIdx.x)];
  }

  const PersistentVariantBackward& call_;
  const Plan& plan_;
  VariantArrays<E, PersistentVariantBackward> arrays_;
  VariantCell<float> cell_;
};

}  // namespace lstm_kernels::cuda
