// Threads of our own that help with a call and sleep between calls.
#pragma once
#include <atomic>

#include "platform.h"
#include "team.h"

namespace lstm_kernels::cpu {

class HelperThreads {
 public:
  // Runs work(parts(), 0) here, where these are the given parts, and work(parts(), q) on as many
  // helpers as come in time, up to `count`. Returns what work(parts(), 0) did.
  Worked run(const Parts& given, int count);
  // Those of the last call.
  const Parts& parts() const { return parts_; }
  // Whether one waits for the next call without sleeping.
  bool awake() const { return awake_.load() > 0; }

 private:
  struct Helper {
    std::atomic<uint32_t> calls = 0;
    ThreadHandle thread;
  };

  void start(int wanted);
  void open(const Parts& given);
  void wake_two(int own);
  void help(Helper& self, int own);

  // A helper may look at these after its call, so they are never taken away.
  Part memory_[kMostThreads] = {};
  Parts parts_ = {memory_, 0, nullptr, nullptr};
  Helper* helpers_[kMostThreads] = {};
  int started_ = 0;
  Cores cores_;                  // where the helpers were last kept off
  std::atomic<int> called_ = 0;  // how many helpers the call asks for
  std::atomic<int> awake_ = 0;
};

}  // namespace lstm_kernels::cpu
