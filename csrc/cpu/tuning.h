// Every number that was chosen by measurement, with what was measured. Elsewhere the code only uses
// them. Measured on Zen 3 (AVX2) and Zen 4 (AVX-512) with `python -m benchmarks.cpu`, and with
// loops over the tiles alone.
#pragma once
#include <cstddef>

#include "../lstm.h"
#include "integers.h"

namespace lstm_kernels::cpu {

// ---- which calls read the weights as they are stored --------------------------------------------

// A forward pass reads weights of the layer's own precision directly where laying them out in
// panels would take longer than it saves. With K numbers in the rows of both matrices together,
// panels lose in a single step up to 48 rows for K = 512 and more, 16 for 256, 8 for 128 and 4 for
// 32; and with 16 rows in several steps, each of which reads the weights anew, up to K / 64 steps,
// at most 8 to 12.
constexpr int64_t kDirectRows = 16, kDirectStepRows = 48;  // at most this many, and in one step
constexpr bool direct(const Sizes& s) {
  const int64_t rows = s.T * s.N, K = s.I + s.P;
  if (s.T == 1) return rows <= (K < 512 ? kDirectRows : kDirectStepRows) && 8 * rows <= K;
  return rows <= kDirectRows && s.T <= 8 && 64 * s.T <= K;
}
// The same where prepacked weights are at hand: they are as fast as any, but must be compared with
// the layer's, which means reading those once more. That takes longer than it saves in a single
// step, and where weights are few.
constexpr bool direct_although_prepacked(const Sizes& s) {
  return direct(s) && (s.T == 1 || s.I + s.P < 256);
}
// A backward pass reads w_hh directly in calls of few rows and steps: 3x faster at T * N = 8.
constexpr bool direct_backward(const Sizes& s) {
  return s.T * s.N <= kDirectRows && s.T <= kDirectRows / 2;
}

// ---- when another thread pays -------------------------------------------------------------------

// Multiply-adds in a call worth a second thread: one that is awake, and one that sleeps and comes
// 50 us later.
constexpr int64_t kCallWork = 1 << 20, kWakingWork = 1 << 24;
constexpr int64_t kStepWork = 1 << 15;          // multiply-adds in a step, per thread
constexpr int64_t kPanelNumbers = 1 << 17;      // numbers laid out in panels, per thread
constexpr int64_t kFingerprintBytes = 1 << 20;  // bytes of weights hashed, per thread

// Scratch memory that a thread keeps between calls; a larger block is freed after its call.
constexpr size_t kKeptScratch = size_t(64) << 20;

}  // namespace lstm_kernels::cpu

#ifdef LSTM_ISA
#include "simd.h"

namespace lstm_kernels::LSTM_ISA {

// Vectors of 64 bytes come with twice the L2, and need half of its speed for a tile.
constexpr bool kWide = kVectorBytes == 64;
constexpr bool kSse2 = kVectorBytes == 16 && kVectorRegisters == 16;

// ---- tiles: panels.h ----------------------------------------------------------------------------

constexpr int kMaxVectors = 4;
// kMaxRows * kMaxVectors accumulators, the broadcasts or the weights of one k, and one to spare.
constexpr int kMaxRows = kVectorRegisters == 32 ? 6 : 3;
// Bytes of a panel that pass at a time: half of a 32 KiB L1. With wide vectors a tile takes longer
// for each k than L2 does, and an interruption costs more: half of a 1 MiB L2.
constexpr int64_t kBlockBytes = kWide ? 512 << 10 : 16 << 10;
// With at most this many tiles, the block after this one is fetched line by line from inside their
// loops, in blocks of half the size: it is needed soon, and asking for much at once would wait.
constexpr int64_t kFewTiles = 8;

// Rows from which products take matrix registers (amx.h). Measured on a Xeon with AMX: of
// one row, bfloat16 takes 1.2 to 2.5 times as long as numbers widened to float32, of four half as
// long.
constexpr int64_t kFewestAmxRows = 3;
// The same for 8-bit numbers, of which VNNI multiplies four times as many at once: of 4 rows AMX
// takes 1.4 times as long, of 8 rows 0.94 to 1.17 times, of 16 rows 0.8 times.
constexpr int64_t kFewestQuantizedAmxRows = 9;

// ---- products on weights as they are stored: direct.h -------------------------------------------

// Operands and weight rows of a tile. One operand alone needs more chains of additions; SSE2 needs
// a register for each product.
constexpr int kDirectOperands = kSse2 ? 2 : 3;
template <class T>
constexpr int direct_height(bool one_operand) {
  const int rows = one_operand || kVectorRegisters == 32 ? 8 : 4;
  return rows < lanes<T> ? rows : lanes<T>;
}
// Bytes of weights that pass at once: half of a 32 KiB L1. Longer rows pass product by product.
constexpr int64_t kDirectBytes = 16 << 10;
// The rows of weights that pass at a time backward: their lines stay in L1 for all rows of the
// batch, and a tile reads and writes its sums once for this many k.
constexpr int64_t kDirectSteps = 16;
// Whether n operands are interleaved: in vectors whose lanes are used well, where a tile of few
// vectors has rows enough to hide the latency of its additions. The 3 rows of AVX2 do not: 73
// against 87 GF/s with 16 operands.
template <class T>
constexpr bool interleaves_operands(int64_t n) {
  return kWide && 4 * n > 3 * round_up(n, lanes<T>);
}

// ---- passes -------------------------------------------------------------------------------------

// Rows of input that are multiplied at a time, so that W_ih is read once for several steps while
// the pre-activations stay in L2.
constexpr int64_t kChunkRows = 96;
// Rows per thread from which the batch is split, and the same while the recurrent weights, of at
// most kCachedWeights bytes, stay in a thread's cache.
constexpr int64_t kBatchRows = kWide ? 8 : 24, kFewBatchRows = kWide ? 4 : 8;
constexpr int64_t kCachedWeights = kWide ? 1 << 20 : 1 << 19;
// Up to this many rows, 16-bit weights are read narrow, which saves more time than widening them
// costs. SSE2 has no instructions for it, and always widens.
constexpr int64_t kNarrowRows = 4;
// Prepacked weights have one format for every N, the stored numbers: it takes half the memory of
// widened ones and is faster with few rows; with 16 and more, bfloat16 was measured 7 to 8% slower,
// float16 faster.
constexpr int64_t kPrepackedRows = 1;

// Weight gradients: rows that meet in one product, a panel of which stays in L1; and the sums of a
// thread, in L2 where the rows are one chunk, because they go to the caller from there, otherwise
// in the outer cache, because the operands are laid out again for each slab.
constexpr int64_t kGradientRows = 128;
constexpr int64_t kChunkSums = 1 << 17, kSums = 4 << 20;
// Input gradient: rows of a chunk, at most.
constexpr int64_t kInputGradientRows = 128;

}  // namespace lstm_kernels::LSTM_ISA
#endif
