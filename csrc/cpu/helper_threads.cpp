// A helper that is woken may come late, or after the call: then it finds all phases claimed, or
// those of another call. Helpers are kept off the core of the caller: they would otherwise often be
// queued behind it until the next tick, while another core is idle. A short time after a call they
// stay awake, because the next one often follows. Bound: waking a sleeping thread costs 5 to 15 us,
// and it takes 50 us or more to come. So the caller wakes two, and each of them two more.
#include "helper_threads.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

namespace lstm_kernels::cpu {
namespace {

constexpr std::chrono::microseconds kAwake(100);

}  // namespace

Worked HelperThreads::run(const Parts& given, int count) {
  start(count);
  const Cores now = Cores::of_this_thread();
  if (now != cores_) {
    cores_ = now;
    for (int i = 0; i < started_; ++i) now.without_current(helpers_[i]->thread);
  }
  open(given);
  const int called = std::min(count, started_);
  called_.store(called);
  for (int i = 0; i < called; ++i) helpers_[i]->calls.fetch_add(1);
  wake_two(0);
  return work(parts_, 0);
}

// The phases of the call before are all finished, so that nobody reads what is written here but to
// find that out.
void HelperThreads::open(const Parts& given) {
  const uint64_t start = parts_.start + Part::kFinished + 1;
  auto write = [](auto& to, auto value) { __atomic_store_n(&to, value, __ATOMIC_RELAXED); };
  write(parts_.count, given.count);
  parts_.run_phase = given.run_phase, parts_.context = given.context;
  for (int q = 0; q < given.count; ++q) {
    const Part& from = given.parts[q];
    Part& to = memory_[q];
    write(to.present, from.present);
    write(to.first, from.first), write(to.last, from.last), write(to.in_step, from.in_step);
    __atomic_store_n(&to.claimed, start, __ATOMIC_RELEASE);
    __atomic_store_n(&to.finished, start, __ATOMIC_RELEASE);
  }
  __atomic_store_n(&parts_.start, start, __ATOMIC_RELEASE);
}

// The caller is number 0, its helpers 1 and on.
void HelperThreads::wake_two(int own) {
  for (int next = 2 * own + 1; next <= std::min(2 * own + 2, called_.load()); ++next)
    wake_one(helpers_[next - 1]->calls);
}

void HelperThreads::start(int wanted) {
  try {
    for (; started_ < wanted; ++started_) {
      Helper* const helper = helpers_[started_] = new Helper;
      const BlockedSignals blocked;  // they are for the program's own threads
      std::thread thread([this, helper, own = started_ + 1] { help(*helper, own); });
      helper->thread = thread.native_handle();
      thread.detach();
      cores_ = {};
    }
  } catch (const std::system_error&) {  // no more threads can be had
    delete helpers_[started_];
  }
}

// Nothing ends a helper: it sleeps when the process ends.
void HelperThreads::help(Helper& self, int own) {
  using std::chrono::steady_clock;
  name_this_thread(kHelperName);
  for (uint32_t seen = 0;;) {
    awake_.fetch_add(1);
    const auto sleep_at = steady_clock::now() + kAwake;
    while (self.calls.load() == seen && steady_clock::now() < sleep_at) pause();
    awake_.fetch_sub(1);
    if (self.calls.load() == seen) {
      sleep_while(self.calls, seen);
      begin_turn();
    }
    seen = self.calls.load();
    wake_two(own);
    work(parts_, own, true);
  }
}

}  // namespace lstm_kernels::cpu
