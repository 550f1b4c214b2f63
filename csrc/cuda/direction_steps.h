// What the step path and that of variants share: the states that a direction carries from step to
// step, and where a step's arrays are.
#pragma once
#include <algorithm>

#include "direction.h"
#include "input_product.h"
#include "paths.h"
#include "step.h"

namespace lstm_kernels::cuda {

class ForwardSteps {
 protected:
  ForwardSteps(const Layer& layer, const Forward& call, int d, const OnDevice& device)
      : at_{layer, d}, call_(call), device_(device) {
    const auto& [T, N, I, H, P, D] = layer.size;
    c_ = empty({N, H}, wide(layer.kind));
    for (OptionalTensor& h : h_) h = empty({N, P}, layer.kind);
    if (layer.projects) {
      unprojected_ = empty({N, H}, layer.kind);
      projected_ = empty({N, P}, layer.kind);
      w_hr_ = transposed(*at_.weights.w_hr);
    }
  }

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

  void* unprojected() const { return unprojected_ ? unprojected_->mutable_data_ptr() : nullptr; }

  // Multiplies what a step left in unprojected() with w_hr; the call that hands out the product.
  ProjectionForward project(const StepForward& step) const {
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
    return projection;
  }

  const Direction at_;
  const Forward& call_;
  const OnDevice& device_;

 private:
  OptionalTensor c_, h_[2];
  OptionalTensor unprojected_, projected_, w_hr_;  // where the layer projects
};

class BackwardSteps {
 protected:
  // recurrent: memory for the gradient of h through the gates of the step handled before.
  BackwardSteps(const Layer& layer, const Backward& call, int d, const OnDevice& device,
                Tensor recurrent)
      : at_{layer, d},
        call_(call),
        device_(device),
        recurrent_(std::move(recurrent)),
        grad_c_(empty({layer.size.N, layer.size.H}, wide(layer.kind))) {
    if (layer.projects) grad_unprojected_ = empty({layer.size.N, layer.size.H}, wide(layer.kind));
  }

  // Step -1 finishes what is left.
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

  // From the gradients of h after step s to those before the projection.
  void unproject(int64_t s, const StepBackward& step) const {
    if (s >= 0)
      device_.multiply(first_rows(*grad_unprojected_, step.now.rows),
                       at_.rows(call_.grad_hidden, s, step.P), *at_.weights.w_hr);
  }

  const Direction at_;
  const Backward& call_;
  const OnDevice& device_;
  const Tensor recurrent_;

 private:
  const Tensor grad_c_;
  OptionalTensor grad_unprojected_;  // where the layer projects
};

// All steps of all directions, by a class that computes one. Backward, step -1 finishes what is
// left.
template <class ForwardDirection, class Call>
void each_step_forward(const Layer& layer, const Call& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) {
    ForwardDirection direction(layer, call, d, device);
    for (int64_t s = 0; s < layer.size.T; s++) direction.step(s);
  }
}
template <class BackwardDirection, class Call>
void each_step_backward(const Layer& layer, const Call& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) {
    BackwardDirection direction(layer, call, d, device);
    for (int64_t s = layer.size.T - 1; s >= -1; s--) direction.step(s);
  }
}

}  // namespace lstm_kernels::cuda
