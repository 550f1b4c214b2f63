// A layer by one or two kernels and one matrix product per step: the path for every type and size,
// and the oracle of the persistent one.
//
// The input's product is computed ahead for as many steps as leave it in the L2 cache. Then a step
// is either one kernel (fused_step.cu, for few sequences) or the recurrent product by torch's
// library and one kernel for the rest (step.cu); a projection adds a product and a kernel. Sums of
// 16-bit types stay in float32 between product and kernel. Bound: the host, which
// takes about 5 us for a step of one kernel, 13 forward and 20 backward for one of two, as long as
// the arithmetic takes less (predicted_step_of_per_step_path of choose.h).
#include "direction_steps.h"

namespace lstm_kernels::cuda {
namespace {

// Whether the kernel with the products in it (fused_step.cu) takes the step. It reads the weights
// once for every 8 sequences: twice at most, and only from L2.
bool few(int64_t sequences, int64_t weight_bytes, const OnDevice& device) {
  return sequences <= (weight_bytes <= device.l2_bytes() / 2 ? 16 : 8);
}

class ForwardDirection : ForwardSteps {
 public:
  ForwardDirection(const Layer& layer, const Forward& call, int d, const OnDevice& device)
      : ForwardSteps(layer, call, d, device) {
    const auto& [T, N, I, H, P, D] = layer.size;
    fused_ = !layer.projects && few(N, kGates * H * H * size_of(layer.dtype), device);
    if (!(fused_ && T == 1)) input_product_.emplace(at_.steps, call.input, device);
    if (!fused_) {
      recurrent_ = empty({N, kGates * H}, wide(layer.kind));
      w_hh_ = transposed(at_.weights.w_hh);
    }
  }

  void step(int64_t s) {
    const OptionalTensor before = h_before(s);
    const StepForward step = describe(s, before);
    if (fused_) return run_fused(step, s);
    run_gates(step, s, before);
    if (at_.layer.projects) check(projection_forward(project(step), device_.stream()));
  }

 private:
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
    rest.unprojected = unprojected();
    check(gates_forward(rest, device_.stream()));
  }

  bool fused_;  // products in the kernel; where there is but one step, the input's too
  std::optional<InputProduct> input_product_;
  OptionalTensor recurrent_, w_hh_;  // unless fused
};

class BackwardDirection : BackwardSteps {
 public:
  BackwardDirection(const Layer& layer, const Backward& call, int d, const OnDevice& device)
      : BackwardSteps(layer, call, d, device,
                      empty({layer.size.N, layer.size.P}, wide(layer.kind))) {}

  // Step -1 finishes what is left.
  void step(int64_t s) {
    const StepBackward step = describe(s);
    if (at_.layer.projects) {
      check(hidden_backward(step, device_.stream()));
      unproject(s, step);
    }
    check(gates_backward(step, device_.stream()));
    if (s >= 0)
      device_.multiply(first_rows(recurrent_, step.now.rows),
                       at_.rows(call_.grad_preactivations, s, kGates * step.H), at_.weights.w_hh);
  }
};

}  // namespace

void step_path(const Layer& layer, const Forward& call, const OnDevice& device) {
  each_step_forward<ForwardDirection>(layer, call, device);
}

void step_path(const Layer& layer, const Backward& call, const OnDevice& device) {
  each_step_backward<BackwardDirection>(layer, call, device);
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
