// The products of the input with w_ih, chunk by chunk of steps.
#pragma once
#include <algorithm>

#include "device.h"
#include "steps.h"

namespace lstm_kernels::cuda {

inline Tensor transposed(const Tensor& matrix) {
  return view(matrix, {matrix.size(1), matrix.size(0)}, {1, matrix.size(1)});
}
// The first rows of a contiguous matrix. All of them is the usual case, and costs nothing.
inline Tensor first_rows(const Tensor& matrix, int64_t rows) {
  const int64_t columns = matrix.size(1);
  return rows == matrix.size(0) ? matrix : view(matrix, {rows, columns}, {columns, 1});
}

// The input at times t0 up to t1, (rows, I), as one matrix; a copy where its strides need it.
inline Tensor input_rows(const Layer& layer, const Tensor& input, int64_t t0, int64_t t1) {
  const int64_t N = layer.size.N, I = layer.size.I;
  const int64_t row = layer.first_row(t0), rows = layer.first_row(t1) - row;
  if (layer.rows.packed) return view(input, {rows, I}, {input.stride(0), 1}, row * input.stride(0));
  const int64_t by_time = input.stride(0), by_row = input.stride(1);
  if (N == 1) return view(input, {rows, I}, {by_time, 1}, t0 * by_time);
  if (t1 - t0 == 1 || by_time == N * by_row)
    return view(input, {rows, I}, {by_row, 1}, t0 * by_time);
  const Tensor steps = view(input, {t1 - t0, N, I}, {by_time, by_row, 1}, t0 * by_time);
  return view(dense(steps), {rows, I}, {I, 1});
}

// Computed ahead for as many steps as leave the product in the L2 cache.
class InputProduct {
 public:
  InputProduct(const Steps& steps, const Tensor& input, const OnDevice& device)
      : steps_(steps),
        device_(device),
        input_(input),
        w_(transposed(steps.layer.directions[size_t(steps.direction)].w_ih)) {
    const Layer& layer = steps.layer;
    const Sizes& s = layer.size;
    const int64_t step_bytes = s.N * kGates * s.H * size_of(wide(layer.dtype));
    chunk_ = std::clamp<int64_t>(device.l2_bytes() / 2 / step_bytes, 1, s.T);
    const int64_t rows = std::min(chunk_ * s.N, layer.rows.R);
    product_ = empty({rows, kGates * s.H}, wide(layer.kind));
  }
  // (rows of the step, 4, H). Steps are asked for in order.
  const void* of(int64_t step) {
    const Layer& layer = steps_.layer;
    if (step % chunk_ == 0) compute(step, std::min(step + chunk_, layer.size.T) - 1);
    const int64_t row = steps_.first_row(step) - first_row_;
    return read_from(product_, row * kGates * layer.size.H, wide(layer.dtype));
  }

 private:
  void compute(int64_t first, int64_t last) {
    const auto [t0, t1] = std::minmax({steps_.time(first), steps_.time(last)});
    const Layer& layer = steps_.layer;
    first_row_ = layer.first_row(t0);
    const int64_t rows = layer.first_row(t1 + 1) - first_row_;
    device_.multiply(first_rows(*product_, rows), input_rows(layer, input_, t0, t1 + 1), w_);
  }

  const Steps steps_;
  const OnDevice& device_;
  const Tensor input_, w_;
  int64_t chunk_, first_row_ = 0;
  OptionalTensor product_;
};

}  // namespace lstm_kernels::cuda
