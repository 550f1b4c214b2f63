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
//
// The products meet in one buffer, but each is made by a function that does nothing else:
// project_input and add_recurrent. Where a step has a layer norm, its cells follow when the
// products of whole rows are there: norm_forward.h. Where h has a mask for each gate, the recurrent
// product is that of gate_panels.h, whose panels have several units of one gate instead of one unit
// of several gates: a step goes on by that many panels.
#pragma once
#include "cell.h"
#include "direct_gates.h"
#include "norm_forward.h"
#include "pass.h"
#include "prepacked.h"
#include "quantized.h"
#include "variant_cell.h"

namespace lstm_kernels::LSTM_ISA {

template <class S, class X, class Call>
struct ForwardPart;

// S: what the caller's arrays are made of. X: what x and h are made of, the compute type where the
// weights are read as they are stored, and q8 where they are quantized. Call: SequenceForward, or
// VariantForward.
template <class S, class X, class Call = cpu::SequenceForward>
struct Forward {
  using Part = ForwardPart<S, X, Call>;
  using T = compute<S>;
  static constexpr bool kQuantized = is_same<X, q8>;
  // What h is carried in, and what the projection multiplies: rounded to q8 when a step begins.
  using Carried = pick<kQuantized, T, X>;
  using Unprojected = pick<kQuantized, X, T>;
  static constexpr int L = lanes<T>;
  static constexpr int64_t kPanel = WeightPanels<S>::kPanel;

  struct Direction {
    pick<kQuantized, QuantizedWeights, WeightPanels<S>> weights;
    Carried* h[2];   // [rank][h_stride], read and written in turn
    T* c;            // [rank][c_stride]
    T* unprojected;  // [rank][c_stride]: o * tanh(c), where there is a projection
  };
  struct Work {                       // of one part
    const X **x, **h;                 // operand rows
    int64_t* at;                      // the step's rows in the caller's arrays, (rows, D)
    const Unprojected** unprojected;  // likewise, of the projection
    X* x_copy;  // [row][x_stride]: input rows, where they are widened, padded or rounded
    X *h_copy, *unprojected_copy;  // [row][quantized_stride], where they are rounded
    T *interleaved, *sums;         // of DirectGates
    T* pre;                        // pre-activations: [panel][row][gate][lane]
    T *recurrent, *updated;        // of NormForward: W_hh h alone, likewise; c~ of a row
    VariantRow<S>* given;          // of each row, where there is a variant
    const S** hidden_before;       // of each row, with zoneout: h before the step, or null: zeros
    const X** masked;              // [gate][row]: h times the mask of each gate, if they have masks
    X* masked_copy;                // [gate][row][h_stride]: likewise
    T* partial;                    // of GatePanels
    T* projected;  // one panel of h_t: [row][vector][lane], where there is a projection
  };

  const Call& call;
  int parts;
  bool direct;  // the weights are read as they are stored
  bool copies;  // the input's rows are not
  int64_t panels, h_stride, c_stride, x_stride;
  int step_panels;  // whose cells follow together: 1, or the width of GatePanels
  Direction directions[2];
  X* zeros;
  PartMemory memory;

  static int threads(const cpu::SequenceForward& call) {
    const Sizes& s = call.size;
    return threads_for_steps(call.threads, s.T, s.D * s.N * 4 * s.H * (s.I + s.P));
  }
  static int64_t weight_bytes(const Sizes& s) {
    return 4 * s.H * s.P * int64_t(kQuantized ? 1 : sizeof(T));
  }
  bool projects() const { return call.weights[0].w_hr; }
  // Whether cells wait for the products of their whole row.
  LSTM_INLINE bool normalises() const {
    if constexpr (is_same<Call, cpu::VariantForward>) return call.variant.normalises();
    return false;
  }
  // Whether h has a mask for each gate.
  LSTM_INLINE bool masks_gates() const {
    if constexpr (is_same<Call, cpu::VariantForward>) return call.variant.gate_masks.data;
    return false;
  }
  // Whether W_ih x and W_hh h are not added up.
  LSTM_INLINE bool separates() const {
    if constexpr (is_same<Call, cpu::VariantForward>) return call.variant.separate;
    return false;
  }
  Split split(int part) const {
    return Split(call.size, weight_bytes(call.size), !direct, part, parts);
  }
  Group group(int part) const { return split(part).group(part); }

