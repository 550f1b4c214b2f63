// How a pass over a layer runs on a team of threads.
//
// A pass is a class that says how many `threads` a call is worth and takes all memory in its
// constructor, which only adds up sizes where the arena has none, so that a call's scratch can be
// measured first. Its work is cut into parts (see team.h): `part(q)` makes part q in its own
// memory, `run_phase` goes on with it. `prepare` and `finish` run before and after all parts.
#pragma once
#include "amx.h"
#include "arena.h"
#include "schedule.h"
#include "team.h"

namespace lstm_kernels::LSTM_ISA {

// The memory of each part of a pass. `layout` takes it from an arena.
class PartMemory {
 public:
  template <class Layout>
  void take(Arena& arena, int parts, Layout layout) {
    Arena measure(nullptr);
    layout(measure);
    bytes_ = int64_t(measure.used());
    base_ = arena.take<char>(parts * bytes_);
  }
  Arena of(int part) const { return Arena(base_ + part * bytes_); }

 private:
  char* base_;
  int64_t bytes_;
};

template <class Pass, class Call>
LSTM_INLINE size_t scratch_of(const Call& call) {
  Arena arena(nullptr);
  const Pass pass(call, Pass::threads(call), arena);
  arena.take<cpu::Part>(pass.parts), arena.take<typename Pass::Part>(pass.parts);
  return arena.used();
}
template <class Pass, class Call>
void run_pass(const Call& call, void* scratch) {
  using Part = typename Pass::Part;
  Arena arena(scratch);
  const int threads = Pass::threads(call);
  Pass pass(call, threads, arena);
  cpu::Part* const states = arena.take<cpu::Part>(pass.parts);
  Part* const parts = arena.take<Part>(pass.parts);
  pass.prepare();
  for (int q = 0; q < pass.parts; ++q) {
    const Group group = pass.group(q);
    states[q] = {0, 0, q == 0, group.first, group.last, group.in_step};
    new (&parts[q]) Part(pass, q);
  }
  auto run_phase = [](void* all, int q) {
    [[maybe_unused]] const AmxShapes shapes;
    return ((Part*)all)[q].run_phase();
  };
  cpu::run_parts({states, pass.parts, run_phase, parts}, threads);
  pass.finish();
}

}  // namespace lstm_kernels::LSTM_ISA
