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
#include "persistent_cell.cuh"

namespace lstm_kernels::cuda {

// What a round reads for the cells of a thread, as it is stored.
template <class E, class Asked, int kCells>
struct BackwardInputs {
  // Of a cell: it takes part; it is reset; the step after reset h and c; it starts from c = 0.
  enum Mark { kActive, kReset, kCut, kFromZero, kMarks };
  unsigned marks = 0;  // kCells bits of each
  static_assert(kMarks * kCells <= 32);
  DEV void mark(Mark what, int i) { marks |= 1u << (what * kCells + i); }
  DEV bool is(Mark what, int i) const { return marks >> (what * kCells + i) & 1; }
  E gate[kCells][kGates];
  E c[kCells], c_prev[kCells], grad_h[kCells], grad_c[kCells];
  Asked asked[kCells];
};

template <class E, class S, template <class> class Exchange, class Call>
__global__ void __launch_bounds__(S::kThreads, 1)
    persistent_backward_kernel(const __grid_constant__ Call call,
                               const __grid_constant__ Plan plan) {
  constexpr int kUnits = S::kRows;
  constexpr int kCells = Cells<S, kUnits>::kCount;
  using Inputs = BackwardInputs<E, typename BackwardCell<E, Call>::Asked, kCells>;
  using Gradient = typename BackwardCell<E, Call>::Gradient;

  const int T = int(call.size.T), N = int(call.size.N), H = int(call.size.H);
  const Place place(plan, call.size);
  const int D = place.directions, direction = place.direction;
  const Sequences sequences(call.rows, N);
  // The state of a cell: the gradients, from later steps, of c and of h other than through W_hh: of
  // sequences that have ended, until their last step is reached, and what zoneout passes by a cell.
  Cells<S, kUnits> cells(plan, call.size, direction);
  const BackwardCell<E, Call> lstm(call, plan, cells.unit());
  unsigned char* shared = shared_memory<unsigned char>();
  float* partials = reinterpret_cast<float*>(shared + plan.partials_at);

  const E* w_hh = static_cast<const E*>(call.w_hh[direction]);
  const StationaryWeights<E, S> weights(
      plan.pairs, reinterpret_cast<uint4*>(shared), [&](int row, int column) {
        const int to = int(blockIdx.x) * kUnits + row, gate = column / plan.gate_columns;
        const int from = column % plan.gate_columns;
        const E* w = w_hh + (int64_t(gate) * H + from) * H + to;
        return gather<E>([&](int e) {
          return to < H && from + e < H ? read_only(w + int64_t(e) * H) : narrow<E>(0);
        });
      });
  const Exchange<E> exchange(call.workspace, place, cells.row(0), cells.unit());
  const int sums_at = weights.sums_at(cells.row(0)) + cells.local_unit();
  // Round r undoes step T - 1 - r.
  const auto time_of = [&](int round) { return direction ? round : T - 1 - round; };
  // Addresses of cells that take no part are those of the first row,
  // so that no load waits for a branch.
  const auto ask = [&](int round, int tile) {
    Inputs inputs;
    const int step = T - 1 - round, t = time_of(round);
    const int t_before = direction ? t + 1 : t - 1, t_after = direction ? t - 1 : t + 1;
#pragma unroll
    for (int i = 0; i < kCells; i++) {
      if (!cells.in_tile(i)) continue;
      const int n = cells.sequence(tile, i), unit = cells.unit();
      const bool exists = cells.exists(tile, i) && step >= -1;
      const bool now = exists && step >= 0 && sequences.takes_part(t, n);
      if (now) inputs.mark(Inputs::kActive, i);
      if (exists && !sequences.plain()) {
        if (now && sequences.is_reset(t, n)) inputs.mark(Inputs::kReset, i);
        if (round > 0 && sequences.takes_part(t_after, n) && sequences.is_reset(t_after, n))
          inputs.mark(Inputs::kCut, i);
      }
      const int64_t at = now ? sequences.row(t, n) * D + direction : 0;
      const int64_t place_in_row = now ? unit : 0;
      const bool has_before = now && step > 0 && sequences.takes_part(t_before, n);
      const int64_t before = has_before ? (sequences.row(t_before, n) * D + direction) * H + unit
                             : now      ? (int64_t(direction) * N + n) * H + unit
                                        : 0;
      if (!has_before && !call.c0) inputs.mark(Inputs::kFromZero, i);
      const int64_t element = at * H + place_in_row;
      inputs.c[i] = read_only(static_cast<const E*>(call.cell) + element);
      inputs.c_prev[i] = load_or_any<E>(has_before ? call.cell : call.c0, before, call.cell);
      inputs.grad_h[i] = load_or_any<E>(call.grad_output, element, call.cell);
      inputs.grad_c[i] = load_or_any<E>(call.grad_cell, element, call.cell);
#pragma unroll
      for (int q = 0; q < kGates; q++)
        inputs.gate[i][q] =
            read_only(static_cast<const E*>(call.gates) + (at * kGates + q) * H + place_in_row);
      inputs.asked[i] = lstm.ask(now ? t : 0, exists && round > 0 ? t_after : 0, exists ? n : 0,
                                 exists ? unit : 0);
    }
    return inputs;
  };

  const int first_tile = int(blockIdx.y);
  for (int tile = first_tile, k = 0; tile < plan.tiles; tile += plan.groups, k++)
#pragma unroll 1
    for (int i = 0; i < kCells; i++)
      if (cells.exists(tile, i)) {
        const int64_t at = cells.state_index(tile, i);
        cells.state(k, i) =
            make_float2(load_or_zero<E>(call.grad_c_n, at), load_or_zero<E>(call.grad_h_n, at));
      }

  Inputs next = ask(0, first_tile);
  int turn = 0;
  for (int round = 0; round <= T; round++) {  // the last one undoes no step
    const int step = T - 1 - round, t = time_of(round);
    for (int tile = first_tile, k = 0; tile < plan.tiles; tile += plan.groups, k++) {
      const Inputs inputs = next;
      float* const sums_of_tile = partials + (turn++ & 1) * plan.partials_turn;
      if (round > 0) {
        exchange.await(round - 1, tile);
        weights.multiply(exchange.moving(round - 1, tile), plan.tile_rows / 8, sums_of_tile);
      }
      cells.forget_addresses();
      const float* const sums_of_cells = sums_of_tile + sums_at;
      auto* const place_of_gradients = exchange.place(round, tile);
      if (round > 0) __syncthreads();  // [partial sums are there]

      Gradient grad[kCells] = {};
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        if (!cells.in_tile(i)) continue;
        const int unit = cells.unit();
        if (cells.exists(tile, i)) {
          const int n = cells.sequence(tile, i);
          float2& state = cells.state(k, i);
          float dh = state.y;
          if (round > 0 && !inputs.is(Inputs::kCut, i)) {
            const float* sums = sums_of_cells + weights.sums_at(cells.down(i));
            float recurrent = 0.f;
#pragma unroll
            for (int warp = 0; warp < S::kWarps; warp++)
              recurrent += sums[warp * 8 * S::kPartialStride];
            dh += lstm.from_later(recurrent, inputs.asked[i]);
          }
          if (inputs.is(Inputs::kActive, i)) {
            const bool is_reset = inputs.is(Inputs::kReset, i);
            float grad_gate[kGates] = {};
            if (call.grad_gates) {  // not worth registers during the product: few ask for it
              const int64_t at = sequences.row(t, n) * D + direction;
#pragma unroll
              for (int q = 0; q < kGates; q++)
                grad_gate[q] = load_or_zero<E>(call.grad_gates, (at * kGates + q) * H + unit);
            }
            float gate[kGates];
#pragma unroll
            for (int q = 0; q < kGates; q++) gate[q] = widen(inputs.gate[i][q]);
            const bool no_c_prev = is_reset || inputs.is(Inputs::kFromZero, i);
            if (call.grad_output) dh += widen(inputs.grad_h[i]);
            const float dc = call.grad_cell ? state.x + widen(inputs.grad_c[i]) : state.x;
            grad[i] =
                lstm.retreat(gate, widen(inputs.c[i]), no_c_prev ? 0.f : widen(inputs.c_prev[i]),
                             dh, dc, grad_gate, inputs.asked[i]);
            state = make_float2(is_reset ? 0.f : grad[i].c_prev, is_reset ? 0.f : grad[i].h_prev);
          } else {
            state.y = dh;
          }
        }
        if (step >= 0)
#pragma unroll
          for (int q = 0; q < kGates; q++)
            exchange.publish(place_of_gradients, round, cells.down(i), q,
                             narrow<E>(grad[i].preactivation[q]), cells.exists(tile, i),
                             cells.has_sequence(tile, i));
      }
      exchange.announce(round, tile);

      // What no other block waits for.
      cells.forget_addresses();
      const bool last = tile + plan.groups >= plan.tiles;
      next = ask(last ? round + 1 : round, last ? first_tile : tile + plan.groups);
#pragma unroll
      for (int i = 0; i < kCells; i++) {
        const bool has_row = cells.exists(tile, i) && step >= 0 &&
                             (inputs.is(Inputs::kActive, i) || !sequences.packed());
        if (!has_row) continue;
        const int64_t at = sequences.row(t, cells.sequence(tile, i)) * D + direction;
#pragma unroll
        for (int q = 0; q < kGates; q++)
          store<E>(call.grad_preactivations, (at * kGates + q) * H + cells.unit(),
                   grad[i].preactivation[q]);
        lstm.store_row(at * H + cells.unit(), grad[i]);
      }
    }
  }

