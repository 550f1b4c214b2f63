// Threads of our own that help with a call and sleep between calls.
#pragma once
#include <atomic>
#include <vector>

#include "platform.h"
#include "team.h"

namespace lstm_kernels::cpu {

class HelperThreads {
 public:
  // Runs work(parts, 0) here and work(parts, q) on as many helpers as come in time, up to `count`.
  // Returns what work(parts, 0) did.
  template <class Work>
  auto run(const Parts& parts, int count, Work work) {
    begin(parts, count);
    const auto result = work(parts, 0);
    end();
    return result;
  }
  // Whether one waits for the next call without sleeping.
  bool awake() const { return awake_.load() > 0; }

 private:
  struct Helper {
    std::atomic<uint32_t> calls = 0;
    ThreadHandle thread;
  };

  void begin(const Parts& parts, int count);
  void wake_two(int own);
  void end();
  void start(int wanted);
  void help(Helper& self, int own);

  std::vector<Helper*> helpers_;
  Cores cores_;  // where the helpers were last kept off
  const Parts* parts_ = nullptr;
  int called_ = 0;  // how many helpers the call asks for
  std::atomic<bool> open_ = false;
  std::atomic<int> inside_ = 0, awake_ = 0;
};

}  // namespace lstm_kernels::cpu
