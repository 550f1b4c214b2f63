// Fibers, the random schedule, barriers, warp instructions. Never compiled with
// -fsanitize=thread: the race checker must see the kernels' accesses and no others.
#include "machine.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

// Hooks of the sanitizers: null where none is linked in.
extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned);
[[gnu::weak]] void __tsan_destroy_fiber(void*);
[[gnu::weak]] void __tsan_switch_to_fiber(void*, unsigned);
[[gnu::weak]] void __tsan_acquire(void*);
[[gnu::weak]] void __tsan_release(void*);
[[gnu::weak]] void __sanitizer_start_switch_fiber(void**, const void*, size_t);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void*, size_t);

void machine_switch(void** saved_stack, void* stack);
}
// Saves the callee-saved registers and exchanges the stacks.
asm(R"(
.text
.globl machine_switch
.type machine_switch,@function
machine_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size machine_switch,.-machine_switch
)");

namespace machine {
namespace {
constexpr size_t kStack = 128 << 10;

struct Block;
struct Warp;
struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  size_t stack_size = kStack;
  void *asan = nullptr, *tsan = nullptr;
  uint3 thread{};
  Block* block = nullptr;
  Warp* warp = nullptr;
  int lane = 0;
  uint32_t priority = 0;
  const char* waits = nullptr;  // what it is blocked in, for the report of a deadlock
  Location where;
  const void* polled_address = nullptr;
  uint64_t polled_value = 0;
};
struct Meeting {
  unsigned mask = 0, here = 0;
  const char* operation = nullptr;
  Location where;
};
struct Warp {
  unsigned members = 0, phase = 0;
  Fiber* lane[32] = {};
  void* argument[32] = {};
  std::vector<Meeting> meetings;
  char token[2];  // what __syncwarp orders, for ThreadSanitizer
};
struct CacheLine {
  const void* address;
  unsigned char bytes[16];
};
struct Block {
  uint3 index{};
  std::vector<CacheLine> cache;
  int live = 0;
  std::unique_ptr<void, void (*)(void*)> shared{nullptr, std::free};
  int arrived = 0;  // at the barrier
  unsigned phase = 0;
  Location where;
  std::vector<Fiber*> waiting;
  char token[2];
};

uint64_t seed = 1, random_state = 1;
unsigned room = 132;
Fiber main_fiber, *current = nullptr;
std::vector<Fiber*> ready, sleeping;
std::vector<Fiber> fibers;
size_t unfinished = 0;
int candidates = 1, idle_rounds = 0;
const std::function<void()>* body = nullptr;
std::string failure;
char end_token;

uint64_t random_number() {  // xorshift64*
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state * 0x2545f4914f6cdd1dull >> 16;
}

void switch_to(Fiber* to) {
  Fiber* from = current;
  if (to == from) return;
  current = to;
  if (to->block) threadIdx = to->thread, blockIdx = to->block->index;
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to->tsan, /*do not synchronise*/ 1);
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(&from->asan, to->stack, to->stack_size);
  machine_switch(&from->stack_pointer, to->stack_pointer);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(from->asan, nullptr, nullptr);
}

