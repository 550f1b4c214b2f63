// The gradients of one direction's weights, from those of the gates' pre-activations (G_t below):
// sums over all rows, (step, sequence) pairs, that take part.
//
//   dW_ih = sum of G_t x_t^T,   dW_hh = sum of G_t h_{t-1}^T,   db = sum of G_t
//
// A matrix product whose long dimension is the rows, so it goes over them in chunks. A chunk of x
// and h is copied into panels, which is where rows that start from h0, from zeros or from a
// neighbour all over the caller's arrays become one matrix; the same chunk of G is transposed, and
// meets both. The tiles are those of the other passes. Every part has its own gate units, and
// as many at a time as leave their sums in the outer cache. Sums are kept in the compute type, in
// the order of the steps. Where each gate's product had its own mask of h, these units are of one
// gate, whose mask is applied to the copy. Where pairs are multiplied, both copies are rounded to
// bfloat16. Bound: the FMA peak.
#pragma once
#include "lay_out.h"
#include "pass.h"
#include "variant_cell.h"

namespace lstm_kernels::LSTM_ISA {

template <class S, class X>
struct WeightGradientsPart;

// X: what G is made of as an operand.
template <class S, class X>
struct WeightGradients {
  using Part = WeightGradientsPart<S, X>;
  using T = compute<S>;
  static constexpr int L = lanes<T>;

  struct Work {             // of one part
    const S **g, **x, **h;  // rows of a chunk; null: zeros
    const S** masks;        // of h, likewise; null: none
    char* operands;         // panels of x, then of h: [panel][row][vector][lane]
    X* columns;             // G of the chunk: [gate unit][column_stride]
    const X** units;        // where each column begins
    T* bias;                // [gate unit]
    T* sums;                // x and h: [panel][gate unit][vector][lane]
  };

  const cpu::GradWeights& a;
  int parts;
  bool one_chunk;
  int64_t gate_units, x_vectors, h_vectors, column_stride, slab;
  PartMemory memory;

  static int threads(const cpu::GradWeights& a) {
    const Sizes& s = a.size;
    return threads_for_call(a.threads, s.T * s.N * kGates * s.H * (s.I + s.P));
  }

  WeightGradients(const cpu::GradWeights& params, int threads, Arena& arena)
      : a(params), parts(threads) {
    one_chunk = a.size.T * a.size.N <= kGradientRows;
    gate_units = kGates * a.size.H;
    x_vectors = ceil_div(a.size.I, L), h_vectors = ceil_div(a.size.P, L);
    column_stride = padded<X>(kGradientRows / numbers_in<X>);
    const int64_t unit_bytes = (x_vectors + h_vectors) * kVectorBytes;
    const int64_t own = round_up(ceil_div(gate_units, parts), L);
    slab = min_of(own, max_of(1, (one_chunk ? kChunkSums : kSums) / unit_bytes / L) * L);
    memory.take(arena, parts, [&](Arena& own) { work(own); });
  }

  LSTM_NOINLINE Work work(Arena& arena) const {
    Work w;
    w.g = arena.take<const S*>(kGradientRows);
    w.x = arena.take<const S*>(kGradientRows), w.h = arena.take<const S*>(kGradientRows);
    w.masks = a.gate_masks.data ? arena.take<const S*>(kGradientRows) : nullptr;
    w.operands = arena.take<char>(panels(nullptr, kGradientRows, x_vectors + h_vectors).bytes());
    w.columns = arena.take<X>(slab * column_stride);
    w.units = arena.take<const X*>(slab);
    w.bias = arena.take<T>(slab);
    w.sums = arena.take<T>(slab * (x_vectors + h_vectors) * L);
    for (int64_t u = 0; w.columns && u < slab; ++u) w.units[u] = w.columns + u * column_stride;
    return w;
  }

  // Panels of rows of x or h.
  static Panels<T> panels(char* data, int64_t rows, int64_t vectors) {
    return {data, wide_format<X>, rows, vectors, kMaxVectors};
  }

  Group group(int) const { return {0, parts, 0}; }
  void prepare() {}
  void finish() const {}
};

// One part: whole vectors of gate units, as many at a time, a slab, as the pass says. Its phases:
// chunk after chunk of rows, slab after slab.
template <class S, class X>
struct WeightGradientsPart : InArena {
  using Pass = WeightGradients<S, X>;
  using T = compute<S>;
  static constexpr int L = lanes<T>;

  const Pass& pass;
  const cpu::GradWeights& a;
  typename Pass::Work work;
  const Steps steps;
  int64_t end;           // of its gate units
  int64_t first, count;  // gate units of the slab
  bool laid_out;         // the operands, by the slab before
  RowWalk walk{steps};

  WeightGradientsPart(const Pass& pass, int part)
      : pass(pass), a(pass.a), steps{a.rows, a.size.T, a.size.N, a.direction == 1} {
    Arena memory = pass.memory.of(part);
    work = pass.work(memory);
    const int64_t vectors = ceil_div(pass.gate_units, L);
    first = vectors * part / pass.parts * L, count = 0;
    end = min_of(pass.gate_units, vectors * (part + 1) / pass.parts * L);
    laid_out = false;
  }

  bool run_phase() {
    if (!count && first < end) begin_slab();
    if (count) {
      const int64_t rows = next_chunk();
      if (rows) {
        add(rows);
        return false;
      }
      end_slab();
    }
    return first >= end;
  }

