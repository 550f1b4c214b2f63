// Products in tiles, the matrix registers of Intel's server cores (AMX): eight of 16 rows of 64
// bytes. One instruction multiplies 16 rows of operands with 16 output columns along 64 bytes of k,
// in 16 cycles: 8,192 multiply-adds of bfloat16 or 16,384 of 8-bit numbers, where two FMAs a cycle
// would do 512.
//
// The panels' order of numbers is just what the instruction wants of weights: a row of a tile is
// one k of a panel's vector, where a k is 4 bytes, a pair of bfloat16 numbers or a quad of bytes.
// So panels end with whole tiles, whose last k are zeros. Operands are read from rows that lie at
// equal distances, or else copied row by row first; their last 64 bytes must hold no NaN.
//
// The sums of a tile are made from zero and added to what is there: they go through memory in any
// case, because cells need them in vectors. A block of results has four tiles, of 16 rows and four
// vectors, or where there are more rows, of 32 rows and two vectors, which reads the weights half
// as often. Sums do not depend on the block, nor on other rows. Rows that are not there cost as
// much as others, so calls of fewer than kFewestTileRows rows a step are left to the set below,
// whose sums have another order. Bound: 16 cycles for a product of tiles; with few rows, reading
// the weights from L2.
#pragma once
#include "simd.h"

namespace lstm_kernels::LSTM_ISA {

// LSTM_TILES without the instructions: in software, for tests.
#if defined(__AMX_TILE__)
#define LSTM_AMX
#endif
#if defined(LSTM_AMX) || defined(LSTM_TILES)
constexpr bool kTiles = true;
#else
constexpr bool kTiles = false;
#endif

constexpr int64_t kTileRows = 16, kTileBytes = 64;  // of a full tile
// The k of a panel: rows of whole tiles.
LSTM_INLINE int64_t whole_tiles(int64_t k) {
  return kTiles ? (k + kTileRows - 1) / kTileRows * kTileRows : k;
}

struct q8;  // quantized.h

#if defined(LSTM_AMX)
// Tiles belong to the thread, and others may have left them in another shape.
class TileShapes {
 public:
  TileShapes() {
    struct {
      uint8_t palette = 1, begin = 0, unused[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } all;
    for (int i = 0; i < 8; ++i) all.row_bytes[i] = kTileBytes, all.rows[i] = kTileRows;
    static_assert(sizeof all == 64);
    asm volatile("ldtilecfg %0" ::"m"(all));
  }
  ~TileShapes() { asm volatile("tilerelease"); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
};
template <int tile>
LSTM_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(tile));
}
template <int tile>
LSTM_INLINE void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
LSTM_INLINE void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
}
// sum += rows * weights
template <class X, int sum, int rows, int weights>
LSTM_INLINE void tile_multiply() {
  if constexpr (is_same<X, q8>)
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(rows), "i"(weights));
  else
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(rows), "i"(weights));
}
#elif defined(LSTM_TILES)
struct TileShapes {
  TileShapes() {}
};
inline thread_local uint32_t software_tiles[8][kTileRows][kTileBytes / 4];
template <int tile>
LSTM_NOINLINE void tile_zero() {
  __builtin_memset(software_tiles[tile], 0, sizeof software_tiles[tile]);
}
template <int tile>
LSTM_NOINLINE void tile_load(const void* from, int64_t stride) {
  for (int r = 0; r < kTileRows; ++r)
    __builtin_memcpy(software_tiles[tile][r], (const char*)from + r * stride, kTileBytes);
}
template <int tile>
LSTM_NOINLINE void tile_store(void* to, int64_t stride) {
  for (int r = 0; r < kTileRows; ++r)
    __builtin_memcpy((char*)to + r * stride, software_tiles[tile][r], kTileBytes);
}
template <class X, int sum, int rows, int weights>
LSTM_NOINLINE void tile_multiply() {
  for (int r = 0; r < kTileRows; ++r)
    for (int k = 0; k < kTileRows; ++k) {
      const uint32_t x = software_tiles[rows][r][k];
      uint32_t* to = software_tiles[sum][r];
      const auto w = load_as<vec_u32>(software_tiles[weights][k]);
      if constexpr (is_same<X, q8>) {
        vec<int32_t> all = load_as<vec<int32_t> >(to);
        for (int i = 0; i < 4; ++i)
          all += int32_t(x >> (8 * i) & 255) * ((vec<int32_t>)(w << (24 - 8 * i)) >> 24);
        __builtin_memcpy(to, &all, sizeof all);
      } else {
        vec<float> all = load_as<vec<float> >(to);
        add_product(all, vec_u32{} + x, w);
        __builtin_memcpy(to, &all, sizeof all);
      }
    }
}
#else
struct TileShapes {
  TileShapes() {}
};
template <int tile>
void tile_zero();
template <int tile>
void tile_load(const void* from, int64_t stride);
template <int tile>
void tile_store(void* to, int64_t stride);
template <class X, int sum, int rows, int weights>
void tile_multiply();
#endif

