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

#include "lstm.h"

namespace lstm_kernels {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline void require(bool condition, const char* message) {
  if (!condition) throw std::runtime_error(message);
}

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
  // Another dtype on the same device.
  Kind with(int32_t other) const { return {other, device_type, device_index}; }
};

inline DType dtype_of(const Kind& kind) {
  if (kind.dtype == aoti_torch_dtype_float32()) return DType::kFloat32;
  if (kind.dtype == aoti_torch_dtype_float64()) return DType::kFloat64;
  if (kind.dtype == aoti_torch_dtype_bfloat16()) return DType::kBFloat16;
  if (kind.dtype == aoti_torch_dtype_float16()) return DType::kFloat16;
  throw std::runtime_error("expected a float32, float64, float16 or bfloat16 tensor");
}

// The sizes of a tensor's dimensions.
class TensorShape {
 public:
  static constexpr int kMaxDims = 5;
  TensorShape(std::initializer_list<int64_t> sizes) { append(sizes); }
  TensorShape& append(std::initializer_list<int64_t> sizes) {
    for (int64_t size : sizes) sizes_[dims_++] = size;
    return *this;
  }
  int dims() const { return dims_; }
  const int64_t* data() const { return sizes_; }
  const int64_t* begin() const { return sizes_; }
  const int64_t* end() const { return sizes_ + dims_; }
  int64_t operator[](int dim) const { return sizes_[dim]; }

 private:
  int64_t sizes_[kMaxDims];
  int dims_ = 0;
};

// A new contiguous tensor. Running out of memory gives torch's own words, which do not cross the
// stable ABI by themselves.
inline Tensor empty(const TensorShape& shape, const Kind& kind) {
  int64_t strides[TensorShape::kMaxDims], count = 1;
  for (int i = shape.dims(); i-- > 0; count *= shape[i]) strides[i] = count > 0 ? count : 1;
  AtenTensorHandle handle = nullptr;
  if (aoti_torch_empty_strided(shape.dims(), shape.data(), strides, kind.dtype, kind.device_type,
                               kind.device_index, &handle) != TORCH_SUCCESS) {
    const int64_t bytes = count * int64_t(aoti_torch_dtype_element_size(kind.dtype));
    throw std::runtime_error("not enough memory: you tried to allocate " + std::to_string(bytes) +
                             " bytes.");
  }
  return Tensor(handle);
}

// The tensor itself where it is contiguous, else a contiguous copy.
inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// `t`, or a copy of it, with a contiguous last dimension.
inline Tensor with_dense_rows(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  return t.size(last) == 1 || t.stride(last) == 1 ? t : torch::stable::contiguous(t);
}

// `t` must be of this shape and of this kind.
inline void check_shape(const Tensor& t, const char* name, const TensorShape& shape,
                        const Kind& kind) {
  bool right = Kind(t) == kind && t.dim() == shape.dims();
  for (int i = 0; right && i < shape.dims(); ++i) right = t.size(i) == shape[i];
  if (right) return;
  std::string expected;
  for (int64_t n : shape) expected += (expected.empty() ? "" : ", ") + std::to_string(n);
  throw std::runtime_error(std::string(name) + ": expected a (" + expected +
                           ") tensor of the right dtype and device");
}

// The data of `t`, which must be contiguous, too.
inline const void* checked_data(const Tensor& t, const char* name, const TensorShape& shape,
                                const Kind& kind) {
  check_shape(t, name, shape, kind);
  if (!t.is_contiguous())
    throw std::runtime_error(std::string(name) + ": expected a contiguous tensor");
  return t.const_data_ptr();
}

// An argument may come in any layout; it is read contiguous.
inline Tensor checked_dense(const Tensor& t, const char* name, const TensorShape& shape,
                            const Kind& kind) {
  check_shape(t, name, shape, kind);
  return dense(t);
}
inline OptionalTensor checked_dense(const OptionalTensor& t, const char* name,
                                    const TensorShape& shape, const Kind& kind) {
  return t ? OptionalTensor(checked_dense(*t, name, shape, kind)) : std::nullopt;
}

// The data of an argument, or null where it is absent.
inline const void* data_or_null(const OptionalTensor& t) {
  return t ? t->const_data_ptr() : nullptr;
}
// The memory of a result, or null where it is empty because it was not asked for.
inline void* result_or_null(const Tensor& t) {
  return t.numel() > 0 ? t.mutable_data_ptr() : nullptr;
}

}  // namespace lstm_kernels
