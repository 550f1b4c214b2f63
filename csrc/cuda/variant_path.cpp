// A layer of a variant: the recurrent product by torch's library and one kernel for the rest of a
// step, as step_path.cpp does it for the plain LSTM. Masks of the hidden state add a kernel before
// the product; masks of each gate make four products of it; a projection adds a product and a
// kernel. Bound: the host, which takes some 5 us for each.
#include "variant_path.h"

#include "direction.h"
#include "input_product.h"
#include "variant_step.h"

namespace lstm_kernels::cuda {
namespace {

VariantStep at_step(const Direction& at, const Variant& variant, int64_t s) {
  const Sizes& size = at.layer.size;
  return {variant, at.steps.time(s), size.H, size.P, at.d, size.D};
}

// The products of the hidden state with w_hh, of all gates at once or with a mask for each.
class RecurrentProduct {
 public:
  RecurrentProduct(const Direction& at, const Variant& variant)
      : at_(at), variant_(variant), parts_(variant.gate_masks.data ? kGates : 1) {
    const auto& [T, N, I, H, P, D] = at.layer.size;
    if (variant.hidden_mask.data || parts_ > 1) masked_ = empty({parts_, N, P}, at.layer.kind);
    product_ = empty({parts_, N, kGates / parts_ * H}, wide(at.layer.kind));
  }
  // Of step s, of whose hidden states the first `rows` take part.
  void compute(const Tensor& h, int64_t s, int64_t rows, const OnDevice& device) {
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    if (masked_) {
      MaskedHidden mask{at_.layer.dtype, N, at_step(at_, variant_, s), h.const_data_ptr(),
                        masked_->mutable_data_ptr()};
      check(mask_hidden(mask, device.stream()));
    }
    const int64_t columns = kGates / parts_ * H;
    for (int64_t part = 0; part < parts_; part++)
      device.multiply(
          view(*product_, {rows, columns}, {columns, 1}, part * N * columns),
          masked_ ? view(*masked_, {rows, P}, {P, 1}, part * N * P) : first_rows(h, rows),
          view(at_.weights.w_hh, {P, columns}, {1, P}, part * columns * P));
  }
  void set(VariantForwardStep& step) const {
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    step.recurrent_product = product_->const_data_ptr();
    step.recurrent_gate = parts_ > 1 ? N * H : H;
    step.recurrent_row = kGates / parts_ * H;
  }

 private:
  const Direction& at_;
  const Variant& variant_;
  const int64_t parts_;
  OptionalTensor masked_, product_;
};

class ForwardDirection {
 public:
  ForwardDirection(const Layer& layer, const VariantForward& call, int d, const OnDevice& device)
      : at_{layer, d},
        call_(call),
        device_(device),
        input_product_(at_.steps, call.input, device),
        recurrent_(at_, call.variant) {
    const auto& [T, N, I, H, P, D] = layer.size;
    c_ = empty({N, H}, wide(layer.kind));
    for (OptionalTensor& h : h_) h = empty({N, P}, layer.kind);
    if (call.variant.norm_cell) {
      activated_ = empty({N, kGates, H}, wide(layer.kind));
      updated_ = empty({N, H}, wide(layer.kind));
    }
    if (layer.projects) {
      unprojected_ = empty({N, H}, layer.kind);
      projected_ = empty({N, P}, layer.kind);
      w_hr_ = transposed(*at_.weights.w_hr);
    }
  }

