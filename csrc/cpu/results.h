// Memory for the results of the CPU's ops.
#pragma once
#include "../tensor.h"
#include "platform.h"

namespace lstm_kernels::cpu {

// A new tensor, for which huge pages are asked if it is large: touching fresh small pages would
// cost more than computing what goes there.
inline Tensor results(const TensorShape& shape, const Kind& kind) {
  Tensor t = empty(shape, kind);
  advise_huge_pages(t.mutable_data_ptr(),
                    size_t(t.numel()) * aoti_torch_dtype_element_size(kind.dtype));
  return t;
}
// The same if it is asked for; otherwise an empty one.
inline Tensor results_if(bool asked, const TensorShape& shape, const Kind& kind) {
  return asked ? results(shape, kind) : empty({0}, kind);
}

}  // namespace lstm_kernels::cpu
