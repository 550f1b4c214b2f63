// The ops on weights that an inference module owns: whole stacks of layers in one call, and single
// steps whose states are updated where they are.
#include "calls.h"
#include "integers.h"
#include "ops.h"
#include "owned_block.h"
#include "rows.h"
#include "scratch.h"

namespace lstm_kernels::cpu {
namespace {

constexpr int64_t kMostQuantized = 1 << 16;
constexpr const char* kExpectedInput = "input: expected (T, N, I), or (R, I) with batch_sizes";

// What a call gets for one layer.
struct LayerMemory {
  const void *h0, *c0;
  void *output, *h_n, *c_n, *cell, *gates;
};

// One call of a stack: its rows, and where a layer's states are in those of all layers.
class Stack {
 public:
  Stack(const OwnedBlock& block, int64_t T, int64_t N, const Rows& rows)
      : block_(block), threads_(thread_count()), T_(T), N_(N), rows_(rows) {}

  // The parameters of a layer, but for its input.
  SequenceForward layer(int l, const LayerMemory& memory) const {
    SequenceForward a{};
    a.size = block_.size(l);
    a.size.T = T_;
    a.size.N = N_;
    a.dtype = block_.dtype();
    a.reduced_precision = block_.reduced_precision();
    a.threads = threads_;
    a.rows = rows_;
    a.prepacked = block_.weights(l);
    a.weight_dtype = block_.weight_dtype();
    // Whether there is a projection; prepacked weights are read, never these.
    if (block_.projects()) a.weights[0].w_hr = a.weights[1].w_hr = a.prepacked;
    a.h0 = memory.h0;
    a.c0 = memory.c0;
    a.output = memory.output;
    a.h_n = memory.h_n;
    a.c_n = memory.c_n;
    a.cell = memory.cell;
    a.gates = memory.gates;
    return a;
  }
  // The scratch memory of any layer.
  size_t scratch() const {
    size_t bytes = 0;
    for (int l = 0; l < (block_.layers() > 1 ? 2 : 1); ++l) {
      const size_t needed = kernels().sequence_forward_scratch(layer(l, {}));
      bytes = needed > bytes ? needed : bytes;
    }
    return (bytes + 63) / 64 * 64;
  }

 private:
  const OwnedBlock& block_;
  Threads threads_;
  int64_t T_, N_;
  Rows rows_;
};

// The part of a state, (L * D, N, features), that is a layer's; null stays null.
class StateOfLayers {
 public:
  StateOfLayers(const void* data, const Kind& kind, int64_t numbers)
      : data_(static_cast<char*>(const_cast<void*>(data))),
        bytes_(numbers * int64_t(aoti_torch_dtype_element_size(kind.dtype))) {}
  void* of(int layer) const { return data_ ? data_ + layer * bytes_ : nullptr; }

 private:
  char* data_;
  int64_t bytes_;
};

void check_is(const OwnedBlock& block, int64_t layers, int64_t hidden_size, int64_t h_size,
              bool bidirectional) {
  const Sizes size = block.size(0);
  require(layers == block.layers() && hidden_size == size.H && h_size == size.P &&
              bidirectional == (size.D == 2),
          "owned: expected weights of a stack of these sizes");
}

// The input of a single step.
void check_step(const OwnedBlock& block, const Tensor& input, const Kind& kind) {
  require(dtype_of(kind) == block.dtype(), "input: its dtype is not that of the module");
  require(input.dim() == 2 && input.size(1) == block.size(0).I, "input: expected (N, I)");
}

// The arguments of a call over a sequence, checked, and its results' shapes.
struct StackCall {
  OwnedBlock block;
  Kind kind;
  RowShape rows;
  Sizes size;  // of the first layer
  Ragged ragged;
  Tensor x;
  OptionalTensor h0, c0;
  RowLists lists;
  Stack stack;
  Tensor h_n, c_n;
  StateOfLayers first_h, first_c, last_h, last_c;