  void step(int64_t s) {
    const OptionalTensor before = h_before(s);
    VariantForwardStep step{};
    step.step = describe(s, before);
    step.at = at_step(at_, call_.variant, s);
    step.input_product = input_product_.of(s);
    if (before) {
      recurrent_.compute(*before, s, step.step.now.rows, device_);
      recurrent_.set(step);
    }
    const int64_t of_products = call_.variant.branches() * kGates * at_.layer.size.H;
    step.products = at_.write_row(call_.products, s, of_products);
    step.products_row = at_.layer.size.D * of_products;
    step.activated = activated_ ? activated_->mutable_data_ptr() : nullptr;
    step.updated = updated_ ? updated_->mutable_data_ptr() : nullptr;
    step.unprojected = unprojected_ ? unprojected_->mutable_data_ptr() : nullptr;
    check(variant_forward_step(step, device_.stream()));
    if (at_.layer.projects) project(step);
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

  void project(const VariantForwardStep& of) {
    const StepForward& step = of.step;
    const int64_t rows = step.now.rows;
    device_.multiply(first_rows(*projected_, rows), first_rows(*unprojected_, rows), *w_hr_);
    VariantProjection call{};
    call.projection.dtype = step.dtype;
    call.projection.N = step.N;
    call.projection.P = at_.layer.size.P;
    call.projection.now = step.now;
    call.projection.projected = projected_->const_data_ptr();
    call.projection.h_before = step.h_before;
    call.projection.h = step.h;
    call.projection.output = step.output;
    call.projection.output_row = step.output_row;
    call.at = of.at;
    call.reset = step.reset;
    check(variant_projection(call, device_.stream()));
  }

  const Direction at_;
  const VariantForward& call_;
  const OnDevice& device_;
  InputProduct input_product_;
  RecurrentProduct recurrent_;
  OptionalTensor c_, h_[2];
  OptionalTensor activated_, updated_;             // where there is a norm of the cell state
  OptionalTensor unprojected_, projected_, w_hr_;  // where the layer projects
};

class BackwardDirection {
 public:
  BackwardDirection(const Layer& layer, const VariantBackward& call, int d, const OnDevice& device)
      : at_{layer, d},
        call_(call),
        device_(device),
        parts_(call.variant.gate_masks.data ? kGates : 1),
        recurrent_(empty({parts_, layer.size.N, layer.size.P}, wide(layer.kind))),
        grad_c_(empty({layer.size.N, layer.size.H}, wide(layer.kind))),
        work_(empty({layer.size.N, kWorkRows, layer.size.H}, wide(layer.kind))) {
    const auto& [T, N, I, H, P, D] = layer.size;
    if (call.variant.zones_out_hidden()) passed_ = empty({N, P}, wide(layer.kind));
    if (layer.projects) grad_unprojected_ = empty({N, H}, wide(layer.kind));
    if (call.variant.normalises()) {
      sums_ = empty({N, kParameterSums, H}, wide(layer.kind));
      check(cudaMemsetAsync(sums_->mutable_data_ptr(), 0,
                            size_t(sums_->numel() * size_of(wide(layer.dtype))), device.stream()));
    }
  }

  // Step -1 finishes what is left.
  void step(int64_t s) {
    const VariantBackwardStep step = describe(s);
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    const int64_t rows = step.step.now.rows;
    if (grad_unprojected_) {
      check(variant_hidden_backward(step, device_.stream()));
      if (s >= 0)
        device_.multiply(first_rows(*grad_unprojected_, rows), at_.rows(call_.grad_hidden, s, P),
                         *at_.weights.w_hr);
    }
    check(variant_gates_backward(step, device_.stream()));
    if (s < 0) return;
    const int64_t columns = kGates / parts_ * H, from = at_.row(s, kGates * H);
    for (int64_t part = 0; part < parts_; part++)
      device_.multiply(view(recurrent_, {rows, P}, {P, 1}, part * N * P),
                       view(call_.grad_preactivations, {rows, columns}, {D * kGates * H, 1},
                            from + part * columns),
                       view(at_.weights.w_hh, {columns, P}, {P, 1}, part * columns * P));
  }

  void add_parameters() const {
    if (!sums_) return;
    const Sizes& size = at_.layer.size;
    const ParameterGradients call{
        at_.layer.dtype, size.N, size.H, sums_->const_data_ptr(),
        write_from(call_.grad_parameters, at_.d * kParameterSums * size.H, at_.layer.dtype)};
    check(add_parameter_gradients(call, device_.stream()));
  }

 private:
  VariantBackwardStep describe(int64_t s) const {
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    const int64_t here = std::max<int64_t>(s, 0), earlier = std::max<int64_t>(s - 1, 0);
    VariantBackwardStep of{};
    StepBackward& step = of.step;
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
    of.at = at_step(at_, call_.variant, here);
    of.later = at_step(at_, call_.variant, std::min(s + 1, T - 1));
    if (call_.variant.norm_gates) {
      const int64_t of_products = call_.variant.branches() * kGates * H;
      of.products = at_.read_row(call_.products, here, of_products);
      of.products_row = D * of_products;
    }
    of.grad_input_gate = at_.write_row(call_.grad_input_gate, here, H);
    of.grad_input_product = at_.write_row(call_.grad_input_product, here, kGates * H);
    of.passed = passed_ ? passed_->mutable_data_ptr() : nullptr;
    of.work = work_.mutable_data_ptr();
    of.sums = sums_ ? sums_->mutable_data_ptr() : nullptr;
    return of;
  }

  const Direction at_;
  const VariantBackward& call_;
  const OnDevice& device_;
  const int64_t parts_;  // of the recurrent product: one, or one for each gate
  const Tensor recurrent_, grad_c_, work_;
  OptionalTensor passed_;            // where zoneout keeps some of h
  OptionalTensor grad_unprojected_;  // where the layer projects
  OptionalTensor sums_;              // where there is a norm
};

}  // namespace

void variant_path(const Layer& layer, const VariantForward& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) {
    ForwardDirection direction(layer, call, d, device);
    for (int64_t s = 0; s < layer.size.T; s++) direction.step(s);
  }
}

void variant_path(const Layer& layer, const VariantBackward& call, const OnDevice& device) {
  for (int d = 0; d < layer.size.D; d++) {
    BackwardDirection direction(layer, call, d, device);
    for (int64_t s = layer.size.T - 1; s >= -1; s--) direction.step(s);
    direction.add_parameters();
  }
}

}  // namespace lstm_kernels::cuda
