// LSTM forward over a whole sequence in one launch.
//
// Grid (slices, groups, directions), see Plan. A block owns some hidden units and, one after the
// other, the batch tiles of its group: it multiplies its rows of W_hh, kept on chip, with h_{t-1}
// of all units, adds the input's gates, asked for a step ahead, and the biases, kept in shared
// memory, updates its cells, and publishes its part of h_t. Rows of the slice are gate-interleaved,
// so the four gates of a cell are neighbours and the update needs no second pass. c stays in fp32
// from step to step; h is fed back as it is stored, or times its mask. Bound: for small batches the
// exchange and, about as long, the instructions of the warps that have cells; for larger ones the
// groups of 8 rows of a tile, each a read of h from L2 and its products one after the other.
//
// tests/cuda_on_cpu/mutants.py plants bugs in this file by its text, the comments at the barriers
// included. Change a line that it quotes in both files.
#pragma once
#include "persistent_cell.cuh"

namespace lstm_kernels::cuda {

// What a step reads for the cells of a thread: the input's gates as they are stored, and what else
// a cell asks for.
template <class E, class Asked, int kCells>
struct ForwardInputs {
  unsigned marks = 0;  // bit i: cell i takes part; bit kCells + i: it is reset
  E x[kCells][kGates];
  Asked asked[kCells];
  static_assert(2 * kCells <= 32);
};

template <class E, class S, template <class> class Exchange, class Call>
__global__ void __launch_bounds__(S::kThreads, 1)
    persistent_forward_kernel(const __grid_constant__ Call call,
                              const __grid_constant__ Plan plan) {
  constexpr int kUnits = S::kRows / kGates;
  constexpr int kCells = Cells<S, kUnits>::kCount;
  using Inputs = ForwardInputs<E, typename ForwardCell<E, Call>::Asked, kCells>;

  const int T = int(call.size.T), N = int(call.size.N), H = int(call.size.H);
  const Place place(plan, call.size);
  const int D = place.directions, direction = place.direction;
  const Sequences sequences(call.rows, N);
  Cells<S, kUnits> cells(plan, call.size, direction);  // the state of a cell: c, h
  const ForwardCell<E, Call> lstm(call, plan, cells.unit());
  unsigned char* shared = shared_memory<unsigned char>();
  float* partials = reinterpret_cast<float*>(shared + plan.partials_at);
  float* biases = reinterpret_cast<float*>(shared + plan.biases_at);

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
        return gather<E>([&](int e) { return column + e < H ? read_only(w + e) : narrow<E>(0); });
      });
  for (int i = int(threadIdx.x); i < kUnits * kGates; i += S::kThreads) {
    const int unit = int(blockIdx.x) * kUnits + i / kGates, at = i % kGates * H + unit;
    biases[i] = unit < H ? load_or_zero<E>(call.b_ih[direction], at) +
                               load_or_zero<E>(call.b_hh[direction], at)
                         : 0.f;
  }
  __syncthreads();  // [biases are there]
  const Exchange<E> exchange(call.workspace, place, cells.row(0), cells.unit());
  const auto publish = [&](auto* place, int step, int tile, int i, float h) {
    exchange.publish(place, step, cells.down(i), 0, narrow<E>(h), cells.exists(tile, i),
                     cells.has_sequence(tile, i));
  };
  const int sums_at = weights.sums_at(cells.row(0)) + cells.local_unit() * kGates;
  const auto time_of = [&](int step) { return direction ? T - 1 - step : step; };
  // Addresses of cells that take no part are those of the first row, so that no load waits for a
  // branch.
  const auto ask = [&](int step, int tile) {
    Inputs inputs;
    const int t = time_of(step);
#pragma unroll
    for (int i = 0; i < kCells; i++) {
      if (!cells.in_tile(i)) continue;
      const int n = cells.sequence(tile, i), unit = cells.unit();
      const bool exists = step < T && cells.exists(tile, i);
      const bool now = exists && sequences.takes_part(t, n);
      if (now) inputs.marks |= 1u << i;
      if (now && sequences.is_reset(t, n)) inputs.marks |= 1u << (kCells + i);
      const E* x = static_cast<const E*>(call.x_gates[direction]) +
                   (now ? sequences.row(t, n) * kGates * H + unit : 0);
#pragma unroll
      for (int q = 0; q < kGates; q++) inputs.x[i][q] = read_only(x + q * H);
      const int t_next = step + 1 < T ? time_of(step + 1) : t;
      inputs.asked[i] =
          lstm.ask(exists ? t : 0, exists ? t_next : 0, exists ? n : 0, exists ? unit : 0);
    }
    return inputs;
  };

  const int first_tile = int(blockIdx.y);
  for (int tile = first_tile, k = 0; tile < plan.tiles; tile += plan.groups, k++) {
#pragma unroll 1
    for (int i = 0; i < kCells; i++) {
      float h0 = 0;
      if (cells.exists(tile, i)) {
        const int64_t at = cells.state_index(tile, i);
        h0 = load_or_zero<E>(call.h0, at);
        cells.state(k, i) = make_float2(load_or_zero<E>(call.c0, at), h0);
        h0 = lstm.first_operand(h0, time_of(0), cells.sequence(tile, i), cells.unit());
      }
      publish(exchange.place(0, tile), 0, tile, i, h0);
    }
    exchange.announce(0, tile);
  }

  Inputs next = ask(0, first_tile);
  int turn = 0;
  for (int step = 0; step < T; step++) {
    const int t = time_of(step);
    for (int tile = first_tile, k = 0; tile < plan.tiles; tile += plan.groups, k++) {
      const Inputs inputs = next;
      const unsigned marks = inputs.marks;
      float* const sums_of_tile = partials + (turn++ & 1) * plan.partials_turn;

      exchange.await(step, tile);
      weights.multiply(exchange.moving(step, tile), plan.tile_rows / 8, sums_of_tile);

      // What the cells need and is there already, while the other warps multiply.
      cells.forget_addresses();
      const float* const sums_of_cells = sums_of_tile + sums_at;
      auto* const place_of_h = exchange.place(step + 1, tile);
      const float4 b = *reinterpret_cast<const float4*>(biases + cells.local_unit() * kGates);
      float4 known[kCells];
#pragma unroll
      for (int i = 0; i < kCells; i++)
        known[i] = make_float4(widen(inputs.x[i][0]) + b.x, widen(inputs.x[i][1]) + b.y,
                               widen(inputs.x[i][2]) + b.z, widen(inputs.x[i][3]) + b.w);
      __syncthreads();  // [partial sums are there]

      Cell<float> cell[kCells] = {};
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        if (!cells.in_tile(i)) continue;
        float h = 0;
        if (cells.exists(tile, i)) {
          float2& state = cells.state(k, i);
          if (marks >> i & 1) {
            float4 recurrent = make_float4(0, 0, 0, 0);
            const float* sums = sums_of_cells + weights.sums_at(cells.down(i));
#pragma unroll
            for (int warp = 0; warp < S::kWarps; warp++) {
              const float4 v =
                  *reinterpret_cast<const float4*>(sums + warp * 8 * S::kPartialStride);
              recurrent.x += v.x, recurrent.y += v.y, recurrent.z += v.z, recurrent.w += v.w;
            }
            const bool is_reset = marks >> (kCells + i) & 1;
            if (is_reset) recurrent = make_float4(0, 0, 0, 0);
            const float a[kGates] = {known[i].x + recurrent.x, known[i].y + recurrent.y,
                                     known[i].z + recurrent.z, known[i].w + recurrent.w};
            cell[i] = lstm.advance(a, is_reset ? 0.f : state.x, is_reset ? 0.f : state.y,
                                   inputs.asked[i]);
            state = make_float2(cell[i].c, cell[i].h);
          }
          h = state.y;
        }
        publish(place_of_h, step + 1, tile, i, lstm.operand(h, inputs.asked[i]));
      }
      exchange.announce(step + 1, tile);

      // What no other block waits for.
      cells.forget_addresses();
      const bool last = tile + plan.groups >= plan.tiles;
      next = ask(last ? step + 1 : step, last ? first_tile : tile + plan.groups);
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        if (!cells.exists(tile, i) || (sequences.packed() && !(marks >> i & 1))) continue;
        const int unit = cells.unit();
        const int64_t at = sequences.row(t, cells.sequence(tile, i)) * D + direction;
        store<E>(call.output, at * H + unit, cell[i].h);
        if (call.cell) store<E>(call.cell, at * H + unit, cell[i].c);
        if (call.gates)
#pragma unroll
          for (int q = 0; q < kGates; q++)
            store<E>(call.gates, (at * kGates + q) * H + unit, cell[i].gate[q]);
      }
    }
  }

  for (int tile = first_tile, k = 0; tile < plan.tiles; tile += plan.groups, k++)
#pragma unroll 1
    for (int i = 0; i < kCells; i++)
      if (cells.exists(tile, i)) {
        const int64_t at = cells.state_index(tile, i);
        store<E>(call.c_n, at, cells.state(k, i).x);
        store<E>(call.h_n, at, cells.state(k, i).y);
      }
}

// With the exchange of the plan.
template <class E, class S, class Call>
cudaError_t run_forward(const Call& call, const Plan& plan, cudaStream_t stream) {
  return launch_persistent<S>(plan.exchange == Exchange::tagged
                                  ? persistent_forward_kernel<E, S, TaggedExchange, Call>
                                  : persistent_forward_kernel<E, S, CounterExchange, Call>,
                              call, plan, stream);
}

// By the one of the compiled kernels that the plan says.
template <class Call>
cudaError_t launch_persistent_forward(const Call& call, const Plan& plan, cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    return plan.units == 16 ? run_forward<E, Shape<8, 4, 4>>(call, plan, stream)
                            : run_forward<E, Shape<8, 2, 8>>(call, plan, stream);
  });
}

}  // namespace lstm_kernels::cuda