  Forward(const Call& call, int threads, Arena& arena)
      : call(call), parts(Split::parts(call.size, threads)) {
    const Sizes& s = call.size;
    direct = reads_direct(call);
    panels = ceil_div(s.H, L);
    const Split first = split(0);
    const int64_t own_panels = panels / (first.by_batch ? 1 : first.size);
    step_panels = masks_gates() ? int(max_of(1, min_of(kMaxVectors, own_panels))) : 1;
    copies = direct || !(is_same<S, number<X>> && s.I % whole_operand<X> == 0);
    h_stride = padded<Carried>(ceil_div(s.P, numbers_in<X>)), c_stride = padded<T>(s.H);
    x_stride = operand_stride(s.I);
    // Prepacked weights are only read.
    using Prepacked = pick<kQuantized, PrepackedQuantized, PrepackedWeights<S, X>>;
    const Prepacked prepacked(s, projects(), call.weight_dtype, const_cast<void*>(call.prepacked));
    Arena nowhere(nullptr);
    for (int d = 0; d < s.D; ++d) {
      Direction& to = directions[d];
      if constexpr (!kQuantized)
        to.weights.take(s, projects(), operand_format<X, S>(s.N), weight_format<S>(s.N),
                        direct || call.prepacked ? nowhere : arena,
                        masks_gates() ? step_panels : 0);
      if (call.prepacked) to.weights = prepacked.directions[d];
      if constexpr (kAmx && numbers_in<X> == 2) {
        to.weights.w_ih.uses_amx = s.T * s.N >= kFewestAmxRows;
        to.weights.w_hh.uses_amx = s.N >= kFewestAmxRows;
      }
      for (Carried*& h : to.h) h = arena.take<Carried>(s.N * h_stride);
      to.c = arena.take<T>(s.N * c_stride);
      to.unprojected = projects() ? arena.take<T>(s.N * c_stride) : nullptr;
    }
    zeros = arena.take<X>(operand_stride(s.P));
    memory.take(arena, parts, [&](Arena& own) { work(own); });
  }

  LSTM_NOINLINE Work work(Arena& arena) const {
    const Sizes& s = call.size;
    int64_t rows = 0, own_panels = 0;  // the largest share of any part
    for (int part = 0; part < parts; ++part) {
      const Split of = split(part);
      rows = max_of(rows, of.max_rows(s.N));
      own_panels = max_of(own_panels, last_panel(of) - first_panel(of));
    }
    const int64_t chunk = min_of(kChunkRows, s.T * rows), most = max_of(chunk, rows);
    Work w;
    w.x = arena.take<const X*>(most), w.h = arena.take<const X*>(most);
    w.unprojected = arena.take<const Unprojected*>(projects() ? rows : 0);
    w.h_copy = arena.take<X>(kQuantized ? rows * operand_stride(s.P) : 0);
    w.unprojected_copy = arena.take<X>(kQuantized && projects() ? rows * operand_stride(s.H) : 0);
    w.at = arena.take<int64_t>(rows);
    const int64_t of_variant = is_same<Call, cpu::VariantForward> ? rows : 0;
    w.given = arena.take<VariantRow<S>>(of_variant);
    w.hidden_before = arena.take<const S*>(of_variant);
    w.x_copy = copies ? arena.take<X>(most * x_stride) : nullptr;
    w.interleaved = arena.take<T>(direct ? DirectGates<S>::interleaved_numbers(s, rows) : 0);
    w.sums = arena.take<T>(direct ? DirectGates<S>::sums_numbers(rows) : 0);
    w.pre = arena.take<T>(
        (normalises() ? panels * most : max_of(own_panels * chunk, 2 * step_panels * rows)) *
        kPanel);
    w.recurrent = arena.take<T>(separates() ? panels * rows * kPanel : 0);
    w.updated = arena.take<T>(normalises() ? c_stride : 0);
    const int64_t masked = masks_gates() ? kGates * rows : 0;
    w.masked = arena.take<const X*>(masked), w.masked_copy = arena.take<X>(masked * h_stride);
    w.partial = arena.take<T>(masks_gates() ? max_of(2, rows) * kMaxVectors * L : 0);
    w.projected = projects() ? arena.take<T>(kMaxVectors * L * rows) : nullptr;
    return w;
  }

