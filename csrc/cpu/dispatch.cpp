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
// From the lowest to the highest. Supported: what -march=x86-64-v3 and -v4 let the compiler use, by
// the instructions that our loops need.
const Choice kChoices[] = {
    {&baseline::table, true},
#if defined(__x86_64__)
    {&avx2::table, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                       __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c")},
    {&avx512::table, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                         __builtin_cpu_supports("avx512vl")},
#endif
};

const Kernels& choose() {
  const char* forced = std::getenv("LSTM_KERNELS_CPU_ISA");
  const Kernels* best = nullptr;
  for (const Choice& choice : kChoices) {
    const bool named = forced && *forced && !std::strcmp(forced, choice.table->isa);
    if (named && choice.supported) return *choice.table;
    if (named)
      throw std::runtime_error(std::string("LSTM_KERNELS_CPU_ISA=") + forced +
                               " asks for instructions that this CPU does not have");
    if (choice.supported) best = choice.table;
  }
  if (forced && *forced)
    throw std::runtime_error(std::string("LSTM_KERNELS_CPU_ISA=") + forced +
                             " is unknown: this build has " LSTM_ALL_ISAS);
  return *best;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

const Kernels* supported_kernels(const char* isa) {
  for (const Choice& choice : kChoices)
    if (choice.supported && !std::strcmp(isa, choice.table->isa)) return choice.table;
  return nullptr;
}

const char* isa_description() {
  static const std::string text = std::string(kernels().isa) + " of " LSTM_ALL_ISAS;
  return text.c_str();
}

}  // namespace cpu
}  // namespace lstm_kernels