  void begin_slab() {
    count = min_of(pass.slab, end - first);
    if (a.gate_masks.data) count = min_of(count, (gate() + 1) * a.size.H - first);
    __builtin_memset(work.sums, 0,
                     size_t(count * (pass.x_vectors + pass.h_vectors) * L) * sizeof(T));
    __builtin_memset(work.bias, 0, size_t(round_up(count, L)) * sizeof(T));
    walk.s = walk.rank = 0;
  }

  void end_slab() {
    write(x_panels(0), work.sums, (S*)a.grad_w_ih, a.size.I);
    write(h_panels(0), h_sums(), (S*)a.grad_w_hh, a.size.P);
    S* grad_bias = (S*)a.grad_bias + first;
    for (int64_t u = 0; u < count; u += L) store_n(grad_bias + u, load(work.bias + u), count - u);
    first += count, count = 0;
    laid_out = pass.one_chunk;
  }
  int64_t gate() const { return first / a.size.H; }

  // The rows of the next chunk; says how many.
  int64_t next_chunk() {
    const int64_t D = a.size.D, P = a.size.P;
    return walk.next(kGradientRows, [&](int64_t k, int64_t s, int64_t rank) {
      const int64_t t = steps.time(s), row = steps.row(t, rank) * D + a.direction;
      work.g[k] = (const S*)a.grad_preactivations + row * pass.gate_units;
      work.x[k] = steps.input_row<S>(a.x, a.x_step, a.x_row, t, rank);
      if (work.masks)
        work.masks[k] =
            VariantRow<S>::row(a.gate_masks, t, steps.sequence(rank), D, a.direction, kGates * P) +
            gate() * P;
      work.h[k] = nullptr;
      if (steps.reset(t, rank)) return;
      if (s > 0 && rank < steps.count(steps.time(s - 1)))
        work.h[k] = (const S*)a.output + (steps.row(steps.time(s - 1), rank) * D + a.direction) * P;
      else if (a.h0)
        work.h[k] = (const S*)a.h0 + (a.direction * a.size.N + steps.sequence(rank)) * P;
    });
  }

  Panels<T> x_panels(int64_t rows) const {
    return Pass::panels(work.operands, rows, pass.x_vectors);
  }
  Panels<T> h_panels(int64_t rows) const {
    return Pass::panels(work.operands + x_panels(rows).bytes(), rows, pass.h_vectors);
  }
  T* h_sums() const { return work.sums + count * pass.x_vectors * L; }

  void add(int64_t rows) {
    transpose_rows(rows);
    if (!laid_out) lay_out_operand(x_panels(rows), work.x, nullptr, a.size.I);
    if (!laid_out || work.masks) lay_out_operand(h_panels(rows), work.h, work.masks, a.size.P);
    accumulate(x_panels(rows), work.sums);
    accumulate(h_panels(rows), h_sums());
  }

  // columns[u][k] = g[k][u], and bias[u] += the sum of it.
  LSTM_NOINLINE void transpose_rows(int64_t rows) {
    for (int64_t k = 0; k < rows; k += L)
      for (int64_t u = 0; u < count; u += L) {
        vec<T> block[L], sum = {};
        for (int l = 0; l < L; ++l) {
          block[l] = k + l < rows ? load_n(work.g[k + l] + first + u, count - u) : vec<T>{};
          sum += block[l];
        }
        store(work.bias + u, load(work.bias + u) + sum);
        transpose<T>(block);
        for (int64_t l = 0; l < min_of(L, count - u); ++l)
          store((number<X>*)(work.columns + (u + l) * pass.column_stride) + k, block[l]);
      }
    if (ceil_div(rows, L) % numbers_in<X>)  // up to whole vectors of pairs
      for (int64_t u = 0; u < count; ++u)
        store((number<X>*)(work.columns + u * pass.column_stride) + round_up(rows, L), vec<T>{});
  }

  LSTM_NOINLINE void lay_out_operand(const Panels<T>& to, const S* const* from,
                                     const S* const* masks, int64_t columns) {
    for (int64_t k = 0; k < to.K; ++k)
      for (int64_t p = 0; p < to.count(); ++p) {
        const int nv = to.width_of(p);
        for (int v = 0; v < nv; ++v) {
          const int64_t column = (p * to.width + v) * L;
          vec<T> operand = {};
          if (from[k]) operand = load_n(from[k] + column, columns - column);
          if (from[k] && masks) operand *= load_n(masks[k] + column, columns - column);
          store_column((X*)to.panel(p), k, v, nv, operand);
        }
      }
    for (int64_t p = 0; is_same<X, bf16_pair> && p < to.count(); ++p) to.end_pairs(p);
  }

  void accumulate(const Panels<T>& operands, T* sums) {
    for (int64_t p = 0; p < operands.count(); ++p)
      operands.accumulate(p, -1, work.units, count, sums + p * operands.width * L * count);
  }

  void write(const Panels<T>& operands, const T* sums, S* to, int64_t columns) {
    for (int64_t u = 0; u < count; ++u)
      for (int64_t p = 0; p < operands.count(); ++p) {
        const int nv = operands.width_of(p);
        const T* from = sums + (p * operands.width * count + u * nv) * L;
        for (int v = 0; v < nv; ++v) {
          const int64_t column = (p * operands.width + v) * L;
          store_n(to + (first + u) * columns + column, load(from + v * L), columns - column);
        }
      }
  }
};

}  // namespace lstm_kernels::LSTM_ISA
