#include "torch_threads.h"

#include <atomic>
#include <chrono>

#include "platform.h"

// What GCC makes of `#pragma omp parallel`. The runtimes of GCC and of LLVM both have it, so any
// compiler can open a region of the one that torch brings, and none brings a second.
#ifdef LSTM_TORCH_OPENMP
extern "C" {
[[gnu::weak]] void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
[[gnu::weak]] int omp_get_num_threads();
[[gnu::weak]] int omp_get_thread_num();
[[gnu::weak]] int omp_in_parallel();
}
#endif

namespace lstm_kernels::cpu {

#ifdef LSTM_TORCH_OPENMP
namespace {

std::atomic<bool> forked = false;

// The clocks of the CPU time of this thread's workers, as its last region had them.
struct Workers {
  int count = 0;
  ThreadClock clocks[kMostThreads];
};
thread_local Workers workers;

// Whether a thread is running: its CPU time goes on with the clock.
bool runs(const ThreadClock& clock) {
  using namespace std::chrono;
  const int64_t before = clock.nanoseconds();
  const auto begin = steady_clock::now();
  while (steady_clock::now() - begin < microseconds(1)) pause();
  const int64_t ran = clock.nanoseconds() - before;
  return before >= 0 && 2 * nanoseconds(ran) > steady_clock::now() - begin;
}

}  // namespace

void forget_torch_threads() { forked.store(true); }

bool torch_threads_usable() { return GOMP_parallel && !forked.load() && !omp_in_parallel(); }

bool torch_threads_awake(int helpers) {
  return workers.count >= helpers && torch_threads_usable() && runs(workers.clocks[0]) &&
         (helpers == 1 || runs(workers.clocks[helpers - 1]));
}

Waited run_on_torch_threads(const Parts& parts, int helpers) {
  using namespace std::chrono;
  struct Region {
    const Parts& parts;
    Workers& workers;  // of the thread that opens the region
    Waited waited = {};
    steady_clock::time_point done = {};
  } region{parts, workers};
  const auto body = [](void* data) {
    Region& region = *static_cast<Region*>(data);
    const int id = omp_get_thread_num();
    if (id > 0) region.workers.clocks[id - 1] = ThreadClock::of_this_thread();
    const Waited waited = work(region.parts, id);
    if (id == 0) {
      region.workers.count = omp_get_num_threads() - 1;
      region.waited = waited, region.done = steady_clock::now();
    }
  };
  GOMP_parallel(body, &region, unsigned(1 + helpers), 0);
  const nanoseconds at_the_end = steady_clock::now() - region.done;
  return {region.waited.nanoseconds + at_the_end.count()};
}
#else
void forget_torch_threads() {}
bool torch_threads_usable() { return false; }
bool torch_threads_awake(int) { return false; }
Waited run_on_torch_threads(const Parts& parts, int) { return work(parts, 0); }
#endif

}  // namespace lstm_kernels::cpu
