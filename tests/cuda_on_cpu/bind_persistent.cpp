// The persistent kernels and the rule that chooses them.
#include "binding.h"
#include "driver.h"
#include "resident.h"
#include "small_geometry.h"

namespace {
using namespace lstm_kernels;
using namespace lstm_kernels::cuda;

DType type_of(const std::string& name) {
  if (name == "float16") return DType::kFloat16;
  if (name == "bfloat16") return DType::kBFloat16;
  if (name == "float32" || name == "tf32") return DType::kFloat32;
  if (name == "float64") return DType::kFloat64;
  throw std::invalid_argument(name);
}
Pass pass_of(const std::string& name) {
  if (name == "forward") return Pass::forward;
  if (name == "backward") return Pass::backward;
  throw std::invalid_argument(name);
}
Sizes sizes(int64_t T, int64_t N, int64_t H, int D) { return {T, N, H, H, H, D}; }

// A plan for a named geometry rather than the one that the rule would choose.
Plan plan(const std::string& pass, const std::string& geometry, const std::string& exchange,
          int tile_rows, int multiprocessors, const std::string& type, int64_t T, int64_t N,
          int64_t H, int D) {
  const bool forward = pass_of(pass) == Pass::forward;
  const Geometry g = geometry == "small"  ? forward ? kSmallForward : kSmallBackward
                     : geometry == "wide" ? (forward ? kForwardGeometries : kBackwardGeometries)[0]
                                          : kForwardGeometries[1];
  const Exchange kind = exchange == "tagged" ? Exchange::tagged : Exchange::counter;
  Plan p = make_plan(pass_of(pass), g, kind, tile_rows, {multiprocessors, 227 * 1024, true},
                     type_of(type), sizes(T, N, H, D), nullptr);
  p.full_float32 = type == "float32";
  return p;
}

Rows rows(const py::kwargs& a) {
  return {data<int64_t>(a["offsets"]), data<int64_t>(a["lengths"]), data<bool>(a["reset"])};
}
void forward(const Plan& p, bool small, const std::string& type, int64_t T, int64_t N, int64_t H,
             int D, const py::kwargs& a) {
  PersistentForward call{};
  call.dtype = type_of(type);
  call.size = sizes(T, N, H, D);
  call.rows = rows(a);
  for (int d = 0; d < D; d++) {
    call.x_gates[d] = data(a["x_gates"][py::int_(d)]);
    call.w_hh[d] = data(a["w_hh"][py::int_(d)]);
    call.b_ih[d] = data(a["b_ih"][py::int_(d)]);
    call.b_hh[d] = data(a["b_hh"][py::int_(d)]);
  }
  call.h0 = data(a["h0"]), call.c0 = data(a["c0"]);
  call.output = data(a["output"]), call.h_n = data(a["h_n"]), call.c_n = data(a["c_n"]);
  call.cell = data(a["cell"]), call.gates = data(a["gates"]);
  call.workspace = data(a["workspace"]);
  check((small ? small_persistent_forward : persistent_forward)(call, p, nullptr));
}

void backward(const Plan& p, bool small, const std::string& type, int64_t T, int64_t N, int64_t H,
              int D, const py::kwargs& a) {
  PersistentBackward call{};
  call.dtype = type_of(type);
  call.size = sizes(T, N, H, D);
  call.rows = rows(a);
  for (int d = 0; d < D; d++) call.w_hh[d] = data(a["w_hh"][py::int_(d)]);
  call.c0 = data(a["c0"]), call.cell = data(a["cell"]), call.gates = data(a["gates"]);
  call.grad_output = data(a["grad_output"]), call.grad_h_n = data(a["grad_h_n"]);
  call.grad_c_n = data(a["grad_c_n"]), call.grad_cell = data(a["grad_cell"]);
  call.grad_gates = data(a["grad_gates"]);
  call.grad_preactivations = data(a["grad_preactivations"]);
  call.grad_h0 = data(a["grad_h0"]), call.grad_c0 = data(a["grad_c0"]);
  call.workspace = data(a["workspace"]);
  check((small ? small_persistent_backward : persistent_backward)(call, p, nullptr));
}
}  // namespace

void bind_persistent(py::module_& m) {
  py::class_<Plan>(m, "Plan")
      .def_readonly("persistent", &Plan::persistent)
      .def_property_readonly(
          "exchange",
          [](const Plan& p) { return p.exchange == Exchange::tagged ? "tagged" : "counter"; })
      .def_readonly("units", &Plan::units)
      .def_readonly("slices", &Plan::slices)
      .def_readonly("groups", &Plan::groups)
      .def_readonly("tile_rows", &Plan::tile_rows)
      .def_readonly("tiles", &Plan::tiles)
      .def_readonly("shared_bytes", &Plan::shared_bytes)
      .def_readonly("workspace_bytes", &Plan::workspace_bytes);
  m.def("choose", [](const std::string& pass, int multiprocessors, int64_t shared_bytes,
                     bool cooperative, const std::string& type, bool allow_tf32, int64_t T,
                     int64_t N, int64_t H, int64_t P, int D, const std::string& of_variant) {
    const double something = 0;
    Variant variant{};
    if (of_variant == "peephole") variant.peephole = &something;
    if (of_variant == "mask") variant.hidden_mask.data = &something;
    if (of_variant == "masks of gates") variant.gate_masks.data = &something;
    if (of_variant == "norm") variant.norm_cell = &something;
    return choose(pass_of(pass), {multiprocessors, shared_bytes, cooperative}, type_of(type),
                  allow_tf32, {T, N, H, H, P, D}, P != H, of_variant.empty() ? nullptr : &variant);
  });
  // Microseconds, of a plan that choose() made.
  m.def("predicted_step", [](const std::string& pass, const Plan& p) {
    const bool forward = pass_of(pass) == Pass::forward;
    return predicted_step(pass_of(pass),
                          !forward        ? kBackwardGeometries[0]
                          : p.units == 16 ? kForwardGeometries[0]
                                          : kForwardGeometries[1],
                          p);
  });
  m.def("plan", &plan);
  m.def("driver_problem", &driver_problem);
  // Launches of {stream, blocks} in this order on a device with that room; for each, the {stream,
  // number of its launch on the stream} that it waits for.
  m.def("residents", [](const std::vector<std::pair<int64_t, int>>& launches, int room,
                        int64_t capturing) {
    const auto stream_of = [](int64_t number) { return reinterpret_cast<cudaStream_t>(number); };
    Residents residents;
    machine::capturing = stream_of(capturing);
    machine::recorded.clear();
    std::vector<std::vector<std::pair<int64_t, int>>> waits;
    for (const auto& [stream, blocks] : launches) {
      machine::waits.clear();
      bool launched = false;
      check(residents.launch(stream_of(stream), blocks, room, [&] {
        launched = true;
        return cudaSuccess;
      }));
      if (!launched) throw std::logic_error("not launched");
      auto& of_launch = waits.emplace_back();
      for (const auto& [who, what] : machine::waits) {
        if (who != stream_of(stream)) throw std::logic_error("another stream waits");
        of_launch.emplace_back(int64_t(reinterpret_cast<uintptr_t>(what.stream)), what.number);
      }
    }
    machine::capturing = nullptr;
    return waits;
  });
  m.def("persistent_forward", &forward);
  m.def("persistent_backward", &backward);
  m.def("pack_offsets", [](const py::array& batch_sizes, const py::array& offsets) {
    check(pack_offsets(data<int64_t>(batch_sizes), batch_sizes.size(),
                       static_cast<int64_t*>(data(offsets)), nullptr));
  });
}
