// Threads: a team that runs one function, and the barrier its members use between steps.
#pragma once
#include <cstdint>

namespace lstm_kernels::cpu {

// Calls body(context, id, size) on `threads` threads at once, ids 0 .. size - 1, and returns when
// all are done. Fewer may come: then size says how many. One thread: a plain call.
void run_team(int threads, void (*body)(void* context, int id, int size), void* context);

// One padded counter per member. A member raises its own and waits for all others to reach it: no
// contended write. After a short spin it yields, so that an oversubscribed machine makes progress.
struct alignas(128) Flag {
  int64_t step;
};

class Barrier {
 public:
  // flags: one per member, zero before the team starts.
  Barrier(Flag* flags, int id, int size) : flags_(flags), id_(id), size_(size) {}
  void wait() {
    if (size_ > 1) arrive_and_wait();
  }

 private:
  void arrive_and_wait();
  Flag* flags_;
  int id_, size_;
  int64_t step_ = 0;
};

}  // namespace lstm_kernels::cpu
