// The backward pass of one layer over a whole sequence, all directions: from the gradients of what
// the forward pass returned to those of the gates' pre-activations (G_t below) and initial states.
// Gradients of input, weights and biases are matrix products of G with x and h, left to the caller.
//
//   dh_t = grad_output_t + G_{t+1} W_hh,   with a projection d(o * tanh(c_t)) = dh_t W_hr
//   dc_t = grad_cell_t + f_{t+1} * dc_{t+1} + dh_t * o * (1 - tanh^2(c_t))
//   di = dc_t * g,  df = dc_t * c_{t-1},  dg = dc_t * i,  do = dh_t * tanh(c_t),  plus grad_gates_t
//   G_t = (di i (1 - i), df f (1 - f), dg (1 - g^2), do o (1 - o))
//
// The same tiles as in the forward pass. The cells' gradients follow row by row when all panels of
// a step are done: gates and cell states are then read as whole rows, which the hardware
// prefetches; panel by panel they would be pieces of two lines on a page each, and cost as much as
// the product. G_{t+1} is kept in scratch, too, as the operand of the next product. Where that is
// the G which the caller gets, and needs nothing after its rows, it is read from there.
//
// Where h has a mask for each gate, the product is that of gate_panels.h: each gate's part of G
// meets its own rows of W_hh, and the mask comes after it.
#pragma once
#include "cell.h"
#include "direct.h"
#include "gate_panels.h"
#include "lay_out.h"
#include "norm_backward.h"
#include "pass.h"
#include "variant_cell.h"

namespace lstm_kernels::LSTM_ISA {

template <class S, class X, class Call>
struct BackwardPart;

// X: what G is made of as an operand. Call: SequenceBackward, or VariantBackward.
template <class S, class X, class Call = cpu::SequenceBackward>
struct Backward {
  using Part = BackwardPart<S, X, Call>;
  using T = compute<S>;
  static constexpr int L = lanes<T>;
  static constexpr bool kKeepsG = kAmx || is_same<X, T> || !is_same<S, number<X>>;
  static constexpr bool kVariant = is_same<Call, cpu::VariantBackward>;

  struct Direction {
    Panels<T> w_hh, w_hr;        // (4 * H) -> P, P -> H
    GatePanels<T> w_hh_by_gate;  // H -> P, and w_hh without memory, where each gate has a mask
    X* g[2];     // [rank][g_stride]: G of a step, read and written in turn, if kKeepsG
    T* dc;       // [rank][c_stride]: f_{t+1} * dc_{t+1}
    T* dh;       // [rank][h_stride], where there is a projection
    T* kept_dh;  // [rank][h_stride]: what zoneout passes to the step before, if it does
  };
  struct Work {    // of one part
    const X** g;   // rows of G
    const T** dh;  // and of dh, where there is a projection
    T* sum;        // results of this part's panels: [panel][row][vector][lane]
    NormRows<T> norm;
    ParameterSums<T> sums;
    // Where each gate has a mask:
    const S** masks;  // (4, P) of each row of G
    const X** parts;  // [gate][row]: the gate's part of the row
    X* part_copy;     // [gate][row][part_stride]: likewise, where operands are pairs
    T* partial;       // of GatePanels
  };

  const Call& call;
  int parts;
  bool direct;  // w_hh is read as it is stored: few rows, and few steps
  int64_t g_stride, h_stride, c_stride, part_stride;
  Direction directions[2];
  T* zeros;  // of any type
  PartMemory memory;

  static int threads(const cpu::SequenceBackward& call) {
    const Sizes& s = call.size;
    return threads_for_steps(call.threads, s.T, s.D * s.N * 4 * s.H * s.P);
  }
  static int64_t weight_bytes(const Sizes& s) { return 4 * s.H * s.P * int64_t(sizeof(T)); }
  bool projects() const { return call.weights[0].w_hr; }
  // Whether h has a mask for each gate.
  LSTM_INLINE bool masks_gates() const {
    if constexpr (kVariant) return call.variant.gate_masks.data;
    return false;
  }
  // Whether the gradients of the recurrent product wait for the cells of their whole row.
  LSTM_INLINE bool normalises() const {
    if constexpr (kVariant) return call.variant.normalises();
    return false;
  }
  LSTM_INLINE bool adds_up_parameters() const {
    if constexpr (kVariant) return call.variant.adds_up_parameters();
    return false;
  }

