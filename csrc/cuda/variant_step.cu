// One time step of a variant: everything that happens between two matrix products.
//
// A block owns one sequence, because a layer norm needs sums over all its units; a thread takes
// every kThreads-th unit, and what it keeps in memory between two passes only it reads again. The
// order of additions depends on the sizes alone. Bound: the launch itself, up to some 10^5 cells;
// with a norm the barriers of its sums, some microseconds.
#include "step.cuh"
#include "variant_cell.cuh"
#include "variant_step.h"

namespace lstm_kernels::cuda {
namespace {

constexpr int kThreads = 256;

DEV float square_root(float x) { return sqrtf(x); }
DEV double square_root(double x) { return sqrt(x); }

// Calls visit(unit) for the units of this thread.
template <class Visit>
DEV void each_unit(int64_t units, Visit visit) {
  for (int64_t unit = threadIdx.x; unit < units; unit += blockDim.x) visit(unit);
}

// ---- sums over a row
// ------------------------------------------------------------------------------

// The sum of what all threads of the block hand in, which is a power of two of them.
template <class A>
DEV A block_sum(A value) {
  A* const values = shared_memory<A>();
  values[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
    __syncthreads();
  }
  const A sum = values[0];
  __syncthreads();
  return sum;
}
// The sum of read(unit, k) over the units and kWidth rows of them.
template <class A, int kWidth, class Read>
DEV A row_sum(int64_t H, Read read) {
  A sum = 0;
  each_unit(H, [&](int64_t unit) {
#pragma unroll
    for (int k = 0; k < kWidth; k++) sum += read(unit, k);
  });
  return block_sum(sum);
}

template <class A>
struct Moments {
  A mean, scale;  // scale: 1 / sqrt(variance + eps)
  DEV A normalised(A x) const { return (x - mean) * scale; }
};
template <class A, int kWidth, class Read>
DEV Moments<A> moments(int64_t H, A eps, Read read) {
  const A count = A(kWidth * H), mean = row_sum<A, kWidth>(H, read) / count;
  const A squares = row_sum<A, kWidth>(H, [&](int64_t unit, int k) {
    const A distance = read(unit, k) - mean;
    return distance * distance;
  });
  return {mean, A(1) / square_root(squares / count + eps)};
}

// The gradient of a norm's argument, from g, those of what it normalised times the gains:
//   (g - mean(g) - x^ * mean(g * x^)) * scale,   x^ = (x - mean(x)) * scale
template <class A>
struct NormGradient {
  Moments<A> of;
  A mean, product;

  template <int kWidth, class X, class G>
  DEV static NormGradient made(int64_t H, const Moments<A>& of, X x, G g) {
    const A count = A(kWidth * H);
    const A sum = row_sum<A, kWidth>(H, g);
    const A products = row_sum<A, kWidth>(
        H, [&](int64_t unit, int k) { return g(unit, k) * of.normalised(x(unit, k)); });
    return {of, sum / count, products / count};
  }
  DEV A argument(A x, A g) const { return (g - mean - of.normalised(x) * product) * of.scale; }
};

// ---- what a variant's arrays hold
// -------------------------------------------------------------------

// Sequence n at a step. Arrays of steps are (1 or T, N, D * F).
template <class E>
struct Row {
  using A = Compute<E>;
  const VariantStep& at;
  int64_t n;

  DEV const E* of(const StepArray& array, int64_t F) const {
    return static_cast<const E*>(array.data) + at.time * array.step +
           (n * at.directions + at.direction) * F;
  }
  DEV VariantGiven<A> given(int64_t unit, A c_before) const {
    const Variant& v = at.variant;
    VariantGiven<A> to{};
    to.c_before = c_before;
    if (v.peephole)
      for (int k = 0; k < 3; k++)
        to.peephole[k] = cuda::at<E>(v.peephole, (at.direction * 3 + k) * at.H + unit);
    if (v.input_gate.data) to.input_gate = widen(of(v.input_gate, at.H)[unit]);
    if (v.candidate_mask.data) to.candidate_mask = widen(of(v.candidate_mask, at.H)[unit]);
    to.keep_cell = keep(v.cell_zoneout, v.keep_cell, at.H, unit);
    return to;
  }
  // How much of h zoneout keeps.
  DEV A keep_hidden(int64_t unit) const {
    return keep(at.variant.hidden_zoneout, at.variant.keep_hidden, at.P, unit);
  }
  // Gain k of the gates' norm, or gain and bias of the cell state's.
  DEV A gate_gain(int branch, int gate, int64_t unit) const {
    const int64_t row = (at.direction * at.variant.branches() + branch) * kGates + gate;
    return cuda::at<E>(at.variant.norm_gates, row * at.H + unit);
  }
  DEV A cell_norm(int k, int64_t unit) const {
    return cuda::at<E>(at.variant.norm_cell, (at.direction * 2 + k) * at.H + unit);
  }

