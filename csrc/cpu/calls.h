// From an op's arguments to the parameter struct of a kernel.
#pragma once
#include <torch/headeronly/core/ScalarType.h>

#include "../arguments.h"
#include "kernels.h"
#include "team.h"

namespace lstm_kernels::cpu {

inline Threads thread_count() { return usable_threads(int(torch::stable::get_num_threads())); }

// What the parameter structs of the kernels have in common.
template <class Call>
Call call_of(const Sizes& size, DType dtype) {
  Call a{};
  a.size = size;
  a.dtype = dtype;
  a.threads = thread_count();
  return a;
}

inline void set_weights(DirectionWeights (&out)[2], const Weights& weights) {
  for (size_t d = 0; d < weights.directions.size(); ++d) out[d] = weights.directions[d].data();
}

// How the matrices of a layer are held.
inline WeightDType weight_dtype_of(std::optional<torch::headeronly::ScalarType> given,
                                   DType layer) {
  using torch::headeronly::ScalarType;
  if (given == ScalarType::BFloat16)
    return layer == DType::kBFloat16 ? WeightDType::kOwn : WeightDType::kBFloat16;
  if (given == ScalarType::Half)
    return layer == DType::kFloat16 ? WeightDType::kOwn : WeightDType::kFloat16;
  require(!given, "weight_dtype: expected bfloat16 or float16");
  return WeightDType::kOwn;
}

// `x` has contiguous rows: (T, N, I), or (R, I) where it is packed or a single step.
template <class Call>
void set_input(Call& a, const Tensor& x) {
  const int64_t dims = x.dim();
  a.x = x.const_data_ptr();
  a.x_step = dims == 3 ? x.stride(0) : 0;
  a.x_row = x.stride(dims - 2);
}

// An array of all T steps, or of one that stands for all. features: what it has for each step and
// sequence.
inline OptionalTensor checked_steps(const OptionalTensor& given, const char* name, const Sizes& s,
                                    std::initializer_list<int64_t> features, const Kind& kind) {
  if (!given) return given;
  require(given->dim() > 0, "masks and input gate: expected (1 or T, N, ...)");
  TensorShape shape{given->size(0) == 1 ? 1 : s.T, s.N};
  return checked_dense(given, name, shape.append(features), kind);
}
inline StepArray step_array(const OptionalTensor& dense) {
  if (!dense) return {nullptr, 0};
  return {dense->const_data_ptr(), dense->size(0) == 1 ? 0 : dense->stride(0)};
}

}  // namespace lstm_kernels::cpu
