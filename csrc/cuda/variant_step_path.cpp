// A layer of a variant: the recurrent product by torch's library and one kernel for the rest of a
// step, as step_path.cpp does it for the plain LSTM. Masks of the hidden state add a kernel before
// the product; masks of each gate make four products of it; a projection adds a product and a
// kernel. Bound: the host, which takes some 5 us for each.
#include "direction_steps.h"
#include "paths.h"
#include "variant_step.h"

namespace lstm_kernels::cuda {
namespace {

VariantStep at_step(const Direction& at, const Variant& variant, int64_t s) {
  const Sizes& size = at.layer.size;
  return {variant, at.steps.time(s), size.H, size.P, at.d, size.D};
}

// Of the recurrent product: one, or one for each gate that has a mask.
int64_t parts(const Variant& variant) { return variant.gate_masks.data ? kGates : 1; }

// The products of the hidden state with w_hh, of all gates at once or with a mask for each.
class RecurrentProduct {
 public:
  RecurrentProduct(const Direction& at, const Variant& variant)
      : at_(at), variant_(variant), parts_(parts(variant)) {
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

class ForwardDirection : ForwardSteps {
 public:
  ForwardDirection(const Layer& layer, const VariantForward& call, int d, const OnDevice& device)
      : ForwardSteps(layer, call, d, device),
        variant_(call.variant),
        products_(call.products),
        input_product_(at_.steps, call.input, device),
        recurrent_(at_, variant_) {
    const int64_t N = layer.size.N, H = layer.size.H;
    if (!variant_.norm_cell) return;
    activated_ = empty({N, kGates, H}, wide(layer.kind));
    updated_ = empty({N, H}, wide(layer.kind));
  }

  void step(int64_t s) {
    const OptionalTensor before = h_before(s);
    VariantForwardStep step{};
    step.step = describe(s, before);
    step.at = at_step(at_, variant_, s);
    step.input_product = input_product_.of(s);
    if (before) {
      recurrent_.compute(*before, s, step.step.now.rows, device_);
      recurrent_.set(step);
    }
    const int64_t of_products = variant_.branches() * kGates * at_.layer.size.H;
    step.products = at_.write_row(products_, s, of_products);
    step.products_row = at_.layer.size.D * of_products;
    step.activated = activated_ ? activated_->mutable_data_ptr() : nullptr;
    step.updated = updated_ ? updated_->mutable_data_ptr() : nullptr;
    step.unprojected = unprojected();
    check(variant_forward_step(step, device_.stream()));
    if (at_.layer.projects)
      check(variant_projection({project(step.step), step.at, step.step.reset}, device_.stream()));
  }

 private:
  const Variant& variant_;
  const Tensor& products_;
  InputProduct input_product_;
  RecurrentProduct recurrent_;
  OptionalTensor activated_, updated_;  // where there is a norm of the cell state
};

class BackwardDirection : BackwardSteps {
 public:
  BackwardDirection(const Layer& layer, const VariantBackward& call, int d, const OnDevice& device)
      : BackwardSteps(layer, call, d, device,
                      empty({parts(call.variant), layer.size.N, layer.size.P}, wide(layer.kind))),
        of_(call),
        work_(empty({layer.size.N, kWorkRows, layer.size.H}, wide(layer.kind))) {
    const auto& [T, N, I, H, P, D] = layer.size;
    if (call.variant.zones_out_hidden()) passed_ = empty({N, P}, wide(layer.kind));
    if (call.variant.adds_up_parameters()) {
      sums_ = empty({N, kParameterSums, H}, wide(layer.kind));
      zero(*sums_, wide(layer.dtype), device);
    }
  }

  // Step -1 finishes what is left.
  void step(int64_t s) {
    const VariantBackwardStep step = describe_variant(s);
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    if (at_.layer.projects) {
      check(variant_hidden_backward(step, device_.stream()));
      unproject(s, step.step);
    }
    check(variant_gates_backward(step, device_.stream()));
    if (s < 0) return add_parameters();
    const int64_t rows = step.step.now.rows, count = parts(of_.variant);
    const int64_t columns = kGates / count * H, from = at_.row(s, kGates * H);
    for (int64_t part = 0; part < count; part++)
      device_.multiply(view(recurrent_, {rows, P}, {P, 1}, part * N * P),
                       view(of_.grad_preactivations, {rows, columns}, {D * kGates * H, 1},
                            from + part * columns),
                       view(at_.weights.w_hh, {columns, P}, {P, 1}, part * columns * P));
  }

 private:
  void add_parameters() const {
    if (!sums_) return;
    const Sizes& size = at_.layer.size;
    const ParameterGradients call{
        at_.layer.dtype, size.N, size.H, sums_->const_data_ptr(),
        write_from(of_.grad_parameters, at_.d * kParameterSums * size.H, at_.layer.dtype)};
    check(add_parameter_gradients(call, device_.stream()));
  }

  VariantBackwardStep describe_variant(int64_t s) const {
    const auto& [T, N, I, H, P, D] = at_.layer.size;
    const int64_t here = std::max<int64_t>(s, 0);
    VariantBackwardStep of{};
    of.step = describe(s);
    of.at = at_step(at_, of_.variant, here);
    of.later = at_step(at_, of_.variant, std::min(s + 1, T - 1));
    if (of_.variant.norm_gates) {
      const int64_t of_products = of_.variant.branches() * kGates * H;
      of.products = at_.read_row(of_.products, here, of_products);
      of.products_row = D * of_products;
    }
    of.grad_input_gate = at_.write_row(of_.grad_input_gate, here, H);
    of.grad_input_product = at_.write_row(of_.grad_input_product, here, kGates * H);
    of.passed = passed_ ? passed_->mutable_data_ptr() : nullptr;
    of.work = work_.mutable_data_ptr();
    of.sums = sums_ ? sums_->mutable_data_ptr() : nullptr;
    return of;
  }

  const VariantBackward& of_;
  const Tensor work_;
  OptionalTensor passed_;  // where zoneout keeps some of h
  OptionalTensor sums_;    // of gradients of parameters
};

}  // namespace

void step_path(const Layer& layer, const VariantForward& call, const OnDevice& device) {
  each_step_forward<ForwardDirection>(layer, call, device);
}

void step_path(const Layer& layer, const VariantBackward& call, const OnDevice& device) {
  each_step_backward<BackwardDirection>(layer, call, device);
}

}  // namespace lstm_kernels::cuda
