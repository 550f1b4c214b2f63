// The CPU kernels: plain parameter structs, and one table of entry points per instruction set.
//
// All arrays are row-major and owned by the caller; void pointers point to elements of `dtype`.
// T, N, I, H, P, D as in lstm.h; "rows" are (step, sequence) pairs that take part, (T, N) or
// packed.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../lstm.h"
#include "../variant.h"

namespace lstm_kernels::cpu {

// Which sequences take part in which step. Sequences are ranked by length, longest first, so that
// the active ones of a step are always the ranks 0 .. counts[t] - 1.
struct Rows {
  const int64_t* counts;   // (T) active ranks, non-increasing; null: always N
  const int64_t* lengths;  // (N) length of the sequence of each rank; null exactly when counts is
  const int64_t*
      offsets;           // (T) packed: index of the step's first row; null: step t begins at t * N
  const int64_t* order;  // (N) the sequence of each rank; null: rank n is sequence n
  const bool* reset;     // (T, N) states are zeroed before this step, or null; D = 1 only
};

// Weights that are packed once for many calls keep the layer's precision, or are rounded to a
// narrower type, which a float32 layer alone can ask for. Biases are never rounded. kInt8: the
// caller has rounded them already (see quantized.h).
enum class WeightDType : int { kOwn, kBFloat16, kFloat16, kInt8 };

// Of matrices of int8, one for each row.
struct MatrixScales {
  const float *w_ih, *w_hh;  // (4 * H)
  const float* w_hr;         // (P), or null: no projection
};

// A call may use `count` threads. Not awake: waking another takes as long as a short call.
struct Threads {
  int count;
  bool awake;
};

struct SequenceForward {
  Sizes size;
  DType dtype;
  bool reduced_precision;  // float32: products may round their factors to bfloat16
  Threads threads;
  Rows rows;
  const void* x;                // (T, N, I) or packed (R, I), last dimension contiguous
  int64_t x_step, x_row;        // its other strides, in elements; packed: x_row alone
  const void* h0;               // (D, N, P), or null: zeros
  const void* c0;               // (D, N, H), or null: zeros
  DirectionWeights weights[2];  // per direction
  const void* prepacked;        // what prepack_weights made of them, or null
  WeightDType weight_dtype;     // the same as there
  void* output;                 // (T, N, D * P) or (R, D * P): h_t
  void* h_n;                    // (D, N, P), or null
  void* c_n;                    // (D, N, H), or null
  void* cell;                   // (T, N, D * H) or (R, D * H): c_t, or null
  void* gates;                  // (T, N, D, 4, H) or (R, D, 4, H): activated gates, or null
};

// The weights of a layer, to be packed once for many calls of sequence_forward.
struct LayerWeights {
  Sizes size;  // I, H, P, D
  DType dtype;
  bool reduced_precision;  // of the calls, which must ask for the same
  Threads threads;
  DirectionWeights weights[2];
  WeightDType weight_dtype;  // kInt8: the matrices are int8
  MatrixScales scales[2];    // of them
};

// ---- variants: see docs/variants.md ------------------------------------------------------------

// The kernels of variants multiply in full precision: reduced_precision is false.
struct VariantForward : SequenceForward {
  Variant variant;
  // (T, N, D, 1 or 2, 4 * H) or (R, D, 1 or 2, 4 * H): what the norm of the gates is given, or null
  void* products;
};

// Absent gradients (null) are zero.
struct SequenceBackward {
  Sizes size;
  DType dtype;
  bool reduced_precision;  // as in SequenceForward
  Threads threads;
  Rows rows;
  const void* grad_output;      // like output
  const void* grad_h_n;         // (D, N, P)
  const void* grad_c_n;         // (D, N, H)
  const void* grad_cell;        // like cell
  const void* grad_gates;       // like gates
  const void* c0;               // (D, N, H), or null: zeros
  DirectionWeights weights[2];  // w_hh and w_hr are read
  const void* cell;             // (T, N, D * H) or (R, D * H), as the forward pass returned it
  const void* gates;            // (T, N, D, 4, H) or (R, D, 4, H), likewise
  void* grad_preactivations;    // like gates
  void* grad_h0;                // (D, N, P)
  void* grad_c0;                // (D, N, H)
  void* grad_hidden;            // (T, N, D * P): the whole gradient of h_t; null without projection
};

// Where a step has a layer norm, grad_preactivations is the gradient of the normalised product.
struct VariantBackward : SequenceBackward {
  Variant variant;
  const void* products;      // as in VariantForward
  void* grad_input_gate;     // like cell: the gradient of i; null where it is not from outside
  void* grad_input_product;  // like gates: of W_ih x where the norms are separate, or null
  void* grad_parameters;     // (D, kParameterSums, H), or null: adds_up_parameters() says
};

// The gradients of one direction's weights, from those of its gates' pre-activations.
struct GradWeights {
  Sizes size;
  DType dtype;
  bool reduced_precision;  // as in SequenceForward
  Threads threads;
  int direction;
  Rows rows;
  const void* grad_preactivations;  // (T, N, D, 4, H) or (R, D, 4, H)
  const void* x;                    // as in SequenceForward
  int64_t x_step, x_row;
  const void* h0;        // (D, N, P), or null: zeros
  const void* output;    // (T, N, D * P) or (R, D * P), as the forward pass returned it
  StepArray gate_masks;  // F = 4 * P; what h was multiplied with for the product of each gate
  void* grad_w_ih;       // (4 * H, I)
  void* grad_w_hh;       // (4 * H, P)
  void* grad_bias;       // (4 * H): the gradient of b_ih, and of b_hh
};

// The gradient of a layer's input, likewise.
struct GradInput {
  Sizes size;  // P is not used
  DType dtype;
  bool reduced_precision;  // as in SequenceForward
  Threads threads;
  Rows rows;
  const void* grad_preactivations;  // (T, N, D, 4, H) or (R, D, 4, H)
  DirectionWeights weights[2];      // w_ih is read
  void* grad_input;                 // (T, N, I) or (R, I)
};

// The elementwise part of one step's backward.
struct CellBackward {
  int64_t N, H;
  DType dtype;
  const void* grad_h;         // (N, H), or null
  const void* grad_c;         // (N, H), or null
  const void* grad_gates;     // (N, 4, H), or null
  const void* c0;             // (N, H)
  const void* gates;          // (N, 4, H)
  void* grad_preactivations;  // (N, 4, H)
  void* grad_c0;              // (N, H)
};

// Scratch memory is the caller's: `*_scratch` says how many bytes, 64-byte aligned, a call needs.
struct Kernels {
  const char* isa;
  size_t (*sequence_forward_scratch)(const SequenceForward&);
  void (*sequence_forward)(const SequenceForward&, void* scratch);
  size_t (*sequence_backward_scratch)(const SequenceBackward&);
  void (*sequence_backward)(const SequenceBackward&, void* scratch);
  size_t (*variant_forward_scratch)(const VariantForward&);
  void (*variant_forward)(const VariantForward&, void* scratch);
  size_t (*variant_backward_scratch)(const VariantBackward&);
  void (*variant_backward)(const VariantBackward&, void* scratch);
  size_t (*weight_gradients_scratch)(const GradWeights&);
  void (*weight_gradients)(const GradWeights&, void* scratch);
  size_t (*input_gradient_scratch)(const GradInput&);
  void (*input_gradient)(const GradInput&, void* scratch);
  void (*cell_backward)(const CellBackward&);
  // Packed weights: how many bytes, 64-byte aligned, they take, and packing them. They serve calls
  // of any T, N and number of threads, on this instruction set.
  size_t (*prepacked_bytes)(const LayerWeights&);
  void (*prepack_weights)(const LayerWeights&, void* prepacked);
  // Of the contents, sizes and dtype of the weights: see fingerprint.h.
  uint64_t (*fingerprint)(const LayerWeights&);
  // For tests: sigmoid and tanh of n numbers, float32 or float64.
  void (*activations)(DType, const void* x, void* sigmoid, void* tanh, int64_t n);
};

// The table of the instruction set in use: the best this CPU has, or what LSTM_KERNELS_CPU_ISA
// names. Throws std::runtime_error when that is unknown or not supported by this CPU.
const Kernels& kernels();
// The table of that instruction set, or null where it is unknown or not supported by this CPU.
const Kernels* supported_kernels(const char* isa);
// "avx2 of baseline,avx2,avx512": the instruction set in use and those compiled in.
const char* isa_description();

}  // namespace lstm_kernels::cpu
