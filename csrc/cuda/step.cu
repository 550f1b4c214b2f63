// One time step of the per-step path: everything that happens between two matrix products.
//
// A thread owns one hidden unit of one sequence: it reads that unit's four pre-activations, updates
// the cell and writes whatever was asked for, so that neighbouring threads touch neighbouring
// addresses in every array. A block has one sequence, so that no index needs a division.
// Bound: the launch itself, about 2 us, up to some 10^5 cells; memory beyond.
#include "step.cuh"

namespace lstm_kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class E>
__global__ void __launch_bounds__(kThreads) gates_forward_kernel(const GatesForward call) {
  using A = Compute<E>;
  const StepForward& p = call.step;
  const int64_t n = blockIdx.x, unit = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (unit >= p.H) return;
  if (!takes_part(p.now, n)) {
    skip_unit<E>(p, n, unit, call.unprojected);
    return;
  }
  const bool reset = p.reset && p.reset[n];
  A preactivation[kGates];
#pragma unroll
  for (int gate = 0; gate < kGates; gate++) {
    const int64_t i = (n * kGates + gate) * p.H + unit;
    preactivation[gate] = at<A>(call.input_product, i) + bias<E>(p, gate, unit);
    if (!reset) preactivation[gate] += at_or_zero<A>(call.recurrent_product, i);
  }
  const A c_before = reset ? A(0) : cell_state_before<E>(p, n, unit);
  forward_unit<E>(p, n, unit, preactivation, c_before, call.unprojected);
}

template <class E>
__global__ void __launch_bounds__(kThreads) projection_forward_kernel(const ProjectionForward p) {
  const int64_t n = blockIdx.x, unit = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (unit >= p.P) return;
  const int64_t i = n * p.P + unit;
  const bool now = takes_part(p.now, n);
  put<E>(p.h, i, now ? at<E>(p.projected, i) : at_or_zero<E>(p.h_before, i));
  if (n < p.now.rows) put<E>(p.output, n * p.output_row + unit, now ? at<E>(p.projected, i) : 0);
}

// The gradient of a unit of h after the step: from later steps, or from h_n at a sequence's last
// step, and from the output.
template <class E>
DEV Compute<E> hidden_gradient(const StepBackward& p, int64_t n, int64_t unit) {
  using A = Compute<E>;
  const int64_t i = n * p.P + unit;
  A grad = at_or_zero<E>(p.grad_output, n * p.grad_output_row + unit);
  if (!takes_part(p.later, n)) return grad + at_or_zero<E>(p.grad_h_n, i);
  if (!(p.reset_later && p.reset_later[n])) grad += at<A>(p.recurrent, i);
  return grad;
}

// What remains of a row that takes no part: its initial state's gradient, once the step handled
// before was its first; a sequence without steps hands its last state's gradient through.
template <class E>
DEV void finish_hidden(const StepBackward& p, int64_t n, int64_t unit) {
  const int64_t i = n * p.P + unit;
  if (takes_part(p.later, n)) {
    const bool cut = p.reset_later && p.reset_later[n];
    put<E>(p.grad_h0, i, cut ? Compute<E>(0) : at<Compute<E>>(p.recurrent, i));
  } else if (p.now.lengths && p.now.lengths[n] <= 0) {
    put<E>(p.grad_h0, i, at_or_zero<E>(p.grad_h_n, i));
  }
}
template <class E>
DEV void finish_cell(const StepBackward& p, int64_t n, int64_t unit) {
  const int64_t i = n * p.H + unit;
  if (takes_part(p.later, n)) {
    const bool cut = p.reset_later && p.reset_later[n];
    put<E>(p.grad_c0, i, cut ? Compute<E>(0) : at<Compute<E>>(p.grad_c, i));
  } else if (p.now.lengths && p.now.lengths[n] <= 0) {
    put<E>(p.grad_c0, i, at_or_zero<E>(p.grad_c_n, i));
  }
}

