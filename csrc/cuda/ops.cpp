// Unpacks the ops' arguments, checks what memory safety needs, and calls one of the two paths.
#include "ops.h"

#include "calls.h"
#include "kernels.h"
#include "paths.h"
#include "step.h"

namespace lstm_kernels::cuda {
ForwardResults sequence_forward(const ForwardArguments& given) {
  const OnDevice device(given.input, given.reduced_precision);
  const Layer layer = layer_of(given);
  const Forward call = call_of(layer, given);
  run(layer, call, device);
  return {call.output, call.h_n, call.c_n, call.cell, call.gates};
}

BackwardResults sequence_backward(const BackwardArguments& given) {
  const OnDevice device(given.gates, given.reduced_precision);
  const Layer layer = layer_of(given);
  const Backward call = call_of(layer, given);
  run(layer, call, device);
  return {call.grad_preactivations, call.grad_h0, call.grad_c0, call.grad_hidden};
}

std::tuple<Tensor, Tensor, Tensor> cell_forward(const Tensor& input, const Tensor& h0,
                                                const Tensor& c0, const Tensor& w_ih,
                                                const Tensor& w_hh, const OptionalTensor& b_ih,
                                                const OptionalTensor& b_hh, bool save_gates) {
  const OnDevice device(input);
  const Kind kind(input);
  require(input.dim() == 2 && c0.dim() == 2, "input, c0: expected two dimensions");
  require(b_ih.has_value() == b_hh.has_value(), "expected both biases, or neither");
  const int64_t N = input.size(0), I = input.size(1), H = c0.size(1);
  const SingleStep call{.kind = kind,
                        .N = N,
                        .I = I,
                        .H = H,
                        .input = with_dense_rows(input),
                        .h0 = checked_dense(h0, "h0", {N, H}, kind),
                        .c0 = checked_dense(c0, "c0", {N, H}, kind),
                        .weights = {checked_dense(w_ih, "w_ih", {kGates * H, I}, kind),
                                    checked_dense(w_hh, "w_hh", {kGates * H, H}, kind),
                                    checked_dense(b_ih, "b_ih", {kGates * H}, kind),
                                    checked_dense(b_hh, "b_hh", {kGates * H}, kind), std::nullopt},
                        .h = empty({N, H}, kind),
                        .c = empty({N, H}, kind),
                        .gates = empty_if(save_gates, {N, kGates, H}, kind)};
  if (N > 0) step_path(call, device);
  return {call.h, call.c, call.gates};
}

std::tuple<Tensor, Tensor> cell_backward(const OptionalTensor& grad_h, const OptionalTensor& grad_c,
                                         const OptionalTensor& grad_gates, const Tensor& c0,
                                         const Tensor& gates) {
  const OnDevice device(gates);
  const Kind kind(gates);
  require(gates.dim() == 3, "gates: expected three dimensions");
  const int64_t N = gates.size(0), H = gates.size(2);
  const OptionalTensor into_h = checked_dense(grad_h, "grad_h", {N, H}, kind);
  const OptionalTensor into_c = checked_dense(grad_c, "grad_c", {N, H}, kind);
  const OptionalTensor into_gates = checked_dense(grad_gates, "grad_gates", {N, kGates, H}, kind);
  const Tensor before = checked_dense(c0, "c0", {N, H}, kind);
  const Tensor activated = checked_dense(gates, "gates", {N, kGates, H}, kind);
  const Tensor grad_preactivations = empty({N, kGates, H}, kind), grad_c0 = empty({N, H}, kind);
  StepBackward step{};
  step.dtype = dtype_of(kind);
  step.N = N;
  step.H = H;
  step.P = H;
  step.now = {N, 0, nullptr};
  step.grad_h_n = data_or_null(into_h);
  step.grad_c_n = data_or_null(into_c);
  step.grad_gates = data_or_null(into_gates);
  step.c0 = before.const_data_ptr();
  step.gates = activated.const_data_ptr();
  step.gates_row = kGates * H;
  step.grad_preactivations = grad_preactivations.mutable_data_ptr();
  step.grad_c0 = grad_c0.mutable_data_ptr();
  if (N > 0) check(gates_backward(step, device.stream()));
  return {grad_preactivations, grad_c0};
}

Tensor tf32_product(const Tensor& a, const Tensor& b) {
  const OnDevice device(a, true);
  const Kind kind(a);
  require(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0),
          "a, b: expected matrices that fit");
  require(dtype_of(kind) == DType::kFloat32 && Kind(b) == kind, "a, b: expected float32");
  const Tensor product = empty({a.size(0), b.size(1)}, kind);
  device.multiply(product, a, b);
  return product;
}

Tensor packed_offsets(const Tensor& batch_sizes, const Tensor& rows) {
  const OnDevice device(rows);
  const int64_t T = packed_sizes(batch_sizes).first;
  const Tensor offsets = empty({T + 1}, Kind(rows).with(aoti_torch_dtype_int64()));
  check(pack_offsets(batch_sizes.const_data_ptr<int64_t>(), T, offsets.mutable_data_ptr<int64_t>(),
                     device.stream()));
  return offsets;
}

}  // namespace lstm_kernels::cuda
