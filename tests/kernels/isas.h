// The kernels under test, and the threads they run on.
#pragma once
#include <vector>

#include "../../csrc/cpu/kernels.h"

// One table per instruction set that this build has and this CPU can run.
std::vector<const lstm_kernels::cpu::Kernels*> testable_kernels();

// From now on threads of a team sleep for up to 64 us with this chance, in percent, before they
// look for a phase, before they claim it and with it in progress.
void hold_up_threads(int chance);
