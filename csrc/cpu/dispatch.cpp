// Chooses the instruction set once, at the first use.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

#if defined(__x86_64__)
#define LSTM_ALL_ISAS "baseline,avx2,avx512"
#else
#define LSTM_ALL_ISAS "baseline"
#endif

namespace lstm_kernels {
namespace baseline {
extern const cpu::Kernels table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const cpu::Kernels table;
}
namespace avx512 {
extern const cpu::Kernels table;
}
#endif

namespace cpu {
namespace {

struct Choice {
  const Kernels* table;
  bool supported;
};
const Choice* choices(size_t& count) {
  static const Choice all[] = {
      {&baseline::table, true},
#if defined(__x86_64__)
      // What -march=x86-64-v3 and -v4 let the compiler use, by the instructions our loops need.
      {&avx2::table, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c")},
      {&avx512::table, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512cd") &&
                           __builtin_cpu_supports("avx512dq") &&
                           __builtin_cpu_supports("avx512vl")},
#endif
  };
  count = sizeof all / sizeof *all;
  return all;
}

const Kernels& choose() {
  size_t count;
  const Choice* all = choices(count);
  const char* forced = std::getenv("LSTM_KERNELS_CPU_ISA");
  if (!forced || !*forced) {
    for (size_t i = count; i-- > 1;)
      if (all[i].supported) return *all[i].table;
    return *all[0].table;
  }
  for (size_t i = 0; i < count; ++i) {
    if (std::strcmp(forced, all[i].table->isa)) continue;
    if (all[i].supported) return *all[i].table;
    throw std::runtime_error(std::string("LSTM_KERNELS_CPU_ISA=") + forced +
                             " asks for instructions that this CPU does not have");
  }
  throw std::runtime_error(std::string("LSTM_KERNELS_CPU_ISA=") + forced +
                           " is unknown: this build has " LSTM_ALL_ISAS);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

const char* isa_description() {
  static const std::string text = std::string(kernels().isa) + " of " LSTM_ALL_ISAS;
  return text.c_str();
}

}  // namespace cpu
}  // namespace lstm_kernels
