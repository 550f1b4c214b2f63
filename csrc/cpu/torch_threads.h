// The threads of torch's own OpenMP pool, for as long as they are awake.
//
// After an operation of torch its OpenMP workers spin for some milliseconds, on the cores that our
// helpers would need. A call that comes meanwhile is best done by these workers: they are there at
// once. A worker that sleeps is never waited for: whether one is awake shows in its CPU time, which
// then goes on as fast as the clock.
//
// A region always has as many threads as torch's own: a smaller one would end the others, and the
// next operation of torch would start them anew.
//
// There are none without LSTM_TORCH_OPENMP, or where torch has no such runtime.
#pragma once
#include "team.h"

namespace lstm_kernels::cpu {

// Whether this thread's OpenMP team is known, has `helpers` workers or more, and is awake.
bool torch_threads_awake(int helpers);

// Runs work(parts, q) on 1 + helpers threads, by an OpenMP region, whose end waits for all of them.
// Returns what work(parts, 0) did.
Worked run_on_torch_threads(const Parts& parts, int helpers);

// For a forked child, which has none of its parent's OpenMP threads and would wait for them.
void forget_torch_threads();

// Whether a region can be opened here at all.
bool torch_threads_usable();

// Whether that is so and other threads of this process run, which may be torch's. It takes some 10
// us for each thread.
bool torch_threads_suspected();

}  // namespace lstm_kernels::cpu
