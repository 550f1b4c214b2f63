// LSTM forward over a whole sequence in one launch.
//
// Grid (slices, groups, directions), see Plan. A block owns some hidden units and, one after the
// other, the batch tiles of its group: it multiplies its rows of W_hh, kept on chip, with h_{t-1}
// of all units, adds the input's gates and the biases (loaded before it waits for the other
// blocks), updates its cells, and publishes its part of h_t. Rows of the slice are
// gate-interleaved, so the four gates of a cell are neighbours and the update needs no second pass.
// c stays in fp32 from step to step; h is fed back as it is stored. Bound: the exchange (about a
// microsecond per step) for small batches; for larger ones the read of h from L2, N * H elements
// per block and step.
#pragma once
#include "cell.cuh"
#include "launch.cuh"
#include "persistent.cuh"

namespace lstm_kernels::cuda {

template <class E, class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    persistent_forward_kernel(const __grid_constant__ PersistentForward call,
                              const __grid_constant__ Plan plan) {
  constexpr int kUnits = S::kRows / kGates;
  constexpr int kRowStride = S::kThreads / kUnits;  // a thread's cells are of one hidden unit
  constexpr int kCells = kMaxTileRows / kRowStride;
  static_assert(kRowStride * kUnits == S::kThreads && kCells * kRowStride == kMaxTileRows);
  static_assert(2 * kCells <= 32);  // bits of `marks`

  const int T = int(call.size.T), N = int(call.size.N), H = int(call.size.H);
  const int D = call.size.D, direction = int(blockIdx.z);
  int local_unit = int(threadIdx.x) % kUnits, first_row = int(threadIdx.x) / kUnits;
  int unit = int(blockIdx.x) * kUnits + local_unit;
  const bool one_thread = threadIdx.x == 0;
  // No address lives through the product: it is computed again, not kept in a register.
  const auto forget_addresses = [&] {
    unit = opaque(unit), local_unit = opaque(local_unit), first_row = opaque(first_row);
  };
  const auto cell_exists = [&](int tile, int row) {
    return row < plan.tile_rows && tile * plan.tile_rows + row < N && unit < H;
  };

  // A cell's state is touched by its own thread only.
  unsigned char* shared = shared_memory<unsigned char>();
  float* partials = reinterpret_cast<float*>(shared + plan.partials_at);
  float2* states = reinterpret_cast<float2*>(shared + plan.states_at);  // c, h
  const auto state_of = [&](int tile, int row) -> float2& {
    return states[(tile / plan.groups * plan.tile_rows + row) * kUnits + local_unit];
  };

  const E* w_hh = static_cast<const E*>(call.w_hh[direction]);
  const bool aligned = H % kVector<E> == 0 && reinterpret_cast<uintptr_t>(w_hh) % 16 == 0;
  const Weights<E, S> weights(
      plan.pairs, reinterpret_cast<uint4*>(shared), [&](int row, int column) {
        const int w_unit = int(blockIdx.x) * kUnits + row / kGates;
        const E* w = w_hh + (int64_t(row % kGates) * H + w_unit) * H + column;
        if (w_unit >= H || column >= H) return make_uint4(0, 0, 0, 0);
        if (aligned) {
          const uint4 v = __ldg(reinterpret_cast<const uint4*>(w));
          E elements[kVector<E>];
          memcpy(elements, &v, sizeof v);
          return gather<E>([&](int e) { return elements[e]; });
        }
        return gather<E>([&](int e) { return column + e < H ? __ldg(w + e) : narrow<E>(0); });
      });
  const Exchange<E> exchange(call.workspace, plan, D, direction);
  const auto publish = [&](int step, int tile, int row, float h) {
    exchange.store(step, tile, row, unit, narrow<E>(h));
  };

  for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups) {
    for (int row = first_row; row < plan.tile_rows; row += kRowStride) {
      if (!cell_exists(tile, row)) continue;
      const int n = tile * plan.tile_rows + row;
      const int64_t at = (int64_t(direction) * N + n) * H + unit;
      state_of(tile, row) = make_float2(load_or_zero<E>(call.c0, at), load_or_zero<E>(call.h0, at));
      publish(0, tile, row, state_of(tile, row).y);
    }
    __syncthreads();  // [h0 stored]
    if (one_thread) exchange.arrive(tile);
  }