// Ends the launch: run() throws, and no fiber runs again.
[[noreturn]] void fail(const std::string& message) {
  failure = "seed " + std::to_string(seed) + ", block (" + std::to_string(blockIdx.x) + "," +
            std::to_string(blockIdx.y) + "," + std::to_string(blockIdx.z) + ") thread " +
            std::to_string(threadIdx.x) + ": " + message;
  switch_to(&main_fiber);
  std::abort();
}
std::string name(const Location& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

[[noreturn]] void deadlock() {
  std::map<std::string, int> groups;
  for (const Fiber& f : fibers)
    if (f.waits)
      groups["block (" + std::to_string(f.block->index.x) + "," + std::to_string(f.block->index.y) +
             ") in " + f.waits + (f.where.line() ? " at " + name(f.where) : "")]++;
  std::string message = "deadlock, no thread can run:";
  int shown = 0;
  for (const auto& [what, count] : groups)
    if (shown++ < 12) message += "\n    " + std::to_string(count) + " threads of " + what;
  fail(message);
}

// Runs the one of highest priority among some random candidates.
void reschedule() {
  if (ready.empty()) {  // only pollers are left: let them look again a while, then give up
    if (sleeping.empty() || ++idle_rounds > 1000) deadlock();
    ready.swap(sleeping);
  }
  size_t best = 0;
  if (seed) {
    best = random_number() % ready.size();
    for (int i = 1; i < candidates; i++) {
      const size_t other = random_number() % ready.size();
      if (ready[other]->priority > ready[best]->priority) best = other;
    }
  }
  Fiber* f = ready[best];
  if (seed) {
    ready[best] = ready.back();
    ready.pop_back();
    if (random_number() % 1024 == 0) f->priority = uint32_t(random_number());
  } else {
    ready.erase(ready.begin());
  }
  switch_to(f);
}
void yield() {
  ready.push_back(current);
  reschedule();
}
void sleep_in(const char* what, Location where) {
  current->waits = what;
  current->where = where;
  reschedule();
  current->waits = nullptr;
}
void wake(Fiber* f) {
  ready.push_back(f);
  idle_rounds = 0;
}

void open_barrier(Block& b) {
  b.arrived = 0;
  b.phase++;
  for (Fiber* f : b.waiting) wake(f);
  b.waiting.clear();
}

void fiber_main() {
  if (__sanitizer_finish_switch_fiber) {  // the first fiber learns where the main stack is
    const void* stack;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
    if (!main_fiber.stack)
      main_fiber.stack = static_cast<char*>(const_cast<void*>(stack)), main_fiber.stack_size = size;
  }
  (*body)();
  Block& b = *current->block;
  b.live--;
  idle_rounds = 0;
  if (b.arrived && b.arrived == b.live) open_barrier(b);  // threads that ended do not count
  if (__tsan_release) __tsan_release(&end_token);
  if (--unfinished == 0) switch_to(&main_fiber);
  reschedule();
  std::abort();  // a finished fiber never runs again
}

struct Unmap {
  size_t bytes;
  void operator()(char* stacks) const {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(stacks, bytes);
    munmap(stacks, bytes);
  }
};
}  // namespace

void set_seed(uint64_t value) { seed = value; }
void set_room(unsigned blocks) { room = blocks; }
bool has_room_for(dim3 grid) { return uint64_t(grid.x) * grid.y * grid.z <= room; }
int lane() { return current->lane; }
void* shared_memory() { return current->block->shared.get(); }
void through_cache(const void* address, void* value, size_t bytes) {
  std::vector<CacheLine>& cache = current->block->cache;
  const uintptr_t number = reinterpret_cast<uintptr_t>(address) / bytes;
  CacheLine& line = cache[number * 0x9e3779b97f4a7c15ull >> 54];
  const bool held = line.address == address;
  line.address = address;
  auto* const of_thread = static_cast<volatile unsigned char*>(value);  // no memcpy: the race
  for (size_t i = 0; i < bytes; i++)                                    //   checker would see it
    if (held)
      of_thread[i] = line.bytes[i];
    else
      line.bytes[i] = of_thread[i];
}
void maybe_yield() {
  if (seed && random_number() % 4 == 0) yield();
}