  for (int tile = first_tile, k = 0; tile < plan.tiles; tile += plan.groups, k++)
#pragma unroll 1
    for (int i = 0; i < kCells; i++)
      if (cells.exists(tile, i)) {
        const int64_t at = cells.state_index(tile, i);
        store<E>(call.grad_c0, at, cells.state(k, i).x);
        store<E>(call.grad_h0, at, cells.state(k, i).y);
      }
  if (cells.in_tile(0) && cells.unit() < H)
    lstm.finish(first_tile * plan.tile_rows + cells.row(0), cells.unit());
}

// With the exchange of the plan.
template <class E, class S, class Call>
cudaError_t run_backward(const Call& call, const Plan& plan, cudaStream_t stream) {
  return launch_persistent<S>(plan.exchange == Exchange::tagged
                                  ? persistent_backward_kernel<E, S, TaggedExchange, Call>
                                  : persistent_backward_kernel<E, S, CounterExchange, Call>,
                              call, plan, stream);
}

// By the one of the compiled kernels that the plan says.
template <class Call>
cudaError_t launch_persistent_backward(const Call& call, const Plan& plan, cudaStream_t stream) {
  return with_operand_dtype(call.dtype, plan.full_float32, [&]<class E>(E) {
    return run_backward<E, Shape<8, 1, 16>>(call, plan, stream);
  });
}

}  // namespace lstm_kernels::cuda