 private:
  DEV A keep(const StepArray& mask, double expectation, int64_t F, int64_t unit) const {
    return mask.data ? widen(of(mask, F)[unit]) : A(expectation);
  }
};

template <class E>
__global__ void __launch_bounds__(kThreads)
    mask_hidden_kernel(const __grid_constant__ MaskedHidden p) {
  const int64_t n = blockIdx.x, P = p.at.P;
  const Row<E> row{p.at, n};
  const Variant& v = p.at.variant;
  each_unit(P, [&](int64_t unit) {
    const Compute<E> h = at<E>(p.h, n * P + unit);
    if (v.hidden_mask.data)
      put<E>(p.masked, n * P + unit, h * widen(row.of(v.hidden_mask, P)[unit]));
    else
      for (int gate = 0; gate < kGates; gate++)
        put<E>(p.masked, (gate * p.N + n) * P + unit,
               h * widen(row.of(v.gate_masks, kGates * P)[gate * P + unit]));
  });
}

// ---- forward
// ---------------------------------------------------------------------------------------

template <class E>
struct ForwardRow {
  using A = Compute<E>;
  const VariantForwardStep& p;
  const StepForward& step;
  const Row<E> row;
  const VariantCell<A> cell;
  const int64_t n, H;
  const bool reset;

  DEV explicit ForwardRow(const VariantForwardStep& call)
      : p(call),
        step(call.step),
        row{call.at, int64_t(blockIdx.x)},
        cell{call.at.variant, call.at.variant},
        n(blockIdx.x),
        H(call.step.H),
        reset(call.step.reset && call.step.reset[blockIdx.x]) {}

  DEV A input(int64_t unit, int gate) const {
    return at<A>(p.input_product, (n * kGates + gate) * H + unit);
  }
  DEV A recurrent(int64_t unit, int gate) const {
    if (reset || !p.recurrent_product) return A(0);
    return at<A>(p.recurrent_product, gate * p.recurrent_gate + n * p.recurrent_row + unit);
  }
  DEV A sum(int64_t unit, int gate) const { return input(unit, gate) + recurrent(unit, gate); }
  DEV VariantGiven<A> given(int64_t unit) const {
    return row.given(unit, reset ? A(0) : cell_state_before<E>(step, n, unit));
  }

  DEV void run() const {
    const Variant& v = p.at.variant;
    const A eps = A(v.norm_eps);
    Moments<A> of_input{}, of_recurrent{};
    if (v.norm_gates && v.separate) {
      of_input = moments<A, kGates>(H, eps, [&](int64_t u, int g) { return input(u, g); });
      of_recurrent = moments<A, kGates>(H, eps, [&](int64_t u, int g) { return recurrent(u, g); });
    } else if (v.norm_gates) {
      of_recurrent = moments<A, kGates>(H, eps, [&](int64_t u, int g) { return sum(u, g); });
    }
    each_unit(H, [&](int64_t unit) {
      A z[kGates];
      for (int gate = 0; gate < kGates; gate++)
        z[gate] = preactivation(unit, gate, of_input, of_recurrent);
      Cell<A> to{};
      const auto from = given(unit);
      const A updated = cell.begin(to, z, from);
      if (v.norm_cell) {
        put<A>(p.updated, n * H + unit, updated);
        to.gate[kOutputGate] = z[kOutputGate];
        for (int gate = 0; gate < kGates; gate++)
          put<A>(p.activated, (n * kGates + gate) * H + unit, to.gate[gate]);
      } else {
        cell.finish(to, z[kOutputGate], updated, updated, from);
        keep(unit, to);
      }
    });
    if (v.norm_cell) finish_normed(eps);
  }