  Backward(const Call& call, int threads, Arena& arena)
      : call(call), parts(Split::parts(call.size, threads)) {
    const Sizes& s = call.size;
    direct =
        is_same<S, T> && is_same<X, T> && s.P % L == 0 && cpu::direct_backward(s) && !masks_gates();
    g_stride = padded<X>(ceil_div(kGates * s.H, numbers_in<X>)), h_stride = padded<T>(s.P),
    c_stride = padded<T>(s.H);
    part_stride = padded<X>(ceil_div(s.H, numbers_in<X>));
    for (int d = 0; d < s.D; ++d) {
      Direction& to = directions[d];
      auto panels = [&](Format format, int64_t K, int64_t columns, bool laid_out) {
        const int64_t vectors = ceil_div(columns, L);
        const int width = int(max_of(1, min_of(kMaxVectors, vectors / threads)));
        Panels<T> p{nullptr, format, K, vectors, width};
        if (laid_out) p.data = arena.take<char>(p.bytes());
        return p;
      };
      const Format format = operand_format<X, S>(s.N);
      to.w_hh = panels(format, kGates * s.H, s.P, !direct && !masks_gates());
      to.w_hh_by_gate = {};
      if (masks_gates()) to.w_hh_by_gate.take(format, s.H, s.P, to.w_hh.width, arena);
      to.w_hr = {};
      if (projects()) to.w_hr = panels(weight_format<S>(s.N), s.P, s.H, true);
      for (X*& g : to.g) g = arena.take<X>(kKeepsG ? s.N * g_stride : 0);
      to.dc = arena.take<T>(s.N * c_stride);
      to.dh = projects() ? arena.take<T>(s.N * h_stride) : nullptr;
      to.kept_dh = nullptr;
      if constexpr (kVariant)
        if (call.variant.zones_out_hidden()) to.kept_dh = arena.take<T>(s.N * h_stride);
    }
    zeros = arena.take<T>(zero_numbers());
    memory.take(arena, parts, [&](Arena& own) { work(own); });
  }

  LSTM_NOINLINE Work work(Arena& arena) const {
    const int64_t N = max_of(call.size.N, 1);
    return {arena.take<const X*>(N),
            arena.take<const T*>(projects() ? N : 0),
            arena.take<T>(N * c_stride),
            {arena.take<T>(normalises() ? NormRows<T>::kRows * c_stride : 0), c_stride},
            {arena.take<T>(adds_up_parameters() ? kParameterSums * c_stride : 0), c_stride},
            arena.take<const S*>(masks_gates() ? N : 0),
            arena.take<const X*>(masks_gates() ? kGates * N : 0),
            arena.take<X>(masks_gates() && !is_same<X, T> ? kGates * N * part_stride : 0),
            arena.take<T>(masks_gates() ? N * kMaxVectors * L : 0)};
  }

  Split split(int part) const {
    return Split(call.size, weight_bytes(call.size), !direct, part, parts);
  }
  Group group(int part) const { return split(part).group(part); }

  // What zeros stand for: a row of G, of cells, or of masks.
  int64_t zero_numbers() const {
    return max_of(max_of(g_stride * int64_t(sizeof(X)) / int64_t(sizeof(T)), c_stride),
                  masks_gates() ? kGates * h_stride : 0);
  }
  void prepare() {
    __builtin_memset(zeros, 0, size_t(zero_numbers()) * sizeof(T));
    for (int d = 0; kAmx && d < call.size.D; ++d)  // what follows the numbers of a row
      for (X* g : directions[d].g)
        __builtin_memset(g, 0, size_t(call.size.N * g_stride) * sizeof(X));
  }
  void finish() const {
    if constexpr (kVariant)
      if (call.grad_parameters)
        for (int d = 0; d < call.size.D; ++d) add_up_parameters(d);
  }

