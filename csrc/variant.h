// What a variant of the LSTM adds to a layer (docs/variants.md), for the kernels of every device.
// Plain C++: no torch, no CUDA.
#pragma once
#include "lstm.h"

#ifdef __CUDACC__
#define LSTM_ON_EVERY_DEVICE __host__ __device__
#else
#define LSTM_ON_EVERY_DEVICE
#endif

namespace lstm_kernels {

enum class ActivationKind : int {
  kSigmoid,
  kTanh,
  kRelu,
  kAffine,
  kLeakyRelu,
  kThresholdedRelu,
  kScaledTanh,
  kHardSigmoid,
  kElu,
  kSoftsign,
  kSoftplus,
  kActivations
};
struct Activation {
  ActivationKind kind;
  double alpha, beta;
};
constexpr int kPeepholes = 3;  // of i, f and o
enum ActivationUse : int { kOfGates, kOfCandidate, kOfCell, kActivationUses };
// Which gate follows from the other: i = 1 - f, or f = 1 - i.
enum class Coupled : int { kNone, kInput, kForget };

// (T, N, D * F), elements of the layer's dtype, also where the input is packed; `step` elements
// from one step to the next, 0 where all steps share one. data null: there is none.
struct StepArray {
  const void* data;
  int64_t step;
};

struct Variant {
  Activation activations[kActivationUses];
  Coupled coupled;
  double clip, cell_clip;         // 0: none
  double keep_cell, keep_hidden;  // zoneout without a mask: its expectation, 0 without zoneout
  const void* peephole;           // (D, 3, H) of i, f and o, or null
  StepArray input_gate;           // F = H; i from outside
  StepArray hidden_mask;          // F = P; what h is multiplied with before the recurrent product
  StepArray gate_masks;           // F = 4 * P; the same, for the product of each gate
  StepArray candidate_mask;       // F = H; what g is multiplied with
  StepArray cell_zoneout, hidden_zoneout;  // F = H and P; 1 where the state stays
  // Layer norm. Gains of the gates', (D, 1, 4 * H) of the sum of both products, or (D, 2, 4 * H) of
  // W_ih x and W_hh h where these are separate; gain and bias of the cell state's, (D, 2, H).
  const void *norm_gates, *norm_cell;  // or null
  bool separate, carries_norm;         // carries_norm: the normalised cell state goes on
  double norm_eps;

  LSTM_ON_EVERY_DEVICE bool normalises() const { return norm_gates || norm_cell; }
  // Whether a backward pass adds up gradients of parameters.
  LSTM_ON_EVERY_DEVICE bool adds_up_parameters() const { return normalises() || peephole; }
  LSTM_ON_EVERY_DEVICE int64_t branches() const {
    return separate ? 2 : 1;
  }  // products that are normalised
  LSTM_ON_EVERY_DEVICE bool zones_out_cell() const { return cell_zoneout.data || keep_cell > 0; }
  LSTM_ON_EVERY_DEVICE bool zones_out_hidden() const {
    return hidden_zoneout.data || keep_hidden > 0;
  }
};

// A variant's numbers by the same names in float, for kernels that compute in it: doubles would
// have to be converted, or compared, at every cell.
struct VariantFloats {
  float clip, cell_clip, keep_cell, keep_hidden;
  struct {
    ActivationKind kind;
    float alpha, beta;
  } activations[kActivationUses];

  explicit VariantFloats(const Variant& v)
      : clip(float(v.clip)),
        cell_clip(float(v.cell_clip)),
        keep_cell(float(v.keep_cell)),
        keep_hidden(float(v.keep_hidden)) {
    for (int use = 0; use < kActivationUses; use++)
      activations[use] = {v.activations[use].kind, float(v.activations[use].alpha),
                          float(v.activations[use].beta)};
  }
};

// The gradients of parameters that a pass adds up itself, rows of H numbers: of peepholes, and
// where a step has a layer norm of all but matrices. Those of the gains of a norm of the sum of
// both products stand as kOfRecurrentGain.
enum ParameterSum : int {
  kOfBias,
  kOfInputGain = kOfBias + kGates,
  kOfRecurrentGain = kOfInputGain + kGates,
  kOfCellGain = kOfRecurrentGain + kGates,
  kOfCellBias,
  kOfPeephole,
  kParameterSums = kOfPeephole + kPeepholes
};

}  // namespace lstm_kernels
