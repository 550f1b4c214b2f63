// Portable SIMD on GCC/Clang vector extensions: one source for SSE2, AVX2, AVX-512 and NEON.
//
// Every translation unit that includes this file is compiled for one instruction set and puts its
// code into that set's own namespace, LSTM_ISA. No STL template is used here or in the kernels: the
// linker keeps one copy of such a template, which might be the one that needs AVX-512.
#pragma once
#include <cstdint>

#if defined(__F16C__) && defined(__clang__)
#include <immintrin.h>
#elif defined(__F16C__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // inside GCC 12's AVX-512 headers
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LSTM_INLINE inline __attribute__((always_inline))
#define LSTM_NOINLINE __attribute__((noinline))
#ifdef __clang__
#define LSTM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LSTM_UNROLL _Pragma("GCC unroll 16")
#endif

namespace lstm_kernels::LSTM_ISA {

// LSTM_VECTOR_BYTES overrides the width, so that tests can run the wide kernels on any CPU.
#if defined(LSTM_VECTOR_BYTES)
constexpr int kVectorBytes = LSTM_VECTOR_BYTES, kVectorRegisters = 32;
#elif defined(__AVX512F__)
#define LSTM_AVX512
constexpr int kVectorBytes = 64, kVectorRegisters = 32;
#elif defined(__AVX2__)
#define LSTM_AVX2
constexpr int kVectorBytes = 32, kVectorRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kVectorRegisters = 32;
#else
constexpr int kVectorBytes = 16, kVectorRegisters = 16;
#endif

struct bf16 {
  uint16_t bits;
};
struct fp16 {
  uint16_t bits;
};
// Two numbers that follow each other along k.
struct bf16_pair {
  bf16 first, second;
};

// Whether products of pairs are faster than those of widened numbers. The instruction takes
// subnormal numbers for zero. Wider vectors than the CPU has, for tests, multiply pairs in
// software.
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) || \
    defined(LSTM_VECTOR_BYTES)
constexpr bool kMultipliesPairs = true;
#else
constexpr bool kMultipliesPairs = false;
#endif

// Arithmetic is done in float for the 16-bit storage types.
template <class S>
struct compute_type {
  using type = S;
};
template <>
struct compute_type<bf16> {
  using type = float;
};
template <>
struct compute_type<fp16> {
  using type = float;
};
template <>
struct compute_type<bf16_pair> {
  using type = float;
};
template <class S>
using compute = typename compute_type<S>::type;

template <class A, class B>
constexpr bool is_same = false;
template <class A>
constexpr bool is_same<A, A> = true;

template <bool first, class A, class B>
struct pick_type {
  using type = A;
};
template <class A, class B>
struct pick_type<false, A, B> {
  using type = B;
};
template <bool first, class A, class B>
using pick = typename pick_type<first, A, B>::type;

template <class X>
constexpr int64_t numbers_in = is_same<X, bf16_pair> ? 2 : 1;
template <class X>
using number = pick<is_same<X, bf16_pair>, bf16, X>;

