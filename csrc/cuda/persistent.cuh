// What the persistent kernels share: the slice of W_hh that a block keeps on chip, its product with
// what the blocks exchange at every step, that exchange, the cells of a thread, and the launch.
//
// Stationary factor: W_hh (forward) or its transpose (backward), as the m16 operand of the tensor
// cores, in registers, its k dimension split among the warps. The batch is on the n8 side, so one
// to eight sequences cost the same. What does not fit the registers lies in shared memory as the
// same fragments, each read only by the lane that wrote it.
//
// k order: both factors come in 64-byte "pairs" of k tiles. Lane t of a quad takes 16 consecutive
// bytes of a pair, of which the first half feeds the first tile and the second half the second; the
// order of the terms of a sum is free as long as both factors agree on it. So one 16-byte load
// serves two tensor core instructions, with no shuffle and no ldmatrix.
//
// Exchange: at every step the blocks of a batch tile hand each other the moving factor (h_t
// forward, the gates' gradients backward), in fragment order, in one of two slots. Two are enough:
// who writes slot s again has seen what all blocks made of the step in between, so nobody still
// reads s. How it is handed over is a class that the kernels take (exchange.cuh). Tiles are
// independent chains, and a block works on each from end to end: several tiles in a block cost
// several times as much.
//
// Inputs: what a step reads of device memory does not depend on the other blocks. A thread asks for
// it when it has handed over the step before, as raw bits, and touches it only where it computes
// with it: all the time until then hides the latency.
//
// tests/cuda_on_cpu/mutants.py plants bugs in this file by its text, the comments at the barriers
// included. Change a line that it quotes in both files.
#pragma once
#include <cstring>

#include "cell.cuh"
#include "choose.h"
#include "exchange.cuh"
#include "kernels.h"
#include "launch.cuh"
#include "number.cuh"
#include "resident.h"

namespace lstm_kernels::cuda {

// A Geometry at compile time.
template <int WARPS, int ROW_TILES, int REGISTER_PAIRS>
struct Shape {
  static constexpr int kWarps = WARPS, kThreads = WARPS * 32, kRowTiles = ROW_TILES;
  static constexpr int kRegisterPairs = REGISTER_PAIRS, kRows = ROW_TILES * 16;
  static constexpr int kPartialStride = kRows + 4;  // no bank conflicts on writing fragments
};

// 16 bytes of operands, element e from get(e).
template <class E, class Get>
DEV uint4 gather(Get get) {
  E elements[kVector<E>];
#pragma unroll
  for (int e = 0; e < kVector<E>; e++) elements[e] = operand<E>(get(e));
  uint4 v;
  memcpy(&v, elements, sizeof v);
  return v;
}

// Two k tiles: a (16 rows) times b (8 columns). a[k] is that of tile k, in the order in which the
// instruction takes it: of row lane / 4 and the one 8 below, the first columns, then the others.
template <class E>
DEV void mma_pair(float (&d0)[4], float (&d1)[4], uint4 a0, uint4 a1, uint4 b) {
  mma<E>(d0, a0.x, a0.y, a0.z, a0.w, b.x, b.y);
  mma<E>(d1, a1.x, a1.y, a1.z, a1.w, b.z, b.w);
}

// A float as two TF32 numbers: the nearest one, and what is left, of which the tensor cores take as
// many bits as fit.
struct TwoTf32 {
  uint32_t high, low;
  DEV explicit TwoTf32(uint32_t bits) : high((bits + 0x1000) & 0xffffe000) {
    low = bits_of(float_of(bits) - float_of(high));
  }

