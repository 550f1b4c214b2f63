// What the persistent kernels ask of a variant: of those without layer norms, which need sums over
// all units of a sequence at every step, and without masks of each gate, which make four recurrent
// products of one. What remains concerns single cells (variant_cell.cuh): peepholes, coupled gates,
// bounds, other activations, an input gate from outside, dropout of g or of all of h, zoneout.
//
// Bound: as the kernels', and with other activations than sigmoid and tanh their calls, which no
// tensor core instruction overlaps.
#pragma once
#include "persistent_cell.cuh"
#include "variant_cell.cuh"

namespace lstm_kernels::cuda {

// Where the arrays of a variant have what belongs to a cell. It holds nothing but the call and the
// plan, whose numbers are constants: registers are dear.
template <class E, class Call>
class VariantArrays {
 public:
  DEV VariantArrays(const Call& call, const Plan& plan, int unit) : call_(call), plan_(plan) {
    if (!variant().peephole) return;
    const int64_t H = call.size.H;
    for (int k = 0; k < kPeepholes; k++)
      of_thread(k) =
          unit < H ? load_or_zero<E>(variant().peephole, (direction() * kPeepholes + k) * H + unit)
                   : 0.f;
  }
  DEV const Variant& variant() const { return call_.variant; }
  DEV static int direction() { return int(blockIdx.z); }

  // As it is stored, any number where there is no array.
  DEV E ask(const StepArray& array, int t, int n, int unit) const {
    const int64_t row = int64_t(n) * call_.size.D + direction();
    return load_or_any<E>(array.data, t * array.step + row * call_.size.H + unit,
                          call_.w_hh[direction()]);
  }
  DEV float keep(const StepArray& mask, E asked, float expectation) const {
    return mask.data ? widen(asked) : expectation;
  }
  DEV float masked(float h, E asked) const {
    return variant().hidden_mask.data ? h * widen(asked) : h;
  }
  DEV bool zones_out_hidden() const {
    return variant().hidden_zoneout.data || call_.numbers.keep_hidden > 0;
  }
  DEV float keep_hidden(E asked) const {
    return keep(variant().hidden_zoneout, asked, call_.numbers.keep_hidden);
  }
  DEV VariantGiven<float> given(float c_before, E input_gate, E candidate_mask, E keep_cell) const {
    VariantGiven<float> to{};
    to.c_before = c_before;
    if (variant().peephole)
#pragma unroll
      for (int k = 0; k < kPeepholes; k++) to.peephole[k] = of_thread(k);
    to.input_gate = widen(input_gate);
    to.candidate_mask = widen(candidate_mask);
    to.keep_cell = keep(variant().cell_zoneout, keep_cell, call_.numbers.keep_cell);
    return to;
  }
  // A number of this thread in shared memory: a peephole of its unit, then a peephole's gradient.
  DEV float& of_thread(int k) const {
    float* const numbers =
        reinterpret_cast<float*>(shared_memory<unsigned char>() + plan_.parameters_at);
    return numbers[k * int(blockDim.x) + int(threadIdx.x)];
  }

 private:
  const Call& call_;
  const Plan& plan_;
};

template <class E>
class ForwardCell<E, PersistentVariantForward> {
 public:
  struct Asked {
    E input_gate, candidate_mask, keep_cell, keep_hidden;
    E next_mask;  // of h, in the step after
  };
  DEV ForwardCell(const PersistentVariantForward& call, const Plan& plan, int unit)
      : arrays_(call, plan, unit), cell_{call.variant, call.numbers} {}

  DEV Asked ask(int t, int t_next, int n, int unit) const {
    const Variant& v = arrays_.variant();
    return {arrays_.ask(v.input_gate, t, n, unit), arrays_.ask(v.candidate_mask, t, n, unit),
            arrays_.ask(v.cell_zoneout, t, n, unit), arrays_.ask(v.hidden_zoneout, t, n, unit),
            arrays_.ask(v.hidden_mask, t_next, n, unit)};
  }
  DEV Cell<float> advance(const float (&preactivation)[kGates], float c, float h,
                          const Asked& asked) const {
    const auto from = arrays_.given(c, asked.input_gate, asked.candidate_mask, asked.keep_cell);
    Cell<float> to{};
    const float updated = cell_.begin(to, preactivation, from);
    cell_.finish(to, preactivation[kOutputGate], updated, updated, from);
    if (arrays_.zones_out_hidden())
      to.h = zoned_out(arrays_.keep_hidden(asked.keep_hidden), h, to.h);
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
  VariantCell<float, ActivationOf<E>, VariantFloats> cell_;
};

template <class E>
class BackwardCell<E, PersistentVariantBackward> {
  using Parent = VariantCell<float, ActivationOf<E>, VariantFloats>;

 public:
  struct Asked {
    E input_gate, candidate_mask, keep_cell, keep_hidden;
    E later_mask;  // of h, in the step undone before
  };
  struct Gradient : Parent::Gradient {
    float h_prev;  // what zoneout passes by the cell
  };
  DEV BackwardCell(const PersistentVariantBackward& call, const Plan& plan, int unit)
      : call_(call), arrays_(call, plan, unit), cell_{call.variant, call.numbers} {
    if (!call.sums) return;
    for (int k = 0; k < kPeepholes; k++) of_peephole(k) = 0;
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
                       const float (&grad_gate)[kGates], const Asked& asked) const {
    const auto from =
        arrays_.given(c_prev, asked.input_gate, asked.candidate_mask, asked.keep_cell);
    float passed = 0;
    if (arrays_.zones_out_hidden()) {
      passed = arrays_.keep_hidden(asked.keep_hidden) * dh;
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
    for (int k = 0; k < kPeepholes; k++) to[(kOfPeephole + k) * H + unit] = of_peephole(k);
  }

 private:
  // The gradient of a peephole from the cells of this thread.
  DEV float& of_peephole(int k) const { return arrays_.of_thread(kPeepholes + k); }

  const PersistentVariantBackward& call_;
  VariantArrays<E, PersistentVariantBackward> arrays_;
  VariantCell<float, ActivationOf<E>, VariantFloats> cell_;
};

}  // namespace lstm_kernels::cuda
