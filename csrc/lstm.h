// The vocabulary shared by every kernel. Plain C++: no torch, no CUDA.
#pragma once
#include <cstdint>

namespace lstm_kernels {

// The gates in torch's order: input i, forget f, cell candidate g, output o.
//   c_t = f * c_{t-1} + i * g        the cell state: an additive highway
//   h_t = o * tanh(c_t)              the hidden state: what the rest of the network sees
// (Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber & Cummins 2000.)
enum Gate : int { kInputGate, kForgetGate, kCandidate, kOutputGate, kGates };

// T time steps, N batch, I input size, H hidden size, P size of h_t: H or proj_size, D directions.
struct Sizes {
  int64_t T, N, I, H, P;
  int D;
};

}  // namespace lstm_kernels