 private:
  DEV static float float_of(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
  }
};
DEV void mma_full(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, TwoTf32 b0,
                  TwoTf32 b1) {
  const TwoTf32 a[4] = {TwoTf32(a0), TwoTf32(a1), TwoTf32(a2), TwoTf32(a3)};
  mma<float>(d, a[0].low, a[1].low, a[2].low, a[3].low, b0.high, b1.high);
  mma<float>(d, a[0].high, a[1].high, a[2].high, a[3].high, b0.low, b1.low);
  mma<float>(d, a[0].high, a[1].high, a[2].high, a[3].high, b0.high, b1.high);
}
template <>
DEV void mma_pair<FullFloat>(float (&d0)[4], float (&d1)[4], uint4 a0, uint4 a1, uint4 b) {
  mma_full(d0, a0.x, a0.y, a0.z, a0.w, TwoTf32(b.x), TwoTf32(b.y));
  mma_full(d1, a1.x, a1.y, a1.z, a1.w, TwoTf32(b.z), TwoTf32(b.w));
}

// Activations no less exact than the sums they are of.
template <class E>
using ActivationOf = std::conditional_t<std::is_same_v<E, FullFloat>, FastToFloat, Fast>;

// A block's slice of the stationary factor.
template <class E, class S>
class StationaryWeights {
  // Loads of the moving factor go in batches, one ahead of the products: as many as registers
  // allow.
  static constexpr int kLoads = S::kRegisterPairs < 4 || S::kRowTiles >= 4 ? 2 : 4;
  static_assert(S::kRegisterPairs % kLoads == 0);
  static constexpr int kRegisterBatches = S::kRegisterPairs / kLoads;
  // An instruction waits for its accumulator: at least four chains keep the tensor cores fed.
  static constexpr int kChains = S::kRowTiles < 4 ? 4 / S::kRowTiles : 1;

 public:
  // load(row, column) returns kVector consecutive columns of a row of the slice.
  template <class Load>
  DEV StationaryWeights(int pairs, uint4* spilled, Load load)
      : pairs_(pairs),
        lane_(threadIdx.x & 31),
        warp_(__shfl_sync(~0u, int(threadIdx.x) >> 5, 0)),  // the compiler sees it uniform
        spilled_(spilled + lane_) {
    const auto fragment = [&](int row_tile, int pair, uint4& a0, uint4& a1) {
      const int row = row_tile * 16 + (lane_ >> 2);
      const int column = pair * kPairColumns<E> + (lane_ & 3) * kVector<E>;
      const uint4 low = load(row, column), high = load(row + 8, column);
      a0 = make_uint4(low.x, high.x, low.y, high.y);
      a1 = make_uint4(low.z, high.z, low.w, high.w);
    };
#pragma unroll
    for (int j = 0; j < S::kRegisterPairs; j++)
#pragma unroll
      for (int m = 0; m < S::kRowTiles; m++) {
        uint4(&held)[2] = held_[m][j];
        held[0] = held[1] = make_uint4(0, 0, 0, 0);
        if (pair(j) < pairs) fragment(m, pair(j), held[0], held[1]);
      }
    for (int j = S::kRegisterPairs; pair(j) < pairs; j++)
      for (int m = 0; m < S::kRowTiles; m++)
        fragment(m, pair(j), spilled_[spilled_offset(j, m, 0)], spilled_[spilled_offset(j, m, 1)]);
  }

  // Where multiply() leaves the sums of the first warp for a row of the tile; those of the others
  // follow at intervals of 8 * kPartialStride. In rows further down: at a distance that does not
  // depend on the row, as long as that is below `down`, or below 8.
  DEV static int sums_at(int row) {
    return (row / 8 * S::kWarps * 8 + row % 8) * S::kPartialStride;
  }

  // For each group of 8 sequences of a tile, this warp's share of weights @ moving:
  // partials (row groups, warps, 8, kPartialStride), of which the rows of the slice are written.
  // `moving` is a Moving of exchange.cuh.
  template <class Moving>
  DEV void multiply(const Moving& moving, int row_groups, float* partials) const {
    typename Moving::Raw next[kLoads];
#pragma unroll
    for (int l = 0; l < kLoads; l++) next[l] = Moving::nothing();
    if constexpr (Moving::kAhead) fetch(next, moving, 0, 0);
    float* out = partials + (warp_ * 8 + (lane_ & 3) * 2) * S::kPartialStride + (lane_ >> 2);
    for (int group = 0; group < row_groups; group++) {
      float d[S::kRowTiles * kChains][4] = {};
      const bool more = group + 1 < row_groups;
#pragma unroll
      for (int batch = 0; batch < kRegisterBatches; batch++) {
        if (pair(batch * kLoads) >= pairs_) break;
        uint4 b[kLoads];
        take_batch(b, next, moving, group, batch, more);
        add_products(d, b, batch, [&](int j, int m, int tile) { return held_[m][j][tile]; });
      }
#pragma unroll 1
      for (int batch = kRegisterBatches; pair(batch * kLoads) < pairs_; batch++) {
        uint4 b[kLoads];
        take_batch(b, next, moving, group, batch, more);
        add_products(d, b, batch,
                     [&](int j, int m, int tile) { return spilled_[spilled_offset(j, m, tile)]; });
      }
#pragma unroll
      for (int m = 0; m < S::kRowTiles; m++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
          float sum = d[m * kChains][r];
#pragma unroll
          for (int chain = 1; chain < kChains; chain++) sum += d[m * kChains + chain][r];
          out[(r & 1) * S::kPartialStride + m * 16 + (r >> 1) * 8] = sum;
        }
      out += S::kWarps * 8 * S::kPartialStride;
    }
  }