  // The panels of a part, whose cells it computes.
  int64_t first_panel(const Split& of) const {
    return of.by_batch ? 0 : of.begin(ceil_div(panels, step_panels)) * step_panels;
  }
  int64_t last_panel(const Split& of) const {  // one past
    return of.by_batch ? panels
                       : min_of(panels, of.end(ceil_div(panels, step_panels)) * step_panels);
  }

  void prepare() { __builtin_memset(zeros, 0, size_t(operand_stride(call.size.P)) * sizeof(X)); }
  void finish() const {}

  // Elements from one row of n operands to the next.
  static int64_t operand_stride(int64_t n) {
    if constexpr (kQuantized) return quantized_stride(n);
    return padded<X>(ceil_div(n, numbers_in<X>));
  }
  // Row j of n numbers as the products take it: itself, or rounded in the memory for copies.
  template <class From>
  LSTM_INLINE static auto operand_row(const From* row, int64_t n, [[maybe_unused]] X* copies,
                                      [[maybe_unused]] int64_t j) {
    if constexpr (kQuantized) {
      X* copy = copies + j * operand_stride(n);
      copy_row(copy, row, n);
      return (const X*)copy;
    } else {
      return row;
    }
  }
};

// One part of one direction. Its phases: making ready; the steps, each in one phase, or in one more
// with a layer norm and with a projection, where parts go in step, and by chunks where they do not;
// writing the final states.
template <class S, class X, class Call>
struct ForwardPart : InArena {
  using Pass = Forward<S, X, Call>;
  using Stored = S;
  using T = compute<S>;
  using Carried = typename Pass::Carried;
  static constexpr bool kVariant = is_same<Call, cpu::VariantForward>;
  // Whether h is carried as the caller sees it, neither masked nor rounded further.
  static constexpr bool kKeepsHidden =
      !kVariant && (is_same<Carried, T> || is_same<S, number<Carried>>);
  static constexpr int L = lanes<T>;
  static constexpr int64_t kPanel = Pass::kPanel;

  const Pass& pass;
  const Call& call;
  const Sizes& size;
  const Split split;
  const int direction;
  const typename Pass::Direction& own;
  const Steps steps;
  const Share share;
  const int64_t first_panel, last_panel;  // one past
  const int64_t origin;                   // the panel that work.pre begins with
  typename Pass::Work work;

  enum class Stage { kProducts, kNormedCells, kProjection };  // of a step
  bool ready = false;
  Stage stage = Stage::kProducts;  // the next one
  int64_t s = 0;                   // the step it belongs to
  // The chunk of steps that it belongs to: the first step after it, its rows, those of steps done;
  // and whether both products of its only step are made together.
  int64_t chunk_end = 0, rows = 0, rows_done = 0;
  bool together = false;

  ForwardPart(const Pass& pass, int part)
      : pass(pass),
        call(pass.call),
        size(call.size),
        split(pass.split(part)),
        direction(split.direction),
        own(pass.directions[direction]),
        steps{call.rows, size.T, size.N, direction == 1},
        share(split.rows(size.N, call.rows.counts)),
        first_panel(pass.first_panel(split)),
        last_panel(pass.last_panel(split)),
        origin(pass.normalises() ? 0 : first_panel) {
    Arena memory = pass.memory.of(part);
    work = pass.work(memory);
    if (pass.normalises() && split.in_step()) {  // each other's products
      Arena shared = pass.memory.of(part - split.id);
      const auto of_first = pass.work(shared);
      work.pre = of_first.pre, work.recurrent = of_first.recurrent;
    }
  }

