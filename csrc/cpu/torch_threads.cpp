#include "torch_threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#ifdef LSTM_TORCH_OPENMP
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#endif

#include "platform.h"

// What GCC makes of `#pragma omp parallel`. The runtimes of GCC and of LLVM both have it, so any
// compiler can open a region of the one that torch brings, and none brings a second.
#ifdef LSTM_TORCH_OPENMP
extern "C" {
[[gnu::weak]] void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
[[gnu::weak]] int omp_get_max_threads();
[[gnu::weak]] int omp_get_num_threads();
[[gnu::weak]] int omp_get_thread_num();
[[gnu::weak]] int omp_in_parallel();
}
#endif

namespace lstm_kernels::cpu {

#ifdef LSTM_TORCH_OPENMP
namespace {

std::atomic<bool> forked = false;

// The workers of this thread's last region: how many, and the clocks of the CPU time of the first
// and the last one.
struct Known {
  int count = 0;
  ThreadClock first, last;
};
thread_local Known known;

// Whether a thread is running: its CPU time goes on with the clock.
bool runs(const ThreadClock& clock) {
  using namespace std::chrono;
  const int64_t before = clock.nanoseconds();
  const auto begin = steady_clock::now();
  while (steady_clock::now() - begin < microseconds(1)) pause();
  const int64_t ran = clock.nanoseconds() - before;
  return before >= 0 && 2 * nanoseconds(ran) > steady_clock::now() - begin;
}

// Whether a thread runs that is no helper; what Linux tells of it is "1234 (name) R ...".
bool runs_for_others(long thread) {
  char path[64], line[128] = {};
  std::snprintf(path, sizeof path, "/proc/self/task/%ld/stat", thread);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const ssize_t size = read(file, line, sizeof line - 1);
  close(file);
  const char* const name_end = size > 0 ? std::strrchr(line, ')') : nullptr;
  return name_end && std::strncmp(name_end, ") R", 3) == 0 && !std::strstr(line, kHelperName);
}
// Whether threads of this process run that are neither this one nor helpers.
bool others_run() {
  DIR* const threads = opendir("/proc/self/task");
  if (!threads) return false;
  const long own = syscall(SYS_gettid);
  bool found = false;
  while (const dirent* entry = found ? nullptr : readdir(threads))
    if (const long thread = std::atol(entry->d_name); thread > 0 && thread != own)
      found = runs_for_others(thread);
  closedir(threads);
  return found;
}

}  // namespace

void forget_torch_threads() { forked.store(true); }

bool torch_threads_usable() { return GOMP_parallel && !forked.load() && !omp_in_parallel(); }

bool torch_threads_suspected() { return torch_threads_usable() && others_run(); }

bool torch_threads_awake(int helpers) {
  return known.count >= helpers && torch_threads_usable() &&
         known.count + 1 == omp_get_max_threads() && runs(known.first) &&
         (known.count == 1 || runs(known.last));
}

Worked run_on_torch_threads(const Parts& parts, int helpers) {
  using namespace std::chrono;
  struct Region {
    const Parts& parts;
    const int helpers;
    Known& known;  // to the thread that opens the region
    Worked caller = {};
    steady_clock::time_point done = {};
  } region{parts, helpers, known};
  const auto body = [](void* data) {
    Region& region = *static_cast<Region*>(data);
    const int id = omp_get_thread_num(), count = omp_get_num_threads();
    if (id == 1) region.known.first = ThreadClock::of_this_thread();
    if (id == count - 1) region.known.last = ThreadClock::of_this_thread();
    if (id > region.helpers) return;
    const Worked worked = work(region.parts, id);
    if (id == 0) {
      region.known.count = count - 1;
      region.caller = worked, region.done = steady_clock::now();
    }
  };
  GOMP_parallel(body, &region, unsigned(std::max(1 + helpers, omp_get_max_threads())), 0);
  const nanoseconds at_the_end = steady_clock::now() - region.done;
  return {region.caller.phases, region.caller.waited_ns + at_the_end.count()};
}
#else
void forget_torch_threads() {}
bool torch_threads_usable() { return false; }
bool torch_threads_suspected() { return false; }
bool torch_threads_awake(int) { return false; }
Worked run_on_torch_threads(const Parts& parts, int) { return work(parts, 0); }
#endif

}  // namespace lstm_kernels::cpu
