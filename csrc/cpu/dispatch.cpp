// Chooses the instruction set once, at the first use.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "processor.h"

namespace lstm_kernels {

#define ISA(name, flags, needs, preferred) \
  namespace name {                         \
  extern const cpu::Kernels table;         \
  }
#include "isas.def"
#undef ISA

namespace cpu {
namespace {

struct Choice {
  const Kernels* table;
  bool supported;
  bool preferred;
};
#define ISA(name, flags, needs, preferred) {&name::table, needs, preferred},
const Choice kChoices[] = {
#include "isas.def"
};
#undef ISA

// "baseline,avx2,avx512"
std::string compiled_isas() {
  std::string names;
  for (const Choice& choice : kChoices) {
    if (!names.empty()) names += ',';
    names += choice.table->isa;
  }
  return names;
}

const Kernels& choose() {
  const char* forced = std::getenv("LSTM_KERNELS_CPU_ISA");
  const Kernels* best = nullptr;
  for (const Choice& choice : kChoices) {
    const bool named = forced && *forced && !std::strcmp(forced, choice.table->isa);
    if (named && choice.supported) return *choice.table;
    if (named)
      throw std::runtime_error(
          std::string("LSTM_KERNELS_CPU_ISA=") + forced +
          " asks for instructions that this CPU does not have; this build has " + compiled_isas());
    if (choice.supported && choice.preferred) best = choice.table;
  }
  if (forced && *forced)
    throw std::runtime_error(std::string("LSTM_KERNELS_CPU_ISA=") + forced +
                             " is unknown; this build has " + compiled_isas());
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
  static const std::string text = std::string(kernels().isa) + " of " + compiled_isas();
  return text.c_str();
}

}  // namespace cpu
}  // namespace lstm_kernels
