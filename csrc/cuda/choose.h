// Which path computes a layer on CUDA, and how the persistent path cuts it up. Plain C++.
//
// The persistent kernels keep W_hh on chip for all T steps and pay one exchange between blocks per
// step; the per-step path pays two launches per step and serves every type and size. The persistent
// path is used when all hold:
//   1. tensor cores multiply the dtype: float16, bfloat16, float32 in TF32 where that is allowed,
//      and by three products of TF32 (number.cuh) where it is not;
//   2. nothing is projected, and a variant does in a step what concerns single cells alone;
//   3. the sequence repays the launch;
//   4. a slice of W_hh fits each multiprocessor;
//   5. the model below predicts the shorter step.
// LSTM_KERNELS_CUDA_PATH=step forces the per-step path, =persistent the persistent one whatever 3
// and 5 say, and raises where it cannot run: what is forced never falls back.
// LSTM_KERNELS_CUDA_PLAN forces a plan, for measurements.
//
// The model's constants are those of an H200; on other devices they are a guess.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../lstm.h"
#include "../variant.h"

namespace lstm_kernels::cuda {

inline int64_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

// What a device offers: cudaDevAttrMultiProcessorCount, ...MaxSharedMemoryPerBlockOptin,
// ...CooperativeLaunch.
struct DeviceLimits {
  int multiprocessors;
  int64_t shared_bytes;
  bool cooperative_launch;
};

enum class Pass { forward, backward };

// How the blocks of a persistent kernel hand each other what a step gives: see exchange.cuh.
enum class Exchange { counter, tagged };

// How the blocks of a persistent kernel share a layer: `slices` blocks hold all of W_hh, each for
// `units` hidden units; `groups` such sets share the batch, which is cut into `tiles` of
// `tile_rows` sequences. Each direction has its own blocks.
struct Plan {
  bool persistent = false;
  bool full_float32 = false;  // its products as they are, not in TF32
  Exchange exchange = Exchange::counter;
  int units = 0;
  int slices = 0;
  int groups = 0;
  int room = 0;  // blocks that the device holds at a time
  int tile_rows = 0;
  int tiles = 0;
  int pairs = 0;              // 64-byte pairs of k tiles in the product over k
  int gate_columns = 0;       // of the moving factor, for each gate it has: H, in whole pairs
  int64_t partials_at = 0;    // shared memory of a block: spilled weights, then the warps' partial
  int64_t partials_turn = 0;  //   sums, those of every other tile this many floats further on, then
  int64_t biases_at = 0;      //   the sums of its biases (units, 4), then the state of its cells,
  int64_t states_at = 0;      //   then each thread's peepholes and, backward, their gradients
  int64_t parameters_at = 0;
  int64_t shared_bytes = 0;
  int64_t workspace_bytes = 0;  // device memory the kernel needs, 16-byte aligned, any contents
};

// The shape of a block that the kernels are compiled for. W_hh (or its transpose) is the m16
// operand of the tensor cores; 16 pairs of k tiles take the 128 registers per thread given to
// weights.
struct Geometry {
  int warps;           // share the k dimension
  int row_tiles;       // m16 tiles of a block
  int register_pairs;  // pairs of k tiles that a warp holds in registers; the rest in shared memory
};
constexpr int kMaxTileRows = 32;
constexpr int64_t kCounterBytes = 128;  // one counter per cache line

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of shared memory per block: the weights that registers do not hold, and the partial sums.
inline int64_t spilled_bytes(const Geometry& g, int64_t pairs) {
  return std::max<int64_t>(0, ceil_div(pairs, g.warps) - g.register_pairs) * g.warps * g.row_tiles *
         1024;
}
inline int64_t partial_bytes(const Geometry& g, int tile_rows) {
  return int64_t(g.warps) * tile_rows * (g.row_tiles * 16 + 4) * 4;
}

// Fills in what follows from a geometry and a tile size; not persistent where that cannot run.
inline Plan make_plan(Pass pass, const Geometry& g, Exchange exchange, int tile_rows,
                      const DeviceLimits& device, DType dtype, const Sizes& size,
                      const Variant* variant) {
  Plan plan;
  plan.exchange = exchange;
  plan.room = device.multiprocessors;
  plan.units = g.row_tiles * (pass == Pass::forward ? 4 : 16);
  const int64_t slices = ceil_div(size.H, plan.units), tiles = ceil_div(size.N, tile_rows);
  if (slices * size.D > device.multiprocessors || tiles > (1 << 20)) return plan;
  plan.slices = int(slices);
  plan.tiles = int(tiles);
  plan.tile_rows = tile_rows;
  plan.groups = int(std::min<int64_t>(tiles, device.multiprocessors / (slices * size.D)));
  const int64_t columns = pass == Pass::backward ? kGates : 1;
  const int64_t gate_pairs = ceil_div(size.H * size_of(dtype), 64);
  plan.pairs = int(columns * gate_pairs);
  plan.gate_columns = int(gate_pairs * 64 / size_of(dtype));
  const bool tagged = exchange == Exchange::tagged;
  if (tagged && plan.pairs > 32 * g.warps) return plan;  // bits of TaggedExchange
  // Only a counter makes every step wait until all have used their partial sums.
  if (tagged) plan.partials_turn = partial_bytes(g, tile_rows) / 4;
  plan.partials_at = spilled_bytes(g, plan.pairs);
  plan.biases_at = plan.partials_at + partial_bytes(g, tile_rows) * (tagged ? 2 : 1);
  plan.states_at = plan.biases_at + (pass == Pass::forward ? plan.units * kGates * 4 : 0);
  plan.parameters_at = plan.states_at + ceil_div(tiles, plan.groups) * tile_rows * plan.units * 8;
  const int parameters = !variant || !variant->peephole ? 0
                         : pass == Pass::forward        ? kPeepholes
                                                        : 2 * kPeepholes;
  plan.shared_bytes = plan.parameters_at + g.warps * 32 * parameters * 4;
  const int64_t slots = int64_t(2) * tile_rows * plan.pairs * 64;
  plan.workspace_bytes = size.D * tiles * (tagged ? 2 * slots : kCounterBytes + slots);
  plan.persistent = plan.shared_bytes <= device.shared_bytes;
  return plan;
}

// What the parts of a step take, in microseconds, as measured on an H200 by benchmarks/gpu.py (its
// plans): the chain of waits from the first word to handing over, whatever the sizes; a group of 8
// rows; the products of a pair of k tiles with 16 rows, of each warp; the same from spilled
// weights.
struct StepCosts {
  double chain, rows8, product, spilled;
};
inline StepCosts step_costs(Pass pass, Exchange exchange) {
  const bool tagged = exchange == Exchange::tagged;
  if (pass == Pass::forward)
    return tagged ? StepCosts{0.8, 0.40, 0.049, 0.032} : StepCosts{1.2, 0.39, 0.042, 0.012};
  return tagged ? StepCosts{1.3, 0.45, 0.098, 0.062} : StepCosts{1.8, 0.40, 0.076, 0.031};
}

// Microseconds per step that the model predicts. A block works on one tile after the other, each
// from end to end; a block with one tile also waits for the slowest of the others.
inline double predicted_step(Pass pass, const Geometry& g, const Plan& plan) {
  constexpr double kSlowest = 0.1, kSplitFactors = 0.45;
  const StepCosts cost = step_costs(pass, plan.exchange);
  const int64_t pairs = ceil_div(plan.pairs, g.warps);  // of a warp
  const double products = double(pairs * g.row_tiles) * (plan.full_float32 ? 3 : 1);
  const double spilled = double(std::max<int64_t>(0, pairs - g.register_pairs) * g.row_tiles);
  const double rows8 = cost.rows8 + cost.product * products + cost.spilled * spilled;
  const double tile =
      cost.chain + plan.tile_rows / 8 * rows8 + (plan.full_float32 ? kSplitFactors : 0);
  const int64_t tiles = ceil_div(plan.tiles, plan.groups);  // of a block
  return tiles == 1 ? tile + kSlowest : double(tiles) * tile;
}

// Likewise on the per-step path, where directions run one after the other. With few sequences a
// step is one kernel that reads the weights from L2, once for 8 sequences. Otherwise it is two, and
// the host needs longer to launch them than the device for small products. A variant never has the
// one kernel, and a mask of h takes a launch more.
inline double predicted_step_of_per_step_path(Pass pass, DType dtype, bool full_float32,
                                              const Sizes& size, const Variant* variant) {
  const double weights = double(kGates) * double(size.H) * double(size.H);
  const double flops = 2 * weights * double(size.N);
  double step;
  if (pass == Pass::forward && size.N <= 16 && !variant) {
    const double bytes_per_microsecond = size.N == 1 ? 4.5e6 : 1.7e6;
    const double reads = double(ceil_div(size.N, 8)) * weights * double(size_of(dtype));
    step = std::max(5.0, 2.5 + reads / bytes_per_microsecond);
  } else {
    const double flops_per_microsecond = full_float32               ? 2.5e7
                                         : dtype == DType::kFloat32 ? 1.6e8
                                                                    : 2.8e8;
    step = (pass == Pass::forward ? 13 : 20) + flops / flops_per_microsecond;
    if (pass == Pass::forward && variant && variant->hidden_mask.data) step += 5;
  }
  return size.D * step;
}

enum class ForcedPath { none, persistent, step };
inline ForcedPath forced_path() {
  const char* path = std::getenv("LSTM_KERNELS_CUDA_PATH");
  if (!path || !*path) return ForcedPath::none;
  if (!std::strcmp(path, "persistent")) return ForcedPath::persistent;
  if (!std::strcmp(path, "step")) return ForcedPath::step;
  throw std::runtime_error("LSTM_KERNELS_CUDA_PATH must be 'persistent' or 'step', got '" +
                           std::string(path) + "'");
}

// LSTM_KERNELS_CUDA_PLAN=UNITS,ROWS[,EXCHANGE] leaves only the plans with this number of units per
// block (forward: backward has but one number) and rows per tile.
struct ForcedPlan {
  int units = 0, rows = 0;  // 0: any
  std::string exchange;

