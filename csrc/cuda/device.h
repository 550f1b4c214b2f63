// What the ops need of torch on the device: the current stream, views, and matrix products. Memory
// is in ../tensor.h.
//
// A call in TF32 has all its products in TF32, as nn.LSTM has. torch knows only one precision for
// the whole process, which follows another switch than cuDNN's LSTM, so these products go to cuBLAS
// itself, which takes the precision with the call.
#pragma once
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "../tensor.h"
#include "choose.h"

namespace lstm_kernels::cuda {

// Makes a tensor's device the current one for as long as it lives, for a call whose products may
// or may not be in TF32.
class OnDevice {
 public:
  // Raises where the device is older than the kernels (compute capability 8.0).
  explicit OnDevice(const Tensor& tensor, bool allow_tf32 = false);
  const DeviceLimits& limits() const { return properties_->limits; }
  int64_t l2_bytes() const { return properties_->l2_bytes; }
  cudaStream_t stream() const { return stream_; }  // torch's current one
  // Whether float32 is multiplied in TF32.
  bool allow_tf32() const { return allow_tf32_; }
  // out = a @ b on the current stream. `out` has the dtype of the factors or the wide one. Without
  // allow_tf32, by torch's rules for the precision.
  void multiply(const Tensor& out, const Tensor& a, const Tensor& b) const;

 private:
  struct Properties {
    DeviceLimits limits;
    int64_t l2_bytes;
  };
  static const Properties& properties_of(int device);

  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  const Properties* properties_ = nullptr;
  cudaStream_t stream_ = nullptr;
  bool allow_tf32_;
};

// The kind in which sums of tensors of this kind are kept: float64 for float64, else float32.
inline Kind wide(Kind kind) {
  const bool is_double = kind.dtype == aoti_torch_dtype_float64();
  return is_double ? kind : kind.with(aoti_torch_dtype_float32());
}
inline DType wide(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// The same memory seen with other sizes and strides, from element `offset` of the tensor on.
inline Tensor view(const Tensor& tensor, std::initializer_list<int64_t> sizes,
                   std::initializer_list<int64_t> strides, int64_t offset = 0) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(
      tensor.get(), int64_t(sizes.size()), sizes.begin(), strides.begin(), offset, &handle));
  return Tensor(handle);
}

// From element `elements` of a tensor on: to be read, null where it is absent; to be written, null
// where it is empty because it was not asked for.
inline const void* read_from(const OptionalTensor& t, int64_t elements, DType dtype) {
  return t ? static_cast<const char*>(t->const_data_ptr()) + elements * size_of(dtype) : nullptr;
}
inline void* write_from(const Tensor& t, int64_t elements, DType dtype) {
  char* const data = static_cast<char*>(result_or_null(t));
  return data ? data + elements * size_of(dtype) : nullptr;
}

// Raises the error, in CUDA's words.
void check(cudaError_t error);

inline void zero(const Tensor& t, DType dtype, const OnDevice& device) {
  const auto bytes = size_t(t.numel() * size_of(dtype));
  if (bytes > 0) check(cudaMemsetAsync(t.mutable_data_ptr(), 0, bytes, device.stream()));
}

}  // namespace lstm_kernels::cuda