  bool run_phase() {
    if (!ready) {
      make_ready();
    } else if (s == size.T) {
      write_states();
      return true;
    } else if (split.in_step()) {
      run_stage();
    } else {
      do run_stage();
      while (stage != Stage::kProducts || s < chunk_end);
    }
    return false;
  }

  void make_ready() {
    if constexpr (!Pass::kQuantized)
      if (!pass.direct && !call.prepacked)
        own.weights.lay_out(call.weights[direction], size, split.id, split.size);
    read_states();
    zero_beyond_lengths();
    ready = true;
  }

  void run_stage() {
    if (s == chunk_end) begin_chunk();
    const int64_t n = share.active(steps.count(steps.time(s)));
    switch (stage) {
      case Stage::kProducts:
        if (n) step(n, work.pre + rows_done * kPanel);
        stage = pass.normalises() ? Stage::kNormedCells : after_cells();
        break;
      case Stage::kNormedCells:
        if constexpr (kVariant) normed_cells(n, work.pre + rows_done * kPanel);
        stage = after_cells();
        break;
      case Stage::kProjection:
        if (n) project_hidden(n);
        stage = Stage::kProducts;
    }
    if (stage == Stage::kProducts) rows_done += n, ++s;
  }
  Stage after_cells() const { return pass.projects() ? Stage::kProjection : Stage::kProducts; }

  void read_states() {
    const Share states = split.states(size.N, call.rows.counts);
    for (int64_t j = 0; j < states.size; ++j) {
      const int64_t r = states.rank(j), row = direction * size.N + steps.sequence(r);
      const S* h0 = call.h0 ? (const S*)call.h0 + row * size.P : nullptr;
      const S* c0 = call.c0 ? (const S*)call.c0 + row * size.H : nullptr;
      for (auto* h : own.h) copy_row(h + r * pass.h_stride, h0, size.P);
      if constexpr (kVariant) mask_first_hidden(r);
      copy_row(own.c + r * pass.c_stride, c0, size.H);
    }
  }

  void write_states() {
    const Share states = split.states(size.N, call.rows.counts);
    for (int64_t j = 0; j < states.size; ++j) {
      const int64_t r = states.rank(j), row = direction * size.N + steps.sequence(r);
      if constexpr (!kKeepsHidden) {
        const S* h = hidden_after(r, size.T);
        if (call.h_n && h) __builtin_memcpy((S*)call.h_n + row * size.P, h, sizeof(S) * size.P);
        if (call.h_n && !h) zero_row((S*)call.h_n + row * size.P, size.P);
        if (call.c_n) copy_out((S*)call.c_n + row * size.H, own.c + r * pass.c_stride, size.H);
        continue;
      }
      // The reverse direction ends with step T - 1, the other one with the sequence's length.
      const int64_t last = direction == 1 ? size.T : steps.length(r);
      const auto* h = (const number<Carried>*)(own.h[last & 1] + r * pass.h_stride);
      if (call.h_n) copy_out((S*)call.h_n + row * size.P, h, size.P);
      if (call.c_n) copy_out((S*)call.c_n + row * size.H, own.c + r * pass.c_stride, size.H);
    }
  }

  void zero_beyond_lengths() {
    steps.past_ends(split.id, split.size, [&](int64_t row) {
      const int64_t at = row * size.D + direction;
      zero_row((S*)call.output + at * size.P, size.P);
      if (call.cell) zero_row((S*)call.cell + at * size.H, size.H);
      if (call.gates) zero_row((S*)call.gates + at * kGates * size.H, kGates * size.H);
      if constexpr (kVariant)
        if (call.products) {
          const int64_t width = call.variant.branches() * kGates * size.H;
          zero_row((S*)call.products + at * width, width);
        }
    });
  }

