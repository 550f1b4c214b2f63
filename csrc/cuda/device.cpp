#include "device.h"

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <climits>
#include <mutex>

#include "driver.h"
#include "kernels.h"

// cuBLAS as torch has loaded it, found at load time among torch's own libraries; null where torch
// links another. Its headers are not needed: the interface has been the same since CUDA 11.
extern "C" [[gnu::weak]] int cublasGemmEx(void* handle, int op_a, int op_b, int m, int n, int k,
                                          const void* alpha, const void* a, int a_type, int lda,
                                          const void* b, int b_type, int ldb, const void* beta,
                                          void* c, int c_type, int ldc, int compute, int algorithm);

namespace lstm_kernels::cuda {
namespace {

// A matrix as cuBLAS reads it, column by column: of rows that are contiguous, the transpose.
struct Factor {
  Tensor matrix;
  bool by_columns;
  int64_t leading;  // elements from one contiguous line to the next

  explicit Factor(const Tensor& given) : matrix(given), by_columns(!has_lines(given, 1)) {
    if (by_columns && !has_lines(matrix, 0)) matrix = dense(matrix), by_columns = false;
    const int across = by_columns ? 1 : 0;
    const int64_t length = matrix.size(1 - across);
    leading = matrix.size(across) > 1 ? matrix.stride(across) : length;
  }

 private:
  // Whether lines along a dimension are contiguous and do not overlap.
  static bool has_lines(const Tensor& t, int along) {
    return (t.size(along) == 1 || t.stride(along) == 1) &&
           (t.size(1 - along) == 1 || t.stride(1 - along) >= t.size(along));
  }
};

// out = a @ b in TF32, all in float32; false where cuBLAS cannot be called so.
bool multiply_in_tf32(const Tensor& out, const Tensor& a, const Tensor& b) {
  constexpr int kAsStored = 0, kTransposed = 1, kFloat32 = 0, kFastTf32 = 77, kDefault = -1;
  const int64_t m = out.size(0), n = out.size(1), k = a.size(1);
  if (!cublasGemmEx || m == 0 || n == 0 || k == 0) return false;
  const Factor left(a), right(b), result(out);
  const int64_t largest = std::max({m, n, k, left.leading, right.leading, result.leading});
  if (largest > INT_MAX || result.by_columns) return false;
  void* handle = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_current_cuda_blas_handle(&handle));
  const float one = 1, zero = 0;
  // By columns the transposed product is computed: b^T @ a^T.
  const int status = cublasGemmEx(
      handle, right.by_columns ? kTransposed : kAsStored, left.by_columns ? kTransposed : kAsStored,
      int(n), int(m), int(k), &one, right.matrix.const_data_ptr(), kFloat32, int(right.leading),
      left.matrix.const_data_ptr(), kFloat32, int(left.leading), &zero, out.mutable_data_ptr(),
      kFloat32, int(result.leading), kFastTf32, kDefault);
  STD_TORCH_CHECK(status == 0, "cublasGemmEx failed with status ", status);
  return true;
}

}  // namespace

namespace {

// Before any other call of the runtime, which would fail without saying why.
void check_driver() {
  static const std::string problem = [] {
    int runtime = 0, driver = 0;
    check(cudaRuntimeGetVersion(&runtime));
    check(cudaDriverGetVersion(&driver));
    return driver_problem(runtime, driver);
  }();
  STD_TORCH_CHECK(problem.empty(), problem);
}

}  // namespace

// They do not change while a process lives, and asking for them takes longer than a launch.
const OnDevice::Properties& OnDevice::properties_of(int device) {
  constexpr int kMostDevices = 128;
  static Properties properties[kMostDevices];
  static std::once_flag asked[kMostDevices];
  STD_TORCH_CHECK(device >= 0 && device < kMostDevices, "device index out of range: ", device);
  std::call_once(asked[device], [&] {
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    STD_TORCH_CHECK(major >= 8,
                    "lstm_kernels needs a GPU of compute capability 8.0 (NVIDIA Ampere) or newer, "
                    "and cuda:",
                    device, " has ", major, ".", minor,
                    ". Use torch.nn.LSTM there, or move the module to the CPU.");
    check(query_limits(device, &properties[device].limits));
    int l2_bytes = 0;
    check(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device));
    properties[device].l2_bytes = l2_bytes;
  });
  return properties[device];
}

OnDevice::OnDevice(const Tensor& tensor, bool allow_tf32) : allow_tf32_(allow_tf32) {
  STD_TORCH_CHECK(tensor.is_cuda(), "expected a CUDA tensor");
  const int device = tensor.get_device_index();
  guard_.emplace(device);
  check_driver();
  check(cudaSetDevice(device));  // the runtime linked into this library has a current device too
  properties_ = &properties_of(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  stream_ = static_cast<cudaStream_t>(stream);
}

void OnDevice::multiply(const Tensor& out, const Tensor& a, const Tensor& b) const {
  const int32_t type = Kind(out).dtype;
  if (allow_tf32_ && Kind(a).dtype == aoti_torch_dtype_float32() && multiply_in_tf32(out, a, b))
    return;
  TORCH_ERROR_CODE_CHECK(type == Kind(a).dtype
                             ? aoti_torch_cuda_mm_out(out.get(), a.get(), b.get())
                             : aoti_torch_cuda_mm_dtype_out(out.get(), a.get(), b.get(), type));
}

void check(cudaError_t error) { STD_CUDA_CHECK(error); }

}  // namespace lstm_kernels::cuda
