// A layer by one or two kernels and one matrix product per step: the path for every type and size,
// and the oracle of the persistent one.
//
// The input's product is computed ahead for as many steps as leave it in the L2 cache. Then a step
// is either one kernel (fused_step.cu, for few sequences) or the recurrent product by torch's
// library and one kernel for the rest (step.cu); a projection adds a product and a kernel. Sums of
// 16-bit types stay in float32 between product and kernel. Bound: the host, which
// takes about 5 us for a step of one kernel, 13 forward and 20 backward for one of two, as long as
// the arithmetic takes less (predicted_step_of_per_step_path of choose.h).
#include "direction.h"
#include "input_product.h"
#include "paths.h"
#include "step.h"

namespace lstm_kernels::cuda {
namespace {

// Whether the kernel with the products in it (fused_step.cu) takes the step. It reads the weights
// once for every 8 sequences: twice at most, and only from L2.
bool few(int64_t sequences, int64_t weight_bytes, const OnDevice& device) {
  return sequences <= (weight_bytes <= device.l2_bytes() / 2 ? 16 : 8);
}

class ForwardDirection {
 public:
  ForwardDirection(const Layer& layer, const Forward& call, int d, const OnDevice& device)
      : at_{layer, d}, call_(call), device_(device) {
    const auto& [T, N, I, H, P, D] = layer.size;
    fused_ = !layer.projects && few(N, kGates * H * H * size_of(layer.dtype), device);
    c_ = empty({N, H}, wide(layer.kind));
    for (OptionalTensor& h : h_) h = empty({N, P}, layer.kind);
    if (!(fused_ && T == 1)) input_product_.emplace(at_.steps, call.input, device);
    if (!fused_) {
      recurrent_ = empty({N, kGates * H}, wide(layer.kind));
      w_hh_ = transposed(at_.weights.w_hh);
    }
    if (layer.projects) {
      unprojected_ = empty({N, H}, layer.kind);
      projected_ = empty({N, P}, layer.kind);
      w_hr_ = transposed(*at_.weights.w_hr);
    }
  }

  void step(int64_t s) {
    const OptionalTensor before = h_before(s);
    const StepForward step = describe(s, before);
    if (fused_) return run_fused(step, s);
    run_gates(step, s, before);
    if (at_.layer.projects) run_projection(step);
  }

 private:
  OptionalTensor h_before(int64_t s) const {
    if (s > 0) return h_[(s - 1) % 2];
    if (!call_.h0) return std::nullopt;
    const int64_t N = at_.layer.size.N, P = at_.layer.size.P;
    return view(*call_.h0, {N, P}, {P, 1}, at_.state(P));
  }

  StepForward describe(int64_t s, const OptionalTensor& before) const {
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    const bool first = s == 0, last = s == T - 1;
    StepForward step{};
    step.dtype = at_.layer.dtype;
    step.N = N;
    step.H = H;
    step.now = at_.steps.rows(s);
    step.reset = at_.steps.reset(s);
    step.b_ih = data_or_null(at_.weights.b_ih);
    step.b_hh = data_or_null(at_.weights.b_hh);
    step.c_before = first ? nullptr : data_or_null(c_);
    step.c0 = first ? at_.read_state(call_.c0, H) : nullptr;
    step.h_before = data_or_null(before);
    step.c = c_->mutable_data_ptr();
    step.c_n = last ? at_.write_state(call_.c_n, H) : nullptr;
    step.h = last ? at_.write_state(call_.h_n, P) : h_[s % 2]->mutable_data_ptr();
    step.output = at_.write_row(call_.output, s, P);
    step.output_row = D * P;
    step.cell = at_.write_row(call_.cell, s, H);
    step.cell_row = D * H;
    step.gates = at_.write_row(call_.gates, s, kGates * H);
    step.gates_row = D * kGates * H;
    return step;
  }

  void run_fused(const StepForward& step, int64_t s) {
    FusedForward all{};
    all.step = step;
    all.w_hh = at_.weights.w_hh.const_data_ptr();
    if (input_product_) {
      all.input_product = input_product_->of(s);
    } else {
      const Tensor input = input_rows(at_.layer, call_.input, 0, 1);
      all.input = input.const_data_ptr();
      all.input_row = input.stride(0);
      all.I = at_.layer.size.I;
      all.w_ih = at_.weights.w_ih.const_data_ptr();
    }
    check(fused_forward(all, device_.stream()));
  }

  void run_gates(const StepForward& step, int64_t s, const OptionalTensor& before) {
    GatesForward rest{};
    rest.step = step;
    rest.input_product = input_product_->of(s);
    if (before) {
      const int64_t rows = step.now.rows;
      device_.multiply(first_rows(*recurrent_, rows), first_rows(*before, rows), *w_hh_);
      rest.recurrent_product = recurrent_->const_data_ptr();
    }
    rest.unprojected = unprojected_ ? unprojected_->mutable_data_ptr() : nullptr;
    check(gates_forward(rest, device_.stream()));
  }

  void run_projection(const StepForward& step) {
    const int64_t rows = step.now.rows;
    device_.multiply(first_rows(*projected_, rows), first_rows(*unprojected_, rows), *w_hr_);
    ProjectionForward projection{};
    projection.dtype = step.dtype;
    projection.N = step.N;
    projection.P = at_.layer.size.P;
    projection.now = step.now;
    projection.projected = projected_->const_data_ptr();
    projection.h_before = step.h_before;
    projection.h = step.h;
    projection.output = step.output;
    projection.output_row = step.output_row;
    check(projection_forward(projection, device_.stream()));
  }

