// LSTM backward over a whole sequence in one launch: from the saved cell states and gates and the
// gradients of whatever was returned to the gradients of the gates' preactivations.
//
// The forward's skeleton, run from its last step to its first. A block owns some hidden units: it
// multiplies its rows of W_hh^T, kept on chip, with the preactivation gradients of all four gates
// of all units at the step undone before, which gives the gradient of h_t, undoes its cells, and
// publishes their four gradients. They go to a buffer of their own: what the forward saved is only
// read. The gradient of c stays in fp32 from step to step. One more round than there are steps
// gives the gradients of h0 and c0. Bound: as forward, with four times the exchanged data, 4 * N *
// H elements per block and step.
//
// tests/cuda_on_cpu/mutants.py plants bugs in this file by its text, the comments at the barriers
// included. Change a line that it quotes in both files.
#pragma once
#include "cell.cuh"
#include "persistent.cuh"

namespace lstm_kernels::cuda {

template <class E, class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    persistent_backward_kernel(const __grid_constant__ PersistentBackward call,
                               const __grid_constant__ Plan plan) {
  constexpr int kUnits = S::kRows;
  constexpr int kCells = Cells<S, kUnits>::kCount;

  const int T = int(call.size.T), N = int(call.size.N), H = int(call.size.H);
  const int D = call.size.D, direction = int(blockIdx.z);
  const int gate_columns = plan.pairs / kGates * kPairColumns<E>;  // k: four times H, padded
  const bool one_thread = threadIdx.x == 0;
  // The state of a cell: the gradients, from later steps, of c and of h other than through W_hh (of
  // sequences that have ended, until their last step is reached).
  Cells<S, kUnits> cells(plan, call.size, direction);
  unsigned char* shared = shared_memory<unsigned char>();
  float* partials = reinterpret_cast<float*>(shared + plan.partials_at);

  const E* w_hh = static_cast<const E*>(call.w_hh[direction]);
  const StationaryWeights<E, S> weights(
      plan.pairs, reinterpret_cast<uint4*>(shared), [&](int row, int column) {
        const int to = int(blockIdx.x) * kUnits + row, gate = column / gate_columns;
        const int from = column % gate_columns;
        const E* w = w_hh + (int64_t(gate) * H + from) * H + to;
        return gather<E>([&](int e) {
          return to < H && from + e < H ? __ldg(w + int64_t(e) * H) : narrow<E>(0);
        });
      });

  const Exchange<E> exchange(call.workspace, plan, D, direction);

  for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups)
#pragma unroll 1
    for (int i = 0; i < kCells; i++)
      if (cells.exists(tile, i)) {
        const int64_t at = cells.state_index(tile, i);
        cells.state(tile, i) =
            make_float2(load_or_zero<E>(call.grad_c_n, at), load_or_zero<E>(call.grad_h_n, at));
      }

  for (int round = 0; round <= T; round++) {  // undoes step T - 1 - round; the last round, none
    const int step = T - 1 - round, t = direction ? round : step;
    const int t_before = direction ? t + 1 : t - 1, t_after = direction ? t - 1 : t + 1;
    for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups) {
      cells.forget_addresses();
      unsigned active = 0, reset = 0, cut = 0;  // a bit per cell; cut: the step after reset h and c
      float gate[kCells][kGates];
      float c[kCells], c_prev[kCells], grad_h[kCells], grad_c[kCells];
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        const int n = cells.sequence(tile, i), unit = cells.unit();
        const bool exists = cells.exists(tile, i);
        const unsigned bit = 1u << i;
        if (exists && step >= 0 && takes_part(call.rows, t, n)) active |= bit;
        if (exists && call.rows.reset) {
          if (active & bit && call.rows.reset[int64_t(t) * N + n]) reset |= bit;
          if (round > 0 && takes_part(call.rows, t_after, n) &&
              call.rows.reset[int64_t(t_after) * N + n])
            cut |= bit;
        }
        c[i] = c_prev[i] = grad_h[i] = grad_c[i] = 0.f;
#pragma unroll
        for (int q = 0; q < kGates; q++) gate[i][q] = 0.f;
        if (!(active & bit)) continue;
        const int64_t at = row_of(call.rows, N, t, n) * D + direction;
        c[i] = load_or_zero<E>(call.cell, at * H + unit);
        if (step > 0 && takes_part(call.rows, t_before, n))
          c_prev[i] = load_or_zero<E>(
              call.cell, (row_of(call.rows, N, t_before, n) * D + direction) * H + unit);
        else
          c_prev[i] = load_or_zero<E>(call.c0, (int64_t(direction) * N + n) * H + unit);
        grad_h[i] = load_or_zero<E>(call.grad_output, at * H + unit);
        grad_c[i] = load_or_zero<E>(call.grad_cell, at * H + unit);
#pragma unroll
        for (int q = 0; q < kGates; q++)
          gate[i][q] = load_or_zero<E>(call.gates, (at * kGates + q) * H + unit);
      }

