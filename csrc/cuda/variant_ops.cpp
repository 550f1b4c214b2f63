// Unpacks the arguments of the variants' ops, checks what memory safety needs, and calls one of
// the two paths.
#include "variant_ops.h"

#include "calls.h"

namespace lstm_kernels::cuda {

VariantForwardResults variant_forward(const ForwardArguments& given,
                                      const VariantArguments& of_variant) {
  const OnDevice device(given.input, given.reduced_precision);
  const Layer layer = layer_of(given);
  const VariantTensors tensors(of_variant, layer.size, layer.kind);
  const Variant& variant = tensors.variant();
  const bool saves_products = given.save_gates && variant.norm_gates;
  const VariantForward call{call_of(layer, given), variant,
                            empty_if(saves_products, products_of(layer, variant), layer.kind)};
  run(layer, call, device);
  return {call.output, call.h_n, call.c_n, call.cell, call.gates, call.products};
}

VariantBackwardResults variant_backward(const BackwardArguments& given,
                                        const VariantArguments& of_variant,
                                        const Tensor& products) {
  const OnDevice device(given.gates, given.reduced_precision);
  const Layer layer = layer_of(given);
  const auto& [T, N, I, H, P, D] = layer.size;
  const VariantTensors tensors(of_variant, layer.size, layer.kind);
  const Variant& variant = tensors.variant();
  const VariantBackward call{
      call_of(layer, given),
      variant,
      variant.norm_gates
          ? checked_dense(products, "products", products_of(layer, variant), layer.kind)
          : products,
      empty_if(of_variant.input_gate.has_value(), layer.rows.of({D * H}), layer.kind),
      empty_if(variant.separate, layer.rows.of({D, kGates, H}), layer.kind),
      empty_if(variant.adds_up_parameters(), {D, kParameterSums, H}, layer.kind)};
  if (N == 0) zero(call.grad_parameters, layer.dtype, device);  // no sequence adds anything
  run(layer, call, device);
  return {call.grad_preactivations, call.grad_h0,         call.grad_c0,
          call.grad_hidden,         call.grad_input_gate, call.grad_input_product,
          call.grad_parameters};
}

}  // namespace lstm_kernels::cuda
