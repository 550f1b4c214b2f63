// Whether a driver can run what this library was built with. Plain C++.
//
// The library contains the CUDA runtime of the nvcc that built it. That runtime needs a driver of
// the same major version or a later one. With an older driver every call of CUDA fails with the
// same few words, and they name neither version.
#pragma once
#include <string>

namespace lstm_kernels::cuda {

// What is wrong and what to do, or nothing. Versions are CUDA's: 1000 * major + 10 * minor.
inline std::string driver_problem(int runtime, int driver) {
  if (driver / 1000 >= runtime / 1000) return "";
  const auto name = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  const std::string built = "lstm_kernels was built with CUDA " + name(runtime);
  if (driver == 0) return built + ", and this machine has no NVIDIA driver";
  return built + ", and the driver of this machine runs CUDA " + name(driver) +
         " at most. Update the driver, or build lstm_kernels with CUDA " +
         std::to_string(driver / 1000) + ": set CUDA_HOME to its toolkit";
}

}  // namespace lstm_kernels::cuda