  explicit StackCall(const OwnedArguments& given)
      : block(given.owned),
        kind(given.input),
        rows(given.input, kExpectedInput, 1, given.ragged.batch_sizes),
        size(block.size(0)),
        ragged(given.ragged, rows, size.D, kind),
        x(with_dense_rows(given.input)),
        h0(checked_dense(given.h0, "h0", of_all(size.P), kind)),
        c0(checked_dense(given.c0, "c0", of_all(size.H), kind)),
        lists(ragged, rows),
        stack(block, rows.T, rows.N, lists.rows()),
        h_n(empty(of_all(size.P), kind)),
        c_n(empty(of_all(size.H), kind)),
        first_h(data_or_null(h0), kind, size.D * rows.N * size.P),
        first_c(data_or_null(c0), kind, size.D * rows.N * size.H),
        last_h(h_n.mutable_data_ptr(), kind, size.D * rows.N * size.P),
        last_c(c_n.mutable_data_ptr(), kind, size.D * rows.N * size.H) {
    check_is(block, given.num_layers, given.hidden_size, given.h_size, given.bidirectional);
    require(dtype_of(kind) == block.dtype(), "input: its dtype is not that of the module");
    require(given.input.size(given.input.dim() - 1) == size.I,
            "input: its last size is not that of w_ih");
  }
  TensorShape of_all(int64_t features) const {
    return {block.layers() * int64_t(size.D), rows.N, features};
  }
  TensorShape output_shape() const { return rows.of({size.D * size.P}); }

