// Where the parts of one direction of a layer begin, in the arrays of all.
#pragma once
#include "device.h"
#include "steps.h"

namespace lstm_kernels::cuda {

struct Direction {
  const Layer& layer;
  const int d;
  const Steps steps{layer, d};
  const DirectionTensors& weights = layer.directions[size_t(d)];

  // Of (D, N, width).
  int64_t state(int64_t width) const { return d * layer.size.N * width; }
  // Of (R, D, width), from the rows of a step on.
  int64_t row(int64_t step, int64_t width) const {
    return (steps.first_row(step) * layer.size.D + d) * width;
  }
  const void* read_state(const OptionalTensor& t, int64_t width) const {
    return read_from(t, state(width), layer.dtype);
  }
  const void* read_row(const OptionalTensor& t, int64_t step, int64_t width) const {
    return read_from(t, row(step, width), layer.dtype);
  }
  void* write_state(const Tensor& t, int64_t width) const {
    return write_from(t, state(width), layer.dtype);
  }
  void* write_row(const Tensor& t, int64_t step, int64_t width) const {
    return write_from(t, row(step, width), layer.dtype);
  }
  // The rows of a step in (R, D, width), as a matrix.
  Tensor rows(const Tensor& t, int64_t step, int64_t width) const {
    return view(t, {steps.count(step), width}, {layer.size.D * width, 1}, row(step, width));
  }
};

}  // namespace lstm_kernels::cuda
