// The weights of one direction as the forward pass reads them: panels of w_ih, w_hh and w_hr (see
// panels.h), and the sum of the biases.
//
// They are packed into scratch at the start of a call, or once for many calls. For that their
// layout depends on I, H, P, the format and the instruction set alone: not on T, N or the number of
// threads, and the block they lie in holds no pointers.
#pragma once
#include "layer.h"
#include "pack.h"

namespace lstm_kernels::LSTM_ISA {

// The sum of both biases of L units of a gate, from `unit` on.
template <class S>
LSTM_INLINE vec<compute<S>> bias_of(const DirectionWeights& from, int64_t H, int gate,
                                    int64_t unit) {
  const int64_t at = gate * H + unit, n = H - unit;
  vec<compute<S>> sum = {};
  if (from.b_ih) sum += load_n((const S*)from.b_ih + at, n);
  if (from.b_hh) sum += load_n((const S*)from.b_hh + at, n);
  return sum;
}

template <class S>
struct WeightPanels {
  using T = compute<S>;
  static constexpr int L = lanes<T>;
  static constexpr int64_t kPanel = kGates * L;  // numbers per row in a panel's result

  Panels<T> w_ih, w_hh, w_hr;
  T* bias;  // [panel][gate][lane]

  // Takes its place from `memory`; without memory it has its shape, and no numbers.
  // projected: the format of w_hr, whose operand is not rounded.
  void lay_out(const Sizes& s, bool projects, Format format, Format projected, Arena& memory) {
    auto take = [&](int64_t K, int64_t vectors, int width, Format format) {
      Panels<T> p{nullptr, format, K, vectors, width};
      p.data = memory.take<char>(p.bytes());
      return p;
    };
    const int64_t panels = ceil_div(s.H, L), columns = ceil_div(s.P, L);
    w_ih = take(s.I, kGates * panels, kGates, format);
    w_hh = take(s.P, kGates * panels, kGates, format);
    w_hr = {};
    if (projects) w_hr = take(s.H, columns, int(min_of(kMaxVectors, columns)), projected);
    bias = memory.take<T>(panels * kPanel);
  }

  // Part `id` of `parts`, which together pack everything.
  void pack(const DirectionWeights& from, const Sizes& s, int id, int parts) const {
    auto begin = [&](int64_t n) { return n * id / parts; };
    auto end = [&](int64_t n) { return n * (id + 1) / parts; };
    const int64_t panels = w_ih.count();
    for (int64_t p = begin(panels); p < end(panels); ++p) {
      pack_gates(w_ih, p, (const S*)from.w_ih, s.H);
      pack_gates(w_hh, p, (const S*)from.w_hh, s.H);
      for (int g = 0; g < kGates; ++g)
        store(bias + p * kPanel + g * L, bias_of<S>(from, s.H, g, p * L));
    }
    if (!w_hr.vectors) return;
    for (int64_t p = begin(w_hr.count()); p < end(w_hr.count()); ++p)
      pack_rows(w_hr, p, (const S*)from.w_hr, s.P);
  }
};

// ---- weights kept from call to call ------------------------------------------------------------

// One format for every N: that of the stored numbers, which takes half the memory of the widened
// ones and is faster with few rows; with 16 and more, bfloat16 was measured 7 to 8% slower, float16
// faster. Only SSE2, which has no instructions for it, widens 16-bit layers as in weight_format.
template <class S>
LSTM_INLINE Format prepacked_format(cpu::WeightDType as) {
  if constexpr (is_same<S, float>) {
    if (as == cpu::WeightDType::kBFloat16) return Format::kBFloat16;
    if (as == cpu::WeightDType::kFloat16) return Format::kFloat16;
  }
  return weight_format<S>(1);
}

// All directions of a layer, one after the other.
template <class S>
struct PrepackedWeights {
  WeightPanels<S> directions[2];
  size_t bytes;

  PrepackedWeights(const Sizes& s, bool projects, cpu::WeightDType as, void* memory) {
    Arena arena(memory);
    const Format format = prepacked_format<S>(as);
    const Format gates = is_same<operand<S>, bf16_pair> ? Format::kPairs : format;
    for (int d = 0; d < s.D; ++d) directions[d].lay_out(s, projects, gates, format, arena);
    bytes = arena.used();
  }
};

constexpr int64_t kPackingWork = 1 << 17;  // numbers worth a thread of their own

template <class S>
size_t prepacked_bytes(const cpu::LayerWeights& a) {
  return PrepackedWeights<S>(a.size, a.weights[0].w_hr, a.weight_dtype, nullptr).bytes;
}

template <class S>
void prepack_weights(const cpu::LayerWeights& a, void* memory) {
  struct Call {
    const cpu::LayerWeights& from;
    PrepackedWeights<S> to;
  } call{a, {a.size, bool(a.weights[0].w_hr), a.weight_dtype, memory}};
  auto body = [](void* context, int id, int team) {
    const Call& c = *(const Call*)context;
    for (int d = 0; d < c.from.size.D; ++d)
      c.to.directions[d].pack(c.from.weights[d], c.from.size, id, team);
  };
  const Sizes& s = a.size;
  const int64_t numbers = s.D * 4 * s.H * (s.I + s.P);
  cpu::run_team(int(max_of(1, min_of(a.threads, numbers / kPackingWork))), body, &call);
}

}  // namespace lstm_kernels::LSTM_ISA