 private:
  // The pairs of a warp are interleaved with the others', so that any H loads all warps alike.
  DEV int pair(int j) const { return j * S::kWarps + warp_; }
  DEV int spilled_offset(int j, int m, int tile) const {
    return ((((j - S::kRegisterPairs) * S::kWarps + warp_) * S::kRowTiles + m) * 2 + tile) * 32;
  }
  template <class Moving>
  DEV void fetch(typename Moving::Raw (&raw)[kLoads], const Moving& moving, int group,
                 int batch) const {
#pragma unroll
    for (int l = 0; l < kLoads; l++) {
      const int j = batch * kLoads + l;
      if (pair(j) < pairs_) moving.template load<S::kWarps>(raw[l], group, j);
    }
  }
  // Takes a batch once all of it has come. Where registers allow, it has been fetched ahead, and
  // the next one is: of this group, or the first of the next group if there is one.
  template <class Moving>
  DEV void take_batch(uint4 (&b)[kLoads], typename Moving::Raw (&next)[kLoads],
                      const Moving& moving, int group, int batch, bool more) const {
    if constexpr (Moving::kAhead) {
      take(b, next, moving);
      if (pair((batch + 1) * kLoads) < pairs_)
        fetch(next, moving, group, batch + 1);
      else if (more)
        fetch(next, moving, group + 1, 0);
    } else {
      do fetch(next, moving, group, batch);
      while (!moving.have_come(next, group, batch * kLoads));
      __syncwarp();  // lanes that waited longer join those that go on to multiply
      take(b, next, moving);
    }
  }
  template <class Moving>
  DEV static void take(uint4 (&b)[kLoads], const typename Moving::Raw (&raw)[kLoads],
                       const Moving& moving) {
#pragma unroll
    for (int l = 0; l < kLoads; l++) b[l] = moving.data(raw[l]);
  }

  // The products of a batch with the fragments of its pairs.
  template <class Fragment>
  DEV void add_products(float (&d)[S::kRowTiles * kChains][4], const uint4 (&b)[kLoads], int batch,
                        Fragment fragment) const {
#pragma unroll
    for (int l = 0; l < kLoads; l++) {
      const int j = batch * kLoads + l;
      if (pair(j) < pairs_)
#pragma unroll
        for (int m = 0; m < S::kRowTiles; m++)
          mma_pair<E>(d[m * kChains + l * 2 % kChains], d[m * kChains + (l * 2 + 1) % kChains],
                      fragment(j, m, 0), fragment(j, m, 1), b[l]);
    }
  }

  int pairs_, lane_, warp_;
  uint4* spilled_;
  uint4 held_[S::kRowTiles][S::kRegisterPairs][2];
};

// Who takes part in which steps, and where the rows of arrays over (R) are. Most layers are plain:
// every sequence takes part in every step, and none is reset. They go without all looking up.
class Sequences {
 public:
  DEV Sequences(const Rows& rows, int batch)
      : rows_(rows), batch_(batch), plain_(!rows.offsets && !rows.lengths && !rows.reset) {}

  DEV bool plain() const { return plain_; }
  DEV bool packed() const { return rows_.offsets; }
  // Of sequence n in step t.
  DEV bool takes_part(int t, int n) const {
    if (plain_) return true;
    if (rows_.offsets) return n < __ldg(rows_.offsets + t + 1) - __ldg(rows_.offsets + t);
    return !rows_.lengths || t < __ldg(rows_.lengths + n);
  }
  DEV bool is_reset(int t, int n) const {
    return !plain_ && rows_.reset && rows_.reset[int64_t(t) * batch_ + n];
  }
  DEV int64_t row(int t, int n) const {
    if (plain_) return int64_t(t) * batch_ + n;
    return n + (rows_.offsets ? __ldg(rows_.offsets + t) : int64_t(t) * batch_);
  }

