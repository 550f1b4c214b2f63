// The CPU implementations of the ops in schema.cpp: unpack, check what memory safety needs, call
// one kernel, return.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "../tensor.h"
#include "kernels.h"
#include "scratch.h"
#include "team.h"
#include "tuning.h"

namespace lstm_kernels::cpu {
namespace {

using torch::headeronly::ScalarType;

DType dtype_of(const Kind& kind) {
  if (kind.dtype == aoti_torch_dtype_float32()) return DType::kFloat32;
  if (kind.dtype == aoti_torch_dtype_float64()) return DType::kFloat64;
  if (kind.dtype == aoti_torch_dtype_bfloat16()) return DType::kBFloat16;
  if (kind.dtype == aoti_torch_dtype_float16()) return DType::kFloat16;
  throw std::runtime_error("expected float32, float64, bfloat16 or float16");
}

Threads thread_count() { return usable_threads(int(torch::stable::get_num_threads())); }

// A new tensor for results, for which huge pages are asked if it is large: touching fresh small
// pages would cost more than computing what goes there.
Tensor results(std::initializer_list<int64_t> sizes, const Kind& kind) {
  Tensor t = empty(sizes, kind);
  advise_huge_pages(t.mutable_data_ptr(),
                    size_t(t.numel()) * aoti_torch_dtype_element_size(kind.dtype));
  return t;
}

void check(bool condition, const char* message) {
  if (!condition) throw std::runtime_error(message);
}

const int64_t* integers(const Tensor& t, const char* name, int64_t n) {
  if (t.dim() != 1 || t.size(0) != n || !t.is_contiguous() || !t.is_cpu() ||
      Kind(t).dtype != aoti_torch_dtype_int64())
    throw std::runtime_error(std::string(name) + ": expected a contiguous int64 CPU tensor of " +
                             std::to_string(n) + " elements");
  return static_cast<const int64_t*>(t.const_data_ptr());
}

// Checks arguments and reads them; keeps copies of those that are not contiguous.
class Reader {
 public:
  explicit Reader(const Kind& kind) : kind_(kind) {}
  const void* operator()(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes) {
    if (t.is_contiguous()) return checked_data(t, name, sizes, kind_);
    copies_.push_back(torch::stable::contiguous(t));
    return checked_data(copies_.back(), name, sizes, kind_);
  }
  const void* operator()(const OptionalTensor& t, const char* name,
                         std::initializer_list<int64_t> sizes) {
    return t ? (*this)(*t, name, sizes) : nullptr;
  }

 private:
  const Kind kind_;
  std::vector<Tensor> copies_;
};

// Rows, with the arrays it points to.
class RowLists {
 public:
  // T and N of the uniform or padded case; packed, they follow from batch_sizes.
  RowLists(const OptionalTensor& batch_sizes, const OptionalTensor& lengths,
           const OptionalTensor& reset, int64_t T, int64_t N, int64_t packed_rows, int directions) {
    check(!batch_sizes || (!lengths && !reset), "batch_sizes excludes lengths and reset");
    if (batch_sizes) from_batch_sizes(*batch_sizes, T, N, packed_rows);
    if (lengths) from_lengths(*lengths, T, N);
    if (!reset) return;
    check(directions == 1, "reset: expected one direction");
    check(reset->dim() == 2 && reset->size(0) == T && reset->size(1) == N &&
              reset->is_contiguous() && reset->is_cpu() &&
              Kind(*reset).dtype == aoti_torch_dtype_bool(),
          "reset: expected a contiguous (T, N) bool CPU tensor");
    rows_.reset = static_cast<const bool*>(reset->const_data_ptr());
  }
  const Rows& rows() const { return rows_; }