template <class T>
constexpr int lanes = kVectorBytes / int(sizeof(T));
template <class T, int N>
struct vector_of {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N = lanes<T>>
using vec = typename vector_of<T, N>::type;
using vec_u16 = vec<uint16_t, lanes<float>>;
using vec_u32 = vec<uint32_t>;

// ---- load and store, any alignment -------------------------------------------------------------
template <class V>
LSTM_INLINE V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
LSTM_INLINE vec<float> load(const float* p) { return load_as<vec<float>>(p); }
LSTM_INLINE vec<double> load(const double* p) { return load_as<vec<double>>(p); }
LSTM_INLINE void store(float* p, vec<float> v) { __builtin_memcpy(p, &v, sizeof v); }
LSTM_INLINE void store(double* p, vec<double> v) { __builtin_memcpy(p, &v, sizeof v); }

LSTM_INLINE vec_u32 widen(const void* p) {
// GCC 12 splits a u16 -> u32 convertvector into halves; the instruction does it at once.
#if defined(LSTM_AVX512)
  return (vec_u32)_mm512_cvtepu16_epi32(load_as<__m256i>(p));
#elif defined(LSTM_AVX2)
  return (vec_u32)_mm256_cvtepu16_epi32(load_as<__m128i>(p));
#else
  return __builtin_convertvector(load_as<vec_u16>(p), vec_u32);
#endif
}
LSTM_INLINE vec<float> load(const bf16* p) { return (vec<float>)(widen(p) << 16); }
LSTM_INLINE vec_u32 bf16_bits(vec<float> v) {  // to nearest even; NaN stays NaN
  const vec_u32 u = (vec_u32)v, rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return v == v ? rounded : vec_u32{} + 0x7fc0;
}
LSTM_INLINE void store(bf16* p, vec<float> v) {
  const vec_u16 h = __builtin_convertvector(bf16_bits(v), vec_u16);
  __builtin_memcpy(p, &h, sizeof h);
}
LSTM_INLINE vec_u32 load(const bf16_pair* p) { return load_as<vec_u32>(p); }
LSTM_INLINE vec<float> load(const fp16* p) {
#if defined(LSTM_AVX512)
  return (vec<float>)_mm512_cvtph_ps(load_as<__m256i>(p));
#elif defined(LSTM_AVX2)
  return (vec<float>)_mm256_cvtph_ps(load_as<__m128i>(p));
#elif defined(__aarch64__)
  return (vec<float>)vcvt_f32_f16(load_as<float16x4_t>(p));
#else
  const vec_u32 u = widen(p);  // exact, subnormal numbers included
  const vec<float> f = (vec<float>)((u & 0x7fff) << 13) * 0x1p112f;
  const vec_u32 infinite = (vec_u32)(f >= 65536.f) & 0x7f800000;
  return (vec<float>)((vec_u32)f | infinite | (u & 0x8000) << 16);
#endif
}
LSTM_INLINE void store(fp16* p, vec<float> v) {  // to nearest even; NaN stays NaN
#if defined(LSTM_AVX512)
  const __m256i h = _mm512_cvtps_ph((__m512)v, 0);
#elif defined(LSTM_AVX2)
  const __m128i h = _mm256_cvtps_ph((__m256)v, 0);
#elif defined(__aarch64__)
  const float16x4_t h = vcvt_f16_f32((float32x4_t)v);
#else
  const vec_u32 u = (vec_u32)v, a = u & 0x7fffffff;
  vec_u32 r = (a + 0xfff + ((a >> 13) & 1) - (112u << 23)) >> 13;
  r = a < 0x38800000 ? (vec_u32)((vec<float>)a + .5f) - 0x3f000000 : r;  // subnormal
  r = a >= 0x477ff000 ? (a > 0x7f800000 ? vec_u32{} + 0x7e00 : vec_u32{} + 0x7c00) : r;
  const vec_u16 h = __builtin_convertvector(r | (u >> 16 & 0x8000), vec_u16);
#endif
  __builtin_memcpy(p, &h, sizeof h);
}

// The first n lanes only: the others read as zero and are not written.
template <class S>
LSTM_INLINE vec<compute<S>> load_n(const S* p, int64_t n) {
  if (__builtin_expect(n >= lanes<compute<S>>, 1)) return load(p);
  S padded[lanes<compute<S>>] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = p[i];
  return load(padded);
}
template <class S>
LSTM_INLINE void store_n(S* p, vec<compute<S>> v, int64_t n) {
  if (__builtin_expect(n >= lanes<compute<S>>, 1)) return store(p, v);
  S padded[lanes<compute<S>>];
  store(padded, v);
  for (int64_t i = 0; i < n; ++i) p[i] = padded[i];
}
// The value that storing in S and reading again gives.
template <class S>
LSTM_INLINE vec<compute<S>> rounded(vec<compute<S>> v) {
  if constexpr (is_same<S, compute<S>>) return v;
  S stored[lanes<compute<S>>];
  store(stored, v);
  return load(stored);
}

// ---- sum += a * b, for numbers and for pairs of them -------------------------------------------
template <class T>
LSTM_INLINE T spread(T x) {  // in the form that add_product wants it
  return x;
}
LSTM_INLINE vec_u32 spread(bf16_pair x) { return vec_u32{} + load_as<uint32_t>(&x); }
LSTM_INLINE void add_product(vec<float>& sum, float a, vec<float> b) { sum += a * b; }
LSTM_INLINE void add_product(vec<double>& sum, double a, vec<double> b) { sum += a * b; }
LSTM_INLINE void add_product(vec<float>& sum, vec_u32 a, vec_u32 b) {
// Cores with AMX were measured to take four times as long for this instruction as for an FMA.
#if defined(__AVX512BF16__) && !defined(__AMX_TILE__)
#if defined(__clang__)  // version 16 crashes where it sees the types
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
  sum = (vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  sum = (vec<float>)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)a, (bfloat16x8_t)b);
#else
  const vec_u32 second = vec_u32{} + 0xffff0000;
  sum += (vec<float>)(a << 16) * (vec<float>)(b << 16);
  sum += (vec<float>)(a & second) * (vec<float>)(b & second);
#endif
}

