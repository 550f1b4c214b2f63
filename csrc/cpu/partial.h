// Instruction sets that have kernels for one form of numbers alone.
//
// VNNI and dotprod change products of 8-bit numbers and nothing more; the instructions for bfloat16
// change those of bfloat16. For such a set isas.def defines LSTM_FORM, that form, and LSTM_LOWER,
// the set whose table has the rest. Compiled whole, the rest came out the same, instruction by
// instruction, and made the library nearly twice as large.
#pragma once
#include "kernels.h"
#include "simd.h"

#ifdef LSTM_LOWER
namespace lstm_kernels::LSTM_LOWER {
extern const cpu::Kernels table;
}
#endif

namespace lstm_kernels::LSTM_ISA {

enum class Form { kAll, kInt8, kBFloat16 };

#ifdef LSTM_LOWER
constexpr Form kForm = Form::LSTM_FORM;

// Whether calls of a kind can be of that form, and whether this one is.
template <class Call>
constexpr bool kCanHaveForm = kForm == Form::kBFloat16 || is_same<Call, cpu::SequenceForward> ||
                              is_same<Call, cpu::LayerWeights>;
template <class Call>
bool has_form(const Call& a) {
  if constexpr (kForm == Form::kBFloat16)
    return a.dtype == DType::kBFloat16;
  else
    return a.weight_dtype == cpu::WeightDType::kInt8;
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
