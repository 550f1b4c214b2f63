// What this machine can do at best: multiply-adds per second and bytes read per second.
//
// Built by bound.py when a benchmark runs, for the instruction set that the benchmark uses, so that
// every result is shown with the bound of the same machine, in the same run.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

using Clock = std::chrono::steady_clock;

// Keeps the compiler from dropping a value, or from knowing what it is.
template <class T>
void opaque(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

// Runs `work` (which returns how much it did) on every thread for about `seconds`: the total rate.
template <class Work>
double rate(int threads, double seconds, Work work) {
  std::vector<double> rates(threads);
  auto run = [&](int thread) {
    auto piece = work(thread);
    piece();  // first touch of the memory, and the clock frequency rises
    double done = 0;
    const auto start = Clock::now();
    double elapsed = 0;
    while (elapsed < seconds) {
      done += piece();
      elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    }
    rates[thread] = done / elapsed;
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  double sum = 0;
  for (double each : rates) sum += each;
  return sum;
}

// Chain is an index pack, so that every accumulator is a separate register.
template <class T, std::size_t... Chain>
double fma_rate(int threads, double seconds, std::index_sequence<Chain...>) {
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  constexpr int kRounds = 100000;
  return rate(threads, seconds, [](int) {
    return [] {
      Vector sum[] = {(Vector{} + T(Chain))...};
      Vector factor = Vector{} + T(0.5);
      Vector addend = Vector{} + T(1);
      opaque(factor);
      opaque(addend);
      for (int round = 0; round < kRounds; ++round)
        ((sum[Chain] = sum[Chain] * factor + addend), ...);
      Vector total = (sum[Chain] + ...);
      opaque(total);
      return 2.0 * sizeof...(Chain) * kRounds * sizeof(Vector) / sizeof(T);
    };
  });
}

#ifdef __AVX512BF16__
template <std::size_t... Chain>
double pair_rate(int threads, double seconds, std::index_sequence<Chain...>) {
  constexpr int kRounds = 100000;
  return rate(threads, seconds, [](int) {
    return [] {
      __m512 sum[] = {_mm512_set1_ps(float(Chain))...};
      __m512i pairs = _mm512_set1_epi16(0x3f00);
      opaque(pairs);
      for (int round = 0; round < kRounds; ++round)
        ((sum[Chain] = _mm512_dpbf16_ps(sum[Chain], (__m512bh)pairs, (__m512bh)pairs)), ...);
      __m512 total = (sum[Chain] + ...);
      opaque(total);
      return 4.0 * sizeof...(Chain) * kRounds * 16;
    };
  });
}
#endif

template <std::size_t... Chain>
double read_rate(int threads, std::size_t bytes, double seconds, std::index_sequence<Chain...>) {
  typedef std::int64_t Vector __attribute__((vector_size(kVectorBytes)));
  constexpr std::size_t kUnroll = sizeof...(Chain);
  const std::size_t count = bytes / (sizeof(Vector) * kUnroll) * kUnroll;
  const std::size_t sweeps = std::max<std::size_t>(1, (std::size_t{16} << 20) / bytes);
  return rate(threads, seconds, [=](int) {
    return [=, memory = std::vector<Vector>(count, Vector{} + 1)] {
      Vector sum[] = {(Vector{} + std::int64_t(Chain))...};
      for (std::size_t sweep = 0; sweep < sweeps; ++sweep) {
        const Vector* read = memory.data();
        asm volatile("" : "+r"(read) : : "memory");
        for (std::size_t i = 0; i < count; i += kUnroll) ((sum[Chain] |= read[i + Chain]), ...);
      }
      Vector total = (sum[Chain] | ...);
      opaque(total);
      return double(sweeps * count * sizeof(Vector));
    };
  });
}

// Two multiply-add units times a latency of four or five cycles.
using FmaChains = std::make_index_sequence<10>;
using ReadChains = std::make_index_sequence<8>;

}  // namespace

// Floating-point operations per second (a multiply-add counts two) of all threads together.
extern "C" double fma_rate_f32(int threads, double seconds) {
  return fma_rate<float>(threads, seconds, FmaChains{});
}
extern "C" double fma_rate_f64(int threads, double seconds) {
  return fma_rate<double>(threads, seconds, FmaChains{});
}
// The same, of products of bfloat16 pairs; 0 without such an instruction.
extern "C" double pair_rate([[maybe_unused]] int threads, [[maybe_unused]] double seconds) {
#ifdef __AVX512BF16__
  return pair_rate(threads, seconds, FmaChains{});
#else
  return 0;
#endif
}

// Bytes read per second by all threads together, each going over its own `bytes`.
extern "C" double read_rate(int threads, std::size_t bytes, double seconds) {
  return read_rate(threads, bytes, seconds, ReadChains{});
}