 private:
  DEV A preactivation(int64_t unit, int gate, const Moments<A>& of_input,
                      const Moments<A>& of_recurrent) const {
    const Variant& v = p.at.variant;
    const A of_bias = bias<E>(step, gate, unit);
    if (!v.norm_gates) return sum(unit, gate) + of_bias;
    if (!v.separate) {
      const A x = sum(unit, gate);
      save(0, gate, unit, x);
      return of_bias + of_recurrent.normalised(x) * row.gate_gain(0, gate, unit);
    }
    const A x = input(unit, gate), h = recurrent(unit, gate);
    save(0, gate, unit, x), save(1, gate, unit, h);
    return of_bias + of_input.normalised(x) * row.gate_gain(0, gate, unit) +
           of_recurrent.normalised(h) * row.gate_gain(1, gate, unit);
  }
  DEV void save(int branch, int gate, int64_t unit, A x) const {
    if (p.products) put<E>(p.products, n * p.products_row + (branch * kGates + gate) * H + unit, x);
  }

  DEV void finish_normed(A eps) const {
    auto updated = [&](int64_t unit, int) { return at<A>(p.updated, n * H + unit); };
    const Moments<A> of_cell = moments<A, 1>(H, eps, updated);
    each_unit(H, [&](int64_t unit) {
      Cell<A> to{};
      for (int gate = 0; gate < kGates; gate++)
        to.gate[gate] = at<A>(p.activated, (n * kGates + gate) * H + unit);
      const A seen =
          of_cell.normalised(updated(unit, 0)) * row.cell_norm(0, unit) + row.cell_norm(1, unit);
      const A after = p.at.variant.carries_norm ? seen : updated(unit, 0);
      cell.finish(to, to.gate[kOutputGate], after, seen, given(unit));
      keep(unit, to);
    });
  }

  // Writes what the unit is after the step.
  DEV void keep(int64_t unit, Cell<A> to) const {
    const int64_t i = n * H + unit;
    if (!p.unprojected && p.at.variant.zones_out_hidden()) {
      const A before = reset ? A(0) : at_or_zero<E>(step.h_before, i);
      to.h = zoned_out(row.keep_hidden(unit), before, to.h);
    }
    if (step.c) put<A>(step.c, i, to.c);
    if (step.c_n) put<E>(step.c_n, i, to.c);
    if (step.cell) put<E>(step.cell, n * step.cell_row + unit, to.c);
    if (step.gates)
      for (int gate = 0; gate < kGates; gate++)
        put<E>(step.gates, n * step.gates_row + gate * H + unit, to.gate[gate]);
    if (p.unprojected) {
      put<E>(p.unprojected, i, to.h);
    } else {
      put<E>(step.h, i, to.h);
      put<E>(step.output, n * step.output_row + unit, to.h);
    }
  }
};

template <class E>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ VariantForwardStep call) {
  const StepForward& step = call.step;
  const int64_t n = blockIdx.x;
  if (takes_part(step.now, n)) return ForwardRow<E>(call).run();
  each_unit(step.H, [&](int64_t unit) {
    skip_unit<E>(step, n, unit, call.unprojected);
    if (call.products && n < step.now.rows)
      for (int k = 0; k < call.at.variant.branches() * kGates; k++)
        put<E>(call.products, n * call.products_row + k * step.H + unit, 0);
  });
}

template <class E>
__global__ void __launch_bounds__(kThreads)
    projection_kernel(const __grid_constant__ VariantProjection call) {
  using A = Compute<E>;
  const ProjectionForward& p = call.projection;
  const int64_t n = blockIdx.x;
  const Row<E> row{call.at, n};
  const bool now = takes_part(p.now, n), reset = call.reset && call.reset[n];
  each_unit(p.P, [&](int64_t unit) {
    const int64_t i = n * p.P + unit;
    const A before = at_or_zero<E>(p.h_before, i);
    A h = now ? at<E>(p.projected, i) : before;
    if (now && call.at.variant.zones_out_hidden())
      h = zoned_out(row.keep_hidden(unit), reset ? A(0) : before, h);
    put<E>(p.h, i, h);
    if (n < p.now.rows) put<E>(p.output, n * p.output_row + unit, now ? h : A(0));
  });
}

// ---- backward
// --------------------------------------------------------------------------------------

template <class E>
struct BackwardRow {
  using A = Compute<E>;
  using Given = VariantGiven<A>;
  const VariantBackwardStep& p;
  const StepBackward& step;
  const Row<E> row;
  const VariantCell<A> cell;
  const int64_t n, H;
  const bool later, cut;  // whether the sequence goes on, and starts anew there

  DEV explicit BackwardRow(const VariantBackwardStep& call)
      : p(call),
        step(call.step),
        row{call.at, int64_t(blockIdx.x)},
        cell{call.at.variant, call.at.variant},
        n(blockIdx.x),
        H(call.step.H),
        later(takes_part(call.step.later, blockIdx.x)),
        cut(call.step.reset_later && call.step.reset_later[blockIdx.x]) {}

