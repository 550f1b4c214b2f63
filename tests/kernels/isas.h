// The kernels under test, and the threads they run on.
#pragma once
#include <vector>

#include "../../csrc/cpu/kernels.h"

// One table per instruction set that this build has and this CPU can run.
std::vector<const lstm_kernels::cpu::Kernels*> testable_kernels();

// Teams are at most this large from now on, whatever they ask for: 0 for no limit.
void limit_team(int threads);
