// The kernels of one instruction set, LSTM_ISA, as the table that dispatch.cpp chooses from: all of
// them, or those of one form of numbers (see partial.h).
#include "backward.h"
#include "cell_backward.h"
#include "fingerprint.h"
#include "forward.h"
#include "input_gradient.h"
#include "partial.h"
#include "weight_gradients.h"

namespace lstm_kernels::LSTM_ISA {
namespace {

// Calls f with a null pointer to the storage type.
template <class F>
LSTM_INLINE auto with_dtype([[maybe_unused]] DType dtype, F f) {
  if constexpr (kForm == Form::kBFloat16 || kForm == Form::kAmx) {
    return f((bf16*)nullptr);
  } else if constexpr (kForm == Form::kInt8) {
    return f((float*)nullptr);  // only layers of float32 have weights in 8 bits
  } else {
    switch (dtype) {
      case DType::kFloat64:
        return f((double*)nullptr);
      case DType::kBFloat16:
        return f((bf16*)nullptr);
      case DType::kFloat16:
        return f((fp16*)nullptr);
      default:
        return f((float*)nullptr);
    }
  }
}
template <class Pointer>
struct pointee;
template <class S>
struct pointee<S*> {
  using type = S;
};
#define LSTM_POINTEE(pointer) typename pointee<decltype(pointer)>::type

// Likewise with one to what products take.
template <class Call, class F>
LSTM_INLINE auto with_operand(const Call& a, F f) {
  if constexpr (kMultipliesPairs && !kOfVariant<Call>)
    if (multiplies_rounded(a)) return f((float*)nullptr, (bf16_pair*)nullptr);
  return with_dtype(a.dtype, [&](auto* s) { return f(s, (operand<LSTM_POINTEE(s)>*)nullptr); });
}

// Calls f with a null pointer to the forward pass that `a` takes.
template <class Call, class F>
LSTM_INLINE auto with_forward(const Call& a, F f) {
  if constexpr (is_same<Call, cpu::SequenceForward> && kForm != Form::kBFloat16)
    if (kForm == Form::kInt8 || a.weight_dtype == cpu::WeightDType::kInt8)
      return f((Forward<float, q8>*)nullptr);
  return with_operand(a, [&](auto* s, auto* x) {
    using S = LSTM_POINTEE(s);
    using X = LSTM_POINTEE(x);
    if constexpr (is_same<S, bf16> && is_same<X, bf16_pair> && kForm != Form::kAmx)
      if (reads_direct(a)) return f((Forward<S, float, Call>*)nullptr);
    return f((Forward<S, X, Call>*)nullptr);
  });
}
// Likewise the backward pass.
template <class Call, class F>
LSTM_INLINE auto with_backward(const Call& a, F f) {
  return with_operand(a, [&](auto* s, auto* x) {
    return f((Backward<LSTM_POINTEE(s), LSTM_POINTEE(x), Call>*)nullptr);
  });
}
size_t forward_scratch(const cpu::SequenceForward& a) {
  return with_forward(a, [&](auto* pass) { return scratch_of<LSTM_POINTEE(pass)>(a); });
}
void forward(const cpu::SequenceForward& a, void* scratch) {
  with_forward(a, [&](auto* pass) { run_pass<LSTM_POINTEE(pass)>(a, scratch); });
}
size_t backward_scratch(const cpu::SequenceBackward& a) {
  return with_backward(a, [&](auto* pass) { return scratch_of<LSTM_POINTEE(pass)>(a); });
}
void backward(const cpu::SequenceBackward& a, void* scratch) {
  with_backward(a, [&](auto* pass) { run_pass<LSTM_POINTEE(pass)>(a, scratch); });
}
size_t variant_forward_scratch(const cpu::VariantForward& a) {
  return with_forward(a, [&](auto* pass) { return scratch_of<LSTM_POINTEE(pass)>(a); });
}
void variant_forward(const cpu::VariantForward& a, void* scratch) {
  with_forward(a, [&](auto* pass) { run_pass<LSTM_POINTEE(pass)>(a, scratch); });
}
size_t variant_backward_scratch(const cpu::VariantBackward& a) {
  return with_backward(a, [&](auto* pass) { return scratch_of<LSTM_POINTEE(pass)>(a); });
}
void variant_backward(const cpu::VariantBackward& a, void* scratch) {
  with_backward(a, [&](auto* pass) { run_pass<LSTM_POINTEE(pass)>(a, scratch); });
}
size_t weight_gradients_scratch(const cpu::GradWeights& a) {
  return with_operand(a, [&](auto* s, auto* x) {
    return scratch_of<WeightGradients<LSTM_POINTEE(s), LSTM_POINTEE(x)>>(a);
  });
}
void weight_gradients(const cpu::GradWeights& a, void* scratch) {
  with_operand(a, [&](auto* s, auto* x) {
    run_pass<WeightGradients<LSTM_POINTEE(s), LSTM_POINTEE(x)>>(a, scratch);
  });
}
size_t input_gradient_scratch(const cpu::GradInput& a) {
  return with_operand(a, [&](auto* s, auto* x) {
    return scratch_of<InputGradient<LSTM_POINTEE(s), LSTM_POINTEE(x)>>(a);
  });
}
void input_gradient(const cpu::GradInput& a, void* scratch) {
  with_operand(a, [&](auto* s, auto* x) {
    run_pass<InputGradient<LSTM_POINTEE(s), LSTM_POINTEE(x)>>(a, scratch);
  });
}
void cell_backward(const cpu::CellBackward& a) {
  with_dtype(a.dtype, [&](auto* s) { retreat_step<LSTM_POINTEE(s)>(a); });
}
size_t prepacked(const cpu::LayerWeights& a) {
  if (a.weight_dtype == cpu::WeightDType::kInt8) return prepacked_quantized_bytes(a);
  return with_operand(
      a, [&](auto* s, auto* x) { return prepacked_bytes<LSTM_POINTEE(s), LSTM_POINTEE(x)>(a); });
}
void prepack(const cpu::LayerWeights& a, void* to) {
  if (a.weight_dtype == cpu::WeightDType::kInt8) return prepack_quantized(a, to);
  with_operand(a,
               [&](auto* s, auto* x) { prepack_weights<LSTM_POINTEE(s), LSTM_POINTEE(x)>(a, to); });
}
uint64_t fingerprint_of(const cpu::LayerWeights& a) {
  return with_dtype(a.dtype, [&](auto* s) { return fingerprint<LSTM_POINTEE(s)>(a); });
}

template <class T>
void activations(const T* x, T* sigmoids, T* tanhs, int64_t n) {
  for (int64_t i = 0; i < n; i += lanes<T>) {
    store_n(sigmoids + i, sigmoid<T>(load_n(x + i, n - i)), n - i);
    store_n(tanhs + i, tanh<T>(load_n(x + i, n - i)), n - i);
  }
}
void activations(DType dtype, const void* x, void* sigmoids, void* tanhs, int64_t n) {
  if (dtype == DType::kFloat64)
    activations((const double*)x, (double*)sigmoids, (double*)tanhs, n);
  else
    activations((const float*)x, (float*)sigmoids, (float*)tanhs, n);
}

#define LSTM_STRING_OF(x) #x
#define LSTM_STRING(x) LSTM_STRING_OF(x)

}  // namespace

extern const cpu::Kernels table;
const cpu::Kernels table = {LSTM_STRING(LSTM_ISA),
                            LSTM_ENTRY(forward_scratch, sequence_forward_scratch),
                            LSTM_ENTRY(forward, sequence_forward),
                            LSTM_ENTRY(backward_scratch, sequence_backward_scratch),
                            LSTM_ENTRY(backward, sequence_backward),
                            LSTM_ENTRY(variant_forward_scratch, variant_forward_scratch),
                            LSTM_ENTRY(variant_forward, variant_forward),
                            LSTM_ENTRY(variant_backward_scratch, variant_backward_scratch),
                            LSTM_ENTRY(variant_backward, variant_backward),
                            LSTM_ENTRY(weight_gradients_scratch, weight_gradients_scratch),
                            LSTM_ENTRY(weight_gradients, weight_gradients),
                            LSTM_ENTRY(input_gradient_scratch, input_gradient_scratch),
                            LSTM_ENTRY(input_gradient, input_gradient),
                            LSTM_ENTRY(cell_backward, cell_backward),
                            LSTM_ENTRY(prepacked, prepacked_bytes),
                            LSTM_ENTRY(prepack, prepack_weights),
                            LSTM_ENTRY(fingerprint_of, fingerprint),
                            activations};

}  // namespace lstm_kernels::LSTM_ISA
