// Windows. platform.h includes this file; platform_posix.h has the same names, and comments.
#pragma once
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <malloc.h>
#include <windows.h>

#include <atomic>
#include <cstdint>
#include <thread>

namespace lstm_kernels::cpu {

// Large pages need a right that programs do not have by default.
inline void advise_huge_pages(void*, size_t) {}

inline void* allocate_huge_pages(size_t bytes) { return _aligned_malloc(bytes, kHugePage); }
inline void free_huge_pages(void* data) { _aligned_free(data); }

inline void yield() { SwitchToThread(); }

// std::atomic polls on Windows with some runtimes, so these are the calls of the system.
inline void sleep_while(std::atomic<uint32_t>& word, uint32_t seen) {
  while (word.load() == seen) WaitOnAddress(&word, &seen, sizeof seen, INFINITE);
}
inline void wake_one(std::atomic<uint32_t>& word) { WakeByAddressSingle(&word); }

using ThreadHandle = std::thread::native_handle_type;
inline void name_this_thread(const char*) {}

class Cores {
 public:
  static Cores of_this_thread() { return {}; }
  int count() const {
    DWORD_PTR allowed = 0, all = 0;
    GetProcessAffinityMask(GetCurrentProcess(), &allowed, &all);
    const int cores = __builtin_popcountll(allowed);
    // A process in several groups of processors has no mask.
    return cores > 0 ? cores : int(GetActiveProcessorCount(ALL_PROCESSOR_GROUPS));
  }
  bool operator==(const Cores&) const { return true; }
  void without_current(ThreadHandle) const {}
};

// There are no signals, and nothing forks.
class BlockedSignals {
 public:
  BlockedSignals() {}
};
inline void after_fork_in_child(void (*)()) {}

}  // namespace lstm_kernels::cpu
