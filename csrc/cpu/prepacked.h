// A layer's weights in panels, laid out once for many calls.
#pragma once
#include "team.h"
#include "weight_panels.h"

namespace lstm_kernels::LSTM_ISA {

// The format of the gates' matrices: one for every N.
template <class S>
LSTM_INLINE Format prepacked_format(cpu::WeightDType as) {
  if constexpr (is_same<S, float>) {
    if (as == cpu::WeightDType::kBFloat16) return Format::kBFloat16;
    if (as == cpu::WeightDType::kFloat16) return Format::kFloat16;
  }
  return weight_format<S>(kPrepackedRows);
}

// All directions of a layer, one after the other. X: what h is made of in products.
template <class S, class X>
struct PrepackedWeights {
  WeightPanels<S> directions[2];
  size_t bytes;

  PrepackedWeights(const Sizes& s, bool projects, cpu::WeightDType as, void* memory) {
    Arena arena(memory);
    const Format format = prepacked_format<S>(as);
    const Format gates = is_same<X, bf16_pair> ? Format::kPairs : format;
    for (int d = 0; d < s.D; ++d) directions[d].take(s, projects, gates, format, arena);
    bytes = arena.used();
  }
};

template <class S, class X>
size_t prepacked_bytes(const cpu::LayerWeights& a) {
  return PrepackedWeights<S, X>(a.size, a.weights[0].w_hr, a.weight_dtype, nullptr).bytes;
}

template <class S, class X>
void prepack_weights(const cpu::LayerWeights& a, void* memory) {
  const Sizes& s = a.size;
  const int64_t numbers = s.D * 4 * s.H * (s.I + s.P);
  struct Call {
    const cpu::LayerWeights& from;
    PrepackedWeights<S, X> to;
    int parts;
  } call{a,
         {s, bool(a.weights[0].w_hr), a.weight_dtype, memory},
         int(max_of(1, min_of(a.threads.count, numbers / cpu::kPanelNumbers)))};
  auto body = [](void* context, int part) {
    const Call& c = *(const Call*)context;
    for (int d = 0; d < c.from.size.D; ++d)
      c.to.directions[d].lay_out(c.from.weights[d], c.from.size, part, c.parts);
  };
  cpu::run_each(call.parts, body, &call);
}

}  // namespace lstm_kernels::LSTM_ISA
