// The forward pass of one layer over a whole sequence, all directions.
//
//   gates = bias + x_t W_ih^T + h_{t-1} W_hh^T,   i, f, o = sigmoid, g = tanh
//   c_t = f * c_{t-1} + i * g
//   h_t = o * tanh(c_t),   with a projection h_t = (o * tanh(c_t)) W_hr^T
//
// Each panel of weights holds the four gates of the same hidden units, so the cell follows from a
// panel's result while that is in L1. Input products are made for about kChunkRows rows at a time,
// because W_ih is then read once for several steps; when one step has that many rows by itself,
// both products are made together. States live in scratch, in the compute type: c is carried in
// full precision, h is the rounded h that the caller sees, so that going on from a returned h gives
// the same numbers. What the caller asked for is written once, in its final place. Bound: FMA peak
// from about 8 rows on; with fewer, the bandwidth of the cache holding W_hh, which is why odd steps
// take the panels in reverse: the last ones are still in the nearest cache.
#pragma once
#include "direct.h"
#include "weight_panels.h"

namespace lstm_kernels::LSTM_ISA {

constexpr int64_t kChunkRows = 96;

inline bool reads_unpacked(const cpu::SequenceForward& a) {
  return !a.prepacked && cpu::direct(a.size);
}

// X: what x and h are made of. On unpacked weights it is the compute type.
template <class S, class X>
struct Forward {
  using T = compute<S>;
  static constexpr int L = lanes<T>;
  static constexpr int64_t kPanel = WeightPanels<S>::kPanel;

  struct Direction {
    WeightPanels<S> weights;
    X* h[2];         // [rank][h_stride], read and written in turn
    T* c;            // [rank][c_stride]
    T* unprojected;  // [rank][c_stride]: o * tanh(c), where there is a projection
    Flag* flags;
  };
  struct Work {             // of one thread
    const X **x, **h;       // operand rows
    int64_t* at;            // the step's rows in the caller's arrays, (rows, D)
    const T** unprojected;  // likewise, of the projection
    X* x_copy;              // [row][x_stride]: input rows, where they are widened or padded
    T* operands;            // x, then h, as pack_operands leaves them
    T* sums;                // of a panel with them: [gate][unit][vector][operand]
    T* pre;                 // pre-activations: [panel][row][gate][lane]
    T* projected;           // one panel of h_t: [row][vector][lane], where there is a projection
  };

  const cpu::SequenceForward& a;
  int team;
  bool direct;  // the weights are read as they are
  bool copies;  // the input's rows are not
  int64_t panels, h_stride, c_stride, x_stride;
  Direction directions[2];
  X* zeros;
  char* work_base;
  int64_t work_bytes;

  static int threads(const cpu::SequenceForward& a) {
    const Sizes& s = a.size;
    return useful_threads(s, a.threads, s.D * s.N * 4 * s.H * (s.I + s.P));
  }
  static int64_t weight_bytes(const Sizes& s) { return 4 * s.H * s.P * int64_t(sizeof(T)); }
  bool projects() const { return a.weights[0].w_hr; }
  Member member(int thread) const {
    return Member(a.size, weight_bytes(a.size), !direct, thread, team);
  }

  Forward(const cpu::SequenceForward& params, int threads, Arena& arena)
      : a(params), team(threads) {
    const Sizes& s = a.size;
    direct = reads_unpacked(a);
    panels = ceil_div(s.H, L);
    copies = direct || !(is_same<S, X> || (numbers_in<X> == 2 && s.I % 2 == 0));
    h_stride = padded<X>(ceil_div(s.P, numbers_in<X>)), c_stride = padded<T>(s.H);
    x_stride = padded<X>(ceil_div(s.I, numbers_in<X>));
    // WeightDType weights are only read.
    const PrepackedWeights<S> prepacked(s, projects(), a.weight_dtype,
                                        const_cast<void*>(a.prepacked));
    Arena nowhere(nullptr);
    for (int d = 0; d < s.D; ++d) {
      Direction& to = directions[d];
      if (a.prepacked)
        to.weights = prepacked.directions[d];
      else
        to.weights.lay_out(s, projects(), operand_format<X, S>(s.N), weight_format<S>(s.N),
                           direct ? nowhere : arena);
      for (X*& h : to.h) h = arena.take<X>(s.N * h_stride);
      to.c = arena.take<T>(s.N * c_stride);
      to.unprojected = projects() ? arena.take<T>(s.N * c_stride) : nullptr;
      to.flags = arena.take<Flag>(team);
    }
    zeros = arena.take<X>(h_stride);
    Arena measure(nullptr);
    work(measure);
    work_bytes = int64_t(measure.used());
    work_base = arena.take<char>(team * work_bytes);
  }