// ---- exp, sigmoid, tanh ------------------------------------------------------------------------
template <class T>
struct exp_constants;
template <>
struct exp_constants<float> {
  using bits = int32_t;
  static constexpr int mantissa = 23, degree = 5;
  static constexpr bits one = 0x3f800000;
  static constexpr float round = 0x1.8p23f, log2_e = 0x1.715476p0f;
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float min_exp = -87, max_exp = 89, max_tanh = 20;
  // Minimax for (e^r - 1 - r) / r^2, highest power first.
  static constexpr float c[degree] = {0x1.6bebcep-10f, 0x1.1228e6p-7f, 0x1.555676p-5f,
                                      0x1.5554aep-3f, 0x1.fffffep-2f};
};
template <>
struct exp_constants<double> {
  using bits = int64_t;
  static constexpr int mantissa = 52, degree = 12;
  static constexpr bits one = 0x3ff0000000000000;
  static constexpr double round = 0x1.8p52, log2_e = 0x1.71547652b82fep0;
  static constexpr double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
  static constexpr double min_exp = -708, max_exp = 710, max_tanh = 40;
  // Taylor.
  static constexpr double c[degree] = {1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800,
                                       1. / 362880,     1. / 40320,     1. / 5040,     1. / 720,
                                       1. / 120,        1. / 24,        1. / 6,        1. / 2};
};
// x86 has instructions that return the second operand where one is NaN; compilers, which do not
// know which operand we mean, compare and blend.
#if defined(LSTM_AVX512)
LSTM_INLINE vec<float> larger(vec<float> low, vec<float> x) {
  return (vec<float>)_mm512_max_ps((__m512)low, (__m512)x);
}
LSTM_INLINE vec<float> smaller(vec<float> high, vec<float> x) {
  return (vec<float>)_mm512_min_ps((__m512)high, (__m512)x);
}
#elif defined(LSTM_AVX2)
LSTM_INLINE vec<float> larger(vec<float> low, vec<float> x) {
  return (vec<float>)_mm256_max_ps((__m256)low, (__m256)x);
}
LSTM_INLINE vec<float> smaller(vec<float> high, vec<float> x) {
  return (vec<float>)_mm256_min_ps((__m256)high, (__m256)x);
}
#endif
template <class V>
LSTM_INLINE V larger(V low, V x) {
  return x < low ? low : x;
}
template <class V>
LSTM_INLINE V smaller(V high, V x) {
  return x > high ? high : x;
}
template <class T>
LSTM_INLINE vec<T> clamp(vec<T> x, T low, T high) {  // NaN passes
  return smaller(vec<T>{} + high, larger(vec<T>{} + low, x));
}
// e^x = s * (1 + p): s = 2^n with n the integer nearest to x / ln 2, and p = e^r - 1 to full
// relative precision, |r| <= ln(2) / 2. From min_exp, where s is the smallest normal number, to
// max_exp, where it is infinite.
template <class T>
LSTM_INLINE void exp_parts(vec<T> x, vec<T>& s, vec<T>& p) {
  using C = exp_constants<T>;
  using I = vec<typename C::bits>;
  const vec<T> t = x * C::log2_e + C::round;  // n is also in the low bits of t
  const vec<T> n = t - C::round;
  const vec<T> r = x - n * C::ln2_high - n * C::ln2_low;
  s = (vec<T>)(((I)t << C::mantissa) + C::one);
  vec<T> q = r * C::c[0] + C::c[1];
  LSTM_UNROLL for (int i = 2; i < C::degree; ++i) q = q * r + C::c[i];
  p = q * (r * r) + r;
}
template <class T>
LSTM_INLINE vec<T> sigmoid(vec<T> x) {  // 1 / (1 + e^-x)
  vec<T> s, p;
  exp_parts<T>(clamp<T>(-x, exp_constants<T>::min_exp, exp_constants<T>::max_exp), s, p);
  return T(1) / (T(1) + s * (p + T(1)));
}
template <class T>
LSTM_INLINE vec<T> tanh(vec<T> x) {  // e / (e + 2) with e = e^2x - 1, exact near 0
  vec<T> s, p;
  constexpr T limit = 2 * exp_constants<T>::max_tanh;
  exp_parts<T>(clamp<T>(x + x, -limit, limit), s, p);
  const vec<T> e = s * p + (s - T(1));
  return e / (e + T(2));
}

// ---- transpose of a square block held in lanes<T> vectors ---------------------------------------
template <int... I>
struct indices {};
template <int N, int... I>
struct count_to : count_to<N - 1, N - 1, I...> {};
template <int... I>
struct count_to<0, I...> {
  using type = indices<I...>;
};
template <class T, int... I>
LSTM_INLINE vec<T> shuffle(vec<T> a, vec<T> b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, I...);
#else
  return __builtin_shuffle(a, b, vec<typename exp_constants<T>::bits>{I...});
#endif
}
template <class T, int D, int... I>
LSTM_INLINE void transpose_stage(vec<T> (&v)[lanes<T>], indices<I...> all) {
  constexpr int L = lanes<T>;
  LSTM_UNROLL for (int i = 0; i < L; ++i) if (!(i & D)) {
    const vec<T> a = v[i], b = v[i + D];
    v[i] = shuffle<T, (I & D ? L + I - D : I)...>(a, b);
    v[i + D] = shuffle<T, (I & D ? L + I : I + D)...>(a, b);
  }
  if constexpr (D > 1) transpose_stage<T, D / 2>(v, all);
}
template <class T>
LSTM_INLINE void transpose(vec<T> (&v)[lanes<T>]) {
  transpose_stage<T, lanes<T> / 2>(v, typename count_to<lanes<T>>::type{});
}

}  // namespace lstm_kernels::LSTM_ISA
