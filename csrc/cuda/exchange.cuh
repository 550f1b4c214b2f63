// How the blocks of a persistent kernel hand each other the moving factor at every step.
//
// All lay it out in fragment order: (row groups of 8, pairs, 32 lanes) chunks of 16 bytes. A kernel
// hands over step s like this, and each class does its part in its way:
//
//   place(s, tile)     where the thread's first operand goes
//   publish(...)       every thread, of each of its cells: the operand goes out
//   announce(s, tile)  every thread, when its block has published all: it is there
//   await(s, tile)     every thread: what the others announced may be read, through moving(s, tile)
//
// CounterExchange: operands go to L2, and one counter per tile counts the blocks that have arrived.
// A step costs a barrier, a fence and an atomic on the way out, a poll, a barrier and a read of L2
// on the way in.
//
// TaggedExchange: each word of 4 bytes goes to L2 together with the number of its step, in one
// store of 8 bytes, which memory takes whole. A reader asks for its words until they carry the
// number of the step: no fence, no counter, no barrier, and the read that finds the data is also
// the wait. On an H200 a step of a small tile takes 0.4 to 0.5 us less so (step_costs of choose.h).
// It is twice the bytes, so the counter is better where there are many.
//
// Columns that nobody writes are the zeros of the workspace. Rows beyond the batch are not read:
// what stands in their place goes into sums that nobody reads.
#pragma once
#include <cstring>

#include "choose.h"
#include "number.cuh"

namespace lstm_kernels::cuda {

template <class E>
constexpr int kVector = 16 / int(sizeof(E));  // elements in a lane's chunk
template <class E>
constexpr int kPairColumns = 4 * kVector<E>;

// As the tensor cores take it.
template <class E>
DEV E operand(E v) {
  return v;
}
template <>
DEV float operand<float>(float v) {
  return round_to_tf32(v);
}

// Of a block: where it stands in the grid, and what every exchange needs to know of the layer.
struct Place {
  const Plan& plan;
  int N, directions, direction;
  bool one_thread;  // whether this thread does what takes but one: not one that polls and computes

  DEV Place(const Plan& plan, const Sizes& size)
      : plan(plan),
        N(int(size.N)),
        directions(size.D),
        direction(int(blockIdx.z)),
        one_thread(threadIdx.x == blockDim.x - 1) {}
  DEV int64_t tile_index(int slot, int tile) const {
    return (int64_t(slot & 1) * directions + direction) * plan.tiles + tile;
  }
};

// Where the operands of a thread lie in a tile: the first, of a row and a column, and the others,
// `down` rows further down and of another gate, at a distance that is the same for all threads. So
// a step computes next to no addresses. The first row is below `down`, or below 8.
template <class E>
struct OperandPlace {
  int pair, lane;  // of the first, in the row group of its row
  int element;     // of the chunk

  DEV OperandPlace(const Plan& plan, int row, int column)
      : pair(row / 8 * plan.pairs + column / kPairColumns<E>),
        lane(row % 8 * 4 + column % kPairColumns<E> / kVector<E>),
        element(column % kVector<E>) {}
  DEV static int pairs_to(const Plan& plan, int down, int gate) {
    return down / 8 * plan.pairs + gate * (plan.gate_columns / kPairColumns<E>);
  }
  DEV static int lanes_to(int down) { return down % 8 * 4; }
};

// Arrival counters and slots of one direction, in the zeroed workspace: counters (D, tiles), then
// slots (2, D, tiles). Rows and columns beyond the batch and the matrix stay zero. Counters only
// grow: no reset, no barrier of the whole grid.
template <class E>
class CounterExchange {
 public:
  DEV CounterExchange(void* workspace, const Place& place, int row, int column)
      : workspace_(static_cast<unsigned char*>(workspace)), at_(place) {
    const OperandPlace<E> first(place.plan, row, column);
    first_ = (first.pair * 32 + first.lane) * kVector<E> + first.element;
  }