  ForcedPlan() {
    const char* text = std::getenv("LSTM_KERNELS_CUDA_PLAN");
    if (!text || !*text) return;
    char kind[8] = "", more = 0;
    const int read = std::sscanf(text, "%d,%d,%7[a-z]%c", &units, &rows, kind, &more);
    exchange = kind;
    const bool known = read == 2 || (read == 3 && (exchange == "counter" || exchange == "tagged"));
    if (!known || units <= 0 || rows <= 0)
      throw std::runtime_error(
          "LSTM_KERNELS_CUDA_PLAN must be UNITS,ROWS or UNITS,ROWS,counter or UNITS,ROWS,tagged, "
          "got '" +
          std::string(text) + "'");
  }
  bool allows(Pass pass, const Plan& plan) const {
    return (!units || pass == Pass::backward || plan.units == units) &&
           (!rows || plan.tile_rows == rows) &&
           (exchange.empty() || (exchange == "tagged") == (plan.exchange == Exchange::tagged));
  }
};

constexpr int64_t kFewestSteps = 4;  // below it, loading W_hh and the launch are not repaid

// The geometries the kernels are compiled for: see persistent_forward.cu, persistent_backward.cu.
constexpr Geometry kForwardGeometries[] = {{8, 4, 4}, {8, 2, 8}};
constexpr Geometry kBackwardGeometries[] = {{8, 1, 16}};

// What keeps the persistent kernels from a layer whatever its plan, or null.
inline const char* obstacle(const DeviceLimits& device, DType dtype, const Sizes& size,
                            bool projects, const Variant* variant) {
  if (dtype == DType::kFloat64) return "float64 has no tensor core instruction";
  if (projects) return "the layer projects";
  if (variant && variant->normalises()) return "a layer norm needs sums over all units of a step";
  if (variant && variant->gate_masks.data) return "each gate has another mask";
  if (!device.cooperative_launch) return "the device has no cooperative launch";
  if (std::max({size.T, size.N, size.H}) > (1 << 30)) return "a size exceeds 2^30";
  return nullptr;
}

inline std::runtime_error cannot_be_forced(const char* reason) {
  return std::runtime_error(std::string("LSTM_KERNELS_CUDA_PATH=persistent: ") + reason);
}

// The plan of a layer with at least one step and one sequence; variant: null for the plain LSTM.
inline Plan choose(Pass pass, const DeviceLimits& device, DType dtype, bool allow_tf32,
                   const Sizes& size, bool projects, const Variant* variant) {
  const ForcedPath forced = forced_path();
  if (forced == ForcedPath::step) return {};
  if (forced == ForcedPath::none && size.T < kFewestSteps) return {};
  if (const char* reason = obstacle(device, dtype, size, projects, variant)) {
    if (forced == ForcedPath::persistent) throw cannot_be_forced(reason);
    return {};
  }
  const ForcedPlan forced_plan;
  const bool full_float32 = dtype == DType::kFloat32 && !allow_tf32;
  Plan best;
  double best_step = forced == ForcedPath::none
                         ? predicted_step_of_per_step_path(pass, dtype, full_float32, size, variant)
                         : 1e30;
  const auto consider = [&](const Geometry& g) {
    for (const Exchange exchange : {Exchange::counter, Exchange::tagged})
      for (int tile_rows = 8; tile_rows <= kMaxTileRows; tile_rows += 8) {
        Plan plan = make_plan(pass, g, exchange, tile_rows, device, dtype, size, variant);
        plan.full_float32 = full_float32;
        if (!plan.persistent || !forced_plan.allows(pass, plan)) continue;
        const double step = predicted_step(pass, g, plan);
        if (step < best_step) best = plan, best_step = step;
      }
  };
  if (pass == Pass::forward)
    for (const Geometry& g : kForwardGeometries) consider(g);
  else
    for (const Geometry& g : kBackwardGeometries) consider(g);
  if (forced == ForcedPath::persistent && !best.persistent)
    throw cannot_be_forced(forced_plan.rows ? "LSTM_KERNELS_CUDA_PLAN leaves no plan for the layer"
                                            : "W_hh does not fit the device's multiprocessors");
  return best;
}

}  // namespace lstm_kernels::cuda