bool one_in(int times) { return seed && random_number() % uint64_t(times) == 0; }

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread_body) {
  const size_t n_blocks = size_t(grid.x) * grid.y * grid.z;
  const size_t n_threads = size_t(block.x) * block.y * block.z, n_warps = (n_threads + 31) / 32;
  if (!n_blocks || !n_threads || n_threads > 1024 || shared_bytes > 227 * 1024)
    throw std::runtime_error("launch exceeds the limits of a device");
  random_state = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
  candidates = seed % 4 == 1 ? 1 : 64;
  blockDim = block;
  gridDim = grid;
  body = &thread_body;
  std::vector<Block> blocks(n_blocks);
  std::vector<Warp> warps(n_blocks * n_warps);
  fibers = std::vector<Fiber>(n_blocks * n_threads);
  // No allocation while fibers run: ThreadSanitizer sees free() even from here.
  ready.clear();
  sleeping.clear();
  ready.reserve(fibers.size());
  sleeping.reserve(fibers.size());
  const size_t stack_bytes = fibers.size() * kStack;
  void* mapped = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::runtime_error("no memory for the stacks of the threads");
  const std::unique_ptr<char, Unmap> stacks(static_cast<char*>(mapped), Unmap{stack_bytes});
  for (size_t b = 0; b < n_blocks; b++) {
    Block& blk = blocks[b];
    blk.index = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
                 unsigned(b / grid.x / grid.y)};
    blk.live = int(n_threads);
    blk.shared.reset(std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
    std::memset(blk.shared.get(), 0xff, shared_bytes);
    blk.waiting.reserve(n_threads);
    blk.cache.assign(1024, {});
    for (size_t w = 0; w < n_warps; w++) warps[b * n_warps + w].meetings.reserve(32);
    for (size_t t = 0; t < n_threads; t++) {
      Fiber& f = fibers[b * n_threads + t];
      f.stack = stacks.get() + (b * n_threads + t) * kStack;
      f.thread = {unsigned(t % block.x), unsigned(t / block.x % block.y),
                  unsigned(t / block.x / block.y)};
      f.block = &blk;
      f.warp = &warps[b * n_warps + t / 32];
      f.lane = int(t % 32);
      f.warp->lane[f.lane] = &f;
      f.warp->members |= 1u << f.lane;
      const size_t leader = seed % 4 == 2 ? t - t % 32 : seed % 4 == 3 ? 0 : t;
      f.priority =
          leader == t ? uint32_t(random_number()) : fibers[b * n_threads + leader].priority;
      if (__tsan_create_fiber) f.tsan = __tsan_create_fiber(0);
      void** top = reinterpret_cast<void**>(f.stack + kStack);
      *--top = nullptr;                               // return address of fiber_main
      *--top = reinterpret_cast<void*>(&fiber_main);  // where machine_switch returns to
      f.stack_pointer = top - 6;                      // six callee-saved registers, zero
      ready.push_back(&f);
    }
  }
  if (__tsan_get_current_fiber) main_fiber.tsan = __tsan_get_current_fiber();
  current = &main_fiber;
  unfinished = fibers.size();
  idle_rounds = 0;
  failure.clear();
  reschedule();
  if (__tsan_acquire) __tsan_acquire(&end_token);
  for (Fiber& f : fibers)
    if (f.tsan) __tsan_destroy_fiber(f.tsan);
  fibers.clear();
  if (!failure.empty()) throw std::runtime_error(failure);
}

// ---- polling ------------------------------------------------------------------------------------
void polled(const void* address, uint64_t value) {
  Fiber* me = current;
  if (me->polled_address == address && me->polled_value == value) {
    sleeping.push_back(me);
    sleep_in("a loop that polls a flag", Location());
  }
  me->polled_address = address;
  me->polled_value = value;
}
void notify(const void* address) {
  for (size_t i = 0; i < sleeping.size();)
    if (sleeping[i]->polled_address == address) {
      wake(sleeping[i]);
      sleeping[i] = sleeping.back();
      sleeping.pop_back();
    } else {
      i++;
    }
}

// ---- barriers and warp instructions -------------------------------------------------------------
void block_barrier(Location where) {
  Block& b = *current->block;
  current->polled_address = nullptr;  // the next poll is not a repetition
  if (b.arrived == 0)
    b.where = where;
  else if (b.where.line() != where.line())
    fail("divergent __syncthreads: this thread is at " + name(where) + ", others at " +
         name(b.where));
  void* token = &b.token[b.phase & 1];  // alternating, or the next phase would add a false order
  if (__tsan_release) __tsan_release(token);
  if (++b.arrived == b.live) {
    open_barrier(b);
    yield();
  } else {
    b.waiting.push_back(current);
    sleep_in("__syncthreads", where);
  }
  if (__tsan_acquire) __tsan_acquire(token);
}

