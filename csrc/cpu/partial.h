// Instruction sets that have kernels for one form of numbers alone.
//
// VNNI and dotprod change products of 8-bit numbers and nothing more; the instructions for bfloat16
// change those of bfloat16, and of float32 where a caller allows it; AMX changes all three, but
// variants have none. For such a set isas.def defines LSTM_FORM, that form, and LSTM_LOWER, the set
// whose table has the rest. Compiled whole, the rest came out the same, instruction by
// instruction, and made the library nearly twice as large.
#pragma once
#include "direct.h"

#ifdef LSTM_LOWER
namespace lstm_kernels::LSTM_LOWER {
extern const cpu::Kernels table;
}
#endif

namespace lstm_kernels::LSTM_ISA {

enum class Form { kAll, kInt8, kBFloat16, kAmx };

template <class Call>
constexpr bool kHasWeightDType =
    is_same<Call, cpu::SequenceForward> || is_same<Call, cpu::LayerWeights>;
template <class Call>
constexpr bool kOfVariant =
    is_same<Call, cpu::VariantForward> || is_same<Call, cpu::VariantBackward>;

// Whether products of float32 numbers round them to bfloat16: where the caller allows it and it is
// faster. Weights that are read as they are stored are not rounded, nor those held in float16.
inline bool rounds_factors(const cpu::LayerWeights& a) {
  return a.reduced_precision && a.weight_dtype != cpu::WeightDType::kFloat16;
}
inline bool rounds_factors(const cpu::SequenceForward& a) {
  return a.reduced_precision && a.weight_dtype != cpu::WeightDType::kFloat16 && !reads_direct(a);
}
inline bool rounds_factors(const cpu::SequenceBackward& a) {
  return a.reduced_precision && !cpu::direct_backward(a.size);
}
inline bool rounds_factors(const cpu::GradWeights& a) { return a.reduced_precision; }
inline bool rounds_factors(const cpu::GradInput& a) { return a.reduced_precision; }
template <class Call>
LSTM_INLINE bool multiplies_rounded([[maybe_unused]] const Call& a) {
  constexpr bool kCan = kMultipliesPairs && !kOfVariant<Call> && !is_same<Call, cpu::CellBackward>;
  if constexpr (kCan) return a.dtype == DType::kFloat32 && rounds_factors(a);
  return false;
}

#ifdef LSTM_LOWER
constexpr Form kForm = Form::LSTM_FORM;
static_assert(kAmx == (kForm == Form::kAmx), "a set for AMX, and no other, multiplies by it");

// Whether there are too few rows for AMX: forward, all steps' input makes one product.
inline bool has_few_rows(const cpu::SequenceForward& a) { return reads_direct(a); }
inline bool has_few_rows(const cpu::SequenceBackward& a) { return a.size.N < kFewestAmxRows; }
template <class Call>
bool has_few_rows(const Call&) {
  return false;
}

// Whether calls of a kind can be of that form, and whether this one is.
template <class Call>
constexpr bool kCanHaveForm = kForm == Form::kInt8  ? kHasWeightDType<Call>
                              : kForm == Form::kAmx ? !kOfVariant<Call>
                                                    : true;
template <class Call>
bool has_form(const Call& a) {
  if constexpr (kForm != Form::kBFloat16 && kHasWeightDType<Call>)
    if (a.weight_dtype == cpu::WeightDType::kInt8) return true;
  if constexpr (kForm == Form::kInt8) return false;
  if constexpr (kForm == Form::kAmx)
    if (has_few_rows(a)) return false;
  return a.dtype == DType::kBFloat16 || multiplies_rounded(a);
}

// Calls `own` if the call is of that form, and the function of LSTM_LOWER if it is not.
template <auto own, auto entry>
struct OwnOrLower;
template <class R, class Call, class... More, R (*own)(const Call&, More...),
          R (*cpu::Kernels::*entry)(const Call&, More...)>
struct OwnOrLower<own, entry> {
  static R call(const Call& a, More... more) {
    if constexpr (kCanHaveForm<Call>)
      if (has_form(a)) return own(a, more...);
    return (LSTM_LOWER::table.*entry)(a, more...);
  }
};
#define LSTM_ENTRY(own, entry) OwnOrLower<own, &cpu::Kernels::entry>::call
#else
constexpr Form kForm = Form::kAll;
#define LSTM_ENTRY(own, entry) own
#endif

}  // namespace lstm_kernels::LSTM_ISA
