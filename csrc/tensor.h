// The only file that touches torch's raw C shims: allocation and checks on stable-ABI tensors, for
// the ops of every device. What a user can get wrong is checked in Python, with nn.LSTM's exception
// types; here only what memory safety needs.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

namespace lstm_kernels {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Where and of what a tensor is.
struct Kind {
  int32_t dtype, device_type, device_index;
  Kind(int32_t dtype, int32_t device_type, int32_t device_index)
      : dtype(dtype), device_type(device_type), device_index(device_index) {}
  explicit Kind(const Tensor& t) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &device_type));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(t.get(), &device_index));
  }
  bool operator==(const Kind&) const = default;
};

// A new contiguous tensor. Running out of memory gives torch's own words, which do not cross the
// stable ABI by themselves.
inline Tensor empty(std::initializer_list<int64_t> sizes, const Kind& kind) {
  constexpr int kMaxDims = 5;
  int64_t strides[kMaxDims], count = 1, dims = int64_t(sizes.size());
  for (int64_t i = dims; i-- > 0; count *= sizes.begin()[i]) strides[i] = count > 0 ? count : 1;
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_empty_strided(dims, sizes.begin(), strides, kind.dtype, kind.device_type,
                               kind.device_index, &handle) != TORCH_SUCCESS) {
    const int64_t bytes = count * int64_t(aoti_torch_dtype_element_size(kind.dtype));
    throw std::runtime_error("not enough memory: you tried to allocate " + std::to_string(bytes) +
                             " bytes.");
  }
  return Tensor(handle);
}

// `t`, or a copy of it, with a contiguous last dimension.
inline Tensor with_dense_rows(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  return t.size(last) == 1 || t.stride(last) == 1 ? t : torch::stable::contiguous(t);
}

// `t` must be contiguous, of these sizes and of this kind. Returns its data, or null if absent.
inline const void* checked_data(const Tensor& t, const char* name,
                                std::initializer_list<int64_t> sizes, const Kind& kind) {
  bool right = Kind(t) == kind && t.dim() == int64_t(sizes.size()) && t.is_contiguous();
  for (size_t i = 0; right && i < sizes.size(); ++i) right = t.size(int64_t(i)) == sizes.begin()[i];
  if (!right) {
    std::string expected;
    for (int64_t n : sizes) expected += (expected.empty() ? "" : ", ") + std::to_string(n);
    throw std::runtime_error(std::string(name) + ": expected a contiguous (" + expected +
                             ") tensor of the input's dtype and device");
  }
  return t.const_data_ptr();
}
inline const void* checked_data(const OptionalTensor& t, const char* name,
                                std::initializer_list<int64_t> sizes, const Kind& kind) {
  return t ? checked_data(*t, name, sizes, kind) : nullptr;
}

}  // namespace lstm_kernels
