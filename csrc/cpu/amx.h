// Products in the matrix registers of Intel's server cores (AMX, where they are called tiles):
// eight of 16 rows of 64 bytes. One instruction multiplies 16 rows of operands with 16 output
// columns along 64 bytes of k, in 16 cycles: 8,192 multiply-adds of bfloat16 or 16,384 of 8-bit
// numbers, where two FMAs a cycle would do 512.
//
// The panels' order of numbers is just what the instruction wants of weights: a register's row is
// one k of a panel's vector, where a k is 4 bytes, a pair of bfloat16 numbers or a quad of bytes.
// So panels end with whole registers, whose last k are zeros. Operands are read from rows that lie
// at equal distances, or else copied row by row first; their last 64 bytes must hold no NaN.
//
// The sums of a register begin with zero and are added to what is there: they go through memory in
// any case, because cells need them in vectors. A block of results has four registers, of 16 rows
// and four vectors, or where there are more rows, of 32 rows and two vectors, which reads the
// weights half as often. Sums do not depend on the block, nor on other rows. Rows that are not
// there cost as much as others, so products of few rows (kFewestAmxRows) widen the pairs of the
// same panels instead, and VNNI takes over for 8-bit numbers. Backward, such calls are left to the
// set below. Bound: 16 cycles for a product of registers; with few rows, reading the weights from
// L2.
#pragma once
#include "simd.h"

namespace lstm_kernels::LSTM_ISA {

// LSTM_AMX_IN_SOFTWARE: registers and instructions in software, for tests.
#if defined(__AMX_TILE__)
#define LSTM_AMX
#endif
#if defined(LSTM_AMX) || defined(LSTM_AMX_IN_SOFTWARE)
constexpr bool kAmx = true;
#else
constexpr bool kAmx = false;
#endif

constexpr int64_t kAmxRows = 16, kAmxBytes = 64;  // of a register
// The k of a panel: rows of whole registers.
LSTM_INLINE int64_t whole_amx_rows(int64_t k) {
  return kAmx ? (k + kAmxRows - 1) / kAmxRows * kAmxRows : k;
}

struct q8;  // quantized.h

#if defined(LSTM_AMX)
// The registers belong to the thread, and others may have left them in another shape.
class AmxShapes {
 public:
  AmxShapes() {
    struct {
      uint8_t palette = 1, begin = 0, unused[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } all;
    for (int i = 0; i < 8; ++i) all.row_bytes[i] = kAmxBytes, all.rows[i] = kAmxRows;
    static_assert(sizeof all == 64);
    asm volatile("ldtilecfg %0" ::"m"(all));
  }
  ~AmxShapes() { asm volatile("tilerelease"); }
  AmxShapes(const AmxShapes&) = delete;
  AmxShapes& operator=(const AmxShapes&) = delete;
};
template <int index>
LSTM_INLINE void amx_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(index));
}
template <int index>
LSTM_INLINE void amx_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(index) : "memory");
}
template <int index>
LSTM_INLINE void amx_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(index) : "memory");
}
// sum += rows * weights
template <class X, int sum, int rows, int weights>
LSTM_INLINE void amx_multiply() {
  if constexpr (is_same<X, q8>)
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(rows), "i"(weights));
  else
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(rows), "i"(weights));
}
#elif defined(LSTM_AMX_IN_SOFTWARE)
struct AmxShapes {
  AmxShapes() {}
};
inline thread_local uint32_t software_registers[8][kAmxRows][kAmxBytes / 4];
template <int index>
LSTM_NOINLINE void amx_zero() {
  __builtin_memset(software_registers[index], 0, sizeof software_registers[index]);
}
template <int index>
LSTM_NOINLINE void amx_load(const void* from, int64_t stride) {
  for (int r = 0; r < kAmxRows; ++r)
    __builtin_memcpy(software_registers[index][r], (const char*)from + r * stride, kAmxBytes);
}
template <int index>
LSTM_NOINLINE void amx_store(void* to, int64_t stride) {
  for (int r = 0; r < kAmxRows; ++r)
    __builtin_memcpy((char*)to + r * stride, software_registers[index][r], kAmxBytes);
}
template <class X, int sum, int rows, int weights>
LSTM_NOINLINE void amx_multiply() {
  for (int r = 0; r < kAmxRows; ++r)
    for (int k = 0; k < kAmxRows; ++k) {
      const uint32_t x = software_registers[rows][r][k];
      uint32_t* to = software_registers[sum][r];
      const auto w = load_as<vec_u32>(software_registers[weights][k]);
      if constexpr (is_same<X, q8>) {
        using Integers = vec<int32_t>;
        Integers all = load_as<Integers>(to);
        for (int i = 0; i < 4; ++i)
          all += int32_t(x >> (8 * i) & 255) * ((Integers)(w << (24 - 8 * i)) >> 24);
        __builtin_memcpy(to, &all, sizeof all);
      } else {
        vec<float> all = load((const float*)to);
        add_product(all, vec_u32{} + x, w);
        __builtin_memcpy(to, &all, sizeof all);
      }
    }
}
#else
struct AmxShapes {
  AmxShapes() {}
};
template <int index>
void amx_zero();
template <int index>
void amx_load(const void* from, int64_t stride);
template <int index>
void amx_store(void* to, int64_t stride);
template <class X, int sum, int rows, int weights>
void amx_multiply();
#endif

