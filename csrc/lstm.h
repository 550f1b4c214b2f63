// The vocabulary shared by every kernel. Plain C++: no torch, no CUDA.
#pragma once
#include <cstdint>

namespace lstm_kernels {

// The gates in torch's order: input i, forget f, cell candidate g, output o.
//   c_t = f * c_{t-1} + i * g        the cell state: an additive highway
//   h_t = o * tanh(c_t)              the hidden state: what the rest of the network sees
// (Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber & Cummins 2000.)
enum Gate : int { kInputGate, kForgetGate, kCandidate, kOutputGate, kGates };

enum class DType : int { kFloat32, kFloat64, kBFloat16, kFloat16 };

// T time steps, N batch, I input size, H hidden size, P size of h_t: H or proj_size, D directions.
struct Sizes {
  int64_t T, N, I, H, P;
  int D;
};

// One direction of a layer; gates stacked in the order i, f, g, o. Elements of the layer's dtype.
struct DirectionWeights {
  const void* w_ih;  // (4 * H, I)
  const void* w_hh;  // (4 * H, P)
  const void* b_ih;  // (4 * H), or null: no biases
  const void* b_hh;  // (4 * H), or null
  const void* w_hr;  // (P, H), or null: no projection, P = H
};

}  // namespace lstm_kernels
