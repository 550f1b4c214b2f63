// A layer by one or two kernels and one matrix product per step: the path for every type and size,
// and the oracle of the persistent one.
//
// The input's product is computed ahead for as many steps as leave it in the L2 cache. Then a step
// is either one kernel (fused_step.cu, for few sequences) or the recurrent product by torch's
// library and one kernel for the rest (step.cu); a projection adds a product and a kernel. Sums of
// 16-bit types stay in float32 between product and kernel. Bound: 7 to 10 us per step for the
// launches of one step, as long as its arithmetic takes less.
#include "layer.h"
#include "step.h"

namespace lstm_kernels::cuda {
namespace {

// Whether the kernel with the products in it (fused_step.cu) takes the step. It reads the weights
// once for every 8 sequences: twice at most, and only from L2.
bool few(int64_t sequences, int64_t weight_bytes, const OnDevice& device) {
  return sequences <= (weight_bytes <= device.l2_bytes() / 2 ? 16 : 8);
}

// `elements` past the start of an array of the type, or null.
void* past(const Tensor& tensor, int64_t elements, DataType type) {
  return static_cast<char*>(tensor.mutable_data_ptr()) + elements * size_of(type);
}
const void* const_past(const Tensor& tensor, int64_t elements, DataType type) {
  return static_cast<const char*>(tensor.const_data_ptr()) + elements * size_of(type);
}
const void* const_past(const OptionalTensor& tensor, int64_t elements, DataType type) {
  return tensor ? const_past(*tensor, elements, type) : nullptr;
}
const void* data(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

Tensor transposed(const Tensor& matrix) {
  return view(matrix, {matrix.size(1), matrix.size(0)}, {1, matrix.size(1)});
}
// The first rows of a contiguous matrix. All of them is the usual case, and costs nothing.
Tensor first_rows(const Tensor& matrix, int64_t rows) {
  const int64_t columns = matrix.size(1);
  return rows == matrix.size(0) ? matrix : view(matrix, {rows, columns}, {columns, 1});
}

// The steps of one direction in the order of its recurrence.
struct Order {
  const Layer& layer;
  int direction;
  int64_t time(int64_t step) const { return direction ? layer.size.T - 1 - step : step; }
  // Steps before the first and after the last have no rows.
  Participants participants(int64_t step) const {
    if (step < 0 || step >= layer.size.T) return {0, 0, layer.lengths};
    return {layer.rows(time(step)), time(step), layer.lengths};
  }
  const bool* reset(int64_t step) const {
    if (!layer.reset || step < 0 || step >= layer.size.T) return nullptr;
    return layer.reset + time(step) * layer.size.N;
  }
};

// The products of the input with w_ih, chunk by chunk of steps.
class InputProduct {
 public:
  InputProduct(const Order& order, const Tensor& input, const OnDevice& device)
      : order_(order),
        input_(input),
        w_(transposed(order.layer.weights[size_t(order.direction)].w_ih)) {
    const Sizes& s = order.layer.size;
    const int64_t step_bytes = s.N * kGates * s.H * size_of(wide(order.layer.type));
    steps_ = std::clamp<int64_t>(device.l2_bytes() / 2 / step_bytes, 1, s.T);
    const int64_t rows = std::min(steps_ * s.N, order.layer.all_rows());
    product_ = empty({rows, kGates * s.H}, wide(order.layer.kind));
  }
  // (rows of the step, 4, H). Steps are asked for in order.
  const void* of(int64_t step) {
    const Layer& layer = order_.layer;
    if (step % steps_ == 0) {
      const int64_t last = std::min(step + steps_, layer.size.T) - 1;
      const int64_t t0 = std::min(order_.time(step), order_.time(last));
      const int64_t t1 = std::max(order_.time(step), order_.time(last)) + 1;
      first_row_ = layer.first_row(t0);
      const int64_t rows = layer.first_row(t1) - first_row_;
      multiply(first_rows(product_, rows), input_rows(layer, input_, t0, t1), w_);
    }
    const int64_t row = layer.first_row(order_.time(step)) - first_row_;
    return const_past(product_, row * kGates * layer.size.H, wide(layer.type));
  }

 private:
  const Order order_;
  const Tensor input_, w_;
  int64_t steps_, first_row_ = 0;
  Tensor product_;
};

void forward_direction(const Layer& layer, const Forward& call, int d, const OnDevice& device) {
  const auto& [T, N, I, H, P, D] = layer.size;
  const DataType type = layer.type;
  const Weights& weights = layer.weights[size_t(d)];
  const Kind wide_kind = wide(layer.kind);
  const bool fused = !layer.projects() && few(N, kGates * H * H * size_of(type), device);
  const bool input_in_kernel = fused && T == 1;
  const Order order{layer, d};

  const Tensor c = empty({N, H}, wide_kind);
  const Tensor h[2] = {empty({N, P}, layer.kind), empty({N, P}, layer.kind)};
  std::optional<InputProduct> input_product;
  if (!input_in_kernel) input_product.emplace(order, call.input, device);
  OptionalTensor recurrent, unprojected, projected, w_hh, w_hr;
  if (!fused) {
    recurrent = empty({N, kGates * H}, wide_kind);
    w_hh = transposed(weights.w_hh);
  }
  if (layer.projects()) {
    unprojected = empty({N, H}, layer.kind);
    projected = empty({N, P}, layer.kind);
    w_hr = transposed(*weights.w_hr);
  }

  for (int64_t s = 0; s < T; s++) {
    const int64_t t = order.time(s), row = layer.first_row(t), rows = layer.rows(t);
    const OptionalTensor h_before = s > 0 ? OptionalTensor(h[(s - 1) % 2])
                                    : call.h0
                                        ? OptionalTensor(view(*call.h0, {N, P}, {P, 1}, d * N * P))
                                        : std::nullopt;
    void* const h_after =
        s == T - 1 ? past(call.h_n, d * N * P, type) : h[s % 2].mutable_data_ptr();
    StepForward step{};
    step.type = type;
    step.N = N;
    step.H = H;
    step.now = order.participants(s);
    step.reset = order.reset(s);
    step.b_ih = data(weights.b_ih);
    step.b_hh = data(weights.b_hh);
    step.c_before = s > 0 ? c.const_data_ptr() : nullptr;
    step.c0 = s > 0 ? nullptr : const_past(call.c0, d * N * H, type);
    step.h_before = data(h_before);
    step.c = c.mutable_data_ptr();
    step.c_n = s == T - 1 ? past(call.c_n, d * N * H, type) : nullptr;
    step.h = h_after;
    step.output = past(call.output, (row * D + d) * P, type);
    step.output_row = D * P;
    step.cell = call.cell ? past(*call.cell, (row * D + d) * H, type) : nullptr;
    step.cell_row = D * H;
    step.gates = call.gates ? past(*call.gates, (row * D + d) * kGates * H, type) : nullptr;
    step.gates_row = D * kGates * H;

    if (fused) {
      FusedForward all{};
      all.step = step;
      all.w_hh = weights.w_hh.const_data_ptr();
      if (input_in_kernel) {
        const Tensor rows_of_input = input_rows(layer, call.input, 0, 1);
        all.input = rows_of_input.const_data_ptr();
        all.input_row = rows_of_input.stride(0);
        all.I = I;
        all.w_ih = weights.w_ih.const_data_ptr();
      } else {
        all.input_product = input_product->of(s);
      }
      check(fused_forward(all, device.stream()));
      continue;
    }
    GatesForward rest{};
    rest.step = step;
    rest.input_product = input_product->of(s);
    if (h_before) {
      multiply(first_rows(*recurrent, rows), first_rows(*h_before, rows), *w_hh);
      rest.recurrent_product = recurrent->const_data_ptr();
    }
    rest.unprojected = unprojected ? unprojected->mutable_data_ptr() : nullptr;
    check(gates_forward(rest, device.stream()));
    if (!layer.projects()) continue;
    multiply(first_rows(*projected, rows), first_rows(*unprojected, rows), *w_hr);
    ProjectionForward projection{};
    projection.type = type;
    projection.N = N;
    projection.P = P;
    projection.now = step.now;
    projection.projected = projected->const_data_ptr();
    projection.h_before = step.h_before;
    projection.h = step.h;
    projection.output = step.output;
    projection.output_row = step.output_row;
    check(projection_forward(projection, device.stream()));
  }
}

void backward_direction(const Layer& layer, const Backward& call, int d, const OnDevice& device) {
  const auto& [T, N, I, H, P, D] = layer.size;
  const DataType type = layer.type;
  const Weights& weights = layer.weights[size_t(d)];
  const Kind wide_kind = wide(layer.kind);
  const Order order{layer, d};
  const Tensor recurrent = empty({N, P}, wide_kind), grad_c = empty({N, H}, wide_kind);
  OptionalTensor grad_unprojected;
  if (layer.projects()) grad_unprojected = empty({N, H}, wide_kind);

  // Step -1 finishes what is left.
  for (int64_t s = T - 1; s >= -1; s--) {
    const int64_t t = s >= 0 ? order.time(s) : 0, row = layer.first_row(t), rows = layer.rows(t);
    const int64_t row_before = s > 0 ? layer.first_row(order.time(s - 1)) : row;
    StepBackward step{};
    step.type = type;
    step.N = N;
    step.H = H;
    step.P = P;
    step.later = order.participants(s + 1);
    step.now = order.participants(s);
    step.earlier = order.participants(s - 1);
    step.reset_later = order.reset(s + 1);
    step.reset_now = order.reset(s);
    step.grad_h_n = const_past(call.grad_h_n, d * N * P, type);
    step.grad_c_n = const_past(call.grad_c_n, d * N * H, type);
    step.recurrent = recurrent.const_data_ptr();
    step.grad_output = const_past(call.grad_output, (row * D + d) * P, type);
    step.grad_output_row = D * P;
    step.grad_cell = const_past(call.grad_cell, (row * D + d) * H, type);
    step.grad_gates = const_past(call.grad_gates, (row * D + d) * kGates * H, type);
    step.c0 = const_past(call.c0, d * N * H, type);
    step.cell = const_past(call.cell, (row * D + d) * H, type);
    step.cell_earlier = const_past(call.cell, (row_before * D + d) * H, type);
    step.cell_row = D * H;
    step.gates = const_past(call.gates, (row * D + d) * kGates * H, type);
    step.gates_row = D * kGates * H;
    step.grad_preactivations = past(call.grad_preactivations, (row * D + d) * kGates * H, type);
    step.grad_c = grad_c.mutable_data_ptr();
    step.grad_h0 = past(call.grad_h0, d * N * P, type);
    step.grad_c0 = past(call.grad_c0, d * N * H, type);
    if (layer.projects()) {
      step.grad_hidden = past(*call.grad_hidden, (row * D + d) * P, type);
      step.grad_hidden_row = D * P;
      step.grad_unprojected = grad_unprojected->const_data_ptr();
      check(hidden_backward(step, device.stream()));
      if (s >= 0)
        multiply(first_rows(*grad_unprojected, rows),
                 view(*call.grad_hidden, {rows, P}, {D * P, 1}, (row * D + d) * P), *weights.w_hr);
    }
    check(gates_backward(step, device.stream()));
    if (s >= 0)
      multiply(first_rows(recurrent, rows),
               view(call.grad_preactivations, {rows, kGates * H}, {D * kGates * H, 1},
                    (row * D + d) * kGates * H),
               weights.w_hh);
  }
}

}  // namespace

Tensor input_rows(const Layer& layer, const Tensor& input, int64_t t0, int64_t t1) {
  const auto& [T, N, I, H, P, D] = layer.size;
  const int64_t row = layer.first_row(t0), rows = layer.first_row(t1) - row;
  if (layer.batch_sizes) return view(input, {rows, I}, {input.stride(0), 1}, row * input.stride(0));
  const int64_t by_time = input.stride(0), by_row = input.stride(1);
  if (N == 1) return view(input, {rows, I}, {by_time, 1}, t0 * by_time);
  if (t1 - t0 == 1 || by_time == N * by_row)
    return view(input, {rows, I}, {by_row, 1}, t0 * by_time);
  const Tensor steps = view(input, {t1 - t0, N, I}, {by_time, by_row, 1}, t0 * by_time);
  return view(dense(steps), {rows, I}, {I, 1});
}

void step_forward(const Layer& layer, const Forward& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) forward_direction(layer, call, d, device);
}

void step_backward(const Layer& layer, const Backward& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) backward_direction(layer, call, d, device);
}