  // The next steps of about kChunkRows rows, and the input's part of their pre-activations.
  void begin_chunk() {
    rows = rows_done = 0;
    do rows += share.active(steps.count(steps.time(chunk_end++)));
    while (!pass.direct && chunk_end < size.T &&
           rows + share.active(steps.count(steps.time(chunk_end))) <= kChunkRows);
    together = chunk_end == s + 1;
    int64_t r = 0;
    for (int64_t u = s; u < chunk_end; ++u)
      for (int64_t j = 0, n = share.active(steps.count(steps.time(u))); j < n; ++j, ++r)
        work.x[r] = input_row(steps.time(u), share.rank(j), r);
    if (together || !rows) return;
    for (int64_t p = first_panel; p < last_panel; ++p)
      project_input(p, p + 1 < last_panel ? p + 1 : -1, rows,
                    work.pre + (p - origin) * rows * kPanel);
  }

  const X* input_row(int64_t t, int64_t rank, int64_t r) {
    const S* x = steps.template input_row<S>(call.x, call.x_step, call.x_row, t, rank);
    if (!pass.copies) return (const X*)x;
    X* copy = work.x_copy + r * pass.x_stride;
    copy_row(copy, x, size.I);
    return copy;
  }

  // pre = bias + x W_ih^T for the units of panel p. A norm of the gates comes before their bias.
  void project_input(int64_t p, int64_t next, int64_t rows, T* pre) {
    vec<T> bias[kGates] = {};
    if (!normalises_gates())
      for (int g = 0; g < kGates; ++g) bias[g] = load(own.weights.bias + p * kPanel + g * L);
    for (int64_t r = 0; r < rows; ++r)
      for (int g = 0; g < kGates; ++g) store(pre + r * kPanel + g * L, bias[g]);
    own.weights.w_ih.accumulate(p, next, work.x, rows, pre);
  }

  // pre += h W_hh^T for the units of panel p; of one row, for those of two panels.
  LSTM_INLINE void add_recurrent(int64_t p, int64_t next, int64_t n, T* pre) {
    own.weights.w_hh.accumulate(p, next, work.h, n, pre);
  }
  LSTM_INLINE void add_recurrent_pair(int64_t p0, int64_t p1, T* pre0, T* pre1) {
    own.weights.w_hh.accumulate_pair(p0, p1, work.h[0], pre0, pre1);
  }

  void step(int64_t n, T* pre) {
    const int64_t t = steps.time(s);
    const Carried* h = own.h[s & 1];
    for (int64_t j = 0; j < n; ++j) {
      const int64_t rank = share.rank(j);
      work.h[j] = steps.reset(t, rank)
                      ? pass.zeros
                      : Pass::operand_row(h + rank * pass.h_stride, size.P, work.h_copy, j);
      work.at[j] = steps.row(t, rank) * size.D + direction;
    }
    if constexpr (kVariant) {
      read_variant(n);
      if (pass.masks_gates()) return gated_step(n, pre);
    }
    const PanelOrder order{first_panel, last_panel, bool(s & 1)};
    if (pass.direct) {
      if constexpr (is_same<X, T> && !kAmx)
        DirectGates<S>{call.weights[direction], size, work.interleaved, work.sums}.each_panel(
            order, {work.x, work.h, n}, pre, [&](int64_t p, const T* of) { cell(p, n, of); });
      return;
    }
    const bool passing = together && !pass.normalises();  // nothing reads it after the cell
    auto result = [&](int64_t p) { return passing ? pre : pre + (p - origin) * rows * kPanel; };
    // What W_hh h is added to.
    auto sum = [&](int64_t p) {
      if (!pass.separates()) return result(p);
      T* zeros = work.recurrent + (p - origin) * n * kPanel;
      __builtin_memset(zeros, 0, size_t(n * kPanel) * sizeof(T));
      return zeros;
    };
    for (int64_t i = 0; i < order.count();) {
      const int64_t p = order.panel(i);
      if (n == 1 && i + 1 < order.count()) {
        const int64_t p1 = order.panel(i + 1);
        T *pre0 = result(p), *pre1 = passing ? pre + kPanel : result(p1);
        if (together) project_input(p, -1, 1, pre0), project_input(p1, -1, 1, pre1);
        if (pass.separates()) pre0 = sum(p), pre1 = sum(p1);
        add_recurrent_pair(p, p1, pre0, pre1);
        if (!pass.normalises()) cell(p, 1, pre0), cell(p1, 1, pre1);
        i += 2;
      } else {
        if (together) project_input(p, order.after(i), n, result(p));
        add_recurrent(p, order.after(i), n, sum(p));
        if (!pass.normalises()) cell(p, n, result(p));
        ++i;
      }
    }
  }