  // The gradient of a unit of h that the step after this one hands back.
  DEV A from_later(int64_t unit) const {
    const Variant& v = p.at.variant;
    const Row<E> next{p.later, n};
    const int64_t P = step.P, i = n * P + unit;
    A grad = v.gate_masks.data ? A(0) : at<A>(step.recurrent, i);
    if (v.hidden_mask.data) grad *= widen(next.of(v.hidden_mask, P)[unit]);
    if (v.gate_masks.data)
      for (int gate = 0; gate < kGates; gate++)
        grad += at<A>(step.recurrent, gate * step.N * P + i) *
                widen(next.of(v.gate_masks, kGates * P)[gate * P + unit]);
    return v.zones_out_hidden() ? grad + at<A>(p.passed, i) : grad;
  }
  // That of h before zoneout; the rest goes to `passed`.
  DEV A hidden_gradient(int64_t unit) const {
    const int64_t i = n * step.P + unit;
    A grad = at_or_zero<E>(step.grad_output, n * step.grad_output_row + unit);
    if (!later)
      grad += at_or_zero<E>(step.grad_h_n, i);
    else if (!cut)
      grad += from_later(unit);
    if (!p.at.variant.zones_out_hidden()) return grad;
    const A keep = row.keep_hidden(unit);
    put<A>(p.passed, i, keep * grad);
    return (A(1) - keep) * grad;
  }

  // As finish_hidden and finish_cell in step.cu.
  DEV void finish_hidden(int64_t unit) const {
    const int64_t i = n * step.P + unit;
    if (later)
      put<E>(step.grad_h0, i, cut ? A(0) : from_later(unit));
    else if (step.now.lengths && step.now.lengths[n] <= 0)
      put<E>(step.grad_h0, i, at_or_zero<E>(step.grad_h_n, i));
  }
  DEV void finish_cell(int64_t unit) const {
    const int64_t i = n * H + unit;
    if (later)
      put<E>(step.grad_c0, i, cut ? A(0) : at<A>(step.grad_c, i));
    else if (step.now.lengths && step.now.lengths[n] <= 0)
      put<E>(step.grad_c0, i, at_or_zero<E>(step.grad_c_n, i));
  }
  DEV void skip(int64_t unit) const {
    if (!step.grad_hidden) finish_hidden(unit);
    finish_cell(unit);
    if (n >= step.now.rows) return;
    for (int gate = 0; gate < kGates; gate++) {
      put<E>(step.grad_preactivations, of_gate(gate, unit), 0);
      if (p.grad_input_product) put<E>(p.grad_input_product, of_gate(gate, unit), 0);
    }
    if (p.grad_input_gate) put<E>(p.grad_input_gate, n * step.cell_row + unit, 0);
  }

  DEV void run() const {
    const Variant& v = p.at.variant;
    Moments<A> of_cell{};
    each_unit(H, [&](int64_t unit) {
      const Unit u(*this, unit);
      put_work(kUpdated, unit, cell.update(u.gate, u.from));
    });
    if (v.norm_cell)
      of_cell = moments<A, 1>(H, A(v.norm_eps), [&](int64_t unit, int) { return updated(unit); });
    each_unit(H, [&](int64_t unit) { retreat_output(unit, of_cell); });
    NormGradient<A> norm{};
    if (v.norm_cell)
      norm = NormGradient<A>::template made<1>(
          H, of_cell, [&](int64_t unit, int) { return updated(unit); },
          [&](int64_t unit, int) { return work(kOfNorm, unit); });
    each_unit(H, [&](int64_t unit) { retreat_update(unit, of_cell, norm); });
    if (!v.norm_gates) return;
    if (v.separate) through_gate_norm(0, kOfInputGain, p.grad_input_product);
    through_gate_norm(int(v.branches()) - 1, kOfRecurrentGain, step.grad_preactivations);
  }

 private:
  // What the forward pass and the steps after this one say about a unit.
  struct Unit {
    A gate[kGates], extra[kGates], dc;
    Given from;

