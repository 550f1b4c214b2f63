// A call of an op as the two paths take it, and the paths. Tensors that are written to come last.
#pragma once
#include "../arguments.h"
#include "../variant.h"
#include "device.h"

namespace lstm_kernels::cuda {

struct Forward {
  Tensor input;           // (T, N, I) with any strides but contiguous rows, or packed (R, I)
  OptionalTensor h0, c0;  // (D, N, P), (D, N, H)
  Tensor output, h_n, c_n;
  Tensor cell, gates;  // empty unless asked for
};

struct Backward {
  OptionalTensor grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates, c0;
  Tensor cell, gates;
  Tensor grad_preactivations, grad_h0, grad_c0;
  Tensor grad_hidden;  // empty unless the layer projects
};

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

// One step on its own, as _cell_forward has it.
struct SingleStep {
  Kind kind;
  int64_t N, I, H;
  Tensor input, h0, c0;  // (N, I) with contiguous rows, (N, H), (N, H)
  DirectionTensors weights;
  Tensor h, c;
  Tensor gates;  // empty unless asked for
};

// All steps in one launch, for what `plan` says. False where the device has no room for that at
// this moment; nothing is computed then.
bool persistent_path(const Layer& layer, const Forward& call, const Plan& plan,
                     const OnDevice& device);
bool persistent_path(const Layer& layer, const Backward& call, const Plan& plan,
                     const OnDevice& device);
bool persistent_path(const Layer& layer, const VariantForward& call, const Plan& plan,
                     const OnDevice& device);
bool persistent_path(const Layer& layer, const VariantBackward& call, const Plan& plan,
                     const OnDevice& device);

// A few launches per step, for any dtype, any size and any variant.
void step_path(const Layer& layer, const Forward& call, const OnDevice& device);
void step_path(const Layer& layer, const Backward& call, const OnDevice& device);
void step_path(const Layer& layer, const VariantForward& call, const OnDevice& device);
void step_path(const Layer& layer, const VariantBackward& call, const OnDevice& device);
void step_path(const SingleStep& call, const OnDevice& device);

inline Pass pass_of(const Forward&) { return Pass::forward; }
inline Pass pass_of(const Backward&) { return Pass::backward; }
inline const Variant* variant_of(const Forward&) { return nullptr; }
inline const Variant* variant_of(const Backward&) { return nullptr; }
inline const Variant* variant_of(const VariantForward& call) { return &call.variant; }
inline const Variant* variant_of(const VariantBackward& call) { return &call.variant; }

// By the path that suits.
template <class Call>
void run(const Layer& layer, const Call& call, const OnDevice& device) {
  if (layer.size.N == 0) return;
  const Plan plan = choose(pass_of(call), device.limits(), layer.dtype, device.allow_tf32(),
                           layer.size, layer.projects, variant_of(call));
  if (plan.persistent && persistent_path(layer, call, plan, device)) return;
  if (forced_path() == ForcedPath::persistent)
    throw cannot_be_forced("the device has no room for all blocks at this moment");
  step_path(layer, call, device);
}

}  // namespace lstm_kernels::cuda
