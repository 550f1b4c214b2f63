// The ops of variants: unpack, check what memory safety needs, call one kernel, return.
#include "variant_ops.h"

#include "layer_calls.h"
#include "scratch.h"

namespace lstm_kernels::cpu {

VariantForwardResults variant_forward(const ForwardArguments& given,
                                      const VariantArguments& of_variant) {
  const ForwardCall call(given);
  const VariantTensors variant(of_variant, call.layer.size, call.layer.kind);
  VariantForward a = call.parameters<VariantForward>();
  a.variant = variant.variant();
  const Tensor products = results_if(given.save_gates && a.variant.norm_gates,
                                     products_of(call.layer, a.variant), call.layer.kind);
  a.products = result_or_null(products);
  const Scratch scratch(kernels().variant_forward_scratch(a));
  kernels().variant_forward(a, scratch.data());
  return std::tuple_cat(call.results(), std::make_tuple(products));
}

VariantBackwardResults variant_backward(const BackwardArguments& given,
                                        const VariantArguments& of_variant,
                                        const Tensor& products) {
  const BackwardCall call(given);
  const VariantTensors variant(of_variant, call.layer.size, call.layer.kind);
  const Tensor grad_input_gate =
      results_if(of_variant.input_gate.has_value(), call.of_cell, call.layer.kind);
  VariantBackward a = call.parameters<VariantBackward>();
  a.variant = variant.variant();
  a.grad_input_gate = result_or_null(grad_input_gate);
  const Tensor of_products =
      a.variant.norm_gates
          ? checked_dense(products, "products", products_of(call.layer, a.variant), call.layer.kind)
          : products;
  const Tensor grad_input_product = results_if(a.variant.separate, call.of_gates, call.layer.kind);
  const Tensor grad_parameters = results_if(a.variant.adds_up_parameters(),
                                            {a.size.D, kParameterSums, a.size.H}, call.layer.kind);
  a.products = of_products.const_data_ptr();
  a.grad_input_product = result_or_null(grad_input_product);
  a.grad_parameters = result_or_null(grad_parameters);
  const Scratch scratch(kernels().variant_backward_scratch(a));
  kernels().variant_backward(a, scratch.data());
  return std::tuple_cat(call.results(),
                        std::make_tuple(grad_input_gate, grad_input_product, grad_parameters));
}

}  // namespace lstm_kernels::cpu