  Work work(Arena& arena) const {
    const Sizes& s = a.size;
    int64_t rows = 0, own_panels = 0;  // the largest share of any thread
    for (int thread = 0; thread < team; ++thread) {
      const Member m = member(thread);
      rows = max_of(rows, m.max_rows(s.N));
      own_panels = max_of(own_panels, m.by_batch ? panels : ceil_div(panels, m.size));
    }
    const int64_t chunk = min_of(kChunkRows, s.T * rows), most = max_of(chunk, rows);
    Work w;
    w.x = arena.take<const X*>(most), w.h = arena.take<const X*>(most);
    w.unprojected = arena.take<const T*>(projects() ? rows : 0);
    w.at = arena.take<int64_t>(rows);
    w.x_copy = copies ? arena.take<X>(most * x_stride) : nullptr;
    const int64_t packed = direct ? round_up(rows, L) : 0;
    w.operands = arena.take<T>((s.I + s.P) * packed);
    w.sums = arena.take<T>(kPanel * packed);
    w.pre = arena.take<T>(max_of(own_panels * chunk, 2 * rows) * kPanel);
    w.projected = projects() ? arena.take<T>(kMaxVectors * L * rows) : nullptr;
    return w;
  }

  void clear_flags() {
    __builtin_memset(zeros, 0, size_t(h_stride) * sizeof(X));
    for (int d = 0; d < a.size.D; ++d)
      __builtin_memset(directions[d].flags, 0, size_t(team) * sizeof(Flag));
  }

  void run(int thread) {
    const Member m = member(thread);
    Arena arena(work_base + thread * work_bytes);
    const Work w = work(arena);
    for (int d = m.first_direction; d <= m.last_direction; ++d) {
      Barrier barrier(directions[d].flags, m.id, m.size);
      Sequence(*this, d, m, w, barrier).run();
    }
  }

  // One thread's part of one direction.
  struct Sequence {
    Forward& f;
    const cpu::SequenceForward& a;
    const Sizes& size;
    const int d;
    const Member& m;
    const Work& w;
    Barrier& barrier;
    Direction& dir;
    const Steps steps;
    const Share share;
    const int64_t first_panel, last_panel;  // one past

    Sequence(Forward& f, int d, const Member& m, const Work& w, Barrier& barrier)
        : f(f),
          a(f.a),
          size(f.a.size),
          d(d),
          m(m),
          w(w),
          barrier(barrier),
          dir(f.directions[d]),
          steps{a.rows, size.T, size.N, d == 1},
          share(m.rows(size.N, a.rows.counts)),
          first_panel(m.by_batch ? 0 : m.begin(f.panels)),
          last_panel(m.by_batch ? f.panels : m.end(f.panels)) {}

    // In a hidden split every thread waits for what the others add to h.
    void sync() {
      if (!m.by_batch) barrier.wait();
    }

    void run() {
      if (!f.direct && !a.prepacked) dir.weights.pack(a.weights[d], size, m.id, m.size);
      read_states();
      zero_beyond_lengths();
      barrier.wait();
      for (int64_t s = 0; s < size.T;) s = chunk(s);
      barrier.wait();
      write_states();
    }

    void read_states() {
      for (int64_t r = m.begin(size.N); r < m.end(size.N); ++r) {
        const int64_t row = d * size.N + steps.sequence(r);
        const S* h0 = a.h0 ? (const S*)a.h0 + row * size.P : nullptr;
        const S* c0 = a.c0 ? (const S*)a.c0 + row * size.H : nullptr;
        for (X* h : dir.h) copy_row(h + r * f.h_stride, h0, size.P);
        copy_row(dir.c + r * f.c_stride, c0, size.H);
      }
    }

