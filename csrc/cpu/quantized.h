// Products of 8-bit weights and 8-bit operands, and the weights of a layer in that form.
//
// A matrix w is held as bytes q from -127 to 127 and one scale for each of its rows, an output
// column here: w[j][k] = scale[j] * q[j][k]. A row of operands is rounded anew in every step, with
// its scale and zero, so that 256 values span it from its smallest number to its largest
// and 0 is one of them: x[k] = scale * (u[k] - zero). Then
//
//   x . w[j] = scale * scale[j] * (sum over k of u[k] * q[j][k]  -  zero * sum over k of q[j][k])
//
// where the sums are exact int32 numbers, the same on every CPU. A row that holds a NaN or an
// infinite number has the scale NaN, and so has all that follows from it.
//
// Panels are [quad][vector][lane][4 k]: an instruction multiplies the four bytes of each lane with
// those of one operand and adds the products up. VNNI takes unsigned operands. Elsewhere operands
// are kept 128 lower, as signed bytes. AVX2's vpmaddubsw adds pairs of products in 16 bits, which
// 255 * 127 + 255 * 127 overflows; we give it |u - 128| and the weights with the sign of u - 128:
// 128 * 127 * 2 fits. Measured on Zen 3, in GMAC/s for 1 and 2 rows: 58 and 56; with weights
// widened for vpmaddwd 39 and 48; in float32 16 and 25. Bound: the rate of these instructions, or
// reading the weights, a quarter of those of float32. Three rows and more take the matrix
// registers of AMX where there are any: fewer need no more instructions of VNNI.
#pragma once
#if defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "panels.h"
#include "weight_panels.h"

namespace lstm_kernels::LSTM_ISA {

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(LSTM_VECTOR_BYTES)
constexpr int kOperandOffset = 0;
#else
constexpr int kOperandOffset = 128;
#endif

// The type of operand rows: bytes, after a head. The bytes are u - kOperandOffset.
struct q8 {
  uint8_t byte;
};
struct RowHead {
  float scale;
  int32_t zero;  // less kOperandOffset
};
constexpr int64_t kHeadBytes = kAmx ? kAmxBytes : 16;  // its rows begin with a cache line
constexpr int64_t kQuad = 4;

using vec_i32 = vec<int32_t>;
using vec_u8 = vec<uint8_t, lanes<float>>;

// sum[lane] += the four products of the bytes in a lane of w and in the same lane of a.
struct QuadOperand {
  vec_i32 a;
  LSTM_INLINE explicit QuadOperand(const q8* at) : a(vec_i32{} + load_as<int32_t>(at)) {
#if defined(LSTM_AVX2) && !defined(__AVXVNNI__)
    size = _mm256_abs_epi8((__m256i)a);
#endif
  }

#if defined(LSTM_VECTOR_BYTES)
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    LSTM_UNROLL for (int i = 0; i < 4; ++i) sum +=
        (vec_i32)((vec_u32)a >> (8 * i) & 255) * ((vec_i32)((vec_u32)w << (24 - 8 * i)) >> 24);
  }
#elif defined(__AVX512VNNI__)
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    sum = (vec_i32)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)w);
  }
#elif defined(__AVXVNNI__)
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    sum = (vec_i32)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)w);
  }
#elif defined(LSTM_AVX512)
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    sum += pairs(a, w, 8) + pairs(a, w, 0);
  }
  static LSTM_INLINE vec_i32 pairs(vec_i32 a, vec_i32 w, int left) {
    return (vec_i32)_mm512_madd_epi16(sign_extended(a, left), sign_extended(w, left));
  }
  static LSTM_INLINE __m512i sign_extended(vec_i32 v, int left) {  // even bytes, or odd ones
    const __m512i bytes = left ? _mm512_slli_epi16((__m512i)v, 8) : (__m512i)v;
    return _mm512_srai_epi16(bytes, 8);
  }
#elif defined(LSTM_AVX2)
  __m256i size;
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    const __m256i products = _mm256_maddubs_epi16(size, _mm256_sign_epi8((__m256i)w, (__m256i)a));
    sum += (vec_i32)_mm256_madd_epi16(products, _mm256_set1_epi16(1));
  }
