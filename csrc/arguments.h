// The arguments of the sequence ops, for every device: as torch hands them over (...Arguments), and
// as they are once they have been read and checked (RowShape, Ragged, Weights, Layer).
#pragma once
#include <tuple>
#include <utility>
#include <vector>

#include "lstm.h"
#include "tensor.h"

namespace lstm_kernels {

// ---- as they come: see schema.cpp -------------------------------------------------------------

struct RaggedArguments {
  const OptionalTensor &batch_sizes, &lengths, &reset;
};

struct WeightArguments {
  const std::vector<Tensor>& tensors;
  bool has_biases, bidirectional;
};

struct ForwardArguments {
  const Tensor& input;
  const OptionalTensor &h0, &c0;
  WeightArguments weights;
  RaggedArguments ragged;
  bool save_cell, save_gates, reduced_precision;
};
// output, h_n, c_n, cell, gates
using ForwardResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

struct BackwardArguments {
  const OptionalTensor &grad_output, &grad_h_n, &grad_c_n, &grad_cell, &grad_gates, &c0;
  WeightArguments weights;
  RaggedArguments ragged;
  const Tensor &cell, &gates;
  bool reduced_precision;
};
// grad_preactivations, grad_h0, grad_c0, grad_hidden
using BackwardResults = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// ---- checked ------------------------------------------------------------------------------------

// T and N of packed rows.
inline std::pair<int64_t, int64_t> packed_sizes(const Tensor& batch_sizes) {
  require(batch_sizes.is_cpu() && batch_sizes.dim() == 1 && batch_sizes.size(0) > 0 &&
              batch_sizes.is_contiguous() && Kind(batch_sizes).dtype == aoti_torch_dtype_int64(),
          "batch_sizes: expected a contiguous int64 tensor of at least one step on the CPU");
  return {batch_sizes.size(0), batch_sizes.const_data_ptr<int64_t>()[0]};
}

// Arrays with one row per step and sequence: (T, N, ...), or packed (R, ...).
struct RowShape {
  int64_t T, N;
  int64_t R;  // all rows
  bool packed;

  // Of an array whose rows have `row_dims` dimensions. Packed rows count as R steps of one
  // sequence. `expected` is the message where the array has other dimensions.
  RowShape(const Tensor& array, const char* expected, int64_t row_dims)
      : packed(array.dim() == row_dims + 1) {
    require(packed || array.dim() == row_dims + 2, expected);
    T = array.size(0);
    N = packed ? 1 : array.size(1);
    R = T * N;
  }
  // The same, packed where there are batch_sizes, which T and N follow from.
  RowShape(const Tensor& array, const char* expected, int64_t row_dims,
           const OptionalTensor& batch_sizes)
      : packed(batch_sizes.has_value()) {
    require(array.dim() == row_dims + (packed ? 1 : 2), expected);
    std::tie(T, N) = packed ? packed_sizes(*batch_sizes) : std::pair(array.size(0), array.size(1));
    R = packed ? array.size(0) : T * N;
    require(T > 0, "expected at least one step");
  }

  // The shape of an array with these features in a row.
  TensorShape of(std::initializer_list<int64_t> features) const {
    TensorShape shape = packed ? TensorShape{R} : TensorShape{T, N};
    return shape.append(features);
  }
};

// Which sequences take part in which step. All null: every one in all steps.
struct Ragged {
  const int64_t* batch_sizes = nullptr;  // (T) on the CPU, positive, non-increasing
  std::vector<int64_t> offsets = {};     // (T + 1) where packed: the first row of each step
  const int64_t* lengths = nullptr;      // (N) on the device of the call
  const bool* reset = nullptr;           // (T, N) likewise

  Ragged() = default;
  Ragged(const RaggedArguments& given, const RowShape& rows, int directions, const Kind& kind) {
    require(!given.batch_sizes || (!given.lengths && !given.reset),
            "batch_sizes: packed rows take neither lengths nor reset");
    require(!given.reset || directions == 1, "reset: expected one direction");
    if (given.batch_sizes) pack(given.batch_sizes->const_data_ptr<int64_t>(), rows);
    if (given.lengths)
      lengths = static_cast<const int64_t*>(
          checked_data(*given.lengths, "lengths", {rows.N}, kind.with(aoti_torch_dtype_int64())));
    if (given.reset)
      reset = static_cast<const bool*>(checked_data(*given.reset, "reset", {rows.T, rows.N},
                                                    kind.with(aoti_torch_dtype_bool())));
  }

