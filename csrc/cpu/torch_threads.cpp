#include "torch_threads.h"

#include <atomic>
#include <chrono>

#ifdef _OPENMP
#include <omp.h>

#include "platform.h"
#endif

namespace lstm_kernels::cpu {

#ifdef _OPENMP
namespace {

std::atomic<bool> forked = false;

// The clocks of the CPU time of this thread's workers, as its last region had them.
thread_local struct {
  int count = 0;
  ThreadClock clocks[kMostThreads];
} workers;

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

bool torch_threads_usable() { return !forked.load() && !omp_in_parallel(); }

bool torch_threads_awake(int helpers) {
  return workers.count >= helpers && torch_threads_usable() && runs(workers.clocks[0]) &&
         (helpers == 1 || runs(workers.clocks[helpers - 1]));
}

Waited run_on_torch_threads(const Parts& parts, int helpers) {
  using namespace std::chrono;
  Waited result;
  steady_clock::time_point done;
  auto& seen = workers;
#pragma omp parallel num_threads(1 + helpers)
  {
    const int id = omp_get_thread_num();
    if (id > 0) seen.clocks[id - 1] = ThreadClock::of_this_thread();
    const Waited waited = work(parts, id);
    if (id == 0) {
      seen.count = omp_get_num_threads() - 1;
      result = waited, done = steady_clock::now();
    }
  }
  result.nanoseconds += duration_cast<nanoseconds>(steady_clock::now() - done).count();
  return result;
}
#else
void forget_torch_threads() {}
bool torch_threads_usable() { return false; }
bool torch_threads_awake(int) { return false; }
Waited run_on_torch_threads(const Parts& parts, int) { return work(parts, 0); }
#endif

}  // namespace lstm_kernels::cpu
