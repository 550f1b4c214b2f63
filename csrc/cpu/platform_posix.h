// Linux and macOS. platform.h includes this file; platform_windows.h has the same names.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>

namespace lstm_kernels::cpu {

// Asks for huge pages under an array. Only a hint: where it fails nothing changes.
inline void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t begin = (uintptr_t(data) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (uintptr_t(data) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Memory that begins with a huge page, or null; `bytes` is a multiple of kHugePage.
inline void* allocate_huge_pages(size_t bytes) {
  void* data = std::aligned_alloc(kHugePage, bytes);
  if (data) advise_huge_pages(data, bytes);
  return data;
}
inline void free_huge_pages(void* data) { std::free(data); }

// Offers this thread's core to other threads.
inline void yield() { sched_yield(); }

// Sleeps while `word` is `seen`, and wakes a thread that does.
inline void sleep_while(std::atomic<uint32_t>& word, uint32_t seen) { word.wait(seen); }
inline void wake_one(std::atomic<uint32_t>& word) { word.notify_one(); }

using ThreadHandle = pthread_t;

#ifdef __APPLE__
inline void name_this_thread(const char* name) { pthread_setname_np(name); }

// The cores that a thread may run on. The system alone chooses where it runs.
class Cores {
 public:
  static Cores of_this_thread() { return {}; }
  int count() const { return int(sysconf(_SC_NPROCESSORS_ONLN)); }
  bool operator==(const Cores&) const { return true; }
  void without_current(ThreadHandle) const {}
};
#else
inline void name_this_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

// The CPU time of a thread.
class ThreadClock {
 public:
  static ThreadClock of_this_thread() {
    ThreadClock clock;
    clock.known_ = pthread_getcpuclockid(pthread_self(), &clock.id_) == 0;
    return clock;
  }
  // -1 where the thread has ended.
  int64_t nanoseconds() const {
    timespec time;
    if (!known_ || clock_gettime(id_, &time)) return -1;
    return int64_t(time.tv_sec) * 1000000000 + time.tv_nsec;
  }

 private:
  clockid_t id_ = 0;
  bool known_ = false;
};

// The cores that a thread may run on, and the one that it runs on now.
class Cores {
 public:
  static Cores of_this_thread() {
    Cores cores;
    if (sched_getaffinity(0, sizeof cores.allowed_, &cores.allowed_)) CPU_ZERO(&cores.allowed_);
    cores.current_ = sched_getcpu();
    return cores;
  }
  int count() const { return CPU_COUNT(&allowed_) > 0 ? CPU_COUNT(&allowed_) : 1; }
  bool operator==(const Cores& other) const {
    return current_ == other.current_ && CPU_EQUAL(&allowed_, &other.allowed_);
  }
  // Lets `thread` run on all of them but the current one, if there are others.
  void without_current(ThreadHandle thread) const {
    cpu_set_t others = allowed_;
    if (current_ >= 0) CPU_CLR(current_, &others);
    if (CPU_COUNT(&others)) pthread_setaffinity_np(thread, sizeof others, &others);
  }

 private:
  cpu_set_t allowed_ = {};
  int current_ = -1;
};

#endif

// While one exists, this thread and those it starts get no signals but those of their own faults
// and of profilers.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGPROF})
      sigdelset(&blocked, own);
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// Has `handler` called in every child that this process forks from now on.
inline void after_fork_in_child(void (*handler)()) { pthread_atfork(nullptr, nullptr, handler); }

}  // namespace lstm_kernels::cpu