  DEV E* place(int step, int tile) const {
    return reinterpret_cast<E*>(this->tile(step, tile)) + first_;
  }
  DEV void publish(E* place, int, int down, int gate, E value, bool exists, bool) const {
    if (!exists) return;
    const int chunks =
        OperandPlace<E>::pairs_to(at_.plan, down, gate) * 32 + OperandPlace<E>::lanes_to(down);
    st_exchange(place + chunks * kVector<E>, operand<E>(value));
  }
  DEV void announce(int, int tile) const {
    __syncthreads();  // [operands stored, partial sums used up]
    if (at_.one_thread) red_release_add(counter(tile), 1);
  }
  // Announcements are counted from step 0 on, modulo 2^32.
  DEV void await(int step, int tile) const {
    const unsigned arrivals = unsigned(at_.plan.slices) * unsigned(step + 1);
    if (at_.one_thread)
      while (int(ld_acquire(counter(tile)) - arrivals) < 0) {
      }
    __syncthreads();  // [operands of the step are there]
  }

  class Moving {
   public:
    using Raw = uint4;
    static constexpr bool kAhead = true;
    DEV Moving(const uint4* tile, int pairs) : first_(tile + threadIdx.x), pairs_(pairs) {}
    template <int kWarps>
    DEV void load(uint4& raw, int group, int j) const {
      raw = ld_exchange(first_ + group * (pairs_ * 32) + j * kWarps * 32);
    }
    DEV static Raw nothing() { return anything(); }
    DEV uint4 data(uint4 raw) const { return raw; }

   private:
    const uint4* first_;  // of this lane, of the first pair of its warp
    int pairs_;
  };
  DEV Moving moving(int step, int tile) const { return {this->tile(step, tile), at_.plan.pairs}; }

 private:
  DEV uint4* tile(int slot, int tile) const {
    const int64_t counters = int64_t(at_.directions) * at_.plan.tiles * kCounterBytes;
    return reinterpret_cast<uint4*>(workspace_ + counters) +
           at_.tile_index(slot, tile) * (at_.plan.tile_rows / 8 * at_.plan.pairs * 32);
  }
  DEV unsigned* counter(int tile) const {
    const int64_t index = int64_t(at_.direction) * at_.plan.tiles + tile;
    return reinterpret_cast<unsigned*>(workspace_ + index * kCounterBytes);
  }

  unsigned char* workspace_;
  const Place& at_;
  int first_;  // element of a tile
};

// Slots (2, D, tiles, row groups, pairs, 2 halves of a chunk, 32 lanes) of two words {4 bytes, tag}
// in the zeroed workspace. The tag of step s is s + 1, so zero is that of none.
template <class E>
class TaggedExchange {
 public:
  DEV TaggedExchange(void* workspace, const Place& place, int row, int column)
      : words_(static_cast<uint2*>(workspace)), at_(place), pairs_written_(0) {
    const OperandPlace<E> first(place.plan, row, column);
    const int word = first.element * int(sizeof(E)) / 4;
    first_ = (first.pair * 2 + word / 2) * 64 + first.lane * 2 + word % 2;
    stores_ = first.element * int(sizeof(E)) % 4 == 0;
    // Bit j: whether this lane's chunk of the j-th pair of its warp is ever written. Columns of
    // each gate are padded to whole pairs, of which the blocks write what lies in their units.
    const int gates = at_.plan.gate_columns, written = at_.plan.slices * at_.plan.units;
    const int warps = int(blockDim.x) / 32, lane = int(threadIdx.x) & 31;
    for (int j = 0, pair = int(threadIdx.x) / 32; pair < at_.plan.pairs; j++, pair += warps) {
      const int column = pair * kPairColumns<E> + (lane & 3) * kVector<E>;
      if (column % gates < written) pairs_written_ |= 1u << j;
    }
  }

