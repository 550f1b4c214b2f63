// The kernels of one time step as plain functions; step_path.cpp strings them together into a whole
// sequence, with torch's matrix products between them.
//
// Every pointer is device memory owned by the caller, rows contiguous, of the call's dtype;
// where "wide" is said, float, or double where that is the dtype. A row stride is given, in
// elements, where the rows of one direction may lie apart. A launch covers all N sequences, so
// that a row that takes no part in the step keeps its states.
//
//   N batch   I input size   H hidden size   P size of h_t: H, or proj_size where the layer
//   projects
#pragma once
#include <cuda_runtime.h>

#include "choose.h"

namespace lstm_kernels::cuda {

// Which sequences take part in a step: the first `rows` (packed input; else N), and of these the
// ones that are long enough. A step of no rows stands for "before the first" or "after the last".
struct StepRows {
  int64_t rows;
  int64_t time;            // t, compared with lengths
  const int64_t* lengths;  // (N), or null: all sequences last until the end
};

// One step of one direction, but for the products.
struct StepForward {
  DType dtype;
  int64_t N, H;
  StepRows now;
  const bool* reset;     // (N) rows that start this step from zero states, or null
  const void* b_ih;      // (4, H), or null
  const void* b_hh;      // (4, H), or null
  const void* c_before;  // (N, H), wide; or, in the first step, null and
  const void* c0;        // (N, H), or null for zeros
  const void* h_before;  // (N, H), or null for zeros; unused where the layer projects
  void* c;               // (N, H), wide; may be c_before; or null
  void* c_n;             // (N, H): c in the dtype; or null
  void* h;               // (N, H); never h_before
  void* output;          // (rows, H): h, and zeros in rows that take no part; or null
  int64_t output_row;
  void* cell;  // (rows, H): c, likewise; or null
  int64_t cell_row;
  void* gates;  // (rows, 4, H): activated i, f, g, o, likewise; or null
  int64_t gates_row;
};

// The step from its products.
struct GatesForward {
  StepForward step;
  const void* input_product;      // (rows, 4, H), wide: input @ w_ih^T
  const void* recurrent_product;  // (rows, 4, H), wide: h_before @ w_hh^T, or null for zeros
  void* unprojected;              // (N, H): o * tanh(c) where the layer projects, and then h and
                                  // output are left to projection_forward; else null
};
cudaError_t gates_forward(const GatesForward& call, cudaStream_t stream);

// The step with its products, for few sequences.
struct FusedForward {
  StepForward step;
  const void* w_hh;           // (4, H, H)
  const void* input_product;  // (rows, 4, H), wide: input @ w_ih^T; or null, and computed from
  const void* input;          // (rows, I)
  int64_t input_row;
  int64_t I;
  const void* w_ih;  // (4, H, I)
};
cudaError_t fused_forward(const FusedForward& call, cudaStream_t stream);

// Hands out the projected h.
struct ProjectionForward {
  DType dtype;
  int64_t N, P;
  StepRows now;
  const void* projected;  // (N, P)
  const void* h_before;   // (N, P), or null for zeros
  void* h;                // (N, P)
  void* output;           // (rows, P): h, and zeros in rows that take no part
  int64_t output_row;
};
cudaError_t projection_forward(const ProjectionForward& call, cudaStream_t stream);

// The gradient of one step. The steps of a direction are handled last to first: `later` is the one
// handled before, `earlier` the one to come, and a last launch whose `now` has no rows finishes.
struct StepBackward {
  DType dtype;
  int64_t N, H, P;
  StepRows later, now, earlier;
  const bool* reset_later;  // (N), or null
  const bool* reset_now;    // (N), or null
  const void* grad_h_n;     // (N, P), or null for zeros: enters at a sequence's last step
  const void* grad_c_n;     // (N, H), or null for zeros
  const void* recurrent;    // (N, P), wide: gradient of h through the gates of `later`
  const void* grad_output;  // (rows, P), or null for zeros
  int64_t grad_output_row;
  const void* grad_cell;   // (rows, H), or null for zeros
  const void* grad_gates;  // (rows, 4, H), or null for zeros
  const void* c0;          // (N, H), or null for zeros
  const void* cell;        // (rows, H), or null to compute it again
  const void* cell_earlier;
  int64_t cell_row;           // of grad_cell, cell and cell_earlier
  const void* gates;          // (rows, 4, H)
  int64_t gates_row;          // of grad_gates, gates and grad_preactivations
  void* grad_preactivations;  // (rows, 4, H), zeros in rows that take no part
  void* grad_c;   // (N, H), wide: gradient of c, carried from step to step; null where `now` is
                  // the only step, and nothing is left to finish
  void* grad_h0;  // (N, P): written once a sequence's first step has been handled
  void* grad_c0;  // (N, H): likewise
  // Where the layer projects, hidden_backward runs first, and the caller multiplies its result
  // with w_hr; null and unused otherwise.
  void* grad_hidden;  // (rows, P): whole gradient of h, zeros in rows that take no part
  int64_t grad_hidden_row;
  const void* grad_unprojected;  // (rows, H), wide: grad_hidden @ w_hr
};
cudaError_t hidden_backward(const StepBackward& call, cudaStream_t stream);
cudaError_t gates_backward(const StepBackward& call, cudaStream_t stream);

}  // namespace lstm_kernels::cuda
