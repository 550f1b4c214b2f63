// What the kernels of a single step share (step.cu, fused_step.cu).
#pragma once
#include "cell.cuh"
#include "launch.cuh"
#include "step.h"

namespace lstm_kernels::cuda {

// Calls f<E>() with the type of the tensors' elements.
template <class F>
cudaError_t with_dtype(DType dtype, F f) {
  switch (dtype) {
    case DType::kFloat32:
      return f.template operator()<float>();
    case DType::kFloat64:
      return f.template operator()<double>();
    case DType::kFloat16:
      return f.template operator()<__half>();
    case DType::kBFloat16:
      return f.template operator()<__nv_bfloat16>();
  }
  return cudaErrorInvalidValue;
}

// Element i of an array, computed with; zero where there is no array.
template <class E>
DEV Compute<E> at(const void* array, int64_t i) {
  return widen(static_cast<const E*>(array)[i]);
}
template <class E>
DEV Compute<E> at_or_zero(const void* array, int64_t i) {
  return array ? at<E>(array, i) : Compute<E>(0);
}
template <class E>
DEV void put(void* array, int64_t i, Compute<E> value) {
  static_cast<E*>(array)[i] = narrow<E>(value);
}

DEV bool takes_part(const StepRows& step, int64_t n) {
  return n < step.rows && (!step.lengths || step.time < step.lengths[n]);
}

// The cell state before the step.
template <class E>
DEV Compute<E> cell_state_before(const StepForward& p, int64_t n, int64_t unit) {
  const int64_t i = n * p.H + unit;
  return p.c_before ? at<Compute<E>>(p.c_before, i) : at_or_zero<E>(p.c0, i);
}

template <class E>
DEV Compute<E> bias(const StepForward& p, int gate, int64_t unit) {
  return at_or_zero<E>(p.b_ih, gate * p.H + unit) + at_or_zero<E>(p.b_hh, gate * p.H + unit);
}

// The step of one hidden unit. h goes to `h` and `output`, or to `unprojected` alone where that is
// given.
template <class E>
DEV void forward_unit(const StepForward& p, int64_t n, int64_t unit,
                      const Compute<E> (&preactivation)[kGates], Compute<E> c_before,
                      void* unprojected) {
  using A = Compute<E>;
  const Cell<A> cell = advance(preactivation, c_before);
  const int64_t i = n * p.H + unit;
  if (p.c) put<A>(p.c, i, cell.c);
  if (p.c_n) put<E>(p.c_n, i, cell.c);
  if (p.cell) put<E>(p.cell, n * p.cell_row + unit, cell.c);
  if (p.gates)
#pragma unroll
    for (int gate = 0; gate < kGates; gate++)
      put<E>(p.gates, n * p.gates_row + gate * p.H + unit, cell.gate[gate]);
  if (unprojected) {
    put<E>(unprojected, i, cell.h);
  } else {
    put<E>(p.h, i, cell.h);
    if (p.output) put<E>(p.output, n * p.output_row + unit, cell.h);
  }
}

// A row that takes no part keeps its states; what is returned for it is zero.
template <class E>
DEV void skip_unit(const StepForward& p, int64_t n, int64_t unit, void* unprojected) {
  using A = Compute<E>;
  const int64_t i = n * p.H + unit;
  const A c = cell_state_before<E>(p, n, unit);
  if (p.c) put<A>(p.c, i, c);
  if (p.c_n) put<E>(p.c_n, i, c);
  if (!unprojected) put<E>(p.h, i, at_or_zero<E>(p.h_before, i));
  if (n >= p.now.rows) return;
  if (p.cell) put<E>(p.cell, n * p.cell_row + unit, A(0));
  if (p.gates)
#pragma unroll
    for (int gate = 0; gate < kGates; gate++)
      put<E>(p.gates, n * p.gates_row + gate * p.H + unit, A(0));
  if (unprojected) {
    put<E>(unprojected, i, A(0));  // it is multiplied with w_hr all the same
  } else if (p.output) {
    put<E>(p.output, n * p.output_row + unit, A(0));
  }
}

}  // namespace lstm_kernels::cuda
