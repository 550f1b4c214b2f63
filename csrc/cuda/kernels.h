// The CUDA kernels as plain functions: a parameter struct and a stream in, an error out.
//
// Every pointer is device memory owned by the caller, contiguous, of the call's dtype unless
// said otherwise. Kernels run on the given stream of the current device, allocate nothing, wait for
// nothing on the host and may be captured in a graph.
//
//   T time steps   N batch   H hidden size   D directions (1 or 2)
//   R rows: T*N, or the sum of the batch sizes where the input is packed
#pragma once
#include <cuda_runtime.h>

#include "../variant.h"
#include "choose.h"

namespace lstm_kernels::cuda {

// Which sequences take part in which steps; all null where all do.
struct Rows {
  const int64_t* offsets = nullptr;  // (T + 1): packed, step t has the rows offsets[t] to [t + 1]
  const int64_t* lengths = nullptr;  // (N): sequence n takes part in the steps below lengths[n]
  const bool* reset = nullptr;       // (T, N): h and c are zeroed before that step
};

// Writes the offsets of packed steps, (T + 1), from the sizes of their batches, host memory that
// may be freed on return.
cudaError_t pack_offsets(const int64_t* batch_sizes, int64_t steps, int64_t* offsets,
                         cudaStream_t stream);

// What `choose` needs to know of a device.
cudaError_t query_limits(int device, DeviceLimits* limits);

// One layer, all its directions, all time steps, in one launch (persistent_forward.cu). Without
// projection: P = H. The dtype is float16, bfloat16 or float32; whether the last one's recurrent
// product is in TF32 is the plan's full_float32.
struct PersistentForward {
  DType dtype;
  Sizes size;  // I unused
  Rows rows;
  const void* x_gates[2];  // per direction (R, 4, H): input @ w_ih^T, no biases added
  const void* w_hh[2];     // (4, H, H)
  const void* b_ih[2];     // (4, H), or null
  const void* b_hh[2];     // (4, H), or null
  const void* h0;          // (D, N, H), or null for zeros
  const void* c0;          // (D, N, H), or null for zeros
  void* output;            // (R, D, H): h_t
  void* h_n;               // (D, N, H)
  void* c_n;               // (D, N, H)
  void* cell;              // (R, D, H): c_t, or null
  void* gates;             // (R, D, 4, H): activated i, f, g, o, or null
  void* workspace;         // plan.workspace_bytes, 16-byte aligned
};
// cudaErrorCooperativeLaunchTooLarge: the device has fewer multiprocessors free for this process
// than its limits say; nothing was computed.
cudaError_t persistent_forward(const PersistentForward& call, const Plan& plan,
                               cudaStream_t stream);

// The gradient of the above (persistent_backward.cu). Absent gradients are null and count as zeros.
struct PersistentBackward {
  DType dtype;
  Sizes size;  // I unused
  Rows rows;
  const void* w_hh[2];        // (4, H, H)
  const void* c0;             // (D, N, H), or null for zeros
  const void* cell;           // (R, D, H)
  const void* gates;          // (R, D, 4, H)
  const void* grad_output;    // (R, D, H)
  const void* grad_h_n;       // (D, N, H)
  const void* grad_c_n;       // (D, N, H)
  const void* grad_cell;      // (R, D, H)
  const void* grad_gates;     // (R, D, 4, H)
  void* grad_preactivations;  // (R, D, 4, H)
  void* grad_h0;              // (D, N, H)
  void* grad_c0;              // (D, N, H)
  void* workspace;            // plan.workspace_bytes, 16-byte aligned
};
cudaError_t persistent_backward(const PersistentBackward& call, const Plan& plan,
                                cudaStream_t stream);

// The same for a variant for which obstacle() of choose.h knows none.
struct PersistentVariantForward : PersistentForward {
  Variant variant;
  VariantFloats numbers;  // the variant's
};
cudaError_t persistent_variant_forward(const PersistentVariantForward& call, const Plan& plan,
                                       cudaStream_t stream);
struct PersistentVariantBackward : PersistentBackward {
  Variant variant;
  VariantFloats numbers;
  void* grad_input_gate;  // (R, D, H), or null
  // (D, rows_of_sums, kParameterSums, H), float32, zeroed by the caller; or null. The kernel writes
  // the rows of peepholes, whose gradients are their sums over rows_of_sums.
  void* sums;
  int64_t rows_of_sums;  // groups * tile_rows of the plan
};
cudaError_t persistent_variant_backward(const PersistentVariantBackward& call, const Plan& plan,
                                        cudaStream_t stream);

}  // namespace lstm_kernels::cuda
