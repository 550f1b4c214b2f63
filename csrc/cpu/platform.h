// What the kernels ask of the processor and of the operating system, one function each.
#pragma once
#include <cstddef>

namespace lstm_kernels::cpu {

constexpr size_t kHugePage = size_t(2) << 20;

// For a loop that waits: lets the other thread of the same core go on.
inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace lstm_kernels::cpu

#ifdef _WIN32
#include "platform_windows.h"
#else
#include "platform_posix.h"
#endif