  const Direction at_;
  const Forward& call_;
  const OnDevice& device_;
  bool fused_;  // products in the kernel; where there is but one step, the input's too
  OptionalTensor c_, h_[2];
  std::optional<InputProduct> input_product_;
  OptionalTensor recurrent_, w_hh_;                // unless fused
  OptionalTensor unprojected_, projected_, w_hr_;  // where the layer projects
};

class BackwardDirection {
 public:
  BackwardDirection(const Layer& layer, const Backward& call, int d, const OnDevice& device)
      : at_{layer, d},
        call_(call),
        device_(device),
        recurrent_(empty({layer.size.N, layer.size.P}, wide(layer.kind))),
        grad_c_(empty({layer.size.N, layer.size.H}, wide(layer.kind))) {
    if (layer.projects) grad_unprojected_ = empty({layer.size.N, layer.size.H}, wide(layer.kind));
  }

  // Step -1 finishes what is left.
  void step(int64_t s) {
    const StepBackward step = describe(s);
    const int64_t rows = step.now.rows;
    if (grad_unprojected_) {
      check(hidden_backward(step, device_.stream()));
      if (s >= 0)
        device_.multiply(first_rows(*grad_unprojected_, rows),
                         at_.rows(call_.grad_hidden, s, step.P), *at_.weights.w_hr);
    }
    check(gates_backward(step, device_.stream()));
    if (s >= 0)
      device_.multiply(first_rows(recurrent_, rows),
                       at_.rows(call_.grad_preactivations, s, kGates * step.H), at_.weights.w_hh);
  }

 private:
  StepBackward describe(int64_t s) const {
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    const int64_t here = std::max<int64_t>(s, 0), earlier = std::max<int64_t>(s - 1, 0);
    StepBackward step{};
    step.dtype = at_.layer.dtype;
    step.N = N;
    step.H = H;
    step.P = P;
    step.later = at_.steps.rows(s + 1);
    step.now = at_.steps.rows(s);
    step.earlier = at_.steps.rows(s - 1);
    step.reset_later = at_.steps.reset(s + 1);
    step.reset_now = at_.steps.reset(s);
    step.grad_h_n = at_.read_state(call_.grad_h_n, P);
    step.grad_c_n = at_.read_state(call_.grad_c_n, H);
    step.recurrent = recurrent_.const_data_ptr();
    step.grad_output = at_.read_row(call_.grad_output, here, P);
    step.grad_output_row = D * P;
    step.grad_cell = at_.read_row(call_.grad_cell, here, H);
    step.grad_gates = at_.read_row(call_.grad_gates, here, kGates * H);
    step.c0 = at_.read_state(call_.c0, H);
    step.cell = at_.read_row(call_.cell, here, H);
    step.cell_earlier = at_.read_row(call_.cell, earlier, H);
    step.cell_row = D * H;
    step.gates = at_.read_row(call_.gates, here, kGates * H);
    step.gates_row = D * kGates * H;
    step.grad_preactivations = at_.write_row(call_.grad_preactivations, here, kGates * H);
    step.grad_c = grad_c_.mutable_data_ptr();
    step.grad_h0 = at_.write_state(call_.grad_h0, P);
    step.grad_c0 = at_.write_state(call_.grad_c0, H);
    step.grad_hidden = at_.write_row(call_.grad_hidden, here, P);
    step.grad_hidden_row = D * P;
    step.grad_unprojected = data_or_null(grad_unprojected_);
    return step;
  }

  const Direction at_;
  const Backward& call_;
  const OnDevice& device_;
  const Tensor recurrent_, grad_c_;
  OptionalTensor grad_unprojected_;  // where the layer projects
};

}  // namespace

void step_path(const Layer& layer, const Forward& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) {
    ForwardDirection direction(layer, call, d, device);
    for (int64_t s = 0; s < layer.size.T; s++) direction.step(s);
  }
}

void step_path(const Layer& layer, const Backward& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) {
    BackwardDirection direction(layer, call, d, device);
    for (int64_t s = layer.size.T - 1; s >= -1; s--) direction.step(s);
  }
}

void step_path(const SingleStep& call, const OnDevice& device) {
  const int64_t N = call.N, I = call.I, H = call.H;
  const DirectionWeights weights = call.weights.data();
  StepForward step{};
  step.dtype = dtype_of(call.kind);
  step.N = N;
  step.H = H;
  step.now = {N, 0, nullptr};
  step.b_ih = weights.b_ih;
  step.b_hh = weights.b_hh;
  step.c0 = call.c0.const_data_ptr();
  step.h_before = call.h0.const_data_ptr();
  step.c_n = call.c.mutable_data_ptr();
  step.h = call.h.mutable_data_ptr();
  step.gates = result_or_null(call.gates);
  step.gates_row = kGates * H;
  if (few(N, kGates * H * (H + I) * size_of(step.dtype), device)) {
    FusedForward all{};
    all.step = step;
    all.w_hh = weights.w_hh;
    all.input = call.input.const_data_ptr();
    all.input_row = call.input.stride(0);
    all.I = I;
    all.w_ih = weights.w_ih;
    check(fused_forward(all, device.stream()));
    return;
  }
  const Kind wide_kind = wide(call.kind);
  const Tensor input_product = empty({N, kGates * H}, wide_kind);
  const Tensor recurrent_product = empty({N, kGates * H}, wide_kind);
  device.multiply(input_product, call.input, transposed(call.weights.w_ih));
  device.multiply(recurrent_product, call.h0, transposed(call.weights.w_hh));
  GatesForward rest{};
  rest.step = step;
  rest.input_product = input_product.const_data_ptr();
  rest.recurrent_product = recurrent_product.const_data_ptr();
  check(gates_forward(rest, device.stream()));
}

}  // namespace lstm_kernels::cuda