 private:
  void from_batch_sizes(const Tensor& batch_sizes, int64_t T, int64_t N, int64_t packed_rows) {
    rows_.counts = integers(batch_sizes, "batch_sizes", T);
    int64_t total = 0;
    offsets_.resize(size_t(T));
    lengths_.resize(size_t(N));
    for (int64_t t = T, rank = 0; t-- > 0;) {  // rank: sequences that end after step t
      check(rows_.counts[t] > 0 && rows_.counts[t] <= N,
            "batch_sizes: expected positive, non-increasing");
      check(rows_.counts[t] >= rank, "batch_sizes: expected positive, non-increasing");
      for (; rank < rows_.counts[t]; ++rank) lengths_[size_t(rank)] = t + 1;
    }
    for (int64_t t = 0; t < T; ++t) offsets_[size_t(t)] = total, total += rows_.counts[t];
    check(total == packed_rows, "batch_sizes: expected their sum to be the input's first size");
    rows_.offsets = offsets_.data();
    rows_.lengths = lengths_.data();
  }

  void from_lengths(const Tensor& tensor, int64_t T, int64_t N) {
    const int64_t* lengths = integers(tensor, "lengths", N);
    counts_.assign(size_t(T) + 1, 0);  // first: how many sequences have each length
    for (int64_t n = 0; n < N; ++n) {
      check(lengths[n] >= 0 && lengths[n] <= T, "lengths: expected values from 0 to T");
      ++counts_[size_t(lengths[n])];
    }
    // Then: how many are longer than t. That is also where the ranks of length t begin.
    int64_t longer = 0;
    for (int64_t t = T; t >= 0; --t) {
      const int64_t equal = counts_[size_t(t)];
      counts_[size_t(t)] = longer;
      longer += equal;
    }
    std::vector<int64_t> next(counts_);
    order_.resize(size_t(N));
    lengths_.resize(size_t(N));
    for (int64_t n = 0; n < N; ++n) {
      const size_t rank = size_t(next[size_t(lengths[n])]++);
      order_[rank] = n;
      lengths_[rank] = lengths[n];
    }
    rows_.counts = counts_.data();
    rows_.lengths = lengths_.data();
    rows_.order = order_.data();
  }

  Rows rows_{};
  std::vector<int64_t> counts_, lengths_, offsets_, order_;
};

void read_weights(const std::vector<Tensor>& weights, bool has_biases, const Sizes& size,
                  bool projects, Reader& read, DirectionWeights (&out)[2]) {
  const int64_t gates = kGates * size.H;
  auto next = weights.begin();
  for (int d = 0; d < size.D; ++d) {
    DirectionWeights& w = out[d];
    w = {};
    w.w_ih = read(*next++, "w_ih", {gates, size.I});
    w.w_hh = read(*next++, "w_hh", {gates, size.P});
    if (has_biases) {
      w.b_ih = read(*next++, "b_ih", {gates});
      w.b_hh = read(*next++, "b_hh", {gates});
    }
    if (projects) w.w_hr = read(*next++, "w_hr", {size.P, size.H});
  }
}

// The sizes that the weights tell; whether the layer projects follows from how many there are.
struct LayerShape {
  Sizes size{};
  bool projects;
  LayerShape(const std::vector<Tensor>& weights, bool has_biases, bool bidirectional) {
    size.D = bidirectional ? 2 : 1;
    const size_t plain = size_t(size.D) * (has_biases ? 4 : 2);
    projects = weights.size() == plain + size_t(size.D);
    check(projects || weights.size() == plain, "weights: unexpected number of tensors");
    check(weights[0].dim() == 2 && weights[1].dim() == 2, "weights: expected matrices first");
    size.H = weights[0].size(0) / kGates;
    size.I = weights[0].size(1);
    size.P = weights[1].size(1);
    check(size.H > 0 && size.I > 0 && size.P > 0 && (projects || size.P == size.H),
          "weights: sizes disagree");
  }
};

// A layer's weights in one block of bytes, good for calls of any T, N and number of threads in this
// process. What it begins with says which weights they are, and that the block is whole: layouts
// differ between instruction sets, and a kernel would trust any block.
class PrepackedBlock {
 public:
  static Tensor of(const LayerWeights& layer, const Kind& kind) {
    check(layer.weight_dtype == WeightDType::kOwn || layer.dtype == DType::kFloat32,
          "weight_dtype: only weights of float32 can be kept narrower");
    const int64_t bytes = size(layer);
    Tensor packed =
        results({bytes}, Kind(aoti_torch_dtype_uint8(), kind.device_type, kind.device_index));
    std::memset(packed.mutable_data_ptr(), 0, size_t(bytes));  // the gaps: same weights, same block
    Header& header = *static_cast<Header*>(packed.mutable_data_ptr());
    header = {kMagic, &kernels(), bytes, kernels().fingerprint(layer), layer.weight_dtype, {}};
    kernels().prepack_weights(layer, &header + 1);
    return packed;
  }