  for (int step = 0; step < T; step++) {
    const int t = direction ? T - 1 - step : step;
    for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups) {
      forget_addresses();
      unsigned marks = 0;  // bit i: cell i takes part; bit kCells + i: it is reset
      float x[kCells][kGates];
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        const int row = first_row + i * kRowStride;
        const int n = tile * plan.tile_rows + row;
        if (cell_exists(tile, row) && takes_part(call.steps, t, n)) marks |= 1u << i;
        if (marks >> i & 1 && call.steps.reset && call.steps.reset[int64_t(t) * N + n])
          marks |= 1u << (kCells + i);
        const int64_t at = marks >> i & 1 ? row_of(call.steps, N, t, n) * kGates * H + unit : 0;
#pragma unroll
        for (int q = 0; q < kGates; q++)
          x[i][q] = marks >> i & 1 ? load_or_zero<E>(call.x_gates[direction], at + q * H) +
                                         load_or_zero<E>(call.b_ih[direction], q * H + unit) +
                                         load_or_zero<E>(call.b_hh[direction], q * H + unit)
                                   : 0.f;
      }

      if (one_thread) exchange.wait(tile, unsigned(plan.slices) * unsigned(step + 1));
      __syncthreads();  // [h of the step before is there]
      weights.multiply(exchange.tile(step, tile), plan.tile_rows / 8, partials);
      __syncthreads();  // [partial sums are there]

      forget_addresses();
      Cell<float> cell[kCells] = {};
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        const int row = first_row + i * kRowStride;
        if (!cell_exists(tile, row)) continue;
        float2& state = state_of(tile, row);
        if (marks >> i & 1) {
          float4 recurrent = make_float4(0, 0, 0, 0);
          const float* sums =
              partials + (row / 8 * S::kWarps * 8 + row % 8) * S::kPartialStride + local_unit * 4;
#pragma unroll
          for (int warp = 0; warp < S::kWarps; warp++) {
            const float4 v = *reinterpret_cast<const float4*>(sums + warp * 8 * S::kPartialStride);
            recurrent.x += v.x, recurrent.y += v.y, recurrent.z += v.z, recurrent.w += v.w;
          }
          const bool is_reset = marks >> (kCells + i) & 1;
          if (is_reset) recurrent = make_float4(0, 0, 0, 0);
          const float a[kGates] = {x[i][0] + recurrent.x, x[i][1] + recurrent.y,
                                   x[i][2] + recurrent.z, x[i][3] + recurrent.w};
          cell[i] = cell_forward(a, is_reset ? 0.f : state.x);
          state = make_float2(cell[i].c, cell[i].h);
        }
        publish(step + 1, tile, row, state.y);
      }
      __syncthreads();  // [h stored, partial sums used up]
      if (one_thread) exchange.arrive(tile);

      // What no other block waits for.
      forget_addresses();
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        const int row = first_row + i * kRowStride, n = tile * plan.tile_rows + row;
        if (!cell_exists(tile, row) || (call.steps.offsets && !(marks >> i & 1))) continue;
        const int64_t at = row_of(call.steps, N, t, n) * D + direction;
        store<E>(call.output, at * H + unit, cell[i].h);
        if (call.cell) store<E>(call.cell, at * H + unit, cell[i].c);
        if (call.gates)
#pragma unroll
          for (int q = 0; q < kGates; q++)
            store<E>(call.gates, (at * kGates + q) * H + unit, cell[i].gate[q]);
      }
    }
  }

  for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups)
    for (int row = first_row; row < plan.tile_rows; row += kRowStride)
      if (cell_exists(tile, row)) {
        const int n = tile * plan.tile_rows + row;
        const int64_t at = (int64_t(direction) * N + n) * H + unit;
        store<E>(call.c_n, at, state_of(tile, row).x);
        store<E>(call.h_n, at, state_of(tile, row).y);
      }
}

template <class E, class S>
cudaError_t launch_persistent_forward(const PersistentForward& call, const Plan& plan,
                                      cudaStream_t stream) {
  const cudaError_t error =
      cudaMemsetAsync(call.workspace, 0, size_t(plan.workspace_bytes), stream);
  if (error != cudaSuccess) return error;
  const dim3 grid(unsigned(plan.slices), unsigned(plan.groups), unsigned(call.size.D));
  return launch(Launch::cooperative, persistent_forward_kernel<E, S>, grid, dim3(S::kThreads),
                plan.shared_bytes, stream, call, plan);
}

}  // namespace lstm_kernels::cuda