 private:
  // What the parts of direction d have added up.
  void add_up_parameters(int d) const {
    const int64_t H = call.size.H;
    for (int k = 0; k < kParameterSums; ++k)
      for (int64_t unit = 0; unit < H; unit += L) {
        vec<T> sum = {};
        for (int part = 0; part < parts; ++part) {
          Arena own = memory.of(part);
          if (split(part).direction == d) sum += load(work(own).sums.of(k) + unit);
        }
        store_n((S*)call.grad_parameters + (d * kParameterSums + k) * H + unit, sum, H - unit);
      }
  }
};

// One part of one direction. Its phases: making ready; the steps, each in one phase, or in one more
// with a projection and with a layer norm, where parts go in step, and several where they do not;
// the initial states.
template <class S, class X, class Call>
struct BackwardPart : InArena {
  using Pass = Backward<S, X, Call>;
  using Stored = S;
  using T = compute<S>;
  static constexpr int L = lanes<T>;
  static constexpr bool kKeepsG = Pass::kKeepsG, kVariant = Pass::kVariant;

  const Pass& pass;
  const Call& call;
  const Sizes& size;
  const Split split;
  const int direction;
  const typename Pass::Direction& own;
  const Steps steps;
  const Share share;
  typename Pass::Work work;

  enum class Stage { kRecurrent, kProjection, kNormedCells };  // of a step
  bool ready = false;
  Stage stage = Stage::kRecurrent;  // the next one
  int64_t s;                        // the step it belongs to

  BackwardPart(const Pass& pass, int part)
      : pass(pass),
        call(pass.call),
        size(call.size),
        split(pass.split(part)),
        direction(split.direction),
        own(pass.directions[direction]),
        steps{call.rows, size.T, size.N, direction == 1},
        share(split.rows(size.N, call.rows.counts)),
        s(size.T - 1) {
    Arena memory = pass.memory.of(part);
    work = pass.work(memory);
    if (shares_sums()) {
      Arena shared = pass.memory.of(part - split.id);
      work.sum = pass.work(shared).sum;
    }
  }
  // Whether the parts of a direction have their sums in one place, as whole rows.
  LSTM_INLINE bool shares_sums() const { return pass.normalises() && split.in_step(); }

  bool run_phase() {
    if (!ready) {
      make_ready();
    } else if (s < 0) {
      initial_states();
      return true;
    } else if (split.in_step()) {
      run_stage();
    } else {
      int64_t rows = 0;
      do {
        if (stage == Stage::kRecurrent) rows += share.active(steps.count(steps.time(s)));
        run_stage();
      } while (stage != Stage::kRecurrent || (s >= 0 && rows < kChunkRows));
    }
    return false;
  }

  // The columns' panels that this part computes.
  int64_t first(const Panels<T>& w) const { return split.by_batch ? 0 : split.begin(w.count()); }
  int64_t last(const Panels<T>& w) const {
    return split.by_batch ? w.count() : split.end(w.count());
  }
  // Rows of the caller's arrays.
  int64_t at(int64_t t, int64_t rank) const { return steps.row(t, rank) * size.D + direction; }

  void make_ready() {
    const DirectionWeights& from = call.weights[direction];
    for (int64_t p = split.begin(own.w_hh.count()); !pass.direct && p < split.end(own.w_hh.count());
         ++p)
      if (pass.masks_gates())
        for (int g = 0; g < kGates; ++g)
          lay_out_columns(own.w_hh_by_gate.gates[g], p, (const S*)from.w_hh + g * size.H * size.P,
                          size.P);
      else
        lay_out_columns(own.w_hh, p, (const S*)from.w_hh, size.P);
    if (pass.projects())
      for (int64_t p = split.begin(own.w_hr.count()); p < split.end(own.w_hr.count()); ++p)
        lay_out_columns(own.w_hr, p, (const S*)from.w_hr, size.H);
    const Share states = split.states(size.N, call.rows.counts);
    for (int64_t j = 0; j < states.size; ++j) {
      const int64_t r = states.rank(j);
      const S* from_c = call.grad_c_n ? (const S*)call.grad_c_n +
                                            (direction * size.N + steps.sequence(r)) * size.H
                                      : nullptr;
      copy_row(own.dc + r * pass.c_stride, from_c, size.H);
    }
    if (pass.adds_up_parameters())
      __builtin_memset(work.sums.data, 0, size_t(kParameterSums * pass.c_stride) * sizeof(T));
    zero_beyond_lengths();
    ready = true;
  }

