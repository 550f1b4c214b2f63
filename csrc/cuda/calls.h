// From the arguments of a sequence op to a call of a path: checked, with memory for its results.
#pragma once
#include "paths.h"

namespace lstm_kernels::cuda {

inline Tensor empty_if(bool asked, const TensorShape& shape, const Kind& kind) {
  return asked ? empty(shape, kind) : empty({0}, kind);
}

inline Layer layer_of(const ForwardArguments& given) {
  return Layer(given.input, "input: expected (T, N, I), or (R, I) with batch_sizes", 1,
               given.weights, given.ragged);
}
inline Forward call_of(const Layer& layer, const ForwardArguments& given) {
  const auto& [kind, rows] = std::tie(layer.kind, layer.rows);
  const auto& [T, N, I, H, P, D] = layer.size;
  require(given.input.size(given.input.dim() - 1) == I, "input: its last size is not that of w_ih");
  return {.input = with_dense_rows(given.input),
          .h0 = checked_dense(given.h0, "h0", {D, N, P}, kind),
          .c0 = checked_dense(given.c0, "c0", {D, N, H}, kind),
          .output = empty(rows.of({D * P}), kind),
          .h_n = empty({D, N, P}, kind),
          .c_n = empty({D, N, H}, kind),
          .cell = empty_if(given.save_cell, rows.of({D * H}), kind),
          .gates = empty_if(given.save_gates, rows.of({D, kGates, H}), kind)};
}

inline Layer layer_of(const BackwardArguments& given) {
  return Layer(given.cell, "cell: expected (T, N, D*H), or (R, D*H) with batch_sizes", 1,
               given.weights, given.ragged);
}
inline Backward call_of(const Layer& layer, const BackwardArguments& given) {
  const auto& [kind, rows] = std::tie(layer.kind, layer.rows);
  const auto& [T, N, I, H, P, D] = layer.size;
  const TensorShape of_output = rows.of({D * P}), of_cell = rows.of({D * H});
  const TensorShape of_gates = rows.of({D, kGates, H});
  return {.grad_output = checked_dense(given.grad_output, "grad_output", of_output, kind),
          .grad_h_n = checked_dense(given.grad_h_n, "grad_h_n", {D, N, P}, kind),
          .grad_c_n = checked_dense(given.grad_c_n, "grad_c_n", {D, N, H}, kind),
          .grad_cell = checked_dense(given.grad_cell, "grad_cell", of_cell, kind),
          .grad_gates = checked_dense(given.grad_gates, "grad_gates", of_gates, kind),
          .c0 = checked_dense(given.c0, "c0", {D, N, H}, kind),
          .cell = checked_dense(given.cell, "cell", of_cell, kind),
          .gates = checked_dense(given.gates, "gates", of_gates, kind),
          .grad_preactivations = empty(of_gates, kind),
          .grad_h0 = empty({D, N, P}, kind),
          .grad_c0 = empty({D, N, H}, kind),
          .grad_hidden = empty_if(layer.projects, of_output, kind)};
}

}  // namespace lstm_kernels::cuda
