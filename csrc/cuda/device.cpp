#include "device.h"

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/macros.h>

#include <mutex>

#include "kernels.h"

namespace lstm_kernels::cuda {

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

OnDevice::OnDevice(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_cuda(), "expected a CUDA tensor");
  const int device = tensor.get_device_index();
  guard_.emplace(device);
  check(cudaSetDevice(device));  // the runtime linked into this library has a current device too
  properties_ = &properties_of(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  stream_ = static_cast<cudaStream_t>(stream);
}

void multiply(const Tensor& out, const Tensor& a, const Tensor& b) {
  const int32_t type = Kind(out).dtype;
  TORCH_ERROR_CODE_CHECK(type == Kind(a).dtype
                             ? aoti_torch_cuda_mm_out(out.get(), a.get(), b.get())
                             : aoti_torch_cuda_mm_dtype_out(out.get(), a.get(), b.get(), type));
}

void check(cudaError_t error) { STD_CUDA_CHECK(error); }

}  // namespace lstm_kernels::cuda
