// The kernels of one time step of a variant (docs/variants.md) as plain functions, as step.h has
// them for the plain LSTM; variant_step_path.cpp strings them together. Pointers and strides as
// there.
#pragma once
#include "../variant.h"
#include "step.h"

namespace lstm_kernels::cuda {

// A variant at one step of one direction, and the sizes its arrays have.
struct VariantStep {
  Variant variant;
  int64_t time, H, P;
  int direction, directions;
};

// The hidden state as the operands of the recurrent products: times the mask, or the mask of each
// gate.
struct MaskedHidden {
  DType dtype;
  int64_t N;
  VariantStep at;  // the step that the products belong to
  const void* h;   // (N, P)
  void* masked;    // (1 or 4, N, P)
};
cudaError_t mask_hidden(const MaskedHidden& call, cudaStream_t stream);

// The step from its products.
struct VariantForwardStep {
  StepForward step;
  VariantStep at;
  const void* input_product;      // (rows, 4, H), wide: input @ w_ih^T
  const void* recurrent_product;  // wide, or null for zeros
  int64_t recurrent_gate;         // elements from the part of one gate to that of the next,
  int64_t recurrent_row;          // and from row to row
  void* products;  // (rows, 1 or 2, 4, H): what the norm of the gates is given; or null
  int64_t products_row;
  void* activated;    // (N, 4, H), wide: memory for i, f, g and the pre-activation of o, and
  void* updated;      // (N, H), wide: for c~, where there is a norm of the cell state; else null
  void* unprojected;  // (N, H): o * a_cell where the layer projects, and then h and output are
                      // left to variant_projection; else null
};
cudaError_t variant_forward_step(const VariantForwardStep& call, cudaStream_t stream);

// Hands out the projected h.
struct VariantProjection {
  ProjectionForward projection;
  VariantStep at;
  const bool* reset;  // (N), or null
};
cudaError_t variant_projection(const VariantProjection& call, cudaStream_t stream);

// What a step's gradient keeps for each unit between its passes over a row, wide.
enum WorkRow : int { kUpdated, kOfNorm, kPastNorm, kOfOutput, kOfPreactivations, kWorkRows = 8 };

// The gradient of one step, in the order of StepBackward. Where there is a layer norm,
// grad_preactivations is the gradient of the recurrent product.
struct VariantBackwardStep {
  StepBackward step;  // recurrent: (1 or 4, N, P), the part of each gate where they have masks
  VariantStep at, later;
  const void* products;  // (rows, 1 or 2, 4, H)
  int64_t products_row;
  void* grad_input_gate;     // (rows, H), rows as those of cell; or null
  void* grad_input_product;  // (rows, 4, H), rows as those of gates; or null
  void* passed;              // (N, P), wide: gradient of h that zoneout passes by the cell; carried
  void* work;                // (N, kWorkRows, H), wide
  void* sums;  // (N, kParameterSums, H), wide: what each sequence gives to parameters; or null
};
cudaError_t variant_hidden_backward(const VariantBackwardStep& call, cudaStream_t stream);
cudaError_t variant_gates_backward(const VariantBackwardStep& call, cudaStream_t stream);

// Adds up what all sequences give to the gradients of parameters.
struct ParameterGradients {
  DType dtype;
  int64_t N, H;
  const void* sums;       // (N, kParameterSums, H), wide
  void* grad_parameters;  // (kParameterSums, H)
};
cudaError_t add_parameter_gradients(const ParameterGradients& call, cudaStream_t stream);

}  // namespace lstm_kernels::cuda
