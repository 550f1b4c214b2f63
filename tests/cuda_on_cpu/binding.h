// Helpers for binding kernels to NumPy arrays.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "kernels.h"

namespace py = pybind11;

// The data of an array, or null for None. Kernels take exact, C-contiguous arrays: bfloat16 and
// float16 come as any two-byte type.
inline void* data(const py::handle& object) {
  if (object.is_none()) return nullptr;
  const auto array = py::cast<py::array>(object);
  if (!(array.flags() & py::array::c_style)) throw std::invalid_argument("array not contiguous");
  return const_cast<void*>(array.data());
}
template <class T>
const T* data(const py::handle& object) {
  return static_cast<const T*>(data(object));
}

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error("CUDA error " + std::to_string(int(error)));
}