      if (round > 0) {
        if (one_thread) exchange.wait(tile, unsigned(plan.slices) * unsigned(round));
        __syncthreads();  // [gradients of the step after are there]
        weights.multiply(exchange.tile(round - 1, tile), plan.tile_rows / 8, partials);
        __syncthreads();  // [partial sums are there]
      }

      cells.forget_addresses();
      CellGradient<float> grad[kCells] = {};
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        if (!cells.exists(tile, i)) continue;
        const int n = cells.sequence(tile, i), unit = cells.unit();
        float2& state = cells.state(tile, i);
        float dh = state.y;
        if (round > 0 && !(cut >> i & 1)) {
          const float* sums = weights.sums(partials, cells.row(i)) + cells.local_unit();
          float recurrent = 0.f;
#pragma unroll
          for (int warp = 0; warp < S::kWarps; warp++)
            recurrent += sums[warp * 8 * S::kPartialStride];
          dh += recurrent;
        }
        if (active >> i & 1) {
          const bool is_reset = reset >> i & 1;
          float grad_gate[kGates] = {};
          if (call.grad_gates) {  // not worth registers during the product: few ask for it
            const int64_t at = row_of(call.rows, N, t, n) * D + direction;
#pragma unroll
            for (int q = 0; q < kGates; q++)
              grad_gate[q] = load_or_zero<E>(call.grad_gates, (at * kGates + q) * H + unit);
          }
          grad[i] = retreat(gate[i], c[i], is_reset ? 0.f : c_prev[i], dh + grad_h[i],
                            state.x + grad_c[i], grad_gate);
          state = make_float2(is_reset ? 0.f : grad[i].c_prev, 0.f);
        } else {
          state.y = dh;
        }
        if (step >= 0)
#pragma unroll
          for (int q = 0; q < kGates; q++)
            exchange.store(round, tile, cells.row(i), q * gate_columns + unit,
                           narrow<E>(grad[i].preactivation[q]));
      }
      __syncthreads();  // [gradients stored, partial sums used up]
      if (one_thread) exchange.arrive(tile);

      // What no other block waits for.
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        const bool has_row =
            cells.exists(tile, i) && step >= 0 && (active >> i & 1 || !call.rows.offsets);
        if (!has_row) continue;
        const int64_t at = row_of(call.rows, N, t, cells.sequence(tile, i)) * D + direction;
#pragma unroll
        for (int q = 0; q < kGates; q++)
          store<E>(call.grad_preactivations, (at * kGates + q) * H + cells.unit(),
                   grad[i].preactivation[q]);
      }
    }
  }

  for (int tile = int(blockIdx.y); tile < plan.tiles; tile += plan.groups)
#pragma unroll 1
    for (int i = 0; i < kCells; i++)
      if (cells.exists(tile, i)) {
        const int64_t at = cells.state_index(tile, i);
        store<E>(call.grad_c0, at, cells.state(tile, i).x);
        store<E>(call.grad_h0, at, cells.state(tile, i).y);
      }
}

}  // namespace lstm_kernels::cuda
