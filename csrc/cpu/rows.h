// Who takes part in which step, as the CPU kernels want to know it: sequences ranked by length.
#pragma once
#include <vector>

#include "../arguments.h"
#include "kernels.h"

namespace lstm_kernels::cpu {

// Rows, with the arrays it points to.
class RowLists {
 public:
  RowLists(const Ragged& ragged, const RowShape& shape) {
    if (ragged.batch_sizes) from_batch_sizes(ragged, shape.T, shape.N);
    if (ragged.lengths) from_lengths(ragged.lengths, shape.T, shape.N);
    rows_.reset = ragged.reset;
  }
  RowLists(const RowLists&) = delete;
  RowLists& operator=(const RowLists&) = delete;
  const Rows& rows() const { return rows_; }

 private:
  // Packed rows are ranked already.
  void from_batch_sizes(const Ragged& ragged, int64_t T, int64_t N) {
    lengths_.resize(size_t(N));
    for (int64_t t = T, rank = 0; t-- > 0;)  // rank: sequences that end after step t
      for (; rank < ragged.batch_sizes[t]; ++rank) lengths_[size_t(rank)] = t + 1;
    rows_.counts = ragged.batch_sizes;
    rows_.offsets = ragged.offsets.data();
    rows_.lengths = lengths_.data();
  }

  void from_lengths(const int64_t* lengths, int64_t T, int64_t N) {
    counts_.assign(size_t(T) + 1, 0);  // first: how many sequences have each length
    for (int64_t n = 0; n < N; ++n) {
      require(lengths[n] >= 0 && lengths[n] <= T, "lengths: expected values from 0 to T");
      ++counts_[size_t(lengths[n])];
    }
    // Then: how many are longer than t. That is also where the ranks of length t begin.
    int64_t longer = 0;
    for (int64_t t = T; t >= 0; --t) {
      const int64_t equal = counts_[size_t(t)];
      counts_[size_t(t)] = longer;
      longer += equal;
    }
    std::vector<int64_t> next(counts_);
    order_.resize(size_t(N));
    lengths_.resize(size_t(N));
    for (int64_t n = 0; n < N; ++n) {
      const size_t rank = size_t(next[size_t(lengths[n])]++);
      order_[rank] = n;
      lengths_[rank] = lengths[n];
    }
    rows_.counts = counts_.data();
    rows_.lengths = lengths_.data();
    rows_.order = order_.data();
  }

  Rows rows_{};
  std::vector<int64_t> counts_, lengths_, order_;
};

}  // namespace lstm_kernels::cpu