void warp_meet(unsigned mask, const char* operation, Location where, void* argument, Finish finish,
               bool orders_memory) {
  Fiber* me = current;
  Warp& w = *me->warp;
  me->polled_address = nullptr;
  mask &= w.members;
  if (!(mask >> me->lane & 1))
    fail(std::string(operation) + ": the lane is not in its own mask, " + name(where));
  w.argument[me->lane] = argument;
  size_t i = 0;
  while (i < w.meetings.size() && !(w.meetings[i].mask & mask)) i++;
  if (i == w.meetings.size()) w.meetings.push_back({mask, 0, operation, where});
  Meeting& m = w.meetings[i];
  if (m.mask != mask || std::strcmp(m.operation, operation) || m.where.line() != where.line())
    fail(std::string("divergent warp: ") + operation + " at " + name(where) + " meets " +
         m.operation + " at " + name(m.where));
  void* token = &w.token[w.phase & 1];
  if (orders_memory && __tsan_release) __tsan_release(token);
  if ((m.here |= 1u << me->lane) == mask) {
    finish(w.argument, mask);
    w.meetings.erase(w.meetings.begin() + std::ptrdiff_t(i));
    w.phase++;
    for (int l = 0; l < 32; l++)
      if ((mask >> l & 1) && l != me->lane) wake(w.lane[l]);
    yield();
  } else {
    sleep_in(operation, where);
  }
  if (orders_memory && __tsan_acquire) __tsan_acquire(token);
}

namespace {
struct Exchange {
  uint64_t in;
  int source;
  uint64_t out;
};
}  // namespace
uint64_t exchange(unsigned mask, uint64_t value, int source_lane, const char* operation,
                  Location where) {
  Exchange x{value, source_lane, 0};
  warp_meet(mask, operation, where, &x, [](void** arguments, unsigned all) {
    const auto lane = [&](int l) { return static_cast<Exchange*>(arguments[l]); };
    for (int l = 0; l < 32; l++)
      if (all >> l & 1)  // a lane that takes no part gives NaN
        lane(l)->out = all >> lane(l)->source & 1 ? lane(lane(l)->source)->in : ~0ull;
  });
  return x.out;
}

namespace {
struct MmaArgument {
  Mma kind;
  float* d;
  const uint32_t *a, *b;
};
// The i-th element packed in a register.
float element(Mma kind, uint32_t bits, int i) {
  if (kind == Mma::tf32) return std::bit_cast<float>(bits & 0xffffe000u);
  const uint16_t half = uint16_t(bits >> 16 * i);
  return kind == Mma::bfloat16 ? __bfloat162float({half}) : __half2float({half});
}
}  // namespace
void mma(Mma kind, float* d, const uint32_t* a, const uint32_t* b, Location where) {
  MmaArgument x{kind, d, a, b};
  warp_meet(~0u, "mma.sync", where, &x, [](void** arguments, unsigned mask) {
    if (mask != ~0u) fail("mma.sync needs a full warp");
    const auto lane = [&](int l) { return *static_cast<MmaArgument*>(arguments[l]); };
    const Mma kind = lane(0).kind;
    const int packed = kind == Mma::tf32 ? 1 : 2, K = 8 * packed;  // elements per register, depth
    double A[16][16] = {}, B[8][16] = {};
    for (int l = 0; l < 32; l++) {
      const int group = l / 4, in_group = l % 4;  // PTX: groupID, threadID_in_group
      for (int i = 0; i < packed; i++) {
        const int k = packed * in_group + i;
        for (int r = 0; r < 4; r++)
          A[group + 8 * (r & 1)][k + K / 2 * (r >> 1)] = element(kind, lane(l).a[r], i);
        for (int r = 0; r < 2; r++) B[group][k + K / 2 * r] = element(kind, lane(l).b[r], i);
      }
    }
    for (int l = 0; l < 32; l++)
      for (int r = 0; r < 4; r++) {
        double sum = lane(l).d[r];
        for (int k = 0; k < K; k++) sum += A[l / 4 + 8 * (r >> 1)][k] * B[l % 4 * 2 + (r & 1)][k];
        lane(l).d[r] = float(sum);
      }
  });
}
}  // namespace machine