    void write_states() {
      for (int64_t r = m.begin(size.N); r < m.end(size.N); ++r) {
        const int64_t row = d * size.N + steps.sequence(r);
        // The reverse direction ends with step T - 1, the other one with the sequence's length.
        const int64_t last = d == 1 ? size.T : steps.length(r);
        const auto* h = (const pick<numbers_in<X> == 2, S, X>*)(dir.h[last & 1] + r * f.h_stride);
        if (a.h_n) copy_out((S*)a.h_n + row * size.P, h, size.P);
        if (a.c_n) copy_out((S*)a.c_n + row * size.H, dir.c + r * f.c_stride, size.H);
      }
    }

    void zero_beyond_lengths() {
      steps.past_ends(m.id, m.size, [&](int64_t row) {
        const int64_t at = row * size.D + d;
        zero_row((S*)a.output + at * size.P, size.P);
        if (a.cell) zero_row((S*)a.cell + at * size.H, size.H);
        if (a.gates) zero_row((S*)a.gates + at * kGates * size.H, kGates * size.H);
      });
    }

    // Steps s .. of one chunk; returns the first step after it.
    int64_t chunk(int64_t s) {
      int64_t end = s, rows = 0;
      do rows += share.active(steps.count(steps.time(end++)));
      while (!f.direct && end < size.T &&
             rows + share.active(steps.count(steps.time(end))) <= kChunkRows);
      const bool together = end == s + 1;
      int64_t r = 0;
      for (int64_t u = s; u < end; ++u)
        for (int64_t j = 0, n = share.active(steps.count(steps.time(u))); j < n; ++j, ++r)
          w.x[r] = input_row(steps.time(u), share.rank(j), r);
      if (!together && rows)
        for (int64_t p = first_panel; p < last_panel; ++p)
          project_input(p, p + 1 < last_panel ? p + 1 : -1, rows,
                        w.pre + (p - first_panel) * rows * kPanel);
      for (int64_t done = 0; s < end; ++s) {
        const int64_t t = steps.time(s), n = share.active(steps.count(t));
        if (s) sync();
        if (n) step(s, n, rows, w.pre + done * kPanel, together);
        if (f.projects()) {
          sync();
          if (n) project_hidden(s, n);
        }
        done += n;
      }
      return end;
    }

    const X* input_row(int64_t t, int64_t rank, int64_t r) {
      const S* x = steps.template input_row<S>(a.x, a.x_step, a.x_row, t, rank);
      if (!f.copies) return (const X*)x;
      X* copy = w.x_copy + r * f.x_stride;
      copy_row(copy, x, size.I);
      return copy;
    }

    void set_biases(const vec<T> (&bias)[kGates], int64_t rows, T* pre) {
      for (int64_t r = 0; r < rows; ++r)
        for (int g = 0; g < kGates; ++g) store(pre + r * kPanel + g * L, bias[g]);
    }

    // pre = bias + x W_ih^T for the units of panel p
    void project_input(int64_t p, int64_t next, int64_t rows, T* pre) {
      vec<T> bias[kGates];
      for (int g = 0; g < kGates; ++g) bias[g] = load(dir.weights.bias + p * kPanel + g * L);
      set_biases(bias, rows, pre);
      dir.weights.w_ih.accumulate(p, next, w.x, rows, pre);
    }

    // pre = bias + x W_ih^T + h W_hh^T for the units of panel p, on unpacked weights
    void direct_gates(int64_t p, int64_t next, int64_t n, T* pre) {
      const DirectionWeights& weights = a.weights[d];
      vec<T> bias[kGates];
      for (int g = 0; g < kGates; ++g) bias[g] = bias_of<S>(weights, size.H, g, p * L);
      set_biases(bias, n, pre);
      for (int g = 0; g < kGates; ++g) {
        const int64_t row = g * size.H + p * L;
        const int64_t after = g + 1 < kGates ? row + size.H : (next < 0 ? p : next) * L;
        auto product = [&](const void* w, int64_t K, const X** x) -> Product<S, X> {
          return {(const S*)w + row * K, K, x, (const S*)w + after * K};
        };
        add_products({product(weights.w_ih, size.I, w.x), product(weights.w_hh, size.P, w.h)},
                     size.H - p * L, n, pre + g * L, kPanel);
      }
    }

