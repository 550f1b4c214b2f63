// The gradient of a layer's input, from those of the gates' pre-activations (G_t below):
//
//   dx_t = sum over the directions of G_t W_ih
//
// The tiles of the other passes, with the columns of W_ih in panels. Every part takes chunks of
// rows in turn. Bound: the FMA peak.
#pragma once
#include "lay_out.h"
#include "pass.h"

namespace lstm_kernels::LSTM_ISA {

template <class S, class X>
struct InputGradientPart;

// X: what G is made of as an operand.
template <class S, class X>
struct InputGradient {
  using Part = InputGradientPart<S, X>;
  using T = compute<S>;
  static constexpr int L = lanes<T>;

  struct Work {      // of one part
    const X** rows;  // G of a chunk, one direction after the other
    S** to;          // rows of dx
    X* copy;         // of G, where `copies`: [direction][row][g_stride]
    T* sums;         // [row][vector][lane]
  };

  const cpu::GradInput& a;
  int parts;
  bool copies;  // G is widened or rounded, or ends within a pair or register
  int64_t g_stride, chunk_rows;
  Panels<T> w_ih[2];
  PartMemory memory;

  static int threads(const cpu::GradInput& a) {
    const Sizes& s = a.size;
    return threads_for_call(a.threads, s.T * s.N * s.D * kGates * s.H * s.I);
  }

  InputGradient(const cpu::GradInput& params, int threads, Arena& arena)
      : a(params), parts(threads) {
    const int64_t K = kGates * a.size.H, vectors = ceil_div(a.size.I, L);
    copies = !(is_same<S, number<X>> && K % whole_operand<X> == 0);
    g_stride = padded<X>(ceil_div(K, numbers_in<X>));
    chunk_rows = max_of(1, min_of(kInputGradientRows, ceil_div(a.size.T * a.size.N, parts)));
    for (int d = 0; d < a.size.D; ++d) {
      w_ih[d] = {nullptr, wide_format<X>, K, vectors, int(min_of(kMaxVectors, vectors))};
      w_ih[d].data = arena.take<char>(w_ih[d].bytes());
    }
    memory.take(arena, parts, [&](Arena& own) { work(own); });
  }

  LSTM_NOINLINE Work work(Arena& arena) const {
    Work w;
    w.rows = arena.take<const X*>(a.size.D * chunk_rows);
    w.to = arena.take<S*>(chunk_rows);
    w.copy = copies ? arena.take<X>(a.size.D * chunk_rows * g_stride) : nullptr;
    w.sums = arena.take<T>(chunk_rows * kMaxVectors * L);
    return w;
  }

  Group group(int) const { return {0, parts, 1}; }
  void prepare() {}
  void finish() const {}
};

// One part. Its phases: laying out W_ih; chunk after chunk.
template <class S, class X>
struct InputGradientPart : InArena {
  using Pass = InputGradient<S, X>;
  using T = compute<S>;
  static constexpr int L = lanes<T>;

  const Pass& pass;
  const cpu::GradInput& a;
  const int id;
  const Steps steps;
  RowWalk walk{steps};
  int64_t chunk = 0;
  bool ready = false;
  typename Pass::Work work;

  InputGradientPart(const Pass& pass, int part)
      : pass(pass), a(pass.a), id(part), steps{a.rows, a.size.T, a.size.N, false} {
    Arena memory = pass.memory.of(part);
    work = pass.work(memory);
  }

  bool run_phase() {
    if (!ready) {
      make_ready();
      return false;
    }
    for (;; ++chunk) {
      const bool mine = chunk % pass.parts == id;
      const int64_t rows = walk.next(pass.chunk_rows, [&](int64_t r, int64_t s, int64_t rank) {
        if (mine) read_row(r, steps.row(s, rank));
      });
      if (rows == 0) return true;
      if (!mine) continue;
      for (int64_t p = 0; p < pass.w_ih[0].count(); ++p) columns(p, rows);
      ++chunk;
      return false;
    }
  }

  void make_ready() {
    for (int d = 0; d < a.size.D; ++d)
      for (int64_t p = id; p < pass.w_ih[d].count(); p += pass.parts)
        lay_out_columns(pass.w_ih[d], p, (const S*)a.weights[d].w_ih, a.size.I);
    steps.past_ends(id, pass.parts,
                    [&](int64_t row) { zero_row((S*)a.grad_input + row * a.size.I, a.size.I); });
    ready = true;
  }

  LSTM_INLINE void read_row(int64_t r, int64_t row) const {
    const int64_t K = kGates * a.size.H, D = a.size.D;
    work.to[r] = (S*)a.grad_input + row * a.size.I;
    for (int64_t d = 0; d < D; ++d) {
      const S* g = (const S*)a.grad_preactivations + (row * D + d) * K;
      const int64_t i = d * pass.chunk_rows + r;
      work.rows[i] = (const X*)g;
      if (pass.copies) work.rows[i] = copied(work.copy + i * pass.g_stride, g, K);
    }
  }

  static const X* copied(X* to, const S* g, int64_t K) {
    copy_row(to, g, K);
    return to;
  }

  // The columns of panel p of `rows` rows of dx.
  void columns(int64_t p, int64_t rows) const {
    const int nv = pass.w_ih[0].width_of(p);
    __builtin_memset(work.sums, 0, size_t(rows * nv * L) * sizeof(T));
    const int64_t next = p + 1 < pass.w_ih[0].count() ? p + 1 : -1;
    for (int64_t d = 0; d < a.size.D; ++d)
      pass.w_ih[d].accumulate(p, next, work.rows + d * pass.chunk_rows, rows, work.sums);
    for (int64_t r = 0; r < rows; ++r)
      for (int v = 0; v < nv; ++v) {
        const int64_t column = (p * pass.w_ih[0].width + v) * L;
        store_n(work.to[r] + column, load(work.sums + (r * nv + v) * L), a.size.I - column);
      }
  }
};

}  // namespace lstm_kernels::LSTM_ISA