    DEV Unit(const BackwardRow& of, int64_t unit) {
      const StepBackward& step = of.step;
      const int64_t i = of.n * of.H + unit, in_cell = of.n * step.cell_row + unit;
      for (int g = 0; g < kGates; g++) {
        gate[g] = at<E>(step.gates, of.of_gate(g, unit));
        extra[g] = at_or_zero<E>(step.grad_gates, of.of_gate(g, unit));
      }
      dc = at_or_zero<E>(step.grad_cell, in_cell);
      if (!of.later)
        dc += at_or_zero<E>(step.grad_c_n, i);
      else if (!of.cut)
        dc += at<A>(step.grad_c, i);
      A before = 0;
      if (!(step.reset_now && step.reset_now[of.n]))
        before = takes_part(step.earlier, of.n) ? at<E>(step.cell_earlier, in_cell)
                                                : at_or_zero<E>(step.c0, i);
      from = of.row.given(unit, before);
    }
  };

  DEV int64_t of_gate(int gate, int64_t unit) const { return n * step.gates_row + gate * H + unit; }
  DEV int64_t in_work(int kind, int64_t unit) const { return (n * kWorkRows + kind) * H + unit; }
  DEV A work(int kind, int64_t unit) const { return at<A>(p.work, in_work(kind, unit)); }
  DEV void put_work(int kind, int64_t unit, A v) const { put<A>(p.work, in_work(kind, unit), v); }
  DEV A updated(int64_t unit) const { return work(kUpdated, unit); }
  DEV void add(int parameter, int64_t unit, A v) const {
    if (!p.sums) return;
    A* const to = static_cast<A*>(p.sums) + (n * kParameterSums + parameter) * H + unit;
    *to += v;
  }
  // c~ after its norm.
  DEV A normed(int64_t unit, const Moments<A>& of_cell) const {
    if (!p.at.variant.norm_cell) return updated(unit);
    return of_cell.normalised(updated(unit)) * row.cell_norm(0, unit) + row.cell_norm(1, unit);
  }

  // The gradients of o, and of c~ after its norm and past it.
  DEV void retreat_output(int64_t unit, const Moments<A>& of_cell) const {
    const Variant& v = p.at.variant;
    const Unit u(*this, unit);
    const A dh =
        step.grad_hidden ? at<A>(step.grad_unprojected, n * H + unit) : hidden_gradient(unit);
    auto to = cell.retreat_output(dh, u.dc, cell.squashed(normed(unit, of_cell)), u.from, u.gate,
                                  u.extra);
    if (!v.norm_cell) to.updated += to.seen;
    if (v.carries_norm) to.seen += to.updated, to.updated = A(0);
    put_work(kPastNorm, unit, to.updated);
    put_work(kOfOutput, unit, to.o);
    if (!v.norm_cell) return;
    add(kOfCellGain, unit, to.seen * of_cell.normalised(updated(unit)));
    add(kOfCellBias, unit, to.seen);
    put_work(kOfNorm, unit, to.seen * row.cell_norm(0, unit));
  }

  // Those of everything before c~.
  DEV void retreat_update(int64_t unit, const Moments<A>& of_cell,
                          const NormGradient<A>& norm) const {
    const Variant& v = p.at.variant;
    const Unit u(*this, unit);
    A du = work(kPastNorm, unit);
    if (v.norm_cell) du += norm.argument(updated(unit), work(kOfNorm, unit));
    const auto to = cell.retreat_update(du, updated(unit), u.dc, work(kOfOutput, unit), u.from,
                                        u.gate, u.extra);
    put<A>(step.grad_c, n * H + unit, to.c_prev);
    if (p.grad_input_gate) put<E>(p.grad_input_gate, n * step.cell_row + unit, to.input_gate);
    if (v.peephole) {
      const A after = v.carries_norm ? normed(unit, of_cell) : updated(unit);
      add(kOfPeephole, unit, to.preactivation[kInputGate] * u.from.c_before);
      add(kOfPeephole + 1, unit, to.preactivation[kForgetGate] * u.from.c_before);
      add(kOfPeephole + 2, unit, to.preactivation[kOutputGate] * after);
    }
    for (int gate = 0; gate < kGates; gate++) {
      const A dz = to.preactivation[gate];
      if (v.normalises()) add(kOfBias + gate, unit, dz);
      if (v.norm_gates)
        put_work(kOfPreactivations + gate, unit, dz);
      else
        put<E>(step.grad_preactivations, of_gate(gate, unit), dz);
    }
  }

