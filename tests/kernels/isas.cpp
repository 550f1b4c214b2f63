#include "isas.h"

#include <cstring>

#include "../../csrc/cpu/processor.h"

// LSTM_TEST_ISAS is X(baseline) X(avx2) ...
#define X(isa)                     \
  namespace lstm_kernels::isa {    \
  extern const cpu::Kernels table; \
  }
LSTM_TEST_ISAS
#undef X

namespace {
bool can_run_ours() {
#if defined(__x86_64__)
  return lstm_kernels::cpu::has_avx2();
#else
  return false;
#endif
}
}  // namespace

std::vector<const lstm_kernels::cpu::Kernels*> testable_kernels() {
  using namespace lstm_kernels;
  std::vector<const cpu::Kernels*> all, testable;
#define X(isa) all.push_back(&isa::table);
  LSTM_TEST_ISAS
#undef X
  for (const cpu::Kernels* table : all) {
    // "wide" and "software_amx" are AVX2 code with longer vectors, and unknown to the package.
    const bool ours = !std::strcmp(table->isa, "wide") || !std::strcmp(table->isa, "software_amx");
    if (ours ? can_run_ours() : bool(cpu::supported_kernels(table->isa))) testable.push_back(table);
  }
  return testable;
}
