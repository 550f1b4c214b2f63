// A machine that runs CUDA kernels on the CPU: one fiber per CUDA thread, all blocks of a launch
// resident at once, a seeded random schedule, exact-size poisoned memory. What it checks and nobody
// else does: values under many schedules, deadlock, divergent barriers and warp instructions, and,
// with the sanitizers, races between threads (ThreadSanitizer sees fibers) and bounds
// (AddressSanitizer). Loads by __ldg may give what the block has read there before. It does not
// model time, other caches or the relaxed parts of the memory model beyond what ThreadSanitizer
// derives from acquire and release.
//
// A failure inside a kernel (deadlock, divergence) is thrown by run() as std::runtime_error.
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline uint3 threadIdx, blockIdx;  // rewritten at every fiber switch
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace machine {
using Location = std::source_location;

// The schedule of the launches that follow: 0 runs the threads round robin; otherwise, by
// seed % 4: 1 any thread next, 2 random warps run ahead, 3 random blocks, 0 random threads.
void set_seed(uint64_t seed);

// How many blocks fit at a time in the launches that follow; a cooperative one needs room for all.
void set_room(unsigned blocks);
bool has_room_for(dim3 grid);

// Runs a launch to its end.
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread_body);

// For the stand-ins of CUDA's functions, called by fibers.
// What the block's cache holds of this address, or now does: a few of those read last, to a
// launch's end.
void through_cache(const void* address, void* value, size_t bytes);
void maybe_yield();                // a point where another thread may run: one time in four
bool one_in(int times);            // by the schedule's chance; never where it has none
void notify(const void* address);  // its value changed: wakes the threads that poll it
void polled(const void* address, uint64_t value);  // sleeps if the same value was seen there before
void block_barrier(Location where);
void* shared_memory();  // of this block; exact size; starts as NaNs

// The lanes of `mask` meet; the last to come runs finish(arguments of all lanes, mask).
using Finish = void (*)(void** arguments, unsigned mask);
void warp_meet(unsigned mask, const char* operation, Location where, void* argument, Finish finish,
               bool orders_memory = false);
uint64_t exchange(unsigned mask, uint64_t value, int source_lane, const char* operation,
                  Location where);
int lane();

// Tensor core instructions, fragments as the PTX ISA lays them out for mma.m16n8k16 and .m16n8k8.
enum class Mma { bfloat16, float16, tf32 };
void mma(Mma kind, float* d, const uint32_t* a, const uint32_t* b, Location where);

template <class T>
uint64_t to_bits(T v) {
  static_assert(sizeof v <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
}  // namespace machine
