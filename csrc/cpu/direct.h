// Matrix products on the weights as they are stored, for calls too short to pay for panels: few
// rows of few steps (see tuning.h for which).
//
// A row of weights and an operand are multiplied lane by lane along k into a vector of partial
// sums, in one pass over x W_ih^T and h W_hh^T, and the vectors of several rows are then added
// across. A tile of several weight rows and operands lets a loaded vector serve several
// multiply-adds; all operands pass over the same few rows of weights while those are in L1 and the
// next ones are on their way there. The sums are taken in the same order for every tile, but in
// another one than in panels.h: the one place where results depend, to rounding, on T and N.
//
// With a vector of operands or more, and registers enough, the roles change: the operands are
// interleaved, and the rows of weights pass over them through the tiles of panels.h. Nothing is
// added across lanes then, and the sums are those of panels, to the bit.
//
// Backward, where the products are with the weights' columns, a few rows of weights at a time pass
// through the tiles of panels.h: read in the order in which they lie, added in the order of k.
//
// Bound: reading the weights once; with several operands, the FMA peak.
#pragma once
#include "kernels.h"
#include "panels.h"

namespace lstm_kernels::LSTM_ISA {

// Whether a forward pass reads its weights so.
inline bool reads_direct(const cpu::SequenceForward& call) {
  return !call.prepacked && cpu::direct(call.size);
}
inline bool reads_direct(const cpu::VariantForward& call) {
  return cpu::direct(call.size) && !call.variant.normalises() && !call.variant.gate_masks.data;
}

// ---- sums across the lanes of several vectors ---------------------------------------------------

// Shuffle index for one level of the tree reduction: which lane of a, b comes to lane i. With four
// lanes, and groups of 1 in a window of 4:
//
//     a0 a1 a2 a3   b0 b1 b2 b3
//     even: a0 a2 b0 b2    odd: a1 a3 b1 b3    their sum: a0+a1 a2+a3 b0+b1 b2+b3
template <class T>
constexpr int neighbour(int i, int group, int window, bool odd) {
  const int at = i % window, half = window / 2;
  const int block = at % half / group * 2 + odd;
  return (at < half ? 0 : lanes<T>)+(i - at) + block * group + at % group;
}
template <class T, int group, int window, int... I>
LSTM_INLINE vec<T> add_neighbours(vec<T> a, vec<T> b, indices<I...>) {
  return shuffle<T, neighbour<T>(I, group, window, false)...>(a, b) +
         shuffle<T, neighbour<T>(I, group, window, true)...>(a, b);
}
// The sums of R vectors are the first R lanes. Neighbours within 16 bytes come first, because x86
// shuffles those at once; the order of the additions does not depend on R.
template <class T, int R, int done = 1>
LSTM_INLINE vec<T> add_across(vec<T>* v) {
  constexpr int L = lanes<T>, kNear = 16 / int(sizeof(T));
  if constexpr (done == L) {
    return v[0];
  } else {
    constexpr int n = R / done > 1 ? R / done : 1;
    constexpr int group = done < kNear ? 1 : kNear, window = done < kNear ? kNear : L;
    LSTM_UNROLL for (int i = 0; i < n; i += 2) v[i / 2] =
        add_neighbours<T, group, window>(v[i], v[n > 1 ? i + 1 : i], typename count_to<L>::type{});
    return add_across<T, R, 2 * done>(v);
  }
}

// ---- products of weight rows with operands ------------------------------------------------------

// A (rows, K) matrix and the vectors of K numbers that it is multiplied with: their memory goes on
// to a whole number of vectors. next: the rows that are read after these.
template <class S, class T>
struct Product {
  const S* w;
  int64_t K;
  const T* const* x;
  const S* next;
};

// Its part in R results: whole vectors of K. What is left of K is another part, on a copy of the
// weights that zeros fill up.
template <int R, class S, class T>
struct Part {
  const S* rows[R];
  const T* const* x;
  int64_t begin, K;   // of the operands
  const char* ahead;  // what to ask for meanwhile
};

// Where not all parts pass at once, each pass goes on from the sums of the one before.
template <class T>
struct Sums {
  vec<T>* kept;     // [operand][row]
  bool begin, end;  // whether this is the first pass, and the last
};

// to[m * step + r] += the products of the parts' row r with their operand m.
// With each vector of K it asks for kLines lines at `ahead`, which goes on by `stride` bytes.
template <int kLines, int M, int R, class S, class T>
LSTM_NOINLINE void direct_tile(Part<R, S, T>* part, const Part<R, S, T>* end, int64_t operand,
                               int64_t stride, Sums<T> sums, T* to, int64_t step) {
  constexpr int L = lanes<T>;
  vec<T> sum[M][R];
  LSTM_UNROLL for (int m = 0; m < M; ++m) LSTM_UNROLL for (int r = 0; r < R; ++r) sum[m][r] =
      vec<T>{};
  if (!sums.begin)
    LSTM_UNROLL for (int m = 0; m < M; ++m) LSTM_UNROLL for (int r = 0; r < R; ++r) sum[m][r] =
        sums.kept[m * R + r];
  do {
    const int64_t K = part->K;
    const S* rows[R];
    const T* x[M];
    LSTM_UNROLL for (int r = 0; r < R; ++r) rows[r] = part->rows[r] + K;
    LSTM_UNROLL for (int m = 0; m < M; ++m) x[m] = part->x[operand + m] + part->begin + K;
    const char* ahead = part->ahead;
#pragma GCC unroll 1
    for (int64_t k = -K; k < 0; k += L) {
      LSTM_UNROLL for (int l = 0; l < kLines; ++l) __builtin_prefetch(ahead + 64 * l);
      if (kLines) ahead += stride;
      vec<T> s[M];
      LSTM_UNROLL for (int m = 0; m < M; ++m) s[m] = load(x[m] + k);
      LSTM_UNROLL for (int r = 0; r < R; ++r) {
        const vec<T> weight = load(rows[r] + k);
        LSTM_UNROLL for (int m = 0; m < M; ++m) sum[m][r] += weight * s[m];
      }
    }
    if (kLines) part->ahead = ahead;
  } while (++part != end);
  if (!sums.end) {
    LSTM_UNROLL for (int m = 0; m < M; ++m) LSTM_UNROLL for (int r = 0; r < R; ++r)
        sums.kept[m * R + r] = sum[m][r];
    return;
  }
  LSTM_UNROLL for (int m = 0; m < M; ++m) {
    const vec<T> all = add_across<T, R>(sum[m]);
    vec<T, R> first;
    __builtin_memcpy(&first, &all, sizeof first);
    first += load_as<vec<T, R>>(to + m * step);
    __builtin_memcpy(to + m * step, &first, sizeof first);
  }
}

// The tiles of n operands on the same rows, which together ask for as many rows.
template <int kLines, int R, class S, class T>
LSTM_INLINE void direct_tiles(Part<R, S, T>* part, const Part<R, S, T>* end, int64_t n,
                              Sums<T> sums, T* to, int64_t step) {
  const int64_t tiles = ceil_div(n, kDirectOperands);
  const int64_t stride = ceil_div(R * lanes<T> * int64_t(sizeof(S)), tiles);
  for (int64_t i = 0, j = 0; i < tiles; ++i) {
    const int64_t operands = ceil_div(n - j, tiles - i);  // 4: 2 2, not 3 1
    if (operands == 1)
      direct_tile<kLines, 1>(part, end, j, stride, sums, to, step);
    else if (operands == 2)
      direct_tile<kLines, 2>(part, end, j, stride, sums, to, step);
    else
      direct_tile<kLines, kDirectOperands>(part, end, j, stride, sums, to, step);
    j += operands, to += operands * step, sums.kept += operands * R;
  }
}
template <int R, class S, class T>
LSTM_INLINE void direct_tiles_of(Part<R, S, T>* part, const Part<R, S, T>* end, int64_t n,
                                 Sums<T> sums, T* to, int64_t step) {
  constexpr int kLines = int(ceil_div(R * lanes<T> * int(sizeof(S)), 64));
  // One operand is bound by bandwidth: it waits for the first lines of short rows, while with long
  // ones asking for more was measured to hold up what is read.
  const bool whole = sums.begin && sums.end;
  if (n == 1 && whole)
    direct_tile<kLines, 1>(part, end, 0, 64 * kLines, sums, to, step);
  else if (n == 1)
    direct_tile<0, 1>(part, end, 0, 0, sums, to, step);
  else if constexpr (R == direct_height<T>(false)) {
    if (n <= kDirectOperands)
      direct_tiles<kLines>(part, end, n, sums, to, step);
    else
      direct_tiles<int(ceil_div(kLines, 2))>(part, end, n, sums, to, step);
  }
}

// R weight rows from `first` on; rows after `last` repeat it.
template <int R, int P, class S, class T>
LSTM_NOINLINE void add_rows(const Product<S, T> (&products)[P], int64_t first, int64_t last,
                            int64_t n, T* to, int64_t step) {
  constexpr int L = lanes<T>;
  Part<R, S, T> parts[2 * P], *end = parts;
  S rest[P][R][L];
  for (int p = 0; p < P; ++p) {
    const Product<S, T>& of = products[p];
    const int64_t whole = of.K / L * L, left = of.K - whole;
    const S *w = of.w + first * of.K, *rows[R];
    for (int64_t r = 0; r < R; ++r) rows[r] = w + min_of(r, last - first) * of.K;
    auto add = [&](int64_t begin, int64_t K) {
      end->x = of.x, end->begin = begin, end->K = K;
      end->ahead = (const char*)(first + R < L ? w + R * of.K : of.next);
      for (int64_t r = 0; r < R; ++r) end->rows[r] = rows[r];
      ++end;
    };
    if (whole) add(0, whole);
    if (!left) continue;
    for (int64_t r = 0; r < R; ++r) {
      for (int64_t k = 0; k < L; ++k) rest[p][r][k] = k < left ? rows[r][whole + k] : S{};
      rows[r] = rest[p][r];
    }
    add(whole, L);
  }
  vec<T> kept[cpu::kDirectStepRows * R];
  Sums<T> sums{kept, true, false};
  for (Part<R, S, T>* from = parts; from != end; sums.begin = false) {
    constexpr int64_t kMost = kDirectBytes / (R * int64_t(sizeof(S)));
    Part<R, S, T>* part = from;
    int64_t K = 0;
    do K += part++->K;
    while (part != end && K + part->K <= kMost);
    sums.end = part == end;
    direct_tiles_of(from, part, n, sums, to, step);
    from = part;
  }
}

// to[j * step + l] += the sum of the products' weight rows l times their operands j, for n operands
// and L rows of each matrix, whose last row is repeated where it has less, `count`.
template <int P, class S, class T>
LSTM_INLINE void add_products(const Product<S, T> (&products)[P], int64_t count, int64_t n, T* to,
                              int64_t step) {
  constexpr int kAlone = direct_height<T>(true), kHeight = direct_height<T>(false);
  const int64_t last = min_of(count, lanes<T>) - 1;
  if (n == 1)
    for (int64_t first = 0; first <= last; first += kAlone)
      add_rows<kAlone>(products, first, last, n, to + first, step);
  else
    for (int64_t first = 0; first <= last; first += kHeight)
      add_rows<kHeight>(products, first, last, n, to + first, step);
}

// ---- products of many operands ------------------------------------------------------------------

// to[k][vector][lane]: number k of each of the n rows
template <class T>
LSTM_NOINLINE void interleave_operands(const T* const* rows, int64_t n, int64_t K, T* to) {
  constexpr int L = lanes<T>;
  const int64_t nv = ceil_div(n, L);
  for (int64_t k = 0; k < K; k += L)
    for (int64_t v = 0; v < nv; ++v) {
      vec<T> block[L];
      for (int l = 0; l < L; ++l)
        block[l] = v * L + l < n ? load_n(rows[v * L + l] + k, K - k) : vec<T>{};
      transpose<T>(block);
      for (int64_t l = 0; l < min_of(L, K - k); ++l) store(to + ((k + l) * nv + v) * L, block[l]);
    }
}

// ---- products with the columns of weights -------------------------------------------------------

// pre[r][v] += sum over k of rows[r][k] * w[k][v] for k_begin <= k < k_begin + K and nv vectors v.
template <class T>
LSTM_INLINE void add_direct(const T* const* rows, int64_t n, int64_t k_begin, int64_t K, const T* w,
                            int64_t step, int nv, T* pre) {
  const int64_t tiles = ceil_div(n, kMaxRows);
  for (int64_t i = 0, r = 0; i < tiles; ++i) {
    const int64_t height = ceil_div(n - r, tiles - i);
    T* to = pre + r * nv * lanes<T>;
    switch (nv) {
      case 1:
        tile_of<false, 1>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
      case 2:
        tile_of<false, 2>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
      case 3:
        tile_of<false, 3>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
      default:
        tile_of<false, 4>(height, rows + r, k_begin, K, w, step, to, nullptr, 0);
        break;
    }
    r += height;
  }
}

}  // namespace lstm_kernels::LSTM_ISA
