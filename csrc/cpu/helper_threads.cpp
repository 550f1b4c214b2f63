// A helper that is woken may come late, or after the call: the call is `open_` while it lasts, and
// its end waits for those that are `inside_`, which look for work and find none. Helpers are kept
// off the core of the caller: they would otherwise often be queued behind it until the next tick,
// while another core is idle. A short time after a call they stay awake, because the next one often
// follows. Bound: waking a sleeping thread costs 5 to 15 us, and it takes 50 us or more to come. So
// the caller wakes two, and each of them two more.
#include "helper_threads.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

namespace lstm_kernels::cpu {
namespace {

constexpr std::chrono::microseconds kAwake(100);

}  // namespace

void HelperThreads::begin(const Parts& parts, int count) {
  start(count);
  const Cores now = Cores::of_this_thread();
  if (now != cores_) {
    cores_ = now;
    for (Helper* helper : helpers_) now.without_current(helper->thread);
  }
  parts_ = &parts;
  called_ = std::min(count, int(helpers_.size()));
  open_.store(true);
  for (int i = 0; i < called_; ++i) helpers_[size_t(i)]->calls.fetch_add(1);
  wake_two(0);
}

// The caller is number 0, its helpers 1 and on.
void HelperThreads::wake_two(int own) {
  for (int next = 2 * own + 1; next <= std::min(2 * own + 2, called_); ++next)
    wake_one(helpers_[size_t(next - 1)]->calls);
}

void HelperThreads::end() {
  open_.store(false);
  for (int spins = 0; inside_.load() > 0; ++spins) wait_once(spins);
}

void HelperThreads::start(int wanted) {
  try {
    while (int(helpers_.size()) < wanted) {
      const int own = int(helpers_.size()) + 1;
      Helper* const helper = new Helper;
      helpers_.push_back(helper);
      const BlockedSignals blocked;  // they are for the program's own threads
      std::thread thread([=, this] { help(*helper, own); });
      helper->thread = thread.native_handle();
      thread.detach();
      cores_ = {};
    }
  } catch (const std::system_error&) {  // no more threads can be had
    delete helpers_.back();
    helpers_.pop_back();
  }
}

// Nothing ends a helper: it sleeps when the process ends.
void HelperThreads::help(Helper& self, int own) {
  using std::chrono::steady_clock;
  for (uint32_t seen = 0;;) {
    awake_.fetch_add(1);
    const auto sleep_at = steady_clock::now() + kAwake;
    while (self.calls.load() == seen && steady_clock::now() < sleep_at) pause();
    awake_.fetch_sub(1);
    sleep_while(self.calls, seen);
    seen = self.calls.load();
    inside_.fetch_add(1);
    if (open_.load()) {
      wake_two(own);
      if (own < parts_->count) work(*parts_, own);
    }
    inside_.fetch_sub(1);
  }
}

}  // namespace lstm_kernels::cpu