    // The same for n of the operands, all packed.
    void direct_gates_packed(int64_t p, int64_t n, const T* operands, T* pre) {
      const DirectionWeights& weights = a.weights[d];
      const int64_t nv = ceil_div(n, L), last = min_of(L, size.H - p * L) - 1;
      const T *input[kPanel], *recurrent[kPanel];
      for (int g = 0; g < kGates; ++g) {
        const vec<T> bias = bias_of<S>(weights, size.H, g, p * L);
        for (int64_t l = 0; l < L; ++l) {
          const int64_t row = g * size.H + p * L + min_of(l, last), to = g * L + l;
          input[to] = (const T*)weights.w_ih + row * size.I;
          recurrent[to] = (const T*)weights.w_hh + row * size.P;
          for (int64_t v = 0; v < nv; ++v) store(w.sums + (to * nv + v) * L, vec<T>{} + bias[l]);
        }
      }
      const T *x = operands, *h = operands + size.I * nv * L, *none = nullptr;
      accumulate_panel(nv, input, kPanel, size.I, x, none, w.sums);
      accumulate_panel(nv, recurrent, kPanel, size.P, h, none, w.sums);
      for (int g = 0; g < kGates; ++g)
        for (int64_t v = 0; v < nv; ++v) {
          vec<T> block[L];
          for (int l = 0; l < L; ++l) block[l] = load(w.sums + ((g * L + l) * nv + v) * L);
          transpose<T>(block);
          for (int64_t l = 0; l < min_of(L, n - v * L); ++l)
            store(pre + (v * L + l) * kPanel + g * L, block[l]);
        }
    }

    void step(int64_t s, int64_t n, int64_t rows, T* pre, bool together) {
      const int64_t t = steps.time(s);
      const X* h = dir.h[s & 1];
      for (int64_t j = 0; j < n; ++j) {
        const int64_t rank = share.rank(j);
        w.h[j] = steps.reset(t, rank) ? f.zeros : h + rank * f.h_stride;
        w.at[j] = steps.row(t, rank) * size.D + d;
      }
      auto result = [&](int64_t p) {
        return together ? pre : pre + (p - first_panel) * rows * kPanel;
      };
      const PanelOrder order{first_panel, last_panel, bool(s & 1)};
      if (f.direct) {
        if constexpr (is_same<X, T>) direct_step(order, s, n, pre);
        return;
      }
      for (int64_t i = 0; i < order.count();) {
        const int64_t p = order.panel(i);
        if (n == 1 && i + 1 < order.count()) {
          const int64_t p1 = order.panel(i + 1);
          T *pre0 = result(p), *pre1 = together ? pre + kPanel : result(p1);
          if (together) project_input(p, -1, 1, pre0), project_input(p1, -1, 1, pre1);
          dir.weights.w_hh.accumulate_pair(p, p1, w.h[0], pre0, pre1);
          cell(p, s, 1, pre0), cell(p1, s, 1, pre1);
          i += 2;
        } else {
          if (together) project_input(p, order.after(i), n, result(p));
          dir.weights.w_hh.accumulate(p, order.after(i), w.h, n, result(p));
          cell(p, s, n, result(p));
          ++i;
        }
      }
    }

    // A step on unpacked weights.
    void direct_step(const PanelOrder& order, int64_t s, int64_t n, T* pre) {
      const bool packed = is_same<S, T> && packs_operands<T>(n);
      // As many operands as a tile has vectors for; what is packed of them lies together.
      auto each_group = [&](auto visit) {
        constexpr int64_t kMost = kMaxVectors * L;
        for (int64_t j = 0; j < n; j += kMost)
          visit(j, min_of(kMost, n - j), w.operands + j * (size.I + size.P));
      };
      if (packed)
        each_group([&](int64_t j, int64_t count, T* to) {
          pack_operands(w.x + j, count, size.I, to);
          pack_operands(w.h + j, count, size.P, to + size.I * round_up(count, L));
        });
      for (int64_t i = 0; i < order.count(); ++i) {
        const int64_t p = order.panel(i);
        if (packed)
          each_group([&](int64_t j, int64_t count, const T* operands) {
            direct_gates_packed(p, count, operands, pre + j * kPanel);
          });
        else
          direct_gates(p, order.after(i), n, pre);
        cell(p, s, n, pre);
      }
    }

