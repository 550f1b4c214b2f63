// A call of an op as the two paths take it, and the paths. Tensors that are written to come last.
#pragma once
#include "../arguments.h"
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

// A few launches per step, for any dtype and any size.
void step_path(const Layer& layer, const Forward& call, const OnDevice& device);
void step_path(const Layer& layer, const Backward& call, const OnDevice& device);
void step_path(const SingleStep& call, const OnDevice& device);

}  // namespace lstm_kernels::cuda
