// The device of csrc/cuda/device.h, for tensors in host memory: kernels run on the stand-in, and
// products are summed in double, one element after the other. In TF32 their factors are rounded.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstring>

#include "device.h"
#include "ptx.cuh"

// library.py gives every call of this name to the function below.
#undef aoti_torch_empty_strided
extern "C" AOTITorchError aoti_torch_empty_strided(int64_t, const int64_t*, const int64_t*, int32_t,
                                                   int32_t, int32_t, AtenTensorHandle*);
// New memory full of NaNs: what no kernel writes is seen.
extern "C" AOTITorchError poisoned_empty_strided(int64_t dims, const int64_t* sizes,
                                                 const int64_t* strides, int32_t dtype,
                                                 int32_t device_type, int32_t device_index,
                                                 AtenTensorHandle* result) {
  const AOTITorchError error =
      aoti_torch_empty_strided(dims, sizes, strides, dtype, device_type, device_index, result);
  if (error != TORCH_SUCCESS) return error;
  size_t bytes = aoti_torch_dtype_element_size(dtype);
  for (int64_t i = 0; i < dims; i++) bytes *= size_t(sizes[i]);
  void* data = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(*result, &data));
  if (bytes > 0) std::memset(data, 0xff, bytes);
  return TORCH_SUCCESS;
}

namespace lstm_kernels::cuda {
namespace {

template <class In>
double factor(In value, bool tf32) {
  return tf32 && sizeof value == 4 ? round_to_tf32(float(value)) : double(value);
}

template <class Out, class In>
void multiply_as(const Tensor& out, const Tensor& a, const Tensor& b, bool tf32) {
  auto* const to = static_cast<Out*>(out.mutable_data_ptr());
  const auto* const left = static_cast<const In*>(a.const_data_ptr());
  const auto* const right = static_cast<const In*>(b.const_data_ptr());
  for (int64_t i = 0; i < a.size(0); i++)
    for (int64_t j = 0; j < b.size(1); j++) {
      double sum = 0;
      for (int64_t k = 0; k < a.size(1); k++)
        sum += factor(left[i * a.stride(0) + k * a.stride(1)], tf32) *
               factor(right[k * b.stride(0) + j * b.stride(1)], tf32);
      using Rounded = std::conditional_t<sizeof(Out) == 8, double, float>;
      to[i * out.stride(0) + j * out.stride(1)] = Out(Rounded(sum));
    }
}

template <class In>
void multiply_from(const Tensor& out, const Tensor& a, const Tensor& b, bool tf32) {
  if (Kind(out).dtype == Kind(a).dtype) return multiply_as<In, In>(out, a, b, tf32);
  if constexpr (sizeof(In) == 2) return multiply_as<float, In>(out, a, b, tf32);
  throw std::logic_error("multiply: the product of float32 or float64 is of the same type");
}

}  // namespace

// A device so small that little work takes every turn of the host's code.
const OnDevice::Properties& OnDevice::properties_of(int) {
  static const Properties properties{{6, 100 << 10, true}, 4096};
  return properties;
}

OnDevice::OnDevice(const Tensor& tensor, bool allow_tf32)
    : properties_(&properties_of(0)), allow_tf32_(allow_tf32) {
  STD_TORCH_CHECK(tensor.is_cpu(), "expected a CPU tensor");
}

void OnDevice::multiply(const Tensor& out, const Tensor& a, const Tensor& b) const {
  const bool fit = out.dim() == 2 && a.dim() == 2 && b.dim() == 2 && out.size(0) == a.size(0) &&
                   out.size(1) == b.size(1) && a.size(1) == b.size(0) && out.stride(1) == 1 &&
                   Kind(a) == Kind(b);
  if (!fit) throw std::logic_error("multiply: matrices do not fit");
  switch (dtype_of(Kind(a))) {
    case DType::kFloat32:
      return multiply_from<float>(out, a, b, allow_tf32_);
    case DType::kFloat64:
      return multiply_from<double>(out, a, b, allow_tf32_);
    case DType::kFloat16:
      return multiply_from<torch::headeronly::Half>(out, a, b, allow_tf32_);
    case DType::kBFloat16:
      return multiply_from<torch::headeronly::BFloat16>(out, a, b, allow_tf32_);
  }
}

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error("CUDA error " + std::to_string(int(error)));
}

}  // namespace lstm_kernels::cuda