  void zero_beyond_lengths() {
    steps.past_ends(split.id, split.size, [&](int64_t row) {
      const int64_t at = row * size.D + direction;
      zero_row((S*)call.grad_preactivations + at * kGates * size.H, kGates * size.H);
      if (call.grad_hidden) zero_row((S*)call.grad_hidden + at * size.P, size.P);
      if constexpr (kVariant)
        if (call.grad_input_gate) zero_row((S*)call.grad_input_gate + at * size.H, size.H);
      if constexpr (kVariant)
        if (call.grad_input_product)
          zero_row((S*)call.grad_input_product + at * kGates * size.H, kGates * size.H);
    });
  }

  void run_stage() {
    const int64_t t = steps.time(s), n = share.active(steps.count(t));
    // Sequences that go on to step s + 1; for the others this is the last step.
    const int64_t going_on =
        s + 1 < size.T ? min_of(n, share.active(steps.count(steps.time(s + 1)))) : 0;
    switch (stage) {
      case Stage::kRecurrent:
        recurrent_product(t, n, going_on);
        stage = pass.projects() ? Stage::kProjection : finish_step(own.w_hh, n, going_on);
        break;
      case Stage::kProjection:
        projected_product(n);
        stage = finish_step(own.w_hr, n, going_on);
        break;
      case Stage::kNormedCells:
        if constexpr (kVariant) normed_cells(n, going_on);
        stage = Stage::kRecurrent;
    }
    if (stage == Stage::kRecurrent) --s;
  }
  // The cells, unless they wait for the rest of their rows; says which stage follows.
  Stage finish_step(const Panels<T>& panels, int64_t n, int64_t going_on) {
    if (pass.normalises()) return Stage::kNormedCells;
    cells(panels, s, n, going_on);
    return Stage::kRecurrent;
  }

  // The whole gradient of h_t.
  void recurrent_product(int64_t t, int64_t n, int64_t going_on) {
    for (int64_t j = 0; j < going_on; ++j) {
      const int64_t rank = share.rank(j);
      take_gradient(j, s + 1, steps.reset(steps.time(s + 1), rank));
    }
    if (changes_hidden()) {
      each_vector(own.w_hh, n, [](int64_t, int64_t, T* sum) { store(sum, vec<T>{}); });
      add_recurrent(s & 1, n, going_on);
      hidden_gradient(t, n, going_on);
    } else {
      begin_sums(t, n, going_on);
      add_recurrent(s & 1, n, going_on);
    }
    if (pass.projects()) keep_hidden(t, n);
  }

  // The gradient of o * tanh(c_t).
  void projected_product(int64_t n) {
    for (int64_t j = 0; j < n; ++j) work.dh[j] = own.dh + share.rank(j) * pass.h_stride;
    for (int64_t p = first(own.w_hr); n && p < last(own.w_hr); ++p) {
      T* sum = result(own.w_hr, p, n);
      __builtin_memset(sum, 0, size_t(n * own.w_hr.width_of(p) * L) * sizeof(T));
      own.w_hr.accumulate(p, -1, work.dh, n, sum);
    }
  }

  // G of step s, or zeros, as operand j.
  void take_gradient(int64_t j, int64_t s, bool zero) {
    const int64_t rank = share.rank(j);
    if (zero)
      work.g[j] = (const X*)pass.zeros;
    else if constexpr (kKeepsG)
      work.g[j] = own.g[s & 1] + rank * pass.g_stride;
    else
      work.g[j] = (const X*)((const S*)call.grad_preactivations +
                             at(steps.time(s), rank) * kGates * size.H);
    if constexpr (kVariant)
      if (pass.masks_gates())
        work.masks[j] =
            zero ? (const S*)pass.zeros
                 : VariantRow<S>::row(call.variant.gate_masks, steps.time(s), steps.sequence(rank),
                                      size.D, direction, kGates * size.P);
  }