// The rows of operands, bytes of X from `head` on, of one register.
template <class X>
class AmxOperand {
 public:
  LSTM_INLINE AmxOperand(const X* const* rows, int64_t head, int64_t count)
      : rows_(rows), head_(head), count_(count) {
    regular_ = count == kAmxRows || count == 1;  // one row is read as all of them
    stride_ = count == kAmxRows ? at(1) - at(0) : 0;
    for (int64_t r = 2; regular_ && r < count; ++r) regular_ = at(r) - at(r - 1) == stride_;
    if (!regular_) __builtin_memset(copy_, 0, sizeof copy_);
  }
  template <int index>
  LSTM_INLINE void load(int64_t byte) {
    if (regular_) return amx_load<index>(at(0) + byte, stride_);
    for (int64_t r = 0; r < count_; ++r)
      __builtin_memcpy(copy_ + r * kAmxBytes, at(r) + byte, kAmxBytes);
    amx_load<index>(copy_, kAmxBytes);
  }

 private:
  LSTM_INLINE const char* at(int64_t r) const { return (const char*)rows_[r] + head_; }

  const X* const* rows_;
  int64_t head_, count_, stride_;
  bool regular_;
  alignas(kAmxBytes) char copy_[kAmxRows * kAmxBytes];
};

// What a block of registers makes: [row][vector][lane], numbers of 4 bytes.
struct AmxSums {
  alignas(kAmxBytes) char numbers[4 * kAmxRows * kAmxBytes];
};

// The products of up to G * kAmxRows rows with V vectors of a panel: those at w, a k of which
// takes `step` bytes, along `blocks` registers of k.
template <int G, int V, class X>
LSTM_NOINLINE void multiply_amx(const X* const* rows, int64_t head, int64_t n, int64_t blocks,
                                const char* w, int64_t step, AmxSums& sums) {
  static_assert(G * V <= 4 && (G == 1 || V <= 2));
  constexpr int kOperand = 4, kWeights = kOperand + G;  // registers 0 .. 3 are sums
  AmxOperand<X> first(rows, head, G == 1 ? n : kAmxRows);
  AmxOperand<X> second(rows + (G - 1) * kAmxRows, head, n - (G - 1) * kAmxRows);
  auto each_vector = [&](auto f) {
    f.template operator()<0>();
    if constexpr (V > 1) f.template operator()<1>();
    if constexpr (V > 2) f.template operator()<2>();
    if constexpr (V > 3) f.template operator()<3>();
  };
  each_vector([]<int v>() {
    amx_zero<v>();
    if constexpr (G == 2) amx_zero<V + v>();
  });
  for (int64_t b = 0; b < blocks; ++b, w += kAmxRows * step) {
    first.template load<kOperand>(b * kAmxBytes);
    if constexpr (G == 2) second.template load<kOperand + 1>(b * kAmxBytes);
    each_vector([&]<int v>() {
      constexpr int kRegister = G == 2 ? kWeights + v : kWeights + v % 3;
      amx_load<kRegister>(w + v * kAmxBytes, step);
      amx_multiply<X, v, kOperand, kRegister>();
      if constexpr (G == 2) amx_multiply<X, V + v, kOperand + 1, kRegister>();
    });
  }
  each_vector([&]<int v>() {
    constexpr int64_t kRow = V * kAmxBytes;
    amx_store<v>(sums.numbers + v * kAmxBytes, kRow);
    if constexpr (G == 2) amx_store<V + v>(sums.numbers + kAmxRows * kRow + v * kAmxBytes, kRow);
  });
}

// The products of n rows, bytes of X from `head` on, with the NV vectors of a panel of k rows:
// calls use(row, vector, sums) for each, a pointer to 64 bytes of sums.
template <int NV, class X, class Use>
LSTM_INLINE void each_amx_sum(const X* const* rows, int64_t head, int64_t n, int64_t k,
                              const char* w, Use use) {
  AmxSums sums;
  const int64_t blocks = whole_amx_rows(k) / kAmxRows, step = NV * kAmxBytes;
  auto use_all = [&](int64_t r, int64_t height, int v, int count) {
    for (int64_t i = 0; i < height; ++i)
      for (int j = 0; j < count; ++j) use(r + i, v + j, sums.numbers + (i * count + j) * kAmxBytes);
  };
  for (int64_t r = 0; r < n;) {
    if (n - r <= kAmxRows) {
      multiply_amx<1, NV>(rows + r, head, n - r, blocks, w, step, sums);
      use_all(r, n - r, 0, NV);
      break;
    }
    const int64_t height = n - r < 2 * kAmxRows ? n - r : 2 * kAmxRows;
    constexpr int kFirst = NV < 2 ? NV : 2;
    multiply_amx<2, kFirst>(rows + r, head, height, blocks, w, step, sums);
    use_all(r, height, 0, kFirst);
    if constexpr (NV > 2) {
      multiply_amx<2, NV - 2>(rows + r, head, height, blocks, w + 2 * kAmxBytes, step, sums);
      use_all(r, height, 2, NV - 2);
    }
    r += height;
  }
}

}  // namespace lstm_kernels::LSTM_ISA
