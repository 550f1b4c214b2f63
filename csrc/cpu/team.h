// Threads: a call's work in parts, done by the threads that come.
//
// A call cuts its work into parts, one for each thread that it hopes for, and each part into phases
// that follow each other. Nothing belongs to a thread for good: a thread claims the next phase of
// its part first, and that of another part when the other part's thread is not there. The caller
// therefore never waits for a thread that has not come yet, which after a pause can take the
// operating system a whole tick: it does that thread's phases itself, as one thread would, and the
// thread joins when it arrives. It waits only for phases in progress: a helper that looks for work
// touches nothing of a call before it has claimed a phase, so that the call need not wait until it
// stops looking. Results do not depend on who computes a phase.
//
// Bound: the transfer of one cache line per phase and thread that waits for it; and where other
// programs want the cores, a slice of theirs, some milliseconds, for a phase that takes longer than
// a helper's turn.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace lstm_kernels::cpu {

// One part. Other threads poll `finished`, so the claims have a cache line to themselves: where
// nobody takes phases of another's part, claiming one costs no transfer of a line.
struct Part {
  static constexpr uint64_t kFinished = (uint64_t(1) << 36) - 1;
  // Both count on from the `start` of their call, so that what a late helper knows of an earlier
  // call claims nothing in this one.
  alignas(128) uint64_t claimed;   // phases claimed
  alignas(128) uint64_t finished;  // phases finished, or kFinished
  int present;  // whether its thread is at work: others leave it its phases for a while
  // Parts first .. last - 1 are its group. A phase up to number `in_step` begins when all of them
  // have finished the phase before.
  int first, last;
  int64_t in_step;
};

struct Parts {
  Part* parts;  // nothing claimed or finished
  int count;
  // Does the next phase of a part; says whether that was its last. Phases of one part never
  // overlap.
  bool (*run_phase)(void* context, int part);
  void* context;
  uint64_t start = 0;
};

// Does all phases of all parts, with at most `threads` threads, and returns when they are done.
// Where the other threads are at work for another call, the caller does everything.
void run_parts(const Parts& parts, int threads);

// Of `wanted` threads those that can help each other: no more than there are cores for this
// process, and one alone for a while where others cost more time than they saved.
Threads usable_threads(int wanted);

// Calls body(context, part) for parts 0 .. count - 1 on as many threads.
void run_each(int count, void (*body)(void* context, int part), void* context);

// ---- for helper_threads.cpp and torch_threads.cpp -----------------------------------------------

constexpr int kMostThreads = 64;
constexpr char kHelperName[] = "lstm_kernels";

// What a thread did for a call: phases, and for how long it could only wait for phases in progress.
struct Worked {
  int64_t phases = 0, waited_ns = 0;
};

// A thread's work on a call, until all parts are finished. `own`: its part.
//
// takes_turns: it offers its core to other threads between phases, before its slice ends. Where
// others want the core, the system would sooner or later take it in a phase, and the caller would
// wait for a whole slice of theirs; on an idle core the offer costs a system call in a millisecond.
Worked work(const Parts& parts, int own, bool takes_turns = false);
// This thread has its core anew.
void begin_turn();
// One round of waiting: a pause. After about 100 us, longer than most phases, the core is offered
// to others.
void wait_once(int spins);

}  // namespace lstm_kernels::cpu
