// Chooses the instruction set once, at the first use.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

#if defined(__x86_64__)
#define LSTM_ALL_ISAS "baseline,avx2,avx512,avx512_bf16"
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
namespace avx512_bf16 {
extern const cpu::Kernels table;
}
#endif

namespace cpu {
namespace {

#if defined(__x86_64__)
// What -march=x86-64-v3 and -v4 let the compiler use, by the instructions that our loops need.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

struct Choice {
  const Kernels* table;
  bool supported;
  bool wanted;  // unless another one is asked for
};
// From the lowest to the highest. On Zen 4 a product of bfloat16 pairs takes as long as one of
// float32 numbers, on Intel's server cores it was measured to take four times as long.
const Choice kChoices[] = {
    {&baseline::table, true, true},
#if defined(__x86_64__)
    {&avx2::table, has_avx2(), true},
    {&avx512::table, has_avx512(), true},
    {&avx512_bf16::table, has_avx512_bf16(), bool(__builtin_cpu_is("amd"))},
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
    if (choice.supported && choice.wanted) best = choice.table;
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