  // The LSTM cells of the units of panel p, from the gates' pre-activations.
  LSTM_NOINLINE void cell(int64_t p, int64_t n, const T* pre) {
    if constexpr (kVariant) return variant_cells(p, n, pre);
    const int64_t unit = p * L, H = size.H, valid = H - unit;
    for (int64_t j = 0; j < n; ++j, pre += kPanel) {
      const int64_t rank = share.rank(j), row = work.at[j];
      T* carried = own.c + rank * pass.c_stride + unit;
      const Cell<T> to = advance<T>(pre, work.h[j] == pass.zeros ? vec<T>{} : load(carried));
      store(carried, to.c);
      if (pass.projects()) {
        store(own.unprojected + rank * pass.c_stride + unit, to.h);
      } else {
        keep_hidden(rank, unit, to.h);
        store_n((S*)call.output + row * H + unit, to.h, valid);
      }
      if (call.cell) store_n((S*)call.cell + row * H + unit, to.c, valid);
      if (call.gates) {
        S* gates = (S*)call.gates + row * kGates * H + unit;
        store_n(gates + kInputGate * H, to.i, valid), store_n(gates + kForgetGate * H, to.f, valid);
        store_n(gates + kCandidate * H, to.g, valid), store_n(gates + kOutputGate * H, to.o, valid);
      }
    }
  }

  // For the next step: h as the caller sees it.
  LSTM_INLINE void keep_hidden(int64_t rank, int64_t column, vec<T> h) const {
    Carried* row = own.h[~s & 1] + rank * pass.h_stride;
    if constexpr (kVariant)
      if (call.variant.hidden_mask.data && s + 1 < size.T)
        h = rounded<S>(h) * load_n(hidden_mask(rank, s + 1) + column, size.P - column);
    if constexpr (is_same<Carried, T>)
      store(row + column, rounded<S>(h));
    else
      store((number<X>*)row + column, h);
  }

  // h_t = (o * tanh(c_t)) W_hr^T
  void project_hidden(int64_t n) {
    for (int64_t j = 0; j < n; ++j)
      work.unprojected[j] = Pass::operand_row(own.unprojected + share.rank(j) * pass.c_stride,
                                              size.H, work.unprojected_copy, j);
    const auto& w_hr = own.weights.w_hr;
    const int64_t count = w_hr.count();
    const int64_t first_panel = split.by_batch ? 0 : split.begin(count);
    const int64_t last_panel = split.by_batch ? count : split.end(count);
    for (int64_t p = first_panel; p < last_panel; ++p) {
      const int nv = w_hr.width_of(p);
      const int64_t first = p * w_hr.width * L;
      __builtin_memset(work.projected, 0, size_t(n * nv * L) * sizeof(T));
      if (!pass.direct) w_hr.accumulate(p, -1, work.unprojected, n, work.projected);
      if constexpr (!Pass::kQuantized && !kAmx)  // partial.h leaves such calls to another set
        for (int v = 0; pass.direct && v < nv; ++v)
          DirectGates<S>{call.weights[direction], size, nullptr, nullptr}.project(
              first + v * L, work.unprojected, n, work.projected + v * L, nv * L);
      for (int64_t j = 0; j < n; ++j)
        for (int v = 0; v < nv; ++v) {
          const int64_t column = first + v * L;
          vec<T> h = load(work.projected + (j * nv + v) * L);
          if constexpr (kVariant) h = after_zoneout(j, column, h);
          keep_hidden(share.rank(j), column, h);
          store_n((S*)call.output + work.at[j] * size.P + column, h, size.P - column);
        }
    }
  }

  // ---- variants -------------------------------------------------------------------------------

  LSTM_INLINE bool normalises_gates() const {
    if constexpr (kVariant) return call.variant.norm_gates;
    return false;
  }