    // The LSTM cell of the units of panel p, from the gates' pre-activations.
    LSTM_NOINLINE void cell(int64_t p, int64_t s, int64_t n, const T* pre) {
      const int64_t unit = p * L, H = size.H, valid = H - unit;
      for (int64_t j = 0; j < n; ++j, pre += kPanel) {
        const int64_t rank = share.rank(j), row = w.at[j];
        const vec<T> i = sigmoid<T>(load(pre)), o = sigmoid<T>(load(pre + kOutputGate * L));
        const vec<T> forget = sigmoid<T>(load(pre + kForgetGate * L));
        const vec<T> g = tanh<T>(load(pre + kCandidate * L));
        T* carried = dir.c + rank * f.c_stride + unit;
        const vec<T> before = w.h[j] == f.zeros ? vec<T>{} : load(carried);
        const vec<T> c = forget * before + i * g;
        const vec<T> h = o * tanh<T>(c);
        store(carried, c);
        if (f.projects()) {
          store(dir.unprojected + rank * f.c_stride + unit, h);
        } else {
          keep_hidden(s, rank, unit, h);
          store_n((S*)a.output + row * H + unit, h, valid);
        }
        if (a.cell) store_n((S*)a.cell + row * H + unit, c, valid);
        if (a.gates) {
          S* gates = (S*)a.gates + row * kGates * H + unit;
          store_n(gates + kInputGate * H, i, valid),
              store_n(gates + kForgetGate * H, forget, valid);
          store_n(gates + kCandidate * H, g, valid), store_n(gates + kOutputGate * H, o, valid);
        }
      }
    }

    // For the next step: h as the caller sees it.
    LSTM_INLINE void keep_hidden(int64_t s, int64_t rank, int64_t column, vec<T> h) const {
      X* row = dir.h[~s & 1] + rank * f.h_stride;
      if constexpr (is_same<X, T>)
        store(row + column, rounded<S>(h));
      else
        store((S*)row + column, h);
    }

    // Adds to the columns of h_t in panel p, on unpacked weights
    void direct_hidden(int64_t p, int64_t n) {
      const int nv = dir.weights.w_hr.width_of(p);
      for (int v = 0; v < nv; ++v) {
        const int64_t column = (p * dir.weights.w_hr.width + v) * L;
        const S* rows = (const S*)a.weights[d].w_hr + column * size.H;
        const Product<S, T> product{rows, size.H, w.unprojected, rows + L * size.H};
        add_products({product}, size.P - column, n, w.projected + v * L, nv * L);
      }
    }

    // h_t = (o * tanh(c_t)) W_hr^T
    void project_hidden(int64_t s, int64_t n) {
      for (int64_t j = 0; j < n; ++j)
        w.unprojected[j] = dir.unprojected + share.rank(j) * f.c_stride;
      const int64_t count = dir.weights.w_hr.count();
      for (int64_t p = m.by_batch ? 0 : m.begin(count); p < (m.by_batch ? count : m.end(count));
           ++p) {
        const int nv = dir.weights.w_hr.width_of(p);
        __builtin_memset(w.projected, 0, size_t(n * nv * L) * sizeof(T));
        if (f.direct)
          direct_hidden(p, n);
        else
          dir.weights.w_hr.accumulate(p, -1, w.unprojected, n, w.projected);
        for (int64_t j = 0; j < n; ++j)
          for (int v = 0; v < nv; ++v) {
            const int64_t column = (p * dir.weights.w_hr.width + v) * L, rank = share.rank(j);
            const vec<T> h = load(w.projected + (j * nv + v) * L);
            keep_hidden(s, rank, column, h);
            store_n((S*)a.output + w.at[j] * size.P + column, h, size.P - column);
          }
      }
    }
  };
};

}  // namespace lstm_kernels::LSTM_ISA
