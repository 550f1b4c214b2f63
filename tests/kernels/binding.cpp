// Binds the CPU kernels of every instruction set to NumPy arrays. bfloat16 comes as uint16;
// "rounded" is float32 whose products may be rounded.
//
// Scratch and results are filled with 0xff bytes, a NaN in every type, before a call: whatever the
// kernel fails to write, or reads unwritten, shows. All of them are exactly as long as needed, for
// address sanitizer.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <type_traits>

#include "isas.h"

namespace py = pybind11;
using namespace lstm_kernels;
using Optional = std::optional<py::array>;

namespace {

const cpu::Kernels& find(const std::string& isa) {
  for (const cpu::Kernels* table : testable_kernels())
    if (isa == table->isa) return *table;
  throw py::value_error("no such instruction set here: " + isa);
}

DType dtype_of(const std::string& name) {
  static const std::map<std::string, DType> names = {{"float32", DType::kFloat32},
                                                     {"float64", DType::kFloat64},
                                                     {"bfloat16", DType::kBFloat16},
                                                     {"float16", DType::kFloat16},
                                                     {"rounded", DType::kFloat32}};
  return names.at(name);
}
bool rounds(const std::string& dtype) { return dtype == "rounded"; }

// Exact-size memory of 64-byte alignment, full of NaN.
std::unique_ptr<void, void (*)(void*)> poisoned(size_t bytes) {
  const size_t size = (bytes + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, size ? size : 64);
  std::memset(p, 0xff, size);
  return {p, std::free};
}

const void* data(const py::dict& from, const char* name) {
  if (!from.contains(name) || from[name].is_none()) return nullptr;
  const py::array a = from[name].cast<py::array>();
  if (!(a.flags() & py::array::c_style))
    throw py::value_error(std::string(name) + " not contiguous");
  return a.data();
}

// A result, full of NaN, stored in `to` under its name.
void* result(py::dict& to, const char* name, std::vector<py::ssize_t> shape,
             const py::dtype& dtype) {
  py::array a(dtype, shape);
  std::memset(a.mutable_data(), 0xff, size_t(a.nbytes()));
  to[name] = a;
  return a.mutable_data();
}

Sizes sizes(const py::dict& a) {
  auto n = [&](const char* name) { return a[name].cast<int64_t>(); };
  return {n("T"), n("N"), n("I"), n("H"), n("P"), int(n("D"))};
}

cpu::Rows rows(const py::dict& a) {
  return {(const int64_t*)data(a, "counts"), (const int64_t*)data(a, "lengths"),
          (const int64_t*)data(a, "offsets"), (const int64_t*)data(a, "order"),
          (const bool*)data(a, "reset")};
}

void weights(const py::dict& a, DirectionWeights (&out)[2]) {
  const py::list directions = a["weights"];
  for (size_t d = 0; d < directions.size(); ++d) {
    const py::dict w = directions[d];
    out[d] = {data(w, "w_ih"), data(w, "w_hh"), data(w, "b_ih"), data(w, "b_hh"), data(w, "w_hr")};
  }
}

// Shape of an array with `features` numbers per row: (T, N, ...), or (R, ...) where packed.
std::vector<py::ssize_t> per_row(const Sizes& s, bool packed, int64_t R,
                                 std::vector<py::ssize_t> more) {
  std::vector<py::ssize_t> shape =
      packed ? std::vector<py::ssize_t>{R} : std::vector<py::ssize_t>{s.T, s.N};
  shape.insert(shape.end(), more.begin(), more.end());
  return shape;
}

cpu::LayerWeights layer_weights(const std::string& dtype, int threads, const py::dict& in) {
  static const std::map<std::string, cpu::WeightDType> weight_dtypes = {
      {"own", cpu::WeightDType::kOwn},
      {"bfloat16", cpu::WeightDType::kBFloat16},
      {"float16", cpu::WeightDType::kFloat16},
      {"int8", cpu::WeightDType::kInt8}};
  cpu::LayerWeights a{};
  a.size = sizes(in), a.dtype = dtype_of(dtype), a.threads = {threads, true};
  a.reduced_precision = rounds(dtype);
  if (in.contains("prepack")) a.weight_dtype = weight_dtypes.at(in["prepack"].cast<std::string>());
  weights(in, a.weights);
  const py::list directions = in["weights"];
  for (size_t d = 0; d < directions.size(); ++d) {
    const py::dict w = directions[d];
    a.scales[d] = {(const float*)data(w, "w_ih scales"), (const float*)data(w, "w_hh scales"),
                   (const float*)data(w, "w_hr scales")};
  }
  return a;
}

uint64_t fingerprint(const std::string& isa, const std::string& dtype, int threads, py::dict in) {
  return find(isa).fingerprint(layer_weights(dtype, threads, in));
}

StepArray step_array(const py::dict& from, const char* name) {
  const void* at = data(from, name);
  if (!at) return {nullptr, 0};
  const py::array a = from[name].cast<py::array>();
  return {at, a.shape(0) == 1 ? 0 : a.strides(0) / a.itemsize()};
}

// in["variant"]: the arrays by name, and "options" as in csrc/schema.cpp.
Variant variant_of(const py::dict& in) {
  const py::dict from = in["variant"];
  const auto options = from["options"].cast<std::vector<double>>();
  Variant v{};
  v.coupled = Coupled(int(options[0]));
  v.clip = options[1], v.cell_clip = options[2];
  v.keep_cell = options[3], v.keep_hidden = options[4];
  v.carries_norm = options[5] != 0, v.norm_eps = options[6];
  for (size_t use = 0; use < kActivationUses; ++use) {
    const double* numbers = &options[7 + 3 * use];
    v.activations[use] = {ActivationKind(int(numbers[0])), numbers[1], numbers[2]};
  }
  v.peephole = data(from, "peephole");
  v.norm_gates = data(from, "norm_gates"), v.norm_cell = data(from, "norm_cell");
  v.separate = v.norm_gates && from["norm_gates"].cast<py::array>().shape(1) == 2;
  v.input_gate = step_array(from, "input_gate");
  v.hidden_mask = step_array(from, "hidden_mask");
  v.gate_masks = step_array(from, "gate_masks");
  v.candidate_mask = step_array(from, "candidate_mask");
  v.cell_zoneout = step_array(from, "zoneout_cell");
  v.hidden_zoneout = step_array(from, "zoneout_hidden");
  return v;
}

// With "prepack", on weights that were prepacked, by as many threads.
template <class Call>
py::dict forward(const std::string& isa, const std::string& dtype, int threads, py::dict in) {
  constexpr bool kVariant = std::is_same_v<Call, cpu::VariantForward>;
  const py::array x = in["x"];
  const bool packed = x.ndim() == 2;
  Call a{};
  a.size = sizes(in), a.dtype = dtype_of(dtype), a.threads = {threads, true}, a.rows = rows(in);
  a.reduced_precision = rounds(dtype);
  a.x = x.data();
  a.x_step = packed ? 0 : x.strides(0) / x.itemsize();
  a.x_row = x.strides(packed ? 0 : 1) / x.itemsize();
  a.h0 = data(in, "h0"), a.c0 = data(in, "c0");
  weights(in, a.weights);
  const Sizes& s = a.size;
  const int64_t R = x.shape(0);
  py::dict out;
  auto make = [&](const char* name, std::vector<py::ssize_t> shape) {
    return result(out, name, shape, x.dtype());
  };
  a.output = make("output", per_row(s, packed, R, {s.D * s.P}));
  a.h_n = make("h_n", {s.D, s.N, s.P}), a.c_n = make("c_n", {s.D, s.N, s.H});
  if (in["save"].cast<bool>()) {
    a.cell = make("cell", per_row(s, packed, R, {s.D * s.H}));
    a.gates = make("gates", per_row(s, packed, R, {s.D, kGates, s.H}));
  }
  const cpu::Kernels& kernels = find(isa);
  const cpu::LayerWeights layer = layer_weights(dtype, threads, in);
  const auto block = poisoned(kernels.prepacked_bytes(layer));
  if (in.contains("prepack")) {
    kernels.prepack_weights(layer, block.get());
    a.prepacked = block.get(), a.weight_dtype = layer.weight_dtype;
  }
  if constexpr (kVariant) {
    a.variant = variant_of(in);
    if (a.variant.norm_gates && a.gates)
      a.products =
          make("products", per_row(s, packed, R, {s.D, a.variant.branches(), kGates * s.H}));
  }
  const auto scratch_bytes = [&] {
    if constexpr (kVariant) return kernels.variant_forward_scratch(a);
    return kernels.sequence_forward_scratch(a);
  };
  const auto scratch = poisoned(scratch_bytes());
  py::gil_scoped_release release;
  if constexpr (kVariant)
    kernels.variant_forward(a, scratch.get());
  else
    kernels.sequence_forward(a, scratch.get());
  return out;
}

template <class Call>
py::dict backward(const std::string& isa, const std::string& dtype, int threads, py::dict in) {
  constexpr bool kVariant = std::is_same_v<Call, cpu::VariantBackward>;
  const py::array cell = in["cell"];
  const bool packed = cell.ndim() == 2;
  Call a{};
  a.size = sizes(in), a.dtype = dtype_of(dtype), a.threads = {threads, true}, a.rows = rows(in);
  a.reduced_precision = rounds(dtype);
  a.grad_output = data(in, "grad_output");
  a.grad_h_n = data(in, "grad_h_n"), a.grad_c_n = data(in, "grad_c_n");
  a.grad_cell = data(in, "grad_cell"), a.grad_gates = data(in, "grad_gates");
  a.c0 = data(in, "c0"), a.cell = data(in, "cell"), a.gates = data(in, "gates");
  weights(in, a.weights);
  const Sizes& s = a.size;
  const int64_t R = cell.shape(0);
  py::dict out;
  auto make = [&](const char* name, std::vector<py::ssize_t> shape) {
    return result(out, name, shape, cell.dtype());
  };
  a.grad_preactivations = make("grad_preactivations", per_row(s, packed, R, {s.D, kGates, s.H}));
  a.grad_h0 = make("grad_h0", {s.D, s.N, s.P}), a.grad_c0 = make("grad_c0", {s.D, s.N, s.H});
  if (a.weights[0].w_hr) a.grad_hidden = make("grad_hidden", per_row(s, packed, R, {s.D * s.P}));
  const cpu::Kernels& kernels = find(isa);
  if constexpr (kVariant) {
    a.variant = variant_of(in);
    if (a.variant.input_gate.data)
      a.grad_input_gate = make("grad_input_gate", per_row(s, packed, R, {s.D * s.H}));
    a.products = data(in, "products");
    if (a.variant.separate)
      a.grad_input_product = make("grad_input_product", per_row(s, packed, R, {s.D, kGates, s.H}));
    if (a.variant.normalises())
      a.grad_parameters = make("grad_parameters", {s.D, kParameterSums, s.H});
  }
  const auto scratch_bytes = [&] {
    if constexpr (kVariant) return kernels.variant_backward_scratch(a);
    return kernels.sequence_backward_scratch(a);
  };
  const auto scratch = poisoned(scratch_bytes());
  py::gil_scoped_release release;
  if constexpr (kVariant)
    kernels.variant_backward(a, scratch.get());
  else
    kernels.sequence_backward(a, scratch.get());
  return out;
}

py::dict weight_gradients(const std::string& isa, const std::string& dtype, int threads,
                          int direction, py::dict in) {
  const py::array x = in["x"];
  const bool packed = x.ndim() == 2;
  cpu::GradWeights a{};
  a.size = sizes(in), a.dtype = dtype_of(dtype), a.threads = {threads, true}, a.rows = rows(in);
  a.reduced_precision = rounds(dtype);
  a.direction = direction;
  a.grad_preactivations = data(in, "grad_preactivations");
  a.x = x.data();
  a.x_step = packed ? 0 : x.strides(0) / x.itemsize();
  a.x_row = x.strides(packed ? 0 : 1) / x.itemsize();
  a.h0 = data(in, "h0"), a.output = data(in, "output");
  a.gate_masks = step_array(in, "gate_masks");
  const Sizes& s = a.size;
  py::dict out;
  a.grad_w_ih = result(out, "grad_w_ih", {kGates * s.H, s.I}, x.dtype());
  a.grad_w_hh = result(out, "grad_w_hh", {kGates * s.H, s.P}, x.dtype());
  a.grad_bias = result(out, "grad_bias", {kGates * s.H}, x.dtype());
  const cpu::Kernels& kernels = find(isa);
  const auto scratch = poisoned(kernels.weight_gradients_scratch(a));
  py::gil_scoped_release release;
  kernels.weight_gradients(a, scratch.get());
  return out;
}

py::dict input_gradient(const std::string& isa, const std::string& dtype, int threads,
                        py::dict in) {
  const py::array grad = in["grad_preactivations"];
  const bool packed = grad.ndim() == 4;
  cpu::GradInput a{};
  a.size = sizes(in), a.dtype = dtype_of(dtype), a.threads = {threads, true};
  a.reduced_precision = rounds(dtype);
  if (packed)
    a.size.T = grad.shape(0), a.size.N = 1;
  else
    a.rows = rows(in);
  a.grad_preactivations = data(in, "grad_preactivations");
  weights(in, a.weights);
  py::dict out;
  a.grad_input =
      result(out, "grad_input", per_row(a.size, packed, grad.shape(0), {a.size.I}), grad.dtype());
  const cpu::Kernels& kernels = find(isa);
  const auto scratch = poisoned(kernels.input_gradient_scratch(a));
  py::gil_scoped_release release;
  kernels.input_gradient(a, scratch.get());
  return out;
}

py::dict cell_backward(const std::string& isa, const std::string& dtype, py::dict in) {
  const py::array c = in["c0"];
  cpu::CellBackward a{};
  a.N = c.shape(0), a.H = c.shape(1), a.dtype = dtype_of(dtype);
  a.grad_h = data(in, "grad_h"), a.grad_c = data(in, "grad_c"),
  a.grad_gates = data(in, "grad_gates");
  a.c0 = data(in, "c0"), a.gates = data(in, "gates");
  py::dict out;
  a.grad_preactivations = result(out, "grad_preactivations", {a.N, kGates, a.H}, c.dtype());
  a.grad_c0 = result(out, "grad_c0", {a.N, a.H}, c.dtype());
  find(isa).cell_backward(a);
  return out;
}

py::tuple activations(const std::string& isa, const py::array& x) {
  const bool wide = x.itemsize() == 8;
  py::array sigmoid(x.dtype(), x.size()), tanh(x.dtype(), x.size());
  find(isa).activations(wide ? DType::kFloat64 : DType::kFloat32, x.data(), sigmoid.mutable_data(),
                        tanh.mutable_data(), x.size());
  return py::make_tuple(sigmoid, tanh);
}

}  // namespace

PYBIND11_MODULE(kernel_tests, m) {
  m.def("isas", [] {
    py::list names;
    for (const cpu::Kernels* table : testable_kernels()) names.append(table->isa);
    return names;
  });
  m.def("hold_up_threads", &hold_up_threads);
  m.def("fingerprint", &fingerprint);
  m.def("sequence_forward", &forward<cpu::SequenceForward>);
  m.def("sequence_backward", &backward<cpu::SequenceBackward>);
  m.def("variant_forward", &forward<cpu::VariantForward>);
  m.def("variant_backward", &backward<cpu::VariantBackward>);
  m.def("weight_gradients", &weight_gradients);
  m.def("input_gradient", &input_gradient);
  m.def("cell_backward", &cell_backward);
  m.def("activations", &activations);
}