  // Adds work.g[j] W_hh, j < count, to the sums of n rows.
  void add_recurrent(bool back, int64_t n, int64_t count) {
    if (count == 0) return;
    const PanelOrder order{first(own.w_hh), last(own.w_hh), back};
    if (pass.masks_gates()) return add_by_gate(order, n, count);
    if (!pass.direct) {
      for (int64_t i = 0; i < order.count(); ++i)
        own.w_hh.accumulate(order.panel(i), order.after(i), work.g, count,
                            result(own.w_hh, order.panel(i), n));
      return;
    }
    if constexpr (is_same<X, T>)
      for (int64_t k = 0; k < own.w_hh.K; k += kDirectSteps)
        for (int64_t p = order.first; p < order.last; ++p)
          add_direct(work.g, count, k, min_of(kDirectSteps, own.w_hh.K - k),
                     (const T*)call.weights[direction].w_hh + k * size.P + p * own.w_hh.width * L,
                     size.P, own.w_hh.width_of(p), result(own.w_hh, p, n));
  }

  // Where the sums of panel p stand, n rows of them.
  T* result(const Panels<T>& panels, int64_t p, int64_t n) const {
    return work.sum + (shares_sums() ? p : p - first(panels)) * n * panels.width * L;
  }
  // Calls visit(j, column, sum) for the vectors of this part's panels, row after row.
  template <class Visit>
  LSTM_INLINE void each_vector(const Panels<T>& panels, int64_t n, Visit visit) const {
    const int64_t first_panel = first(panels), last_panel = last(panels);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t p = first_panel; p < last_panel; ++p) {
        const int nv = panels.width_of(p);
        T* sum = result(panels, p, n) + j * nv * L;
        for (int v = 0; v < nv; ++v, sum += L) visit(j, (p * panels.width + v) * L, sum);
      }
  }

  // dh = grad_output_t, and that of h_n where the sequence ends here
  void begin_sums(int64_t t, int64_t n, int64_t going_on) {
    each_vector(own.w_hh, n, [&](int64_t j, int64_t column, T* sum) {
      vec<T> dh = {};
      if (call.grad_output)
        dh += load_n((const S*)call.grad_output + at(t, share.rank(j)) * size.P + column,
                     size.P - column);
      if (j >= going_on) dh += last_hidden(share.rank(j), column);
      store(sum, dh);
    });
  }

  vec<T> last_hidden(int64_t rank, int64_t column) const {
    if (!call.grad_h_n) return vec<T>{};
    const int64_t row = direction * size.N + steps.sequence(rank);
    return load_n((const S*)call.grad_h_n + row * size.P + column, size.P - column);
  }

  // The whole gradient of h_t, for the caller and for the product with W_hr.
  void keep_hidden(int64_t t, int64_t n) {
    each_vector(own.w_hh, n, [&](int64_t j, int64_t column, const T* sum) {
      const int64_t rank = share.rank(j);
      store(own.dh + rank * pass.h_stride + column, load(sum));
      store_n((S*)call.grad_hidden + at(t, rank) * size.P + column, load(sum), size.P - column);
    });
  }

  // What the cells of one row read and write, each pointer at hidden unit 0. What is absent is
  // read from zeros, except for grad_gates.
  struct CellRow {
    const S *gates, *grad_gates, *grad_cell, *c_before, *c;
    const T* grad_c;
    T* to_c;
    number<X>* kept;
    S* to_preactivations;
  };
  CellRow cell_row(int64_t s, int64_t rank, bool goes_on) const {
    const int64_t t = steps.time(s), row = at(t, rank), H = size.H;
    const bool cut = goes_on && steps.reset(steps.time(s + 1), rank);
    const S* zeros = (const S*)pass.zeros;
    const S* c_before = steps.reset(t, rank) ? nullptr : previous_cell(s, rank);
    CellRow r;
    r.gates = (const S*)call.gates + row * kGates * H;
    r.grad_gates = call.grad_gates ? (const S*)call.grad_gates + row * kGates * H : nullptr;
    r.grad_cell = call.grad_cell ? (const S*)call.grad_cell + row * H : zeros;
    r.c_before = c_before ? c_before : zeros;
    r.c = (const S*)call.cell + row * H;
    r.to_c = own.dc + rank * pass.c_stride;
    r.grad_c = cut ? pass.zeros : r.to_c;
    r.kept = kKeepsG ? (number<X>*)(own.g[s & 1] + rank * pass.g_stride) : nullptr;
    r.to_preactivations = (S*)call.grad_preactivations + row * kGates * H;
    return r;
  }