  // What the variant says about each of the step's n rows.
  void read_variant(int64_t n) const {
    const int64_t t = steps.time(s);
    const bool zones_out = call.variant.zones_out_hidden();
    for (int64_t j = 0; j < n; ++j) {
      const int64_t rank = share.rank(j);
      work.given[j] = VariantRow<S>(call.variant, size, direction, t, steps.sequence(rank));
      if (zones_out) work.hidden_before[j] = steps.reset(t, rank) ? nullptr : hidden_after(rank, s);
    }
  }
  LSTM_INLINE const S* hidden_mask(int64_t rank, int64_t s) const {
    return VariantRow<S>::row(call.variant.hidden_mask, steps.time(s), steps.sequence(rank), size.D,
                              direction, size.P);
  }

  // h before the sequence's first step, as the operand of its product.
  void mask_first_hidden(int64_t rank) const {
    const int64_t length = steps.length(rank);
    if (!call.variant.hidden_mask.data || !call.h0 || !length) return;
    const S* mask = hidden_mask(rank, direction == 1 ? size.T - length : 0);
    for (int64_t column = 0; column < size.P; column += L) {
      const vec<T> factor = load_n(mask + column, size.P - column);
      for (X* h : own.h) {
        auto* row = (number<X>*)(h + rank * pass.h_stride) + column;
        store(row, rounded<S>(load(row) * factor));
      }
    }
  }

  // h after steps 0 .. s - 1, or 0 .. its last one before s, as the caller holds it; null: zeros.
  const S* hidden_after(int64_t rank, int64_t s) const {
    const int64_t length = steps.length(rank);
    const int64_t last = direction == 1 ? s : min_of(s, length);
    const bool stepped = direction == 1 ? s > size.T - length : last > 0;
    if (stepped)
      return (const S*)call.output +
             (steps.row(steps.time(last - 1), rank) * size.D + direction) * size.P;
    if (!call.h0) return nullptr;
    return (const S*)call.h0 + (direction * size.N + steps.sequence(rank)) * size.P;
  }

  // h of row j of this step after zoneout.
  LSTM_INLINE vec<T> after_zoneout(int64_t j, int64_t column, vec<T> h) const {
    if (!call.variant.zones_out_hidden()) return h;
    const S* before = work.hidden_before[j];
    const int64_t valid = size.P - column;
    return zoned_out<T>(work.given[j].keeps_hidden(column, valid),
                        before ? load_n(before + column, valid) : vec<T>{}, h);
  }

  void variant_cells(int64_t p, int64_t n, const T* pre) {
    with_cell<T>(call.variant, false, [&](const auto& cell) {
      if (size.H - p * L >= L)
        cell_rows<true>(cell, p, n, pre);
      else
        cell_rows<false>(cell, p, n, pre);
    });
  }
  template <bool kWhole, class VariantCell>
  LSTM_INLINE void cell_rows(const VariantCell& cell, int64_t p, int64_t n, const T* pre) {
    for (int64_t j = 0; j < n; ++j, pre += kPanel) {
      const int64_t rank = share.rank(j);
      auto given = work.given[j].template at<kWhole>(p * L);
      if (work.h[j] != pass.zeros) given.c_before = load(own.c + rank * pass.c_stride + p * L);
      keep_cell<kWhole>(j, p * L, cell.advance(pre, given));
    }
  }
  // Writes what the cells from `unit` on are after the step, of its row j.
  template <bool kWhole>
  LSTM_INLINE void keep_cell(int64_t j, int64_t unit, const Cell<T>& to) const {
    const int64_t rank = share.rank(j), row = work.at[j], H = size.H;
    auto write = [&](S* to, vec<T> v) {
      if constexpr (kWhole)
        store(to, v);
      else
        store_n(to, v, H - unit);
    };
    store(own.c + rank * pass.c_stride + unit, to.c);
    if (pass.projects()) {
      store(own.unprojected + rank * pass.c_stride + unit, to.h);
    } else {
      const vec<T> h = after_zoneout(j, unit, to.h);
      keep_hidden(rank, unit, h);
      write((S*)call.output + row * H + unit, h);
    }
    if (call.cell) write((S*)call.cell + row * H + unit, to.c);
    if (call.gates) {
      S* gates = (S*)call.gates + row * kGates * H + unit;
      write(gates + kInputGate * H, to.i), write(gates + kForgetGate * H, to.f);
      write(gates + kCandidate * H, to.g), write(gates + kOutputGate * H, to.o);
    }
  }

