// A call of a variant's op, and the path that computes it: see paths.h.
#pragma once
#include "../variant.h"
#include "paths.h"

namespace lstm_kernels::cuda {

struct VariantForward : Forward {
  Variant variant;
  Tensor products;  // empty unless there is a norm of the gates, and they are asked for
};

struct VariantBackward : Backward {
  Variant variant;
  Tensor products;  // any unless there is a norm of the gates
  // Empty unless the input gate is given, the norms of the gates are separate, and the pass adds up
  // gradients of parameters.
  Tensor grad_input_gate, grad_input_product, grad_parameters;
};

void variant_path(const Layer& layer, const VariantForward& call, const OnDevice& device);
void variant_path(const Layer& layer, const VariantBackward& call, const OnDevice& device);

}  // namespace lstm_kernels::cuda
