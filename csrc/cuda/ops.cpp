// Unpacks the ops' arguments, checks what memory safety needs, and calls one of the two paths.
#include "ops.h"

#include "kernels.h"
#include "layer.h"
#include "step.h"

namespace lstm_kernels::cuda {
namespace {

const void* data(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

// An argument may come in any layout; it is read contiguous.
OptionalTensor checked_dense(const OptionalTensor& tensor, const char* name,
                             std::initializer_list<int64_t> sizes, const Kind& kind) {
  if (!tensor) return std::nullopt;
  const Tensor argument = dense(*tensor);
  checked_data(argument, name, sizes, kind);
  return argument;
}

std::vector<Weights> unpack_weights(const std::vector<Tensor>& list, bool has_biases, int D,
                                    int64_t I, int64_t H, int64_t P, const Kind& kind) {
  const size_t each = list.size() / size_t(D), with_bias = has_biases ? 2 : 0;
  const bool projects = each == 3 + with_bias;
  STD_TORCH_CHECK(list.size() % size_t(D) == 0 && (projects || each == 2 + with_bias),
                  "weights: unexpected number of tensors");
  std::vector<Weights> weights;
  for (size_t first = 0; first < list.size(); first += each) {
    Weights w{*checked_dense(list[first], "w_ih", {kGates * H, I}, kind),
              *checked_dense(list[first + 1], "w_hh", {kGates * H, P}, kind), std::nullopt,
              std::nullopt, std::nullopt};
    if (has_biases) {
      w.b_ih = checked_dense(list[first + 2], "b_ih", {kGates * H}, kind);
      w.b_hh = checked_dense(list[first + 3], "b_hh", {kGates * H}, kind);
    }
    if (projects) w.w_hr = checked_dense(list[first + each - 1], "w_hr", {P, H}, kind);
    weights.push_back(w);
  }
  return weights;
}

// Everything about the layer but its input. `rows` is that of the input where it is packed.
Layer unpack(const Kind& kind, DataType type, int64_t T, int64_t N, int64_t I, int64_t rows,
             const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
             const OptionalTensor& batch_sizes, const OptionalTensor& lengths,
             const OptionalTensor& reset) {
  STD_TORCH_CHECK(weights.size() >= 2 && weights[0].dim() == 2 && weights[1].dim() == 2,
                  "weights: expected matrices");
  Layer layer{.type = type, .kind = kind, .size = {}};
  const int D = bidirectional ? 2 : 1;
  const int64_t H = weights[0].size(0) / kGates, P = weights[1].size(1);
  layer.size = {T, N, I, H, P, D};
  layer.weights = unpack_weights(weights, has_biases, D, I, H, P, kind);
  STD_TORCH_CHECK(T > 0 && H > 0 && P > 0, "expected at least one step and one hidden unit");
  STD_TORCH_CHECK(layer.projects() || P == H, "w_hh: expected as many columns as hidden units");
  if (batch_sizes) {
    STD_TORCH_CHECK(!lengths && !reset, "packed input takes neither lengths nor reset");
    layer.batch_sizes = batch_sizes->const_data_ptr<int64_t>();
    layer.offsets.push_back(0);
    for (int64_t t = 0; t < T; t++) {
      const int64_t size = layer.batch_sizes[t];
      STD_TORCH_CHECK(size > 0 && size <= (t ? layer.batch_sizes[t - 1] : N),
                      "batch_sizes: expected positive, non-increasing sizes");
      layer.offsets.push_back(layer.offsets.back() + size);
    }
    STD_TORCH_CHECK(layer.all_rows() == rows, "batch_sizes: expected a sum of ", rows);
  }
  if (lengths) {
    const Kind of_lengths = with_dtype(kind, aoti_torch_dtype_int64());
    layer.lengths = static_cast<const int64_t*>(checked_data(*lengths, "lengths", {N}, of_lengths));
  }
  if (reset) {
    STD_TORCH_CHECK(D == 1, "reset: expected one direction");
    const Kind of_reset = with_dtype(kind, aoti_torch_dtype_bool());
    layer.reset = static_cast<const bool*>(checked_data(*reset, "reset", {T, N}, of_reset));
  }
  return layer;
}

// T and N of a packed input.
std::pair<int64_t, int64_t> packed_sizes(const Tensor& batch_sizes) {
  STD_TORCH_CHECK(batch_sizes.is_cpu() && batch_sizes.dim() == 1 && batch_sizes.size(0) > 0 &&
                      batch_sizes.is_contiguous() &&
                      Kind(batch_sizes).dtype == aoti_torch_dtype_int64(),
                  "batch_sizes: expected a contiguous int64 tensor (T) on the CPU");
  return {batch_sizes.size(0), batch_sizes.const_data_ptr<int64_t>()[0]};
}

// What the persistent kernels want to know of the steps. `offsets` keeps the memory it points to.
Steps device_steps(const Layer& layer, const OnDevice& device, OptionalTensor& offsets) {
  Steps steps;
  steps.lengths = layer.lengths;
  steps.reset = layer.reset;
  if (layer.batch_sizes) {
    offsets = empty({layer.size.T + 1}, with_dtype(layer.kind, aoti_torch_dtype_int64()));
    steps.offsets = offsets->const_data_ptr<int64_t>();
    check(pack_offsets(layer.batch_sizes, layer.size.T, offsets->mutable_data_ptr<int64_t>(),
                       device.stream()));
  }
  return steps;
}

Tensor workspace(const Layer& layer, const Plan& plan) {
  return empty({plan.workspace_bytes}, with_dtype(layer.kind, aoti_torch_dtype_uint8()));
}

// Whether the launch took place; otherwise the blocks do not fit at this moment.
bool launched(cudaError_t error) {
  if (error == cudaErrorCooperativeLaunchTooLarge) return false;
  check(error);
  return true;
}

bool run_persistent(const Layer& layer, const Plan& plan, const Forward& call,
                    const OnDevice& device) {
  const auto& [T, N, I, H, P, D] = layer.size;
  OptionalTensor offsets, x_gates[2];
  const Tensor memory = workspace(layer, plan);
  PersistentForward p{};
  p.type = layer.type;
  p.size = layer.size;
  p.steps = device_steps(layer, device, offsets);
  const Tensor rows = input_rows(layer, call.input, 0, T);
  for (int d = 0; d < D; d++) {
    const Weights& weights = layer.weights[size_t(d)];
    x_gates[d] = empty({layer.all_rows(), kGates * H}, layer.kind);
    multiply(*x_gates[d], rows, view(weights.w_ih, {I, kGates * H}, {1, I}));
    p.x_gates[d] = data(x_gates[d]);
    p.w_hh[d] = weights.w_hh.const_data_ptr();
    p.b_ih[d] = data(weights.b_ih);
    p.b_hh[d] = data(weights.b_hh);
  }
  p.h0 = data(call.h0);
  p.c0 = data(call.c0);
  p.output = call.output.mutable_data_ptr();
  p.h_n = call.h_n.mutable_data_ptr();
  p.c_n = call.c_n.mutable_data_ptr();
  p.cell = call.cell ? call.cell->mutable_data_ptr() : nullptr;
  p.gates = call.gates ? call.gates->mutable_data_ptr() : nullptr;
  p.workspace = memory.mutable_data_ptr();
  return launched(persistent_forward(p, plan, device.stream()));
}

bool run_persistent(const Layer& layer, const Plan& plan, const Backward& call,
                    const OnDevice& device) {
  OptionalTensor offsets;
  const Tensor memory = workspace(layer, plan);
  PersistentBackward p{};
  p.type = layer.type;
  p.size = layer.size;
  p.steps = device_steps(layer, device, offsets);
  for (int d = 0; d < layer.size.D; d++) p.w_hh[d] = layer.weights[size_t(d)].w_hh.const_data_ptr();
  p.c0 = data(call.c0);
  p.cell = call.cell.const_data_ptr();
  p.gates = call.gates.const_data_ptr();
  p.grad_output = data(call.grad_output);
  p.grad_h_n = data(call.grad_h_n);
  p.grad_c_n = data(call.grad_c_n);
  p.grad_cell = data(call.grad_cell);
  p.grad_gates = data(call.grad_gates);
  p.grad_preactivations = call.grad_preactivations.mutable_data_ptr();
  p.grad_h0 = call.grad_h0.mutable_data_ptr();
  p.grad_c0 = call.grad_c0.mutable_data_ptr();
  p.workspace = memory.mutable_data_ptr();
  return launched(persistent_backward(p, plan, device.stream()));
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sequence_forward(
    const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
    const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
    const OptionalTensor& batch_sizes, const OptionalTensor& lengths, const OptionalTensor& reset,
    bool save_cell, bool save_gates, bool allow_tf32) {
  const OnDevice device(input);
  const Kind kind(input);
  STD_TORCH_CHECK(input.dim() == (batch_sizes ? 2 : 3), "input: unexpected number of dimensions");
  const int64_t I = input.size(input.dim() - 1);
  const auto [T, N] =
      batch_sizes ? packed_sizes(*batch_sizes) : std::pair(input.size(0), input.size(1));
  const Layer layer = unpack(kind, data_type(input), T, N, I, input.size(0), weights, has_biases,
                             bidirectional, batch_sizes, lengths, reset);
  const int64_t H = layer.size.H, P = layer.size.P, D = layer.size.D;

  const auto per_step = [&](int64_t width) {
    return batch_sizes ? empty({input.size(0), width}, kind) : empty({T, N, width}, kind);
  };
  Forward call{with_dense_rows(input),
               checked_dense(h0, "h0", {D, N, P}, kind),
               checked_dense(c0, "c0", {D, N, H}, kind),
               per_step(D * P),
               empty({D, N, P}, kind),
               empty({D, N, H}, kind),
               std::nullopt,
               std::nullopt};
  if (save_cell) call.cell = per_step(D * H);
  if (save_gates)
    call.gates = batch_sizes ? empty({input.size(0), D, kGates, H}, kind)
                             : empty({T, N, D, kGates, H}, kind);
  if (N > 0) {
    const Plan plan = choose(Pass::forward, device.limits(), layer.type, allow_tf32, layer.size);
    if (!plan.persistent || !run_persistent(layer, plan, call, device))
      step_forward(layer, call, device);
  }
  const auto or_empty = [&](const OptionalTensor& t) { return t ? *t : empty({0}, kind); };
  return {call.output, call.h_n, call.c_n, or_empty(call.cell), or_empty(call.gates)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sequence_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_h_n,
    const OptionalTensor& grad_c_n, const OptionalTensor& grad_cell,
    const OptionalTensor& grad_gates, const OptionalTensor& c0, const std::vector<Tensor>& weights,
    bool has_biases, bool bidirectional, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const Tensor& cell,
    const Tensor& gates, bool allow_tf32) {
  const OnDevice device(gates);
  const Kind kind(gates);
  STD_TORCH_CHECK(gates.dim() == (batch_sizes ? 4 : 5), "gates: unexpected number of dimensions");
  const auto [T, N] =
      batch_sizes ? packed_sizes(*batch_sizes) : std::pair(gates.size(0), gates.size(1));
  STD_TORCH_CHECK(!weights.empty() && weights[0].dim() == 2, "weights: expected matrices");
  const Layer layer = unpack(kind, data_type(gates), T, N, weights[0].size(1), gates.size(0),
                             weights, has_biases, bidirectional, batch_sizes, lengths, reset);
  const int64_t H = layer.size.H, P = layer.size.P, D = layer.size.D, R = gates.size(0);

  // What there is for every step, packed or not.
  const auto checked = [&](const OptionalTensor& t, const char* name, int64_t width) {
    return batch_sizes ? checked_dense(t, name, {R, width}, kind)
                       : checked_dense(t, name, {T, N, width}, kind);
  };
  const auto checked_gates = [&](const OptionalTensor& t, const char* name) {
    return batch_sizes ? checked_dense(t, name, {R, D, kGates, H}, kind)
                       : checked_dense(t, name, {T, N, D, kGates, H}, kind);
  };
  Backward call{checked(grad_output, "grad_output", D * P),
                checked_dense(grad_h_n, "grad_h_n", {D, N, P}, kind),
                checked_dense(grad_c_n, "grad_c_n", {D, N, H}, kind),
                checked(grad_cell, "grad_cell", D * H),
                checked_gates(grad_gates, "grad_gates"),
                checked_dense(c0, "c0", {D, N, H}, kind),
                *checked(cell, "cell", D * H),
                *checked_gates(gates, "gates"),
                batch_sizes ? empty({R, D, kGates, H}, kind) : empty({T, N, D, kGates, H}, kind),
                empty({D, N, P}, kind),
                empty({D, N, H}, kind),
                std::nullopt};
  if (layer.projects())
    call.grad_hidden = batch_sizes ? empty({R, D * P}, kind) : empty({T, N, D * P}, kind);
  if (N > 0) {
    const Plan plan = choose(Pass::backward, device.limits(), layer.type, allow_tf32, layer.size);
    if (!plan.persistent || !run_persistent(layer, plan, call, device))
      step_backward(layer, call, device);
  }
  return {call.grad_preactivations, call.grad_h0, call.grad_c0,
          call.grad_hidden ? *call.grad_hidden : empty({0}, kind)};
}

std::tuple<Tensor, Tensor, Tensor> cell_forward(const Tensor& input, const Tensor& h0,
                                                const Tensor& c0, const Tensor& w_ih,
                                                const Tensor& w_hh, const OptionalTensor& b_ih,
                                                const OptionalTensor& b_hh, bool save_gates) {
  const OnDevice device(input);
  const Kind kind(input);
  STD_TORCH_CHECK(input.dim() == 2 && c0.dim() == 2, "input, c0: expected two dimensions");
  const int64_t N = input.size(0), I = input.size(1), H = c0.size(1);
  STD_TORCH_CHECK(b_ih.has_value() == b_hh.has_value(), "expected both biases, or neither");
  SingleStep call{data_type(input),
                  kind,
                  N,
                  I,
                  H,
                  with_dense_rows(input),
                  *checked_dense(h0, "h0", {N, H}, kind),
                  *checked_dense(c0, "c0", {N, H}, kind),
                  {*checked_dense(w_ih, "w_ih", {kGates * H, I}, kind),
                   *checked_dense(w_hh, "w_hh", {kGates * H, H}, kind),
                   checked_dense(b_ih, "b_ih", {kGates * H}, kind),
                   checked_dense(b_hh, "b_hh", {kGates * H}, kind), std::nullopt},
                  empty({N, H}, kind),
                  empty({N, H}, kind),
                  std::nullopt};
  if (save_gates) call.gates = empty({N, kGates, H}, kind);
  if (N > 0) single_step_forward(call, device);
  return {call.h, call.c, call.gates ? *call.gates : empty({0}, kind)};
}

std::tuple<Tensor, Tensor> cell_backward(const OptionalTensor& grad_h, const OptionalTensor& grad_c,
                                         const OptionalTensor& grad_gates, const Tensor& c0,
                                         const Tensor& c, const Tensor& gates) {
  const OnDevice device(gates);
  const Kind kind(gates);
  STD_TORCH_CHECK(gates.dim() == 3, "gates: expected three dimensions");
  const int64_t N = gates.size(0), H = gates.size(2);
  checked_data(gates, "gates", {N, kGates, H}, kind);
  const OptionalTensor h = checked_dense(grad_h, "grad_h", {N, H}, kind);
  const OptionalTensor into_c = checked_dense(grad_c, "grad_c", {N, H}, kind);
  const OptionalTensor into_gates = checked_dense(grad_gates, "grad_gates", {N, kGates, H}, kind);
  const Tensor preactivations = empty({N, kGates, H}, kind), before = empty({N, H}, kind);
  StepBackward step{};
  step.type = data_type(gates);
  step.N = N;
  step.H = H;
  step.P = H;
  step.now = {N, 0, nullptr};
  step.grad_h_n = data(h);
  step.grad_c_n = data(into_c);
  step.grad_gates = data(into_gates);
  step.c0 = checked_data(c0, "c0", {N, H}, kind);
  step.cell = checked_data(c, "c", {N, H}, kind);
  step.cell_row = H;
  step.gates = gates.const_data_ptr();
  step.gates_row = kGates * H;
  step.grad_preactivations = preactivations.mutable_data_ptr();
  step.grad_c0 = before.mutable_data_ptr();
  if (N > 0) check(gates_backward(step, device.stream()));
  return {preactivations, before};
}

}  // namespace lstm_kernels::cuda