#elif defined(__SSE2__)
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    sum += pairs(a, w, 8) + pairs(a, w, 0);
  }
  static LSTM_INLINE vec_i32 pairs(vec_i32 a, vec_i32 w, int left) {
    return (vec_i32)_mm_madd_epi16(sign_extended(a, left), sign_extended(w, left));
  }
  static LSTM_INLINE __m128i sign_extended(vec_i32 v, int left) {  // even bytes, or odd ones
    const __m128i bytes = left ? _mm_slli_epi16((__m128i)v, 8) : (__m128i)v;
    return _mm_srai_epi16(bytes, 8);
  }
#elif defined(__ARM_FEATURE_DOTPROD)
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    sum = (vec_i32)vdotq_s32((int32x4_t)sum, (int8x16_t)a, (int8x16_t)w);
  }
#else
  LSTM_INLINE void multiply_add(vec_i32& sum, vec_i32 w) const {
    const int8x16_t x = (int8x16_t)a, y = (int8x16_t)w;
    const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(y)), high = vmull_high_s8(x, y);
    sum += (vec_i32)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
  }
#endif
};

// ---- operands -----------------------------------------------------------------------------------

// Elements of a row of n numbers, and from one row to the next.
LSTM_INLINE int64_t quantized_stride(int64_t n) {
  return padded<uint8_t>(kHeadBytes + round_up(n, lanes<float>));
}

template <class V>
LSTM_INLINE V smallest(V a, V b) {
  return b < a ? b : a;
}
template <class V>
LSTM_INLINE V largest(V a, V b) {
  return b > a ? b : a;
}

// Rounds a row; from null: zeros.
template <class S>
LSTM_NOINLINE void copy_row(q8* to, const S* from, int64_t n) {
  constexpr int L = lanes<float>;
  vec<float> low = {}, high = {}, finite = {};
  for (int64_t i = 0; from && i < n; i += L) {
    const vec<float> x = load_n(from + i, n - i);
    low = smallest(low, x), high = largest(high, x), finite += x * 0.f;
  }
  float least = 0, most = 0, sum = 0;
  for (int l = 0; l < L; ++l)
    least = low[l] < least ? low[l] : least, most = high[l] > most ? high[l] : most,
    sum += finite[l];
  // A range whose inverse is infinite is as good as zero.
  const bool sound = sum == 0, usable = sound && most / 255 - least / 255 > 1e-37f;
  const float scale = usable ? most / 255 - least / 255 : 0, inverse = usable ? 1 / scale : 0;
  const int32_t zero = usable ? int32_t(-least * inverse + .5f) : 0;
  RowHead* head = (RowHead*)to;
  head->scale = sound ? scale : __builtin_nanf("");
  head->zero = zero - kOperandOffset;
  constexpr float kRound = 0x1.8p23f;  // adding it rounds to the nearest integer, even where tied
  uint8_t* bytes = (uint8_t*)to + kHeadBytes;
  for (int64_t i = 0; i < n; i += L) {
    const vec<float> x = from ? load_n(from + i, n - i) : vec<float>{};
    const vec_i32 rounded = (vec_i32)(x * inverse + kRound) - (vec_i32)(vec<float>{} + kRound);
    const vec_i32 u = largest(vec_i32{}, smallest(vec_i32{} + 255, rounded + zero));
    const vec_u8 narrow = __builtin_convertvector(u - kOperandOffset, vec_u8);
    __builtin_memcpy(bytes + i, &narrow, sizeof narrow);
  }
}

// ---- weights ------------------------------------------------------------------------------------

// Two rows of AVX2's sums, four vectors each, leave registers for an operand and its parts.
constexpr int kQuadRows = kVectorRegisters == 32 ? 4 : 2;

// A matrix in panels of bytes. `width` vectors per panel; the last one may be narrower.
struct QuantizedPanels {
  int8_t* data;
  float* scales;  // [vector][lane]
  int32_t* sums;  // [vector][lane]: of a column's bytes
  int64_t K, vectors;
  int width;

  static constexpr int L = lanes<float>;
  LSTM_INLINE int64_t quads() const { return whole_amx_rows(ceil_div(K, kQuad)); }
  LSTM_INLINE int64_t count() const { return ceil_div(vectors, width); }
  LSTM_INLINE int width_of(int64_t p) const { return int(min_of(width, vectors - p * width)); }
  LSTM_INLINE int8_t* panel(int64_t p) const { return data + p * width * quads() * kQuad * L; }