  // A step of n rows, where h has a mask for each gate.
  void gated_step(int64_t n, T* pre) {
    mask_operands(n);
    const auto& w_hh = own.weights.w_hh_by_gate;
    const int width = pass.step_panels;
    const PanelOrder order{first_panel / width, ceil_div(last_panel, width), bool(s & 1)};
    for (int64_t i = 0; i < order.count();) {
      int64_t p = order.panel(i), vectors = w_hh.width_of(p);
      if (n == 1 && i + 1 < order.count() && width == kMaxVectors) {
        const int64_t lower = min_of(p, order.panel(i + 1));
        if (w_hh.width_of(lower + 1) == width) p = lower, vectors = 2 * width;
      }
      gated_product(p, vectors, order.after(i), n, pre);
      i += vectors > width ? 2 : 1;
    }
  }
  // h times the masks: four operands for each row.
  void mask_operands(int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
      const S* mask =
          VariantRow<S>::row(call.variant.gate_masks, steps.time(s), steps.sequence(share.rank(j)),
                             size.D, direction, kGates * size.P);
      for (int64_t g = 0; g < kGates; ++g, mask += size.P) {
        const X*& operand = work.masked[g * n + j];
        operand = pass.zeros;
        if (work.h[j] == pass.zeros) continue;
        X* copy = work.masked_copy + (g * n + j) * pass.h_stride;
        using Number = number<X>;
        for (int64_t column = 0; column < size.P; column += L) {
          const vec<T> factor = load_n(mask + column, size.P - column);
          store((Number*)copy + column,
                rounded<S>(load((const Number*)work.h[j] + column) * factor));
        }
        operand = copy;
      }
    }
  }
  // The products of the units in the first `vectors` vectors from panel p of GatePanels on, which
  // are as many panels of the others, and without norm their cells. next: the panel that follows.
  void gated_product(int64_t p, int64_t vectors, int64_t next, int64_t n, T* pre) {
    const auto& w_hh = own.weights.w_hh_by_gate;
    const int64_t first = p * pass.step_panels, last = first + vectors;
    const bool passing = together && !pass.normalises();  // nothing reads it after the cells
    auto result = [&](int64_t u) { return pre + (u - (passing ? first : origin)) * rows * kPanel; };
    for (int64_t u = first; together && u < last; ++u)
      project_input(u, u + 1 < last ? u + 1 : -1, n, result(u));
    auto put = [&](int64_t g, const T* partial) {
      for (int64_t j = 0; j < n; ++j)
        for (int64_t u = first; u < last; ++u, partial += L) {
          if (pass.separates()) {
            store(work.recurrent + ((u - origin) * n + j) * kPanel + g * L, load(partial));
          } else {
            T* sum = result(u) + j * kPanel + g * L;
            store(sum, load(sum) + load(partial));
          }
        }
    };
    if (vectors > pass.step_panels)
      w_hh.each_product_of_two(p, work.masked, work.partial, put);
    else
      w_hh.each_product(p, next, work.masked, n, work.partial, put);
    for (int64_t u = first; !pass.normalises() && u < last; ++u) cell(u, n, result(u));
  }

  // The cells of a step of n rows, from products of whole rows; of this part's rows, where all
  // parts made the products.
  void normed_cells(int64_t n, T* pre) const {
    with_cell<T>(call.variant, false, [&](const auto& cell) {
      const NormForward norm(*this, cell);
      for (int64_t j = split.first_row(n); j < split.last_row(n); ++j) {
        const ProductRow<T> input{pre + j * kPanel, rows * kPanel};
        norm.row(j, input,
                 pass.separates() ? ProductRow<T>{work.recurrent + j * kPanel, n * kPanel} : input);
      }
    });
  }
};

}  // namespace lstm_kernels::LSTM_ISA
