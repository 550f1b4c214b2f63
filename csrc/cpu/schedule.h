// Which rows take part in a step, in which order steps and panels are taken, and how a call's work
// is split between threads.
#pragma once
#include "kernels.h"
#include "tuning.h"

namespace lstm_kernels::LSTM_ISA {

// The steps of one direction in the order it processes them: step s works on time(s).
struct Steps {
  const cpu::Rows& rows;
  int64_t T, N;
  bool reverse;

  LSTM_INLINE int64_t time(int64_t s) const { return reverse ? T - 1 - s : s; }
  LSTM_INLINE int64_t count(int64_t t) const { return rows.counts ? rows.counts[t] : N; }
  LSTM_INLINE int64_t length(int64_t rank) const { return rows.lengths ? rows.lengths[rank] : T; }
  LSTM_INLINE int64_t sequence(int64_t rank) const { return rows.order ? rows.order[rank] : rank; }
  // Index of a row in the caller's (T, N) or packed arrays.
  LSTM_INLINE int64_t row(int64_t t, int64_t rank) const {
    return rows.offsets ? rows.offsets[t] + rank : t * N + sequence(rank);
  }
  LSTM_INLINE bool reset(int64_t t, int64_t rank) const {
    return rows.reset && rows.reset[t * N + sequence(rank)];
  }
  // A row of an input of any strides; `x_step` is 0 where it is packed.
  template <class S>
  LSTM_INLINE const S* input_row(const void* x, int64_t x_step, int64_t x_row, int64_t t,
                                 int64_t rank) const {
    return (const S*)x +
           (rows.offsets ? row(t, rank) * x_row : t * x_step + sequence(rank) * x_row);
  }
  // Part `id` of `parts` of the padded rows past the ends of their sequences.
  template <class Visit>
  LSTM_INLINE void past_ends(int64_t id, int64_t parts, Visit visit) const {
    if (!rows.counts || rows.offsets) return;
    for (int64_t t = T * id / parts; t < T * (id + 1) / parts; ++t)
      for (int64_t rank = count(t); rank < N; ++rank) visit(row(t, rank));
  }
};

// All rows that take part, step after step.
struct RowWalk {
  const Steps& steps;
  int64_t s = 0, rank = 0;

  // Calls visit(i, s, rank) for the next `most` rows, as far as there are any; says how many.
  template <class Visit>
  LSTM_INLINE int64_t next(int64_t most, Visit visit) {
    int64_t i = 0;
    while (i < most && s < steps.T)
      if (rank < steps.count(steps.time(s)))
        visit(i++, s, rank++);
      else
        ++s, rank = 0;
    return i;
  }
};

// The ranks that a part of a call works on: first, first + stride, ...
struct Share {
  int64_t first, stride, size;
  LSTM_INLINE int64_t rank(int64_t j) const { return first + j * stride; }
  // How many of them are below `count`: those active in a step are again the first ones.
  LSTM_INLINE int64_t active(int64_t count) const {
    return max_of(0, min_of(size, ceil_div(count - first, stride)));
  }
};

// How many threads a call is worth, by its multiply-adds: one when the whole call, or a step's
// share of it, is too short to pay for others.
LSTM_INLINE int threads_for_call(cpu::Threads threads, int64_t work) {
  return work < (threads.awake ? cpu::kCallWork : cpu::kWakingWork) ? 1 : threads.count;
}
LSTM_INLINE int threads_for_steps(cpu::Threads threads, int64_t steps, int64_t step_work) {
  const int most = threads_for_call(threads, steps * step_work);
  return int(max_of(1, min_of(most, step_work / cpu::kStepWork)));
}

// The parts that wait for each other between phases, up to the one that in_step says: see team.h.
struct Group {
  int first, last;
  int64_t in_step;
};
constexpr int64_t kAllPhases = int64_t(1) << 60;

// What one part of a call does. Each direction has its share of the parts, at least one, and waits
// for no other. Within a direction the work is split
//   by batch, each part its own sequences, where each still has enough rows to run at the FMA peak
//   although it reads all weights. Parts only wait until the weights are laid out in panels;
//   otherwise, and in short calls on weights as they are stored, by hidden units: each part its own
//   panels, in its thread's own cache. All parts wait for each other in every step.
struct Split {
  int direction;
  int id, size;  // among the parts of the direction
  bool by_batch;

  static LSTM_INLINE int parts(const Sizes& a, int threads) { return int(max_of(a.D, threads)); }

  LSTM_INLINE Split(const Sizes& a, int64_t weight_bytes, bool in_panels, int part, int threads) {
    const int all = parts(a, threads), half = a.D == 2 ? (all + 1) / 2 : all;
    direction = part < half ? 0 : 1;
    id = part - direction * half;
    size = direction ? all - half : half;
    const int64_t enough = weight_bytes <= kCachedWeights ? kFewBatchRows : kBatchRows;
    by_batch = in_panels && size > 1 && a.N >= enough * size;
  }
  // All parts wait for each other in every step.
  LSTM_INLINE bool in_step() const { return size > 1 && !by_batch; }
  LSTM_INLINE Group group(int part) const {
    return {part - id, part - id + size, in_step() ? kAllPhases : 1};
  }
  // The ranks that it computes. Ragged sequences are dealt out in turn, so that every part gets
  // long and short ones.
  LSTM_INLINE Share rows(int64_t N, bool ragged) const {
    if (!by_batch) return {0, 1, N};
    if (ragged) return {id, size, (N - id + size - 1) / size};
    return {begin(N), 1, end(N) - begin(N)};
  }
  // The ranks whose states it reads and writes.
  LSTM_INLINE Share states(int64_t N, bool ragged) const {
    return by_batch ? rows(N, ragged) : Share{begin(N), 1, end(N) - begin(N)};
  }
  LSTM_INLINE int64_t max_rows(int64_t N) const { return by_batch ? ceil_div(N, size) : N; }
  // Of the n rows of a step those that it takes alone, up to last_row, where panels do not matter.
  LSTM_INLINE int64_t first_row(int64_t n) const { return in_step() ? begin(n) : 0; }
  LSTM_INLINE int64_t last_row(int64_t n) const { return in_step() ? end(n) : n; }
  // Its part of n panels: those it lays out, and split by hidden units those it computes.
  LSTM_INLINE int64_t begin(int64_t n) const { return n * id / size; }
  LSTM_INLINE int64_t end(int64_t n) const { return n * (id + 1) / size; }
};

// Panels first .. last - 1 in the order of a step: forth in even steps, back in odd ones, so that a
// step begins with the weights that the nearest cache still has from the step before.
struct PanelOrder {
  int64_t first, last;
  bool back;
  LSTM_INLINE int64_t count() const { return last - first; }
  LSTM_INLINE int64_t panel(int64_t i) const { return back ? last - 1 - i : first + i; }
  LSTM_INLINE int64_t after(int64_t i) const { return i + 1 < count() ? panel(i + 1) : -1; }
};

}  // namespace lstm_kernels::LSTM_ISA
