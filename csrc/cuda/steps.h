// The order of one direction of a layer: step s works on time(s), and the recurrence runs from step
// 0 to T - 1.
#pragma once
#include "../arguments.h"
#include "step.h"

namespace lstm_kernels::cuda {

struct Steps {
  const Layer& layer;
  int direction;

  int64_t time(int64_t step) const { return direction ? layer.size.T - 1 - step : step; }
  // The first row of the step in arrays over (R), and how many there are.
  int64_t first_row(int64_t step) const { return layer.first_row(time(step)); }
  int64_t count(int64_t step) const { return layer.first_row(time(step) + 1) - first_row(step); }
  // Steps before the first and after the last have no rows.
  StepRows rows(int64_t step) const {
    if (!exists(step)) return {0, 0, layer.ragged.lengths};
    return {count(step), time(step), layer.ragged.lengths};
  }
  const bool* reset(int64_t step) const {
    if (!layer.ragged.reset || !exists(step)) return nullptr;
    return layer.ragged.reset + time(step) * layer.size.N;
  }

 private:
  bool exists(int64_t step) const { return step >= 0 && step < layer.size.T; }
};

}  // namespace lstm_kernels::cuda
