// What the kernels ask of the processor and of the operating system, one function each.
#pragma once
#include <sched.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace lstm_kernels::cpu {

constexpr size_t kHugePage = size_t(2) << 20;

// Asks for huge pages under an array. Only a hint: where it fails nothing changes.
inline void advise_huge_pages(void* data, size_t bytes) {
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

// For a loop that waits: lets the other thread of the same core go on.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Offers this thread's core to other threads.
inline void yield() { sched_yield(); }

}  // namespace lstm_kernels::cpu