template <class E>
__global__ void __launch_bounds__(kThreads) hidden_backward_kernel(const StepBackward p) {
  const int64_t n = blockIdx.x, unit = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (unit >= p.P) return;
  const bool now = takes_part(p.now, n);
  if (!now) finish_hidden<E>(p, n, unit);
  if (n < p.now.rows)
    put<E>(p.grad_hidden, n * p.grad_hidden_row + unit,
           now ? hidden_gradient<E>(p, n, unit) : Compute<E>(0));
}

template <class E>
__global__ void __launch_bounds__(kThreads) gates_backward_kernel(const StepBackward p) {
  using A = Compute<E>;
  const int64_t n = blockIdx.x, unit = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
  if (unit >= p.H) return;
  const int64_t i = n * p.H + unit, in_cell = n * p.cell_row + unit;
  const int64_t in_gates = n * p.gates_row + unit;
  if (!takes_part(p.now, n)) {
    if (!p.grad_hidden) finish_hidden<E>(p, n, unit);
    finish_cell<E>(p, n, unit);
    if (n < p.now.rows)
#pragma unroll
      for (int gate = 0; gate < kGates; gate++)
        put<E>(p.grad_preactivations, in_gates + gate * p.H, A(0));
    return;
  }
  const A grad_h = p.grad_hidden ? at<A>(p.grad_unprojected, i) : hidden_gradient<E>(p, n, unit);
  A grad_c = at_or_zero<E>(p.grad_cell, in_cell);
  if (!takes_part(p.later, n)) {
    grad_c += at_or_zero<E>(p.grad_c_n, i);
  } else if (!(p.reset_later && p.reset_later[n])) {
    grad_c += at<A>(p.grad_c, i);
  }
  A c_before = 0;
  if (!(p.reset_now && p.reset_now[n]))
    c_before = takes_part(p.earlier, n) ? at<E>(p.cell_earlier, in_cell) : at_or_zero<E>(p.c0, i);
  A gate[kGates], grad_gate[kGates];
#pragma unroll
  for (int g = 0; g < kGates; g++) {
    gate[g] = at<E>(p.gates, in_gates + g * p.H);
    grad_gate[g] = at_or_zero<E>(p.grad_gates, in_gates + g * p.H);
  }
  const A c = p.cell ? at<E>(p.cell, in_cell) : updated(gate, c_before);
  const CellGradient<A> grad = retreat(gate, c, c_before, grad_h, grad_c, grad_gate);
#pragma unroll
  for (int g = 0; g < kGates; g++)
    put<E>(p.grad_preactivations, in_gates + g * p.H, grad.preactivation[g]);
  if (p.grad_c) {
    put<A>(p.grad_c, i, grad.c_prev);
  } else {
    put<E>(p.grad_c0, i, grad.c_prev);
  }
}

// A block per sequence and 256 units; fewer threads where the layer is small.
template <class P>
cudaError_t launch_units(void (*kernel)(P), int64_t rows, int64_t units, const P& call,
                         cudaStream_t stream) {
  const unsigned threads = unsigned(std::min<int64_t>(kThreads, ceil_div(units, 32) * 32));
  return launch(Launch::plain, kernel, dim3(unsigned(rows), unsigned(ceil_div(units, threads))),
                dim3(threads), 0, stream, call);
}

}  // namespace

cudaError_t gates_forward(const GatesForward& call, cudaStream_t stream) {
  return with_dtype(call.step.dtype, [&]<class E>() {
    return launch_units(&gates_forward_kernel<E>, call.step.N, call.step.H, call, stream);
  });
}
cudaError_t projection_forward(const ProjectionForward& call, cudaStream_t stream) {
  return with_dtype(call.dtype, [&]<class E>() {
    return launch_units(&projection_forward_kernel<E>, call.N, call.P, call, stream);
  });
}
cudaError_t hidden_backward(const StepBackward& call, cudaStream_t stream) {
  return with_dtype(call.dtype, [&]<class E>() {
    return launch_units(&hidden_backward_kernel<E>, call.N, call.P, call, stream);
  });
}
cudaError_t gates_backward(const StepBackward& call, cudaStream_t stream) {
  return with_dtype(call.dtype, [&]<class E>() {
    return launch_units(&gates_backward_kernel<E>, call.N, call.H, call, stream);
  });
}

}  // namespace lstm_kernels::cuda
