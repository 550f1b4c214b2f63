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
//
// tests/cuda_on_cpu/mutants.py plants bugs in this file by its text, the comments at the barriers
// included. Change a line that it quotes in both files.
#pragma once
#include "cell.cuh"
#include "persistent.cuh"

namespace lstm_kernels::cuda {

template <class E, class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    persistent_forward_kernel(const __grid_constant__ PersistentForward call,
                              const __grid_constant__ Plan plan) {
  constexpr int kUnits = S::kRows / kGates;
  constexpr int kCells = Cells<S, kUnits>::kCount;
  static_assert(2 * kCells <= 32);  // bits of `marks`

  const int T = int(call.size.T), N = int(call.size.N), H = int(call.size.H);
  const int D = call.size.D, direction = int(blockIdx.z);
  const bool one_thread = threadIdx.x == 0;
  Cells<S, kUnits> cells(plan, call.size, direction);  // the state of a cell: c, h
  unsigned char* shared = shared_memory<unsigned char>();
  float* partials = reinterpret_cast<float*>(shared + plan.partials_at);

  const E* w_hh = static_cast<const E*>(call.w_hh[direction]);
  const bool aligned = H % kVector<E> == 0 && reinterpret_cast<uintptr_t>(w_hh) % 16 == 0;
  const StationaryWeights<E, S> weights(
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
  const auto publish = [&](int step, int tile, int i, float h) {
    exchange.store(step, tile, cells.row(i), cells.unit(), narrow<E>(h));
  };

  for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups) {
#pragma unroll 1
    for (int i = 0; i < kCells; i++) {
      if (!cells.exists(tile, i)) continue;
      const int64_t at = cells.state_index(tile, i);
      cells.state(tile, i) =
          make_float2(load_or_zero<E>(call.c0, at), load_or_zero<E>(call.h0, at));
      publish(0, tile, i, cells.state(tile, i).y);
    }
    __syncthreads();  // [h0 stored]
    if (one_thread) exchange.arrive(tile);
  }

  for (int step = 0; step < T; step++) {
    const int t = direction ? T - 1 - step : step;
    for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups) {
      cells.forget_addresses();
      unsigned marks = 0;  // bit i: cell i takes part; bit kCells + i: it is reset
      float x[kCells][kGates];
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        const int n = cells.sequence(tile, i), unit = cells.unit();
        if (cells.exists(tile, i) && takes_part(call.rows, t, n)) marks |= 1u << i;
        if (marks >> i & 1 && call.rows.reset && call.rows.reset[int64_t(t) * N + n])
          marks |= 1u << (kCells + i);
        const int64_t at = marks >> i & 1 ? row_of(call.rows, N, t, n) * kGates * H + unit : 0;
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

      cells.forget_addresses();
      Cell<float> cell[kCells] = {};
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        if (!cells.exists(tile, i)) continue;
        float2& state = cells.state(tile, i);
        if (marks >> i & 1) {
          float4 recurrent = make_float4(0, 0, 0, 0);
          const float* sums = weights.sums(partials, cells.row(i)) + cells.local_unit() * kGates;
#pragma unroll
          for (int warp = 0; warp < S::kWarps; warp++) {
            const float4 v = *reinterpret_cast<const float4*>(sums + warp * 8 * S::kPartialStride);
            recurrent.x += v.x, recurrent.y += v.y, recurrent.z += v.z, recurrent.w += v.w;
          }
          const bool is_reset = marks >> (kCells + i) & 1;
          if (is_reset) recurrent = make_float4(0, 0, 0, 0);
          const float a[kGates] = {x[i][0] + recurrent.x, x[i][1] + recurrent.y,
                                   x[i][2] + recurrent.z, x[i][3] + recurrent.w};
          cell[i] = advance(a, is_reset ? 0.f : state.x);
          state = make_float2(cell[i].c, cell[i].h);
        }
        publish(step + 1, tile, i, state.y);
      }
      __syncthreads();  // [h stored, partial sums used up]
      if (one_thread) exchange.arrive(tile);

      // What no other block waits for.
      cells.forget_addresses();
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        if (!cells.exists(tile, i) || (call.rows.offsets && !(marks >> i & 1))) continue;
        const int unit = cells.unit();
        const int64_t at = row_of(call.rows, N, t, cells.sequence(tile, i)) * D + direction;
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
#pragma unroll 1
    for (int i = 0; i < kCells; i++)
      if (cells.exists(tile, i)) {
        const int64_t at = cells.state_index(tile, i);
        store<E>(call.c_n, at, cells.state(tile, i).x);
        store<E>(call.h_n, at, cells.state(tile, i).y);
      }
}

}  // namespace lstm_kernels::cuda