  // The cells of this part's hidden units, whose gradient of o * tanh(c) is in work.sum.
  LSTM_NOINLINE void cells(const Panels<T>& panels, int64_t s, int64_t n, int64_t going_on) {
    if constexpr (kVariant) return variant_cells(panels, s, n, going_on);
    if (call.grad_gates)
      cell_rows<true>(panels, s, n, going_on);
    else
      cell_rows<false>(panels, s, n, going_on);
  }
  template <bool kGateGradients>
  LSTM_INLINE void cell_rows(const Panels<T>& panels, int64_t s, int64_t n, int64_t going_on) {
    const int64_t first_panel = first(panels), last_panel = last(panels), H = size.H;
    for (int64_t j = 0; j < n; ++j) {
      const CellRow r = cell_row(s, share.rank(j), j < going_on);
      for (int64_t p = first_panel; p < last_panel; ++p) {
        const int nv = panels.width_of(p);
        const T* sum = result(panels, p, n) + j * nv * L;
        int64_t unit = p * panels.width * L;
        for (int v = 0; v < nv; ++v, sum += L, unit += L)
          if (H - unit >= L)
            cell<kGateGradients, true>(r, unit, load(sum));
          else
            cell<kGateGradients, false>(r, unit, load(sum));
      }
    }
  }
  template <bool kGateGradients, bool kWhole>
  LSTM_INLINE void cell(const CellRow& r, int64_t unit, vec<T> dh) const {
    const int64_t H = size.H;
    auto read = [&](const S* p) {
      if constexpr (kWhole) return load(p + unit);
      return load_n(p + unit, H - unit);
    };
    vec<T> gate[kGates], extra[kGates] = {};
    LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
      gate[g] = read(r.gates + g * H);
      if constexpr (kGateGradients) extra[g] = read(r.grad_gates + g * H);
    }
    const CellGradient<T> to = retreat<T>(dh, load(r.grad_c + unit) + read(r.grad_cell),
                                          read(r.c_before), read(r.c), gate, extra);
    store(r.to_c + unit, to.c_before);
    LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
      auto write = [&](auto* row, vec<T> v) {
        if constexpr (kWhole)
          store(row + g * H + unit, v);
        else
          store_n(row + g * H + unit, v, H - unit);
      };
      if constexpr (kKeepsG) write(r.kept, to.preactivation[g]);
      write(r.to_preactivations, to.preactivation[g]);
    }
  }

  // c_{t-1} of a row as the caller holds it: (H), or null for zeros.
  const S* previous_cell(int64_t s, int64_t rank) const {
    if (s > 0 && rank < steps.count(steps.time(s - 1)))
      return (const S*)call.cell + at(steps.time(s - 1), rank) * size.H;
    if (!call.c0) return nullptr;
    return (const S*)call.c0 + (direction * size.N + steps.sequence(rank)) * size.H;
  }

  // What reaches the states before a sequence's first step; an empty sequence passes its final
  // states' gradients through.
  void initial_states() {
    const int64_t n = share.size;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t rank = share.rank(j), length = steps.length(rank);
      const int64_t s = direction == 1 ? size.T - length : 0;
      take_gradient(j, s, length == 0 || steps.reset(0, rank));
    }
    each_vector(own.w_hh, n, [&](int64_t j, int64_t column, T* sum) {
      const int64_t rank = share.rank(j);
      store(sum, steps.length(rank) == 0 ? last_hidden(rank, column) : vec<T>{});
    });
    add_recurrent(true, n, n);
    if constexpr (kVariant) initial_hidden_gradient(n);
    each_vector(own.w_hh, n, [&](int64_t j, int64_t column, const T* sum) {
      const int64_t row = direction * size.N + steps.sequence(share.rank(j));
      store_n((S*)call.grad_h0 + row * size.P + column, load(sum), size.P - column);
    });
    const Share states = split.states(size.N, call.rows.counts);
    for (int64_t j = 0; j < states.size; ++j) {
      const int64_t r = states.rank(j);
      S* to = (S*)call.grad_c0 + (direction * size.N + steps.sequence(r)) * size.H;
      if (steps.reset(0, r) && steps.length(r) > 0)
        zero_row(to, size.H);
      else
        copy_out(to, own.dc + r * pass.c_stride, size.H);
    }
  }

  // ---- variants -------------------------------------------------------------------------------

  // Whether more than the recurrent product stands between h_t and step t + 1.
  LSTM_INLINE bool changes_hidden() const {
    if constexpr (kVariant) return call.variant.hidden_mask.data || own.kept_dh;
    return false;
  }
  LSTM_INLINE const S* hidden_mask(int64_t rank, int64_t t) const {
    return VariantRow<S>::row(call.variant.hidden_mask, t, steps.sequence(rank), size.D, direction,
                              size.P);
  }
  // add_recurrent where each gate has a mask.
  void add_by_gate(const PanelOrder& order, int64_t n, int64_t count) {
    const GatePanels<T>& w_hh = own.w_hh_by_gate;
    for (int64_t g = 0; g < kGates; ++g)
      for (int64_t j = 0; j < count; ++j) work.parts[g * count + j] = part_of(g, j, count);
    for (int64_t i = 0; i < order.count(); ++i) {
      const int64_t p = order.panel(i);
      const int nv = w_hh.width_of(p);
      T* const sums = result(own.w_hh, p, n);
      auto add = [&](int64_t g, const T* partial) {
        for (int64_t j = 0; j < count; ++j)
          for (int64_t v = 0; v < nv; ++v, partial += L) {
            const int64_t column = (p * own.w_hh.width + v) * L;
            T* sum = sums + (j * nv + v) * L;
            store(sum, load(sum) + load(partial) * load_n(work.masks[j] + g * size.P + column,
                                                          size.P - column));
          }
      };
      w_hh.each_product(p, order.after(i), work.parts, count, work.partial, add);
    }
  }
  // Gate g's part of row j of G. Pairs are copied: where H is odd, the row has some that belong to
  // two gates.
  const X* part_of(int64_t g, int64_t j, [[maybe_unused]] int64_t count) {
    if constexpr (is_same<X, T>) {
      return work.g[j] + g * size.H;
    } else {
      X* copy = work.part_copy + (g * count + j) * pass.part_stride;
      copy_row(copy, (const number<X>*)work.g[j] + g * size.H, size.H);
      return copy;
    }
  }
  // What reaches h from step s, whose product's part is `sum`.
  LSTM_INLINE vec<T> through_step(int64_t s, int64_t rank, int64_t column, vec<T> sum) const {
    const int64_t t = steps.time(s);
    if (const S* mask = hidden_mask(rank, t)) sum *= load_n(mask + column, size.P - column);
    if (own.kept_dh && !steps.reset(t, rank))
      sum += load(own.kept_dh + rank * pass.h_stride + column);
    return sum;
  }
  // The gradient of h_t before zoneout, from the sums of the recurrent product.
  void hidden_gradient(int64_t t, int64_t n, int64_t going_on) {
    if constexpr (kVariant) {
      each_vector(own.w_hh, n, [&](int64_t j, int64_t column, T* sum) {
        const int64_t rank = share.rank(j), valid = size.P - column;
        vec<T> dh =
            j < going_on ? through_step(s + 1, rank, column, load(sum)) : last_hidden(rank, column);
        if (call.grad_output)
          dh += load_n((const S*)call.grad_output + at(t, rank) * size.P + column, valid);
        if (own.kept_dh) {
          const VariantRow<S> row(call.variant, size, direction, t, steps.sequence(rank));
          const vec<T> keep = row.keeps_hidden(column, valid);
          store(own.kept_dh + rank * pass.h_stride + column, keep * dh);
          dh *= T(1) - keep;
        }
        store(sum, dh);
      });
    }
  }
  void initial_hidden_gradient(int64_t n) {
    if (!changes_hidden()) return;
    each_vector(own.w_hh, n, [&](int64_t j, int64_t column, T* sum) {
      const int64_t rank = share.rank(j), length = steps.length(rank);
      if (length == 0) return;
      const int64_t s = direction == 1 ? size.T - length : 0;
      store(sum, through_step(s, rank, column, load(sum)));
    });
  }

  // The gradient of o * a_cell(c~) of the units from `unit` on, of row j of n.
  LSTM_INLINE vec<T> unprojected_gradient(int64_t unit, int64_t j, int64_t n) const {
    const Panels<T>& panels = pass.projects() ? own.w_hr : own.w_hh;
    const int64_t vector = unit / L, p = vector / panels.width;
    return load(result(panels, p, n) + (j * panels.width_of(p) + vector - p * panels.width) * L);
  }
  // The cells of a step, row by row; of this part's rows, where all parts made the products.
  void normed_cells(int64_t n, int64_t going_on) const {
    with_cell<T>(call.variant, true, [&](const auto& cell) {
      const NormBackward norm(*this, cell);
      for (int64_t j = split.first_row(n); j < split.last_row(n); ++j)
        norm.row(s, j, n, j < going_on);
    });
  }

  void variant_cells(const Panels<T>& panels, int64_t s, int64_t n, int64_t going_on) {
    with_cell<T>(call.variant, true, [&](const auto& cell) {
      const int64_t first_panel = first(panels), last_panel = last(panels), t = steps.time(s);
      for (int64_t j = 0; j < n; ++j) {
        const int64_t rank = share.rank(j);
        const CellRow r = cell_row(s, rank, j < going_on);
        const VariantRow<S> row(call.variant, size, direction, t, steps.sequence(rank));
        S* const input_gate =
            call.grad_input_gate ? (S*)call.grad_input_gate + at(t, rank) * size.H : nullptr;
        for (int64_t p = first_panel; p < last_panel; ++p) {
          const int nv = panels.width_of(p);
          const T* sum = result(panels, p, n) + j * nv * L;
          int64_t unit = p * panels.width * L;
          for (int v = 0; v < nv; ++v, sum += L, unit += L)
            if (size.H - unit >= L)
              variant_cell<true>(cell, r, row, input_gate, unit, load(sum));
            else
              variant_cell<false>(cell, r, row, input_gate, unit, load(sum));
        }
      }
    });
  }
  template <bool kWhole, class VariantCell>
  LSTM_INLINE void variant_cell(const VariantCell& cell, const CellRow& r, const VariantRow<S>& row,
                                S* input_gate, int64_t unit, vec<T> dh) const {
    const int64_t H = size.H;
    auto read = [&](const S* p) {
      if constexpr (kWhole) return load(p + unit);
      return load_n(p + unit, H - unit);
    };
    auto write = [&](auto* p, vec<T> v) {
      if constexpr (kWhole)
        store(p + unit, v);
      else
        store_n(p + unit, v, H - unit);
    };
    vec<T> gate[kGates], extra[kGates] = {};
    LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
      gate[g] = read(r.gates + g * H);
      if (r.grad_gates) extra[g] = read(r.grad_gates + g * H);
    }
    auto given = row.template at<kWhole>(unit);
    given.c_before = read(r.c_before);
    const vec<T> updated = cell.updated(read(r.c), given, gate);
    const auto to =
        cell.retreat(dh, load(r.grad_c + unit) + read(r.grad_cell), updated, given, gate, extra);
    store(r.to_c + unit, to.c_before);
    if (call.variant.peephole)
      work.sums.add_peepholes(unit, to.preactivation, given.c_before, updated);
    if (input_gate) write(input_gate, to.input_gate);
    LSTM_UNROLL for (int g = 0; g < kGates; ++g) {
      if constexpr (kKeepsG) write(r.kept + g * H, to.preactivation[g]);
      write(r.to_preactivations + g * H, to.preactivation[g]);
    }
  }
};

}  // namespace lstm_kernels::LSTM_ISA