  void take(int64_t K, int64_t vectors, int width, Arena& memory) {
    *this = {nullptr, nullptr, nullptr, K, vectors, width};
    data = memory.take<int8_t>(vectors * quads() * kQuad * L);
    scales = memory.take<float>(vectors * L);
    sums = memory.take<int32_t>(vectors * L);
  }

  // Panel p. `row(v, lane)`: where the column's bytes are in the source, or -1 past its end.
  template <class Row>
  void lay_out(int64_t p, const int8_t* from, const float* from_scales, Row row) const {
    const int nv = width_of(p);
    for (int v = 0; v < nv; ++v)
      for (int l = 0; l < L; ++l) {
        const int64_t column = (p * width + v) * L + l, r = row(v, l);
        int8_t* to = panel(p) + (v * L + l) * kQuad;
        int32_t sum = 0;
        for (int64_t k = 0; k < quads() * kQuad; ++k) {
          const int8_t q = r >= 0 && k < K ? from[r * K + k] : int8_t(0);
          to[k / kQuad * nv * L * kQuad + k % kQuad] = q;
          sum += q;
        }
        scales[column] = r >= 0 ? from_scales[r] : 0;
        sums[column] = sum;
      }
  }

  // pre[r][v] += rows[r] . w[v] for the vectors v of panel p. X: q8.
  template <class X>
  LSTM_INLINE void accumulate(int64_t p, int64_t, const X* const* rows, int64_t n,
                              float* pre) const {
    if constexpr (kAmx && is_same<X, q8>)
      if (n >= kFewestQuantizedAmxRows) return accumulate_amx(p, rows, n, pre);
    with_width(width_of(p), [&]<int NV>() {
      for (int64_t r = 0; r < n;) {
        const int64_t height = min_of(kTallest<NV>, n - r);
        tile_of<NV>(height, p, rows + r, pre + r * NV * L);
        r += height;
      }
    });
  }
  // The same for one row and the full panels p0 and p1: eight chains of additions.
  LSTM_NOINLINE void accumulate_pair(int64_t p0, int64_t p1, const q8* row, float* pre0,
                                     float* pre1) const {
    constexpr int NV = kMaxVectors;
    const int8_t *w0 = panel(p0), *w1 = panel(p1);
    const q8* a = row + kHeadBytes;
    vec_i32 sum0[NV] = {}, sum1[NV] = {};
    const int64_t n = quads();
    if (n < 1) __builtin_unreachable();  // no matrix is empty
#pragma GCC unroll 1
    for (int64_t k = 0; k < n; ++k, w0 += NV * L * kQuad, w1 += NV * L * kQuad) {
      const QuadOperand operand(a + k * kQuad);
      LSTM_UNROLL for (int v = 0; v < NV; ++v) {
        operand.multiply_add(sum0[v], load_as<vec_i32>(w0 + v * L * kQuad));
        operand.multiply_add(sum1[v], load_as<vec_i32>(w1 + v * L * kQuad));
      }
    }
    LSTM_UNROLL for (int v = 0; v < NV; ++v) {
      add_scaled(sum0[v], row, p0 * NV + v, pre0 + v * L);
      add_scaled(sum1[v], row, p1 * NV + v, pre1 + v * L);
    }
  }