void single_step_forward(const SingleStep& call, const OnDevice& device) {
  const int64_t N = call.N, I = call.I, H = call.H;
  StepForward step{};
  step.type = call.type;
  step.N = N;
  step.H = H;
  step.now = {N, 0, nullptr};
  step.b_ih = data(call.weights.b_ih);
  step.b_hh = data(call.weights.b_hh);
  step.c0 = call.c0.const_data_ptr();
  step.h_before = call.h0.const_data_ptr();
  step.c_n = call.c.mutable_data_ptr();
  step.h = call.h.mutable_data_ptr();
  step.gates = call.gates ? call.gates->mutable_data_ptr() : nullptr;
  step.gates_row = kGates * H;
  if (few(N, kGates * H * (H + I) * size_of(call.type), device)) {
    FusedForward all{};
    all.step = step;
    all.w_hh = call.weights.w_hh.const_data_ptr();
    all.input = call.input.const_data_ptr();
    all.input_row = call.input.stride(0);
    all.I = I;
    all.w_ih = call.weights.w_ih.const_data_ptr();
    check(fused_forward(all, device.stream()));
    return;
  }
  const Kind wide_kind = wide(call.kind);
  const Tensor input_product = empty({N, kGates * H}, wide_kind);
  const Tensor recurrent_product = empty({N, kGates * H}, wide_kind);
  multiply(input_product, call.input, transposed(call.weights.w_ih));
  multiply(recurrent_product, call.h0, transposed(call.weights.w_hh));
  GatesForward rest{};
  rest.step = step;
  rest.input_product = input_product.const_data_ptr();
  rest.recurrent_product = recurrent_product.const_data_ptr();
  check(gates_forward(rest, device.stream()));
}

}  // namespace lstm_kernels::cuda
