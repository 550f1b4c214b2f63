// The team of csrc/cpu/team.cpp on std::thread.
#include <atomic>
#include <thread>
#include <vector>

#include "../../csrc/cpu/team.h"
#include "isas.h"

static std::atomic<int> team_limit = 0;

void limit_team(int threads) { team_limit = threads; }

namespace lstm_kernels::cpu {

void run_team(int threads, void (*body)(void*, int, int), void* context) {
  if (threads <= 1) return body(context, 0, 1);
  const int limit = team_limit, size = limit && limit < threads ? limit : threads;
  std::vector<std::thread> others;
  for (int id = 1; id < size; ++id) others.emplace_back(body, context, id, size);
  body(context, 0, size);
  for (std::thread& other : others) other.join();
}

void Barrier::arrive_and_wait() {
  ++step_;
  __atomic_store_n(&flags_[id_].step, step_, __ATOMIC_RELEASE);
  for (int i = 0; i < size_; ++i)
    while (__atomic_load_n(&flags_[i].step, __ATOMIC_ACQUIRE) < step_) std::this_thread::yield();
}

}  // namespace lstm_kernels::cpu
