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
  // A row of an input with strides of its own; `x_step` is 0 where it is packed.
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

// The ranks one thread works on: first, first + stride, ...
struct Share {
  int64_t first, stride, size;
  LSTM_INLINE int64_t rank(int64_t j) const { return first + j * stride; }
  // How many of them are below `count`: those active in a step are again the first ones.
  LSTM_INLINE int64_t active(int64_t count) const {
    return max_of(0, min_of(size, ceil_div(count - first, stride)));
  }
};

// How many threads a call is worth, and who does what.
//   One thread when the whole call, or a step's share of it, is too short to pay for waking others.
//   Two directions go to two halves of the team: they never wait for each other.
//   Within a direction: by batch (each thread its own sequences, no waiting at all) where each
//   thread still has enough rows to run at the FMA peak although it reads all weights; otherwise,
//   and in short calls on weights as they are stored, by hidden units (each thread its own panels,
//   in its own cache, one barrier per step).
LSTM_INLINE int useful_threads(const Sizes& size, int threads, int64_t step_work) {
  if (size.T * step_work < cpu::kCallWork) return 1;
  return int(max_of(1, min_of(threads, step_work / cpu::kStepWork)));
}

struct Member {
  int first_direction, last_direction;  // the directions this thread works on
  int id, size;                         // among the threads of its direction
  bool by_batch;

  LSTM_INLINE Member(const Sizes& a, int64_t weight_bytes, bool in_panels, int thread,
                     int threads) {
    first_direction = 0, last_direction = a.D - 1, id = thread, size = threads;
    if (a.D == 2 && threads > 1) {
      const int half = (threads + 1) / 2;
      first_direction = last_direction = thread < half ? 0 : 1;
      id = thread < half ? thread : thread - half;
      size = thread < half ? half : threads - half;
    }
    const int64_t enough = weight_bytes <= kCachedWeights ? kFewBatchRows : kBatchRows;
    by_batch = in_panels && size > 1 && a.N >= enough * size;
  }
  // Ragged sequences are dealt out in turn, so that every thread gets long and short ones.
  LSTM_INLINE Share rows(int64_t N, bool ragged) const {
    if (!by_batch) return {0, 1, N};
    if (ragged) return {id, size, (N - id + size - 1) / size};
    const int64_t begin = N * id / size;
    return {begin, 1, N * (id + 1) / size - begin};
  }
  LSTM_INLINE int64_t max_rows(int64_t N) const { return by_batch ? ceil_div(N, size) : N; }
  // This thread's part of n panels: the panels it lays out, and in a hidden split those it
  // computes.
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