 private:
  void pack(const int64_t* sizes, const RowShape& rows) {
    batch_sizes = sizes;
    offsets.reserve(size_t(rows.T) + 1);
    offsets.push_back(0);
    for (int64_t t = 0; t < rows.T; ++t) {
      require(sizes[t] > 0 && sizes[t] <= (t > 0 ? sizes[t - 1] : rows.N),
              "batch_sizes: expected positive, non-increasing sizes");
      offsets.push_back(offsets.back() + sizes[t]);
    }
    require(offsets.back() == rows.R, "batch_sizes: expected a sum of the number of rows");
  }
};

// The weights of one direction, contiguous: the caller's, or copies.
struct DirectionTensors {
  Tensor w_ih, w_hh;                // (4 * H, I), (4 * H, P)
  OptionalTensor b_ih, b_hh, w_hr;  // (4 * H), (4 * H), (P, H)

  DirectionWeights data() const {
    return {w_ih.const_data_ptr(), w_hh.const_data_ptr(), data_or_null(b_ih), data_or_null(b_hh),
            data_or_null(w_hr)};
  }
};

// The weights of a layer. How many there are says whether it projects.
struct Weights {
  Kind kind;
  DType dtype;
  Sizes size{};  // T and N are those of a call
  bool projects;
  std::vector<DirectionTensors> directions;

  Weights(const WeightArguments& given, const Kind& kind) : kind(kind), dtype(dtype_of(kind)) {
    const std::vector<Tensor>& tensors = given.tensors;
    const size_t D = given.bidirectional ? 2 : 1, unprojected = given.has_biases ? 4 : 2;
    const size_t each = tensors.size() / D;
    projects = each == unprojected + 1;
    require(tensors.size() == D * each && (projects || each == unprojected),
            "weights: unexpected number of tensors");
    require(tensors[0].dim() == 2 && tensors[1].dim() == 2, "weights: expected matrices first");
    size.D = int(D);
    size.H = tensors[0].size(0) / kGates;
    size.I = tensors[0].size(1);
    size.P = tensors[1].size(1);
    require(size.H > 0 && size.I > 0 && size.P > 0, "w_ih, w_hh: expected no empty sizes");
    require(projects || size.P == size.H, "w_hh: expected as many columns as hidden units");
    directions.reserve(D);
    for (size_t d = 0; d < D; ++d) add(&tensors[d * each], given.has_biases);
  }

 private:
  void add(const Tensor* next, bool has_biases) {
    const int64_t gates = kGates * size.H;
    Tensor w_ih = checked_dense(*next++, "w_ih", {gates, size.I}, kind);
    Tensor w_hh = checked_dense(*next++, "w_hh", {gates, size.P}, kind);
    DirectionTensors& w =
        directions.emplace_back(DirectionTensors{std::move(w_ih), std::move(w_hh), {}, {}, {}});
    if (has_biases) {
      w.b_ih = checked_dense(*next++, "b_ih", {gates}, kind);
      w.b_hh = checked_dense(*next++, "b_hh", {gates}, kind);
    }
    if (projects) w.w_hr = checked_dense(*next++, "w_hr", {size.P, size.H}, kind);
  }
};

// A layer, and the rows that a call is about.
struct Layer : Weights {
  RowShape rows;
  Ragged ragged;

  // `array` has one row per step and sequence.
  Layer(const Tensor& array, const char* expected, int64_t row_dims,
        const WeightArguments& given_weights, const RaggedArguments& given_ragged)
      : Weights(given_weights, Kind(array)),
        rows(array, expected, row_dims, given_ragged.batch_sizes),
        ragged(given_ragged, rows, size.D, kind) {
    size.T = rows.T;
    size.N = rows.N;
  }
  // Step t has the rows from first_row(t) up to first_row(t + 1).
  int64_t first_row(int64_t t) const {
    return rows.packed ? ragged.offsets[size_t(t)] : t * rows.N;
  }
};

}  // namespace lstm_kernels
