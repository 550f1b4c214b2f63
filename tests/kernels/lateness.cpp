// Holds threads of a team up at random, as an operating system that has better things to do would.
#include <atomic>
#include <chrono>
#include <thread>

#include "isas.h"

static std::atomic<int> percent = 0;

void hold_up_threads(int chance) { percent = chance; }

// What LSTM_TEAM_TEST_POINT names in the build of team.cpp for the tests.
void team_test_point() {
  static std::atomic<uint32_t> seed = 1;
  const int chance = percent.load(std::memory_order_relaxed);
  if (!chance) return;
  const uint32_t random = seed.fetch_add(1, std::memory_order_relaxed) * 2654435761u >> 16;
  if (int(random % 100) < chance)
    std::this_thread::sleep_for(std::chrono::microseconds(random % 64));
}
