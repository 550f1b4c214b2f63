// The arguments of the sequence ops, unpacked and checked, as both paths take them.
#pragma once
#include <vector>

#include "device.h"

namespace lstm_kernels::cuda {

struct Weights {
  Tensor w_ih, w_hh;                // (4*H, I), (4*H, P)
  OptionalTensor b_ih, b_hh, w_hr;  // (4*H), (4*H), (P, H)
};

struct Layer {
  DataType type;
  Kind kind;
  Sizes size;
  std::vector<Weights> weights = {};     // one per direction
  const int64_t* batch_sizes = nullptr;  // (T) on the host, or null: the input is packed
  std::vector<int64_t> offsets = {};     // (T + 1) where packed: the first row of each step
  const int64_t* lengths = nullptr;      // (N) on the device, or null
  const bool* reset = nullptr;           // (T, N) on the device, or null

  bool projects() const { return bool(weights.front().w_hr); }
  int64_t first_row(int64_t t) const { return batch_sizes ? offsets[size_t(t)] : t * size.N; }
  int64_t rows(int64_t t) const { return first_row(t + 1) - first_row(t); }
  int64_t all_rows() const { return first_row(size.T); }
};

struct Forward {
  Tensor input;             // (T, N, I) with any strides but contiguous rows, or packed (R, I)
  OptionalTensor h0, c0;    // (D, N, P), (D, N, H)
  Tensor output, h_n, c_n;  // results
  OptionalTensor cell, gates;
};

struct Backward {
  OptionalTensor grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates, c0;
  Tensor cell, gates;
  Tensor grad_preactivations, grad_h0, grad_c0;  // results
  OptionalTensor grad_hidden;                    // where the layer projects
};

// The input of the steps from t0 up to t1, (rows, I), as one matrix; a copy where its strides need
// it.
Tensor input_rows(const Layer& layer, const Tensor& input, int64_t t0, int64_t t1);

// Any type and any size: a few launches per step.
void step_forward(const Layer& layer, const Forward& call, const OnDevice& device);
void step_backward(const Layer& layer, const Backward& call, const OnDevice& device);

// One step on its own, as _cell_forward has it. h, c and gates are results.
struct SingleStep {
  DataType type;
  Kind kind;
  int64_t N, I, H;
  Tensor input, h0, c0;  // (N, I) with contiguous rows, (N, H), (N, H)
  Weights weights;
  Tensor h, c;
  OptionalTensor gates;
};
void single_step_forward(const SingleStep& call, const OnDevice& device);

}  // namespace lstm_kernels::cuda
