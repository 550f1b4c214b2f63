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

}  // namespace lstm_kernels::cpu
