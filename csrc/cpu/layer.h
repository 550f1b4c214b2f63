// What the forward and the backward pass of a layer share: which rows take part in a step, how the
// work is split between threads, and where scratch memory lies.
#pragma once
#include "kernels.h"
#include "panels.h"
#include "team.h"

namespace lstm_kernels::LSTM_ISA {

using cpu::Barrier;
using cpu::Flag;

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
//   and in short calls on unpacked weights, by hidden units (each thread its own panels, in its own
//   cache, one barrier per step).
constexpr int64_t kCallWork = 1 << 20;  // multiply-adds in a call worth a second thread
constexpr int64_t kStepWork = 1 << 15;  // multiply-adds in a step, per thread
// Rows per thread from which the batch is split, and the same while the recurrent weights, so many
// bytes, stay in a thread's cache. Processors with AVX-512 have twice the L2, and need half of its
// speed for a tile.
constexpr bool kWide = kVectorBytes == 64;
constexpr int64_t kBatchRows = kWide ? 8 : 24, kFewBatchRows = kWide ? 4 : 8;
constexpr int64_t kCachedWeights = kWide ? 1 << 20 : 1 << 19;

LSTM_INLINE int useful_threads(const Sizes& size, int threads, int64_t step_work) {
  if (size.T * step_work < kCallWork) return 1;
  return int(max_of(1, min_of(threads, step_work / kStepWork)));
}

struct Member {
  int first_direction, last_direction;  // the directions this thread works on
  int id, size;                         // among the threads of its direction
  bool by_batch;

  LSTM_INLINE Member(const Sizes& a, int64_t weight_bytes, bool packed, int thread, int threads) {
    first_direction = 0, last_direction = a.D - 1, id = thread, size = threads;
    if (a.D == 2 && threads > 1) {
      const int half = (threads + 1) / 2;
      first_direction = last_direction = thread < half ? 0 : 1;
      id = thread < half ? thread : thread - half;
      size = thread < half ? half : threads - half;
    }
    const int64_t enough = weight_bytes <= kCachedWeights ? kFewBatchRows : kBatchRows;
    by_batch = packed && size > 1 && a.N >= enough * size;
  }
  // Ragged sequences are dealt out in turn, so that every thread gets long and short ones.
  LSTM_INLINE Share rows(int64_t N, bool ragged) const {
    if (!by_batch) return {0, 1, N};
    if (ragged) return {id, size, (N - id + size - 1) / size};
    const int64_t begin = N * id / size;
    return {begin, 1, N * (id + 1) / size - begin};
  }
  LSTM_INLINE int64_t max_rows(int64_t N) const { return by_batch ? ceil_div(N, size) : N; }
  // This thread's part of n panels: the panels it packs, and in a hidden split those it computes.
  LSTM_INLINE int64_t begin(int64_t n) const { return n * id / size; }
  LSTM_INLINE int64_t end(int64_t n) const { return n * (id + 1) / size; }
};

// 16-bit weights are widened while packing when they are used often enough to be compute-bound;
// with few rows per step reading them narrow saves more time than widening them costs. SSE2 has no
// instructions for it, and always widens.
constexpr int64_t kNarrowRows = 4;
template <class S>
LSTM_INLINE Format weight_format(int64_t N) {
  if constexpr (is_same<S, compute<S>>) return Format::kCompute;
  if (N > kNarrowRows || (kVectorBytes == 16 && kVectorRegisters == 16)) return Format::kCompute;
  return is_same<S, bf16> ? Format::kBFloat16 : Format::kFloat16;
}

// What one row of a recurrent product is made of: numbers of the compute type, or pairs of the
// stored ones, which h is rounded to in any case, where the instruction set multiplies those
// faster.
template <class S>
struct operand_type {
  using type = compute<S>;
};
template <>
struct operand_type<bf16> {
  using type = pick<kMultipliesPairs, bf16_pair, float>;
};
template <class S>
using operand = typename operand_type<S>::type;
template <class X, class S>
LSTM_INLINE Format operand_format(int64_t N) {
  return is_same<X, bf16_pair> ? Format::kPairs : weight_format<S>(N);
}

// Panels first .. last - 1 in the order of a step: forth in even steps, back in odd ones, so that a
// step begins with the weights that the nearest cache still has from the step before.
struct PanelOrder {
  int64_t first, last;
  bool back;
  LSTM_INLINE int64_t count() const { return last - first; }
  LSTM_INLINE int64_t panel(int64_t i) const { return back ? last - 1 - i : first + i; }
  LSTM_INLINE int64_t after(int64_t i) const { return i + 1 < count() ? panel(i + 1) : -1; }
};

// Hands out parts of the caller's scratch memory. Without a base it only measures.
class Arena {
 public:
  explicit Arena(void* base) : base_((char*)base) {}
  template <class X>
  X* take(int64_t n) {
    char* p = base_ ? base_ + used_ : nullptr;
    used_ += size_t(round_up(n * int64_t(sizeof(X)), 128));
    return (X*)p;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// Elements from one row of a state to the next: whole vectors, and never a multiple of 1 KiB, which
// would put the rows of a tile into the same few sets of the cache.
template <class T>
LSTM_INLINE int64_t padded(int64_t n) {
  const int64_t stride = round_up(max_of(n, 1), lanes<T>);
  return stride * int64_t(sizeof(T)) % 1024 ? stride : stride + 64 / int64_t(sizeof(T));
}

template <class T, class S>
LSTM_INLINE void copy_row(T* to, const S* from, int64_t n) {  // from null: zeros; `to` is padded
  constexpr int L = lanes<compute<T>>;
  for (int64_t i = 0; i < n; i += L)
    store(to + i, from ? load_n(from + i, n - i) : vec<compute<T>>{});
}
template <class S>
LSTM_INLINE void copy_row(bf16_pair* to, const S* from, int64_t n) {
  copy_row(&to->first, from, n);
}
template <class S, class T>
LSTM_INLINE void copy_out(S* to, const T* from, int64_t n) {  // `from` is padded
  constexpr int L = lanes<compute<T>>;
  for (int64_t i = 0; i < n; i += L) store_n(to + i, load(from + i), n - i);
}
template <class S>
LSTM_INLINE void zero_row(S* to, int64_t n) {
  __builtin_memset(to, 0, size_t(n) * sizeof(S));
}

// Runs `Pass<S>` with the threads it wants. A team that comes out smaller than planned (a thread
// limit, a nested region) leaves the work to its first thread.
template <class Pass, class Params>
LSTM_INLINE size_t scratch_of(const Params& a) {
  Arena planned(nullptr), alone(nullptr);
  Pass(a, Pass::threads(a), planned), Pass(a, 1, alone);
  return planned.used() > alone.used() ? planned.used() : alone.used();
}
template <class Pass, class Params>
void run_pass(const Params& a, void* scratch) {
  struct Call {
    const Params& params;
    void* scratch;
    Pass planned;
  };
  Arena arena(scratch);
  const int threads = Pass::threads(a);
  Call call{a, scratch, Pass(a, threads, arena)};
  call.planned.clear_flags();
  auto body = [](void* context, int id, int size) {
    Call& c = *(Call*)context;
    if (size == c.planned.team) return c.planned.run(id);
    if (id > 0) return;
    Arena again(c.scratch);
    Pass alone(c.params, 1, again);
    alone.clear_flags();
    alone.run(0);
  };
  cpu::run_team(threads, body, &call);
}

}  // namespace lstm_kernels::LSTM_ISA
