// Scratch memory, and the rows of states that lie in it.
#pragma once
#include "integers.h"
#include "simd.h"

namespace lstm_kernels::LSTM_ISA {

// Hands out parts of the caller's scratch memory. Without a base it only measures.
class Arena {
 public:
  explicit Arena(void* base) : base_((char*)base) {}
  template <class X>
  X* take(int64_t n) {
    char* p = base_ ? base_ + used_ : nullptr;
    used_ += size_t(round_up(n * int64_t(sizeof(X)), 128));
    return (X*)p;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// Lets objects be made in memory of an arena.
struct InArena {
  static void* operator new(size_t, void* at) { return at; }
};

// Elements from one row of a state to the next: whole vectors, and never a multiple of 1 KiB, which
// would put the rows of a tile into the same few sets of the cache.
template <class T>
LSTM_INLINE int64_t padded(int64_t n) {
  const int64_t stride = round_up(max_of(n, 1), lanes<T>);
  return stride * int64_t(sizeof(T)) % 1024 ? stride : stride + 64 / int64_t(sizeof(T));
}

template <class T, class S>
LSTM_INLINE void copy_row(T* to, const S* from, int64_t n) {  // from null: zeros; `to` is padded
  constexpr int L = lanes<compute<T>>;
  for (int64_t i = 0; i < n; i += L)
    store(to + i, from ? load_n(from + i, n - i) : vec<compute<T>>{});
}
// And zeros up to whole vectors.
template <class S>
LSTM_INLINE void copy_row(bf16_pair* to, const S* from, int64_t n) {
  constexpr int L = lanes<float>;
  bf16* numbers = (bf16*)to;
  copy_row(numbers, from, n);
  if (ceil_div(n, L) % 2) store(numbers + round_up(n, L), vec<float>{});
}
template <class S, class T>
LSTM_INLINE void copy_out(S* to, const T* from, int64_t n) {  // `from` is padded
  constexpr int L = lanes<compute<T>>;
  for (int64_t i = 0; i < n; i += L) store_n(to + i, load(from + i), n - i);
}
template <class S>
LSTM_INLINE void zero_row(S* to, int64_t n) {
  __builtin_memset(to, 0, size_t(n) * sizeof(S));
}

}  // namespace lstm_kernels::LSTM_ISA