 private:
  const Rows& rows_;
  int batch_;
  bool plain_;
};

// The cells of a thread: of one hidden unit, in every kRowStride-th row of the batch tiles of its
// block. Their states lie in shared memory, and no other thread touches them.
template <class S, int UNITS>
class Cells {
 public:
  static constexpr int kRowStride = S::kThreads / UNITS;
  static constexpr int kCount = kMaxTileRows / kRowStride;  // in a tile
  static_assert(kRowStride * UNITS == S::kThreads && kCount * kRowStride == kMaxTileRows);
  static_assert(32 / UNITS <= 8);  // rows of a warp: tiles have whole groups of 8

  DEV Cells(const Plan& plan, const Sizes& size, int direction)
      : plan_(plan),
        N_(int(size.N)),
        H_(int(size.H)),
        direction_(direction),
        first_row_(int(threadIdx.x) / UNITS),
        unit_(int(blockIdx.x) * UNITS + int(threadIdx.x) % UNITS) {}

  DEV int unit() const { return unit_; }
  DEV int local_unit() const { return int(unsigned(unit_) % UNITS); }  // in the block
  // Of cell i: its row in the tile, its sequence, whether there is one.
  DEV int row(int i) const { return first_row_ + i * kRowStride; }
  DEV int sequence(int tile, int i) const { return tile * plan_.tile_rows + row(i); }
  DEV bool in_tile(int i) const { return row(i) < plan_.tile_rows; }  // so in the whole warp
  DEV bool has_sequence(int tile, int i) const { return in_tile(i) && sequence(tile, i) < N_; }
  DEV bool exists(int tile, int i) const { return has_sequence(tile, i) && unit_ < H_; }
  DEV int64_t state_index(int tile, int i) const {  // in arrays over (D, N, H)
    return (int64_t(direction_) * N_ + sequence(tile, i)) * H_ + unit_;
  }
  // How many rows cell i is below the first.
  DEV static int down(int i) { return i * kRowStride; }
  // Of the n-th tile of this block.
  DEV float2& state(int n, int i) const {
    float2* states = reinterpret_cast<float2*>(shared_memory<unsigned char>() + plan_.states_at);
    return states[n * (plan_.tile_rows * UNITS) + i * S::kThreads + int(threadIdx.x)];
  }

  // No address lives through the product: it is computed again, not kept in a register.
  DEV void forget_addresses() { unit_ = opaque(unit_), first_row_ = opaque(first_row_); }

 private:
  const Plan& plan_;
  int N_, H_, direction_, first_row_, unit_;
};

// An element of an array that may be absent, widened.
template <class E>
DEV float load_or_zero(const void* array, int64_t index) {
  return array ? widen(read_only(static_cast<const E*>(array) + index)) : 0.f;
}
// An element as it is stored, or any number where there is no array: to choose a zero instead would
// wait for the load. `other` is an array that is there.
template <class E>
DEV E load_or_any(const void* array, int64_t index, const void* other) {
  return read_only(static_cast<const E*>(array ? array : other) + (array ? index : 0));
}
template <class E>
DEV void store(void* array, int64_t index, float value) {
  static_cast<E*>(array)[index] = narrow<E>(value);
}

// Calls f(E()) with the type of the operands. full: float32 as it is, not in TF32.
template <class F>
cudaError_t with_operand_dtype(DType dtype, bool full, F f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(__half());
    case DType::kBFloat16:
      return f(__nv_bfloat16());
    case DType::kFloat32:
      return full ? f(FullFloat()) : f(float());
    case DType::kFloat64:
      break;
  }
  return cudaErrorInvalidValue;
}

// The workspace zeroed, counters and tags, then all blocks at once.
template <class S, class Call>
cudaError_t launch_persistent(void (*kernel)(Call, Plan), const Call& call, const Plan& plan,
                              cudaStream_t stream) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaMemsetAsync(call.workspace, 0, size_t(plan.workspace_bytes), stream);
  if (error != cudaSuccess) return error;
  const dim3 grid(unsigned(plan.slices), unsigned(plan.groups), unsigned(call.size.D));
  const int blocks = plan.slices * plan.groups * call.size.D;
  return Residents::of_device(device).launch(stream, blocks, plan.room, [&] {
    return launch(Launch::cooperative, kernel, grid, dim3(S::kThreads), plan.shared_bytes, stream,
                  call, plan);
  });
}

}  // namespace lstm_kernels::cuda