 private:
  template <class X>
  LSTM_INLINE void accumulate_amx(int64_t p, const X* const* rows, int64_t n, float* pre) const {
    with_width(width_of(p), [&]<int NV>() {
      const char* w = (const char*)panel(p);
      each_amx_sum<NV>(rows, kHeadBytes, n, quads(), w, [&](int64_t r, int v, const char* sum) {
        add_scaled(load_as<vec_i32>(sum), rows[r], p * width + v, pre + (r * NV + v) * L);
      });
    });
  }
  // Rows of a tile: in projections with AMX, which are for few rows then, two, for less code.
  template <int NV>
  static constexpr int kTallest = kAmx && NV < kGates ? 2 : kQuadRows;
  template <int NV>
  LSTM_INLINE void tile_of(int64_t height, int64_t p, const q8* const* rows, float* pre) const {
    if (height == 1) return tile<1, NV>(p, rows, pre);
    if (height == 2) return tile<2, NV>(p, rows, pre);
    if constexpr (kTallest<NV> == 4) {
      if (height == 3) return tile<3, NV>(p, rows, pre);
      tile<4, NV>(p, rows, pre);
    }
  }
  template <int MR, int NV>
  LSTM_NOINLINE void tile(int64_t p, const q8* const* rows, float* pre) const {
    const int8_t* w = panel(p);
    vec_i32 sum[MR][NV] = {};
    const int64_t n = quads();
    if (n < 1) __builtin_unreachable();  // no matrix is empty
#pragma GCC unroll 1
    for (int64_t k = 0; k < n; ++k, w += NV * L * kQuad) {
      LSTM_UNROLL for (int r = 0; r < MR; ++r) {
        const QuadOperand operand(rows[r] + kHeadBytes + k * kQuad);
        LSTM_UNROLL for (int v = 0; v < NV; ++v)
            operand.multiply_add(sum[r][v], load_as<vec_i32>(w + v * L * kQuad));
      }
    }
    LSTM_UNROLL for (int r = 0; r < MR; ++r) LSTM_UNROLL for (int v = 0; v < NV; ++v)
        add_scaled(sum[r][v], rows[r], p * width + v, pre + (r * NV + v) * L);
  }
  LSTM_INLINE void add_scaled(vec_i32 sum, const q8* row, int64_t vector, float* pre) const {
    const RowHead head = load_as<RowHead>(row);
    const vec_i32 exact = sum - head.zero * load_as<vec_i32>(sums + vector * L);
    const vec<float> product = __builtin_convertvector(exact, vec<float>);
    store(pre, load(pre) + product * (head.scale * load(scales + vector * L)));
  }
};

// The weights of one direction, as WeightPanels has them.
struct QuantizedWeights {
  QuantizedPanels w_ih, w_hh, w_hr;
  float* bias;  // [panel][gate][lane]

  static constexpr int L = lanes<float>;
  void take(const Sizes& s, bool projects, Arena& memory) {
    const int64_t panels = ceil_div(s.H, L), columns = ceil_div(s.P, L);
    w_ih.take(s.I, kGates * panels, kGates, memory);
    w_hh.take(s.P, kGates * panels, kGates, memory);
    w_hr = {};
    if (projects) w_hr.take(s.H, columns, int(min_of(kMaxVectors, columns)), memory);
    bias = memory.take<float>(panels * kGates * L);
  }
  void lay_out(const DirectionWeights& from, const cpu::MatrixScales& scales,
               const Sizes& s) const {
    for (int64_t p = 0; p < w_ih.count(); ++p) {
      auto row = [&](int gate, int lane) {
        const int64_t unit = p * L + lane;
        return unit < s.H ? gate * s.H + unit : -1;
      };
      w_ih.lay_out(p, (const int8_t*)from.w_ih, scales.w_ih, row);
      w_hh.lay_out(p, (const int8_t*)from.w_hh, scales.w_hh, row);
      for (int g = 0; g < kGates; ++g)
        store(bias + (p * kGates + g) * L, bias_of<float>(from, s.H, g, p * L));
    }
    if (!w_hr.vectors) return;
    for (int64_t p = 0; p < w_hr.count(); ++p)
      w_hr.lay_out(p, (const int8_t*)from.w_hr, scales.w_hr, [&](int v, int lane) {
        const int64_t column = (p * w_hr.width + v) * L + lane;
        return column < s.P ? column : -1;
      });
  }
};

// All directions of a layer, one after the other: see PrepackedWeights.
struct PrepackedQuantized {
  QuantizedWeights directions[2];
  size_t bytes;

  PrepackedQuantized(const Sizes& s, bool projects, cpu::WeightDType, void* memory) {
    Arena arena(memory);
    for (int d = 0; d < s.D; ++d) directions[d].take(s, projects, arena);
    bytes = arena.used();
  }
};

inline size_t prepacked_quantized_bytes(const cpu::LayerWeights& a) {
  return PrepackedQuantized(a.size, a.weights[0].w_hr, a.weight_dtype, nullptr).bytes;
}
inline void prepack_quantized(const cpu::LayerWeights& a, void* memory) {
  const PrepackedQuantized to(a.size, a.weights[0].w_hr, a.weight_dtype, memory);
  for (int d = 0; d < a.size.D; ++d) to.directions[d].lay_out(a.weights[d], a.scales[d], a.size);
}

}  // namespace lstm_kernels::LSTM_ISA