  // From the gradients of the pre-activations to those of a product, in `to`.
  DEV void through_gate_norm(int branch, int gain_sum, void* to) const {
    auto x = [&](int64_t unit, int gate) {
      return at<E>(p.products, n * p.products_row + (branch * kGates + gate) * H + unit);
    };
    auto scaled = [&](int64_t unit, int gate) {
      return work(kOfPreactivations + gate, unit) * row.gate_gain(branch, gate, unit);
    };
    const auto of = moments<A, kGates>(H, A(p.at.variant.norm_eps), x);
    const auto norm = NormGradient<A>::template made<kGates>(H, of, x, scaled);
    each_unit(H, [&](int64_t unit) {
      for (int gate = 0; gate < kGates; gate++) {
        add(gain_sum + gate, unit,
            work(kOfPreactivations + gate, unit) * of.normalised(x(unit, gate)));
        put<E>(to, of_gate(gate, unit), norm.argument(x(unit, gate), scaled(unit, gate)));
      }
    });
  }
};

template <class E>
__global__ void __launch_bounds__(kThreads)
    hidden_backward_kernel(const __grid_constant__ VariantBackwardStep p) {
  const int64_t n = blockIdx.x;
  const BackwardRow<E> row(p);
  const bool now = takes_part(p.step.now, n);
  each_unit(p.step.P, [&](int64_t unit) {
    if (!now) row.finish_hidden(unit);
    if (n < p.step.now.rows)
      put<E>(p.step.grad_hidden, n * p.step.grad_hidden_row + unit,
             now ? row.hidden_gradient(unit) : Compute<E>(0));
  });
}
template <class E>
__global__ void __launch_bounds__(kThreads)
    gates_backward_kernel(const __grid_constant__ VariantBackwardStep p) {
  const BackwardRow<E> row(p);
  if (takes_part(p.step.now, blockIdx.x)) return row.run();
  each_unit(p.step.H, [&](int64_t unit) { row.skip(unit); });
}

template <class E>
__global__ void __launch_bounds__(kThreads)
    parameter_kernel(const __grid_constant__ ParameterGradients p) {
  using A = Compute<E>;
  const int64_t count = kParameterSums * p.H, i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  A sum = 0;
  for (int64_t n = 0; n < p.N; n++) sum += at<A>(p.sums, n * count + i);
  put<E>(p.grad_parameters, i, sum);
}

// A block per sequence, of a power of two threads: no more than there are units, in whole warps.
template <class E, class P>
cudaError_t launch_rows(void (*kernel)(P), int64_t rows, int64_t units, const P& call,
                        cudaStream_t stream) {
  unsigned threads = 32;
  while (threads < kThreads && threads < units) threads *= 2;
  return launch(Launch::plain, kernel, dim3(unsigned(rows)), dim3(threads),
                int64_t(threads * sizeof(Compute<E>)), stream, call);
}

}  // namespace

cudaError_t mask_hidden(const MaskedHidden& call, cudaStream_t stream) {
  return with_dtype(call.dtype, [&]<class E>() {
    return launch_rows<E>(&mask_hidden_kernel<E>, call.N, call.at.P, call, stream);
  });
}
cudaError_t variant_forward_step(const VariantForwardStep& call, cudaStream_t stream) {
  return with_dtype(call.step.dtype, [&]<class E>() {
    return launch_rows<E>(&forward_kernel<E>, call.step.N, call.step.H, call, stream);
  });
}
cudaError_t variant_projection(const VariantProjection& call, cudaStream_t stream) {
  return with_dtype(call.projection.dtype, [&]<class E>() {
    return launch_rows<E>(&projection_kernel<E>, call.projection.N, call.projection.P, call,
                          stream);
  });
}
cudaError_t variant_hidden_backward(const VariantBackwardStep& call, cudaStream_t stream) {
  return with_dtype(call.step.dtype, [&]<class E>() {
    return launch_rows<E>(&hidden_backward_kernel<E>, call.step.N, call.step.P, call, stream);
  });
}
cudaError_t variant_gates_backward(const VariantBackwardStep& call, cudaStream_t stream) {
  return with_dtype(call.step.dtype, [&]<class E>() {
    return launch_rows<E>(&gates_backward_kernel<E>, call.step.N, call.step.H, call, stream);
  });
}
cudaError_t add_parameter_gradients(const ParameterGradients& call, cudaStream_t stream) {
  return with_dtype(call.dtype, [&]<class E>() {
    const int64_t blocks = ceil_div(kParameterSums * call.H, kThreads);
    return launch(Launch::plain, &parameter_kernel<E>, dim3(unsigned(blocks)), dim3(kThreads), 0,
                  stream, call);
  });
}

}  // namespace lstm_kernels::cuda
