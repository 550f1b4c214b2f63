// Which instructions this processor has, and the operating system lets programs use.
//
// __builtin_cpu_supports would say so, too, but not with every compiler's runtime library: that of
// zig, which compiles the wheels, answers no to everything.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace lstm_kernels::cpu {

#if defined(__x86_64__)
struct CpuId {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  explicit CpuId(uint32_t leaf, uint32_t part = 0) {
    __get_cpuid_count(leaf, part, &eax, &ebx, &ecx, &edx);
  }
};

constexpr bool has_bits(uint32_t word, std::initializer_list<int> bits) {
  for (int bit : bits)
    if (!(word >> bit & 1)) return false;
  return true;
}

// Whether the system keeps these parts of the state when it switches threads.
inline bool keeps_state(uint32_t parts) {
  constexpr int kOsxsave = 27;
  if (!has_bits(CpuId(1).ecx, {kOsxsave})) return false;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & parts) == parts;
}

inline bool has_avx2() {
  constexpr int kFma = 12, kMovbe = 22, kAvx = 28, kF16c = 29, kBmi1 = 3, kAvx2 = 5, kBmi2 = 8,
                kLzcnt = 5;
  return keeps_state(0x6) && has_bits(CpuId(1).ecx, {kFma, kMovbe, kAvx, kF16c}) &&
         has_bits(CpuId(7).ebx, {kBmi1, kAvx2, kBmi2}) && has_bits(CpuId(0x80000001).ecx, {kLzcnt});
}
inline bool has_avx2_vnni() {
  constexpr int kAvxVnni = 4;
  return has_avx2() && has_bits(CpuId(7, 1).eax, {kAvxVnni});
}
inline bool has_avx512() {
  constexpr int kF = 16, kDq = 17, kCd = 28, kBw = 30, kVl = 31;
  return has_avx2() && keeps_state(0xe6) && has_bits(CpuId(7).ebx, {kF, kDq, kCd, kBw, kVl});
}
inline bool has_avx512_vnni() {
  constexpr int kVnni = 11;
  return has_avx512() && has_bits(CpuId(7).ecx, {kVnni});
}
inline bool has_avx512_bf16() {
  constexpr int kBf16 = 5;
  return has_avx512_vnni() && has_bits(CpuId(7, 1).eax, {kBf16});
}
#if defined(__linux__)
// Matrix registers take 8 KiB of the state of a thread: a process has to ask for them.
inline bool has_amx() {
  constexpr int kBf16 = 22, kTile = 24, kInt8 = 25;
  constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return has_avx512_bf16() && keeps_state(0x60000) &&
         has_bits(CpuId(7).edx, {kBf16, kTile, kInt8}) &&
         syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}
#endif
inline bool is_amd() {
  const CpuId maker(0);
  return !std::memcmp(&maker.ebx, "Auth", 4) && !std::memcmp(&maker.edx, "enti", 4) &&
         !std::memcmp(&maker.ecx, "cAMD", 4);
}
#elif defined(__aarch64__)
#if defined(__APPLE__)
inline bool says_yes(const char* feature) {
  int answer = 0;
  size_t size = sizeof answer;
  return !sysctlbyname(feature, &answer, &size, nullptr, 0) && answer;
}
#endif
// Apple names a feature, Linux sets a bit of a word.
inline bool has_dotprod() {
#if defined(__APPLE__)
  return says_yes("hw.optional.arm.FEAT_DotProd");
#elif defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP
  return getauxval(AT_HWCAP) & kAsimdDp;
#else
  return false;
#endif
}
inline bool has_neon_bf16() {
#if defined(__APPLE__)
  return has_dotprod() && says_yes("hw.optional.arm.FEAT_BF16");
#elif defined(__linux__)
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16, which older headers do not have
  return has_dotprod() && getauxval(AT_HWCAP2) & kBf16;
#else
  return false;
#endif
}
#endif

}  // namespace lstm_kernels::cpu
