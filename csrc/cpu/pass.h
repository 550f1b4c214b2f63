// How a pass over a layer runs on a team of threads.
//
// A pass is a class that says how many `threads` a call is worth, takes all memory in its
// constructor, is made ready by `prepare`, and does a thread's part in `run`. Its constructor only
// adds up sizes where the arena has no memory, so that a call's scratch can be measured first.
#pragma once
#include "arena.h"
#include "schedule.h"
#include "team.h"

namespace lstm_kernels::LSTM_ISA {

using cpu::Barrier;
using cpu::Flag;

// The memory that each thread of a pass has to itself. `layout` takes it from an arena.
class ThreadMemory {
 public:
  template <class Layout>
  void take(Arena& arena, int team, Layout layout) {
    Arena measure(nullptr);
    layout(measure);
    bytes_ = int64_t(measure.used());
    base_ = arena.take<char>(team * bytes_);
  }
  Arena of(int thread) const { return Arena(base_ + thread * bytes_); }

 private:
  char* base_;
  int64_t bytes_;
};

// Bytes of scratch for a call. A team that comes out smaller than planned (a thread limit, a nested
// region) leaves the work to its first thread.
template <class Pass, class Call>
LSTM_INLINE size_t scratch_of(const Call& call) {
  Arena planned(nullptr), alone(nullptr);
  Pass(call, Pass::threads(call), planned), Pass(call, 1, alone);
  return planned.used() > alone.used() ? planned.used() : alone.used();
}
template <class Pass, class Call>
void run_pass(const Call& call, void* scratch) {
  struct Run {
    const Call& call;
    void* scratch;
    Pass planned;
  };
  Arena arena(scratch);
  const int threads = Pass::threads(call);
  Run run{call, scratch, Pass(call, threads, arena)};
  run.planned.prepare();
  auto body = [](void* context, int id, int size) {
    Run& r = *(Run*)context;
    if (size == r.planned.team) return r.planned.run(id);
    if (id > 0) return;
    Arena again(r.scratch);
    Pass alone(r.call, 1, again);
    alone.prepare();
    alone.run(0);
  };
  cpu::run_team(threads, body, &run);
}

}  // namespace lstm_kernels::LSTM_ISA