  // Runs a layer on `input`, contiguous but for the first layer's.
  void run(int l, const void* input, void* output, void* cell, void* gates, void* scratch) const {
    SequenceForward a = stack.layer(
        l, {first_h.of(l), first_c.of(l), output, last_h.of(l), last_c.of(l), cell, gates});
    if (l == 0) {
      set_input(a, x);
    } else {
      a.x = input;
      a.x_row = a.size.I;
      a.x_step = rows.packed ? 0 : rows.N * a.size.I;
    }
    kernels().sequence_forward(a, scratch);
  }
};

}  // namespace

Tensor own_weights(const std::vector<Tensor>& tensors, int64_t num_layers, bool has_biases,
                   bool bidirectional, std::optional<torch::headeronly::ScalarType> weight_dtype,
                   bool reduced_precision) {
  require(num_layers > 0 && !tensors.empty() && tensors.size() % size_t(num_layers) == 0,
          "weights: expected as many for each layer");
  const size_t each = tensors.size() / size_t(num_layers);
  std::vector<Weights> weights;
  std::vector<LayerWeights> layers;
  weights.reserve(size_t(num_layers));
  for (size_t l = 0; l < size_t(num_layers); ++l) {
    const auto begin = tensors.begin() + std::ptrdiff_t(l * each);
    const std::vector<Tensor> of_layer(begin, begin + std::ptrdiff_t(each));
    const Weights& w = weights.emplace_back(WeightArguments{of_layer, has_biases, bidirectional},
                                            Kind(of_layer[0]));
    const Weights& first = weights.front();
    require(w.kind == first.kind && w.size.H == first.size.H && w.size.P == first.size.P &&
                w.projects == first.projects && (l == 0 || w.size.I == first.size.D * first.size.P),
            "weights: expected those of a stack of layers");
    LayerWeights layer = call_of<LayerWeights>(w.size, w.dtype);
    set_weights(layer.weights, w);
    layer.weight_dtype = weight_dtype_of(weight_dtype, layer.dtype);
    layer.reduced_precision = reduced_precision;
    layers.push_back(layer);
  }
  return OwnedBlock::of(layers, weights.front().kind);
}

Tensor own_quantized(const std::vector<Tensor>& tensors, const std::vector<Tensor>& scales,
                     int64_t num_layers, bool has_biases, bool bidirectional) {
  const size_t D = bidirectional ? 2 : 1, unprojected = has_biases ? 4 : 2;
  require(num_layers > 0 && !tensors.empty() && tensors.size() % (size_t(num_layers) * D) == 0,
          "weights: expected as many for each layer");
  const size_t each = tensors.size() / (size_t(num_layers) * D);
  const bool projects = each == unprojected + 1;
  require(projects || each == unprojected, "weights: unexpected number of tensors");
  require(scales.size() == size_t(num_layers) * D * (projects ? 3 : 2),
          "scales: expected one tensor for each matrix");
  require(tensors[0].dim() == 2 && tensors[1].dim() == 2, "weights: expected matrices first");
  const Kind of_bytes = Kind(tensors[0]).with(aoti_torch_dtype_int8());
  const Kind of_floats = of_bytes.with(aoti_torch_dtype_float32());
  Sizes size{};
  size.D = int(D);
  size.H = tensors[0].size(0) / kGates;
  size.I = tensors[0].size(1);
  size.P = tensors[1].size(1);
  require(size.H > 0 && size.I > 0 && size.P > 0, "w_ih, w_hh: expected no empty sizes");
  require(projects || size.P == size.H, "w_hh: expected as many columns as hidden units");
  // The sum over more products of 255 * 127 could exceed an int32.
  require(max_of(max_of(size.I, size.H), size.D * size.P) <= kMostQuantized,
          "weights: expected rows of at most 65536 numbers");
  const Tensor *next = tensors.data(), *next_scales = scales.data();
  const int64_t gates = kGates * size.H;
  auto matrix = [&](const char* name, int64_t rows, int64_t columns) {
    return checked_data(*next++, name, {rows, columns}, of_bytes);
  };
  auto vector = [&](const Tensor*& from, const char* name, int64_t numbers) {
    return static_cast<const float*>(checked_data(*from++, name, {numbers}, of_floats));
  };
  std::vector<LayerWeights> layers;
  for (int64_t l = 0; l < num_layers; ++l) {
    if (l > 0) size.I = size.D * size.P;
    LayerWeights layer = call_of<LayerWeights>(size, DType::kFloat32);
    layer.weight_dtype = WeightDType::kInt8;
    for (size_t d = 0; d < D; ++d) {
      DirectionWeights& w = layer.weights[d];
      MatrixScales& of = layer.scales[d];
      w.w_ih = matrix("w_ih", gates, size.I);
      w.w_hh = matrix("w_hh", gates, size.P);
      if (has_biases) w.b_ih = vector(next, "b_ih", gates), w.b_hh = vector(next, "b_hh", gates);
      of.w_ih = vector(next_scales, "scales", gates);
      of.w_hh = vector(next_scales, "scales", gates);
      if (projects) {
        w.w_hr = matrix("w_hr", size.P, size.H);
        of.w_hr = vector(next_scales, "scales", size.P);
      }
    }
    layers.push_back(layer);
  }
  return OwnedBlock::of(layers, of_floats);
}

std::tuple<Tensor, Tensor, Tensor> owned_forward(const OwnedArguments& given) {
  const StackCall call(given);
  const int layers = call.block.layers();
  const Tensor output = results(call.output_shape(), call.kind);
  // The layers between read and write these two in turn, or one if there are two layers.
  const size_t scratch_bytes = call.stack.scratch();
  const size_t bytes =
      (size_t(output.numel()) * aoti_torch_dtype_element_size(call.kind.dtype) + 63) / 64 * 64;
  const Scratch scratch(scratch_bytes + bytes * size_t(layers > 2 ? 2 : layers - 1));
  char* const between = static_cast<char*>(scratch.data()) + scratch_bytes;
  const void* input = nullptr;
  for (int l = 0; l < layers; ++l) {
    void* const to = l + 1 < layers ? between + size_t(l % 2) * bytes : output.mutable_data_ptr();
    call.run(l, input, to, nullptr, nullptr, scratch.data());
    input = to;
  }
  return {output, call.h_n, call.c_n};
}

OwnedStates owned_states(const OwnedArguments& given, bool save_gates) {
  const StackCall call(given);
  const Scratch scratch(call.stack.scratch());
  std::vector<Tensor> hidden, cell, gates;
  for (int l = 0; l < call.block.layers(); ++l) {
    hidden.push_back(results(call.output_shape(), call.kind));
    cell.push_back(results(call.rows.of({call.size.D * call.size.H}), call.kind));
    if (save_gates)
      gates.push_back(results(call.rows.of({call.size.D, kGates, call.size.H}), call.kind));
    call.run(l, l > 0 ? hidden[size_t(l) - 1].const_data_ptr() : nullptr,
             hidden.back().mutable_data_ptr(), cell.back().mutable_data_ptr(),
             save_gates ? gates.back().mutable_data_ptr() : nullptr, scratch.data());
  }
  return {hidden, call.h_n, call.c_n, cell, gates};
}

// One step is a sequence of length one.
std::tuple<Tensor, Tensor, Tensor> owned_cell(const Tensor& input, const Tensor& h0,
                                              const Tensor& c0, const Tensor& owned,
                                              bool save_gates) {
  const OwnedBlock block(owned);
  const Kind kind(input);
  const Sizes size = block.size(0);
  check_is(block, 1, size.H, size.H, false);
  check_step(block, input, kind);
  const int64_t N = input.size(0), H = size.H;
  const Tensor x = with_dense_rows(input);
  const Tensor h_before = checked_dense(h0, "h0", {N, H}, kind);
  const Tensor c_before = checked_dense(c0, "c0", {N, H}, kind);
  const Tensor h = empty({N, H}, kind), c = empty({N, H}, kind);
  const Tensor gates = save_gates ? empty({N, kGates, H}, kind) : empty({0}, kind);
  const Stack stack(block, 1, N, {});
  SequenceForward a =
      stack.layer(0, {h_before.const_data_ptr(), c_before.const_data_ptr(), h.mutable_data_ptr(),
                      nullptr, c.mutable_data_ptr(), nullptr, result_or_null(gates)});
  set_input(a, x);
  const Scratch scratch(stack.scratch());
  kernels().sequence_forward(a, scratch.data());
  return {h, c, gates};
}

Tensor owned_step(const Tensor& input, const Tensor& h, const Tensor& c, const Tensor& owned,
                  const OptionalTensor& reset) {
  const OwnedBlock block(owned);
  const Kind kind(input);
  const Sizes size = block.size(0);
  require(size.D == 1, "owned: expected one direction");
  check_step(block, input, kind);
  const int64_t N = input.size(0), layers = block.layers();
  checked_data(h, "h", {layers, N, size.P}, kind);
  checked_data(c, "c", {layers, N, size.H}, kind);
  Rows rows{};
  if (reset)
    rows.reset = static_cast<const bool*>(
        checked_data(*reset, "reset", {N}, kind.with(aoti_torch_dtype_bool())));
  const Tensor x = with_dense_rows(input), output = empty({N, size.P}, kind);
  const Stack stack(block, 1, N, rows);
  const StateOfLayers of_h(h.mutable_data_ptr(), kind, N * size.P);
  const StateOfLayers of_c(c.mutable_data_ptr(), kind, N * size.H);
  const Scratch scratch(stack.scratch());
  for (int l = 0; l < layers; ++l) {
    // A call reads its states before it writes any result. The hidden state of a layer between is
    // its output, and the input of the next one.
    const bool last = l + 1 == layers;
    void *const own_h = of_h.of(l), *const own_c = of_c.of(l);
    SequenceForward a = stack.layer(l, {own_h, own_c, last ? output.mutable_data_ptr() : own_h,
                                        last ? own_h : nullptr, own_c, nullptr, nullptr});
    if (l == 0) {
      set_input(a, x);
    } else {
      a.x = of_h.of(l - 1);
      a.x_row = size.P;
    }
    kernels().sequence_forward(a, scratch.data());
  }
  return output;
}

}  // namespace lstm_kernels::cpu