// The rows of operands, bytes of X from `head` on, of one tile.
template <class X>
class TileOperand {
 public:
  LSTM_INLINE TileOperand(const X* const* rows, int64_t head, int64_t count)
      : rows_(rows), head_(head), count_(count) {
    regular_ = count == kTileRows || count == 1;  // one row is read as all of them
    stride_ = count == kTileRows ? at(1) - at(0) : 0;
    for (int64_t r = 2; regular_ && r < count; ++r) regular_ = at(r) - at(r - 1) == stride_;
    if (!regular_) __builtin_memset(copy_, 0, sizeof copy_);
  }
  template <int tile>
  LSTM_INLINE void load(int64_t byte) {
    if (regular_) return tile_load<tile>(at(0) + byte, stride_);
    for (int64_t r = 0; r < count_; ++r)
      __builtin_memcpy(copy_ + r * kTileBytes, at(r) + byte, kTileBytes);
    tile_load<tile>(copy_, kTileBytes);
  }

 private:
  LSTM_INLINE const char* at(int64_t r) const { return (const char*)rows_[r] + head_; }

  const X* const* rows_;
  int64_t head_, count_, stride_;
  bool regular_;
  alignas(kTileBytes) char copy_[kTileRows * kTileBytes];
};

// What a block of tiles makes: [row][vector][lane], numbers of 4 bytes.
struct TileSums {
  alignas(kTileBytes) char numbers[4 * kTileRows * kTileBytes];
};

// The products of up to G * kTileRows rows with V vectors of a panel: those at w, a k of which
// takes `step` bytes, along `blocks` tiles of k.
template <int G, int V, class X>
LSTM_NOINLINE void multiply_tiles(const X* const* rows, int64_t head, int64_t n, int64_t blocks,
                                  const char* w, int64_t step, TileSums& sums) {
  static_assert(G * V <= 4 && (G == 1 || V <= 2));
  constexpr int kOperand = 4, kWeights = kOperand + G;  // tiles 0 .. 3 are sums
  TileOperand<X> first(rows, head, G == 1 ? n : kTileRows);
  TileOperand<X> second(rows + (G - 1) * kTileRows, head, n - (G - 1) * kTileRows);
  auto each_vector = [&](auto f) {
    f.template operator()<0>();
    if constexpr (V > 1) f.template operator()<1>();
    if constexpr (V > 2) f.template operator()<2>();
    if constexpr (V > 3) f.template operator()<3>();
  };
  each_vector([]<int v>() {
    tile_zero<v>();
    if constexpr (G == 2) tile_zero<V + v>();
  });
  for (int64_t b = 0; b < blocks; ++b, w += kTileRows * step) {
    first.template load<kOperand>(b * kTileBytes);
    if constexpr (G == 2) second.template load<kOperand + 1>(b * kTileBytes);
    each_vector([&]<int v>() {
      constexpr int kTile = G == 2 ? kWeights + v : kWeights + v % 3;
      tile_load<kTile>(w + v * kTileBytes, step);
      tile_multiply<X, v, kOperand, kTile>();
      if constexpr (G == 2) tile_multiply<X, V + v, kOperand + 1, kTile>();
    });
  }
  each_vector([&]<int v>() {
    constexpr int64_t kRow = V * kTileBytes;
    tile_store<v>(sums.numbers + v * kTileBytes, kRow);
    if constexpr (G == 2) tile_store<V + v>(sums.numbers + kTileRows * kRow + v * kTileBytes, kRow);
  });
}

// The products of n rows, bytes of X from `head` on, with the NV vectors of a panel of k rows:
// calls use(row, vector, sums) for each, a pointer to 64 bytes of sums.
template <int NV, class X, class Use>
LSTM_INLINE void each_tile_sum(const X* const* rows, int64_t head, int64_t n, int64_t k,
                               const char* w, Use use) {
  TileSums sums;
  const int64_t blocks = whole_tiles(k) / kTileRows, step = NV * kTileBytes;
  auto use_all = [&](int64_t r, int64_t height, int v, int count) {
    for (int64_t i = 0; i < height; ++i)
      for (int j = 0; j < count; ++j)
        use(r + i, v + j, sums.numbers + (i * count + j) * kTileBytes);
  };
  for (int64_t r = 0; r < n;) {
    if (n - r <= kTileRows) {
      multiply_tiles<1, NV>(rows + r, head, n - r, blocks, w, step, sums);
      use_all(r, n - r, 0, NV);
      break;
    }
    const int64_t height = n - r < 2 * kTileRows ? n - r : 2 * kTileRows;
    constexpr int kFirst = NV < 2 ? NV : 2;
    multiply_tiles<2, kFirst>(rows + r, head, height, blocks, w, step, sums);
    use_all(r, height, 0, kFirst);
    if constexpr (NV > 2) {
      multiply_tiles<2, NV - 2>(rows + r, head, height, blocks, w + 2 * kTileBytes, step, sums);
      use_all(r, height, 2, NV - 2);
    }
    r += height;
  }
}

}  // namespace lstm_kernels::LSTM_ISA
