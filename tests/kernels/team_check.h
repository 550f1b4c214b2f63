// What a team of threads promises, where threads come late, also from one call into the next.
#pragma once
#include <array>
#include <atomic>
#include <chrono>

#include "../../csrc/cpu/team.h"

// Calls of a few short phases: each phase of each part runs once, in its call, and begins when all
// parts have done the one before. Says how many did not, within this time. A part of it, which
// the team chooses, the calls are done alone.
inline int faults_of_team(std::chrono::milliseconds time) {
  using namespace lstm_kernels::cpu;
  constexpr int kParts = 3, kPhases = 4;
  struct Call {
    std::array<std::atomic<int>, kParts> done{};
    std::atomic<int> faults = 0;
  };
  const auto run_phase = [](void* context, int part) {
    Call& call = *static_cast<Call*>(context);
    const int phase = call.done[size_t(part)];
    for (const std::atomic<int>& other : call.done) call.faults += other < phase;
    call.faults += phase >= kPhases;
    return ++call.done[size_t(part)] == kPhases;
  };
  int faults = 0;
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    Call call;
    Part parts[kParts];
    for (int q = 0; q < kParts; ++q) parts[q] = {0, 0, q == 0, 0, kParts, kPhases};
    run_parts({parts, kParts, run_phase, &call}, kParts);
    for (const std::atomic<int>& done : call.done) call.faults += done != kPhases;
    faults += call.faults;
  }
  return faults;
}
