#include "team.h"

#include <omp.h>

#include "platform.h"

namespace lstm_kernels::cpu {
namespace {

constexpr int kSpins = 1000;  // a few microseconds, then the core is offered to others

}  // namespace

void run_team(int threads, void (*body)(void*, int, int), void* context) {
  // No region for one thread: OpenMP's threads do not survive a fork.
  if (threads <= 1) return body(context, 0, 1);
#pragma omp parallel num_threads(threads)
  body(context, omp_get_thread_num(), omp_get_num_threads());
}

void Barrier::arrive_and_wait() {
  ++step_;
  __atomic_store_n(&flags_[id_].step, step_, __ATOMIC_RELEASE);
  for (int i = 0; i < size_; ++i)
    for (int spin = 0; __atomic_load_n(&flags_[i].step, __ATOMIC_ACQUIRE) < step_; ++spin)
      if (spin < kSpins)
        pause();
      else
        yield();
}

}  // namespace lstm_kernels::cpu