  explicit PrepackedBlock(const Tensor& packed) {
    check(packed.dim() == 1 && packed.is_contiguous() && packed.is_cpu() &&
              Kind(packed).dtype == aoti_torch_dtype_uint8() &&
              packed.size(0) >= int64_t(sizeof(Header)) &&
              uintptr_t(packed.const_data_ptr()) % alignof(Header) == 0,
          "prepacked: expected what _prepack_weights returned");
    header_ = static_cast<const Header*>(packed.const_data_ptr());
    check(header_->magic == kMagic && header_->made_for == &kernels() &&
              header_->bytes == packed.size(0),
          "prepacked: expected what _prepack_weights returned in this process");
  }
  WeightDType weight_dtype() const { return header_->weight_dtype; }
  const void* weights() const { return header_ + 1; }
  bool is_of(const LayerWeights& layer) const {
    return header_->fingerprint == kernels().fingerprint(layer) && header_->bytes == size(layer);
  }

 private:
  static constexpr uint64_t kMagic = 0x6b6361706d74736c;  // "lstmpack"
  struct alignas(64) Header {
    uint64_t magic;
    const Kernels* made_for;
    int64_t bytes;  // of the whole block
    uint64_t fingerprint;
    WeightDType weight_dtype;
    int unused[7];
  };
  static_assert(sizeof(Header) == 64);
  static int64_t size(const LayerWeights& layer) {
    return int64_t(sizeof(Header) + kernels().prepacked_bytes(layer));
  }
  const Header* header_;
};

LayerWeights layer_of(const SequenceForward& a) {
  return {a.size, a.dtype, a.threads, {a.weights[0], a.weights[1]}, a.weight_dtype};
}

Tensor prepack_weights(const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
                       std::optional<ScalarType> weight_dtype) {
  const LayerShape shape(weights, has_biases, bidirectional);
  const Kind kind(weights[0]);
  LayerWeights layer{shape.size, dtype_of(kind), thread_count(), {}, WeightDType::kOwn};
  Reader read(kind);
  read_weights(weights, has_biases, shape.size, shape.projects, read, layer.weights);
  if (weight_dtype == ScalarType::BFloat16) {
    if (layer.dtype != DType::kBFloat16) layer.weight_dtype = WeightDType::kBFloat16;
  } else if (weight_dtype == ScalarType::Half) {
    if (layer.dtype != DType::kFloat16) layer.weight_dtype = WeightDType::kFloat16;
  } else {
    check(!weight_dtype, "weight_dtype: expected bfloat16 or float16");
  }
  return PrepackedBlock::of(layer, kind);
}

using Forwarded = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// `packed`, where given: what _prepack_weights returned; replaced where it is stale.
Forwarded forward(const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
                  const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
                  const OptionalTensor& batch_sizes, const OptionalTensor& lengths,
                  const OptionalTensor& reset, bool save_cell, bool save_gates,
                  const Tensor* prepacked, Tensor* renewed) {
  const Kind kind(input);
  LayerShape shape(weights, has_biases, bidirectional);
  Sizes& size = shape.size;
  const bool ragged = batch_sizes.has_value();
  check(input.dim() == (ragged ? 2 : 3), "input: expected (T, N, I), or (R, I) with batch_sizes");
  size.T = ragged ? batch_sizes->size(0) : input.size(0);
  size.N = input.size(1);
  if (ragged) {
    check(size.T > 0, "batch_sizes: expected at least one step");
    size.N = *integers(*batch_sizes, "batch_sizes", size.T);
  }
  check(size.T > 0, "input: expected at least one step");
  const int64_t last = input.dim() - 1, D = size.D;
  check(input.size(last) == size.I, "input: its last size is not that of w_ih");
  const Tensor x = with_dense_rows(input);

  SequenceForward a{};
  a.dtype = dtype_of(kind);
  a.threads = thread_count();
  const RowLists lists(batch_sizes, lengths, reset, size.T, size.N, input.size(0), size.D);
  a.size = size;
  a.rows = lists.rows();
  a.x = x.const_data_ptr();
  a.x_step = ragged ? 0 : x.stride(0);
  a.x_row = x.stride(last - 1);
  Reader read(kind);
  a.h0 = read(h0, "h0", {D, size.N, size.P});
  a.c0 = read(c0, "c0", {D, size.N, size.H});
  read_weights(weights, has_biases, size, shape.projects, read, a.weights);

  const int64_t R = input.size(0);
  Tensor output =
      ragged ? results({R, D * size.P}, kind) : results({size.T, size.N, D * size.P}, kind);
  Tensor h_n = empty({D, size.N, size.P}, kind), c_n = empty({D, size.N, size.H}, kind);
  Tensor cell = !save_cell ? empty({0}, kind)
                : ragged   ? results({R, D * size.H}, kind)
                           : results({size.T, size.N, D * size.H}, kind);
  Tensor gates = !save_gates ? empty({0}, kind)
                 : ragged    ? results({R, D, kGates, size.H}, kind)
                             : results({size.T, size.N, D, kGates, size.H}, kind);
  a.output = output.mutable_data_ptr();
  a.h_n = h_n.mutable_data_ptr();
  a.c_n = c_n.mutable_data_ptr();
  a.cell = save_cell ? cell.mutable_data_ptr() : nullptr;
  a.gates = save_gates ? gates.mutable_data_ptr() : nullptr;

  if (prepacked) {
    const PrepackedBlock block(*prepacked);
    a.weight_dtype = block.weight_dtype();
    if (a.weight_dtype != WeightDType::kOwn || !direct_although_prepacked(size)) {
      const LayerWeights layer = layer_of(a);
      const bool current = block.is_of(layer);
      if (!current) *renewed = PrepackedBlock::of(layer, kind);
      a.prepacked = (current ? block : PrepackedBlock(*renewed)).weights();
    }
  }
  const Scratch scratch(kernels().sequence_forward_scratch(a));
  kernels().sequence_forward(a, scratch.data());
  return {output, h_n, c_n, cell, gates};
}

Forwarded sequence_forward(const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
                           const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
                           const OptionalTensor& batch_sizes, const OptionalTensor& lengths,
                           const OptionalTensor& reset, bool save_cell, bool save_gates,
                           bool /*allow_tf32*/) {
  return forward(input, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, reset,
                 save_cell, save_gates, nullptr, nullptr);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> prepacked_forward(
    const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
    const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
    const OptionalTensor& batch_sizes, const OptionalTensor& lengths, const OptionalTensor& reset,
    bool save_cell, bool save_gates, const Tensor& prepacked) {
  Tensor renewed = empty({0}, Kind(prepacked));
  const Forwarded results = forward(input, h0, c0, weights, has_biases, bidirectional, batch_sizes,
                                    lengths, reset, save_cell, save_gates, &prepacked, &renewed);
  return std::tuple_cat(results, std::make_tuple(renewed));
}

using Backwarded = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Backwarded sequence_backward(const OptionalTensor& grad_output, const OptionalTensor& grad_h_n,
                             const OptionalTensor& grad_c_n, const OptionalTensor& grad_cell,
                             const OptionalTensor& grad_gates, const OptionalTensor& c0,
                             const std::vector<Tensor>& weights, bool has_biases,
                             bool bidirectional, const OptionalTensor& batch_sizes,
                             const OptionalTensor& lengths, const OptionalTensor& reset,
                             const Tensor& cell, const Tensor& gates, bool /*allow_tf32*/) {
  const Kind kind(cell);
  LayerShape shape(weights, has_biases, bidirectional);
  Sizes& size = shape.size;
  const bool packed = batch_sizes.has_value();
  check(cell.dim() == (packed ? 2 : 3), "cell: expected (T, N, D*H), or (R, D*H) with batch_sizes");
  size.T = packed ? batch_sizes->size(0) : cell.size(0);
  size.N = cell.size(1);
  if (packed) {
    check(size.T > 0, "batch_sizes: expected at least one step");
    size.N = *integers(*batch_sizes, "batch_sizes", size.T);
  }

  SequenceBackward a{};
  a.dtype = dtype_of(kind);
  a.threads = thread_count();
  const RowLists lists(batch_sizes, lengths, reset, size.T, size.N, cell.size(0), size.D);
  a.size = size;
  a.rows = lists.rows();
  const int64_t R = cell.size(0), T = size.T, N = size.N, D = size.D, H = size.H, P = size.P;
  // A (T, N, ...) or packed (R, ...) array with D * `features` numbers per row.
  auto per_row = [&](const auto& t, const char* name, int64_t features) {
    return packed ? checked_data(t, name, {R, D * features}, kind)
                  : checked_data(t, name, {T, N, D * features}, kind);
  };
  auto per_gate = [&](const auto& t, const char* name) {
    return packed ? checked_data(t, name, {R, D, kGates, H}, kind)
                  : checked_data(t, name, {T, N, D, kGates, H}, kind);
  };
  a.grad_output = per_row(grad_output, "grad_output", P);
  a.grad_h_n = checked_data(grad_h_n, "grad_h_n", {D, N, P}, kind);
  a.grad_c_n = checked_data(grad_c_n, "grad_c_n", {D, N, H}, kind);
  a.grad_cell = per_row(grad_cell, "grad_cell", H);
  a.grad_gates = per_gate(grad_gates, "grad_gates");
  Reader read(kind);
  a.c0 = read(c0, "c0", {D, N, H});
  read_weights(weights, has_biases, size, shape.projects, read, a.weights);
  a.cell = per_row(cell, "cell", H);
  a.gates = per_gate(gates, "gates");

  Tensor grad_preactivations =
      packed ? results({R, D, kGates, H}, kind) : results({T, N, D, kGates, H}, kind);
  Tensor grad_h0 = empty({D, N, P}, kind), grad_c0 = empty({D, N, H}, kind);
  Tensor grad_hidden = !shape.projects ? empty({0}, kind)
                       : packed        ? results({R, D * P}, kind)
                                       : results({T, N, D * P}, kind);
  a.grad_preactivations = grad_preactivations.mutable_data_ptr();
  a.grad_h0 = grad_h0.mutable_data_ptr();
  a.grad_c0 = grad_c0.mutable_data_ptr();
  a.grad_hidden = shape.projects ? grad_hidden.mutable_data_ptr() : nullptr;

  const Scratch scratch(kernels().sequence_backward_scratch(a));
  kernels().sequence_backward(a, scratch.data());
  return {grad_preactivations, grad_h0, grad_c0, grad_hidden};
}

std::tuple<Tensor, Tensor, Tensor> weight_gradients(const Tensor& grad_preactivations,
                                                    const Tensor& input, const OptionalTensor& h0,
                                                    const Tensor& output, int64_t direction,
                                                    const OptionalTensor& batch_sizes,
                                                    const OptionalTensor& lengths,
                                                    const OptionalTensor& reset) {
  const Kind kind(grad_preactivations);
  const bool packed = batch_sizes.has_value();
  const int64_t dims = packed ? 4 : 5, last = dims - 3;  // of grad_preactivations; of the others
  check(grad_preactivations.dim() == dims,
        "grad_preactivations: expected (T, N, D, 4, H), or (R, D, 4, H) with batch_sizes");
  check(input.dim() == dims - 2 && output.dim() == dims - 2,
        "input, output: expected (T, N, ...), or (R, ...) with batch_sizes");
  GradWeights a{};
  Sizes& size = a.size;
  size.D = int(grad_preactivations.size(dims - 3));
  size.H = grad_preactivations.size(dims - 1);
  size.I = input.size(last);
  size.P = size.D > 0 ? output.size(last) / size.D : 0;
  size.T = packed ? batch_sizes->size(0) : input.size(0);
  size.N = packed ? *integers(*batch_sizes, "batch_sizes", size.T) : input.size(1);
  check(direction >= 0 && direction < size.D, "direction: expected one of the layer's");
  check(size.T > 0 && size.H > 0 && size.I > 0 && size.P > 0, "expected no empty sizes");
  check(Kind(input) == kind, "input: expected the dtype and device of grad_preactivations");
  const Tensor x = with_dense_rows(input);
  const int64_t R = input.size(0), T = size.T, N = size.N, D = size.D;
  const RowLists lists(batch_sizes, lengths, reset, T, N, R, size.D);
  a.dtype = dtype_of(kind);
  a.threads = thread_count();
  a.direction = int(direction);
  a.rows = lists.rows();
  const char* name = "grad_preactivations";
  a.grad_preactivations =
      packed ? checked_data(grad_preactivations, name, {R, D, kGates, size.H}, kind)
             : checked_data(grad_preactivations, name, {T, N, D, kGates, size.H}, kind);
  a.x = x.const_data_ptr();
  a.x_step = packed ? 0 : x.stride(0);
  a.x_row = x.stride(last - 1);
  Reader read(kind);
  a.h0 = read(h0, "h0", {D, N, size.P});
  a.output = packed ? checked_data(output, "output", {R, D * size.P}, kind)
                    : checked_data(output, "output", {T, N, D * size.P}, kind);
  Tensor grad_w_ih = results({kGates * size.H, size.I}, kind);
  Tensor grad_w_hh = results({kGates * size.H, size.P}, kind);
  Tensor grad_bias = empty({kGates * size.H}, kind);
  a.grad_w_ih = grad_w_ih.mutable_data_ptr();
  a.grad_w_hh = grad_w_hh.mutable_data_ptr();
  a.grad_bias = grad_bias.mutable_data_ptr();
  const Scratch scratch(kernels().weight_gradients_scratch(a));
  kernels().weight_gradients(a, scratch.data());
  return {grad_w_ih, grad_w_hh, grad_bias};
}

Tensor input_gradient(const Tensor& grad_preactivations, const std::vector<Tensor>& w_ih,
                      const OptionalTensor& lengths) {
  const Kind kind(grad_preactivations);
  const int64_t dims = grad_preactivations.dim();
  check(dims == 5 || (dims == 4 && !lengths),
        "grad_preactivations: expected (T, N, D, 4, H), or packed (R, D, 4, H)");
  const bool packed = dims == 4;
  GradInput a{};
  Sizes& size = a.size;
  size.D = int(grad_preactivations.size(dims - 3));
  size.H = grad_preactivations.size(dims - 1);
  size.T = grad_preactivations.size(0);
  size.N = packed ? 1 : grad_preactivations.size(1);  // each row by itself
  check((size.D == 1 || size.D == 2) && w_ih.size() == size_t(size.D) && w_ih[0].dim() == 2,
        "w_ih: expected one matrix per direction");
  size.I = w_ih[0].size(1);
  check(size.I > 0 && size.H > 0, "w_ih: expected no empty sizes");
  const RowLists lists(std::nullopt, lengths, std::nullopt, size.T, size.N, size.T, size.D);
  a.dtype = dtype_of(kind);
  a.threads = thread_count();
  a.rows = lists.rows();
  const char* name = "grad_preactivations";
  a.grad_preactivations =
      packed
          ? checked_data(grad_preactivations, name, {size.T, size.D, kGates, size.H}, kind)
          : checked_data(grad_preactivations, name, {size.T, size.N, size.D, kGates, size.H}, kind);
  Reader read(kind);
  for (int d = 0; d < size.D; ++d)
    a.weights[d].w_ih = read(w_ih[size_t(d)], "w_ih", {kGates * size.H, size.I});
  Tensor grad_input =
      packed ? results({size.T, size.I}, kind) : results({size.T, size.N, size.I}, kind);
  a.grad_input = grad_input.mutable_data_ptr();
  const Scratch scratch(kernels().input_gradient_scratch(a));
  kernels().input_gradient(a, scratch.data());
  return grad_input;
}

// One step is a sequence of length one.
std::tuple<Tensor, Tensor, Tensor> cell_forward(const Tensor& input, const Tensor& h0,
                                                const Tensor& c0, const Tensor& w_ih,
                                                const Tensor& w_hh, const OptionalTensor& b_ih,
                                                const OptionalTensor& b_hh, bool save_gates) {
  const Kind kind(input);
  check(input.dim() == 2 && w_hh.dim() == 2, "_cell_forward: expected matrices");
  const int64_t N = input.size(0), I = input.size(1), H = w_hh.size(1);
  check(I > 0 && H > 0, "_cell_forward: expected non-empty weights");
  check(b_ih.has_value() == b_hh.has_value(), "_cell_forward: expected both biases, or neither");
  const Tensor x = with_dense_rows(input);
  SequenceForward a{};
  a.size = {1, N, I, H, H, 1};
  a.dtype = dtype_of(kind);
  a.threads = thread_count();
  a.x = x.const_data_ptr();
  a.x_row = x.stride(0);
  Reader read(kind);
  a.h0 = read(h0, "h0", {N, H});
  a.c0 = read(c0, "c0", {N, H});
  a.weights[0].w_ih = read(w_ih, "w_ih", {kGates * H, I});
  a.weights[0].w_hh = read(w_hh, "w_hh", {kGates * H, H});
  a.weights[0].b_ih = read(b_ih, "b_ih", {kGates * H});
  a.weights[0].b_hh = read(b_hh, "b_hh", {kGates * H});
  Tensor h = empty({N, H}, kind), c = empty({N, H}, kind);
  Tensor gates = save_gates ? empty({N, kGates, H}, kind) : empty({0}, kind);
  a.output = h.mutable_data_ptr();
  a.c_n = c.mutable_data_ptr();
  a.gates = save_gates ? gates.mutable_data_ptr() : nullptr;
  const Scratch scratch(kernels().sequence_forward_scratch(a));
  kernels().sequence_forward(a, scratch.data());
  return {h, c, gates};
}

std::tuple<Tensor, Tensor> cell_backward(const OptionalTensor& grad_h, const OptionalTensor& grad_c,
                                         const OptionalTensor& grad_gates, const Tensor& c0,
                                         const Tensor& c, const Tensor& gates) {
  const Kind kind(c);
  check(c.dim() == 2, "c: expected (N, H)");
  CellBackward a{};
  const int64_t N = a.N = c.size(0), H = a.H = c.size(1);
  a.dtype = dtype_of(kind);
  a.grad_h = checked_data(grad_h, "grad_h", {N, H}, kind);
  a.grad_c = checked_data(grad_c, "grad_c", {N, H}, kind);
  a.grad_gates = checked_data(grad_gates, "grad_gates", {N, kGates, H}, kind);
  a.c0 = checked_data(c0, "c0", {N, H}, kind);
  a.c = checked_data(c, "c", {N, H}, kind);
  a.gates = checked_data(gates, "gates", {N, kGates, H}, kind);
  Tensor grad_preactivations = empty({N, kGates, H}, kind), grad_c0 = empty({N, H}, kind);
  a.grad_preactivations = grad_preactivations.mutable_data_ptr();
  a.grad_c0 = grad_c0.mutable_data_ptr();
  kernels().cell_backward(a);
  return {grad_preactivations, grad_c0};
}

std::string cpu_isa() { return isa_description(); }

}  // namespace
}  // namespace lstm_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CPU, m) {
  m.impl("_sequence_forward", TORCH_BOX(&lstm_kernels::cpu::sequence_forward));
  m.impl("_prepack_weights", TORCH_BOX(&lstm_kernels::cpu::prepack_weights));
  m.impl("_prepacked_forward", TORCH_BOX(&lstm_kernels::cpu::prepacked_forward));
  m.impl("_sequence_backward", TORCH_BOX(&lstm_kernels::cpu::sequence_backward));
  m.impl("_weight_gradients", TORCH_BOX(&lstm_kernels::cpu::weight_gradients));
  m.impl("_input_gradient", TORCH_BOX(&lstm_kernels::cpu::input_gradient));
  m.impl("_cell_forward", TORCH_BOX(&lstm_kernels::cpu::cell_forward));
  m.impl("_cell_backward", TORCH_BOX(&lstm_kernels::cpu::cell_backward));
}

STABLE_TORCH_LIBRARY_IMPL(lstm_kernels, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&lstm_kernels::cpu::cpu_isa));
}
