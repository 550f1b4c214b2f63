// The gradient of a layer's input, from those of the gates' pre-activations (G_t below):
//
//   dx_t = sum over the directions of G_t W_ih
//
// The tiles of the other passes, with the columns of W_ih in panels. Every thread takes chunks of
// rows in turn. Bound: the FMA peak.
#pragma once
#include "lay_out.h"
#include "pass.h"

namespace lstm_kernels::LSTM_ISA {

template <class S>
struct InputGradient {
  using T = compute<S>;
  static constexpr int L = lanes<T>;

  struct Work {      // of one thread
    const T** rows;  // G of a chunk, one direction after the other
    S** to;          // rows of dx
    T* wide;         // G widened, for 16-bit types: [direction][row][g_stride]
    T* sums;         // [row][vector][lane]
  };

  const cpu::GradInput& a;
  int team;
  int64_t g_stride, chunk_rows;
  Panels<T> w_ih[2];
  Flag* flags;
  ThreadMemory memory;

  static int threads(const cpu::GradInput& a) {
    const Sizes& s = a.size;
    return s.T * s.N * s.D * kGates * s.H * s.I < cpu::kCallWork ? 1 : max_of(1, a.threads);
  }

  InputGradient(const cpu::GradInput& params, int threads, Arena& arena)
      : a(params), team(threads) {
    const int64_t K = kGates * a.size.H, vectors = ceil_div(a.size.I, L);
    g_stride = padded<T>(K);
    chunk_rows = max_of(1, min_of(kInputGradientRows, ceil_div(a.size.T * a.size.N, team)));
    for (int d = 0; d < a.size.D; ++d) {
      w_ih[d] = {nullptr, Format::kCompute, K, vectors, int(min_of(kMaxVectors, vectors))};
      w_ih[d].data = arena.take<char>(w_ih[d].bytes());
    }
    flags = arena.take<Flag>(team);
    memory.take(arena, team, [&](Arena& own) { work(own); });
  }

  Work work(Arena& arena) const {
    Work w;
    w.rows = arena.take<const T*>(a.size.D * chunk_rows);
    w.to = arena.take<S*>(chunk_rows);
    w.wide = is_same<S, T> ? nullptr : arena.take<T>(a.size.D * chunk_rows * g_stride);
    w.sums = arena.take<T>(chunk_rows * kMaxVectors * L);
    return w;
  }

  void prepare() { __builtin_memset(flags, 0, size_t(team) * sizeof(Flag)); }

  void run(int thread) {
    Arena own = memory.of(thread);
    const Work w = work(own);
    const Steps steps{a.rows, a.size.T, a.size.N, false};
    for (int d = 0; d < a.size.D; ++d)
      for (int64_t p = thread; p < w_ih[d].count(); p += team)
        lay_out_columns(w_ih[d], p, (const S*)a.weights[d].w_ih, a.size.I);
    steps.past_ends(thread, team,
                    [&](int64_t row) { zero_row((S*)a.grad_input + row * a.size.I, a.size.I); });
    Barrier(flags, thread, team).wait();
    RowWalk walk{steps};
    for (int64_t chunk = 0;; ++chunk) {
      const bool mine = chunk % team == thread;
      const int64_t rows = walk.next(chunk_rows, [&](int64_t r, int64_t s, int64_t rank) {
        if (mine) read_row(w, r, steps.row(s, rank));
      });
      if (rows == 0) break;
      for (int64_t p = 0; mine && p < w_ih[0].count(); ++p) columns(w, p, rows);
    }
  }

  LSTM_INLINE void read_row(const Work& w, int64_t r, int64_t row) const {
    const int64_t K = kGates * a.size.H, D = a.size.D;
    w.to[r] = (S*)a.grad_input + row * a.size.I;
    for (int64_t d = 0; d < D; ++d) {
      const S* g = (const S*)a.grad_preactivations + (row * D + d) * K;
      if constexpr (is_same<S, T>) {
        w.rows[d * chunk_rows + r] = g;
      } else {
        T* wide = w.wide + (d * chunk_rows + r) * g_stride;
        copy_row(wide, g, K);
        w.rows[d * chunk_rows + r] = wide;
      }
    }
  }

  // The columns of panel p of `rows` rows of dx.
  void columns(const Work& w, int64_t p, int64_t rows) const {
    const int nv = w_ih[0].width_of(p);
    __builtin_memset(w.sums, 0, size_t(rows * nv * L) * sizeof(T));
    const int64_t next = p + 1 < w_ih[0].count() ? p + 1 : -1;
    for (int64_t d = 0; d < a.size.D; ++d)
      w_ih[d].accumulate(p, next, w.rows + d * chunk_rows, rows, w.sums);
    for (int64_t r = 0; r < rows; ++r)
      for (int v = 0; v < nv; ++v) {
        const int64_t column = (p * w_ih[0].width + v) * L;
        store_n(w.to[r] + column, load(w.sums + (r * nv + v) * L), a.size.I - column);
      }
  }
};

}  // namespace lstm_kernels::LSTM_ISA
