// In which form the numbers of a matrix are held, and those that it is multiplied with.
#pragma once
#include "amx.h"
#include "tuning.h"

namespace lstm_kernels::LSTM_ISA {

// Of panels: the compute type, a narrower type that is widened when used, or pairs along k.
enum class Format : int { kCompute, kBFloat16, kFloat16, kPairs };

// Sets for one form of numbers alone (partial.h) leave all of float16 to others.
#ifdef LSTM_LOWER
constexpr bool kWidensFloat16 = false;
#else
constexpr bool kWidensFloat16 = true;
#endif

// With N rows per step. 16-bit weights are widened where they are used often enough to be
// compute-bound.
template <class S>
LSTM_INLINE Format weight_format(int64_t N) {
  if constexpr (is_same<S, compute<S>>) return Format::kCompute;
  if (N > kNarrowRows || kSse2) return Format::kCompute;
  return is_same<S, bf16> ? Format::kBFloat16 : Format::kFloat16;
}

// What one row of a recurrent product is made of: numbers of the compute type, or pairs of the
// stored ones, which h is rounded to in any case, where the instruction set multiplies those
// faster.
template <class S>
struct operand_type {
  using type = compute<S>;
};
template <>
struct operand_type<bf16> {
  using type = pick<kMultipliesPairs, bf16_pair, float>;
};
template <class S>
using operand = typename operand_type<S>::type;
// The same where weights are laid out for one product of many rows.
template <class X>
constexpr Format wide_format = is_same<X, bf16_pair> ? Format::kPairs : Format::kCompute;
// Rows of a multiple of this length are read where they lie: others end within a pair or register.
template <class X>
constexpr int64_t whole_operand =
    kAmx && is_same<X, bf16_pair> ? kAmxBytes / int64_t(sizeof(bf16)) : numbers_in<X>;
template <class X, class S>
LSTM_INLINE Format operand_format(int64_t N) {
  return is_same<X, bf16_pair> ? Format::kPairs : weight_format<S>(N);
}

}  // namespace lstm_kernels::LSTM_ISA