  DEV uint2* place(int step, int tile) const { return this->tile(step, tile) + first_; }
  // All lanes of a warp: those of a word's elements are neighbours.
  DEV void publish(uint2* place, int step, int down, int gate, E value, bool exists,
                   bool has_sequence) const {
    E pair[4 / sizeof(E)];
    pair[0] = operand<E>(exists ? value : narrow<E>(0));
    if constexpr (sizeof(E) == 2) pair[1] = exchange_neighbours(pair[0]);
    if (!stores_ || !has_sequence) return;
    unsigned data;
    memcpy(&data, pair, sizeof data);
    const int further =
        OperandPlace<E>::pairs_to(at_.plan, down, gate) * 128 + OperandPlace<E>::lanes_to(down) * 2;
    st_tagged(place + further, data, unsigned(step + 1));
  }
  DEV void announce(int, int) const {}
  DEV void await(int, int) const {}

  class Moving {
   public:
    static constexpr bool kAhead = false;  // tags take as many registers as data
    struct Raw {
      uint4 half[2];  // {data, tag, data, tag}
    };
    DEV static Raw nothing() { return {anything(), anything()}; }
    DEV Moving(const uint2* tile, int pairs, unsigned tag, int rows, unsigned pairs_written)
        : first_(tile + (threadIdx.x / 32 * 128 + threadIdx.x % 32 * 2)),
          pairs_(pairs),
          rows_(rows - int((threadIdx.x & 31) / 4)),
          tag_(tag),
          pairs_written_(pairs_written) {}
    template <int kWarps>
    DEV void load(Raw& raw, int group, int j) const {
      if (group * 8 >= rows_) return;
      const uint2* p = first_ + group * (pairs_ * 128) + j * kWarps * 128;
      const unsigned tag = pairs_written_ >> j & 1 ? tag_ : 0;
      raw.half[0] = ld_tagged(p, tag), raw.half[1] = ld_tagged(p + 64, tag);
    }
    // Of the pairs from j on, whether all words that are ever written are those of the step.
    template <int n>
    DEV bool have_come(const Raw (&raw)[n], int group, int j) const {
      const unsigned written = group * 8 < rows_ ? pairs_written_ >> j : 0;
      unsigned other = 0;
#pragma unroll
      for (int l = 0; l < n; l++) {
        const uint4 a = raw[l].half[0], b = raw[l].half[1];
        const unsigned of_pair = ((a.y ^ tag_) | (a.w ^ tag_)) | ((b.y ^ tag_) | (b.w ^ tag_));
        if (written >> l & 1) other |= of_pair;
      }
      return other == 0;
    }
    DEV uint4 data(const Raw& raw) const {
      return make_uint4(raw.half[0].x, raw.half[0].z, raw.half[1].x, raw.half[1].z);
    }

   private:
    const uint2* first_;  // of this lane, of the first pair of its warp
    int pairs_, rows_;    // rows_: of the batch, from this lane's of the first group on
    unsigned tag_, pairs_written_;
  };
  DEV Moving moving(int step, int tile) const {
    return {this->tile(step, tile), at_.plan.pairs, unsigned(step + 1),
            at_.N - tile * at_.plan.tile_rows, pairs_written_};
  }

 private:
  DEV uint2* tile(int slot, int tile) const {
    return words_ + at_.tile_index(slot, tile) * (at_.plan.tile_rows / 8 * at_.plan.pairs * 128);
  }
  // That of the lane whose number differs in the last bit.
  DEV static E exchange_neighbours(E v) {
    uint16_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = uint16_t(__shfl_xor_sync(~0u, unsigned(bits), 1));
    memcpy(&v, &bits, sizeof bits);
    return v;
  }

  uint2* words_;
  const Place& at_;
  int first_;               // word of a tile
  bool stores_;             // for itself and the lane with the other half of its word
  unsigned pairs_written_;  // none beyond the last
};

}  // namespace lstm_kernels::cuda
