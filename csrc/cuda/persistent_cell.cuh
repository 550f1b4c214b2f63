// What the persistent kernels ask of the LSTM whose layer they compute: the plain one. That of
// variants is in persistent_variant.cuh. A kernel asks for what a cell needs of device memory a
// step ahead, and hands it back when it computes the cell.
#pragma once
#include "persistent.cuh"

namespace lstm_kernels::cuda {

template <class E, class Call>
class ForwardCell;
template <class E, class Call>
class BackwardCell;

template <class E>
class ForwardCell<E, PersistentForward> {
 public:
  struct Asked {};
  DEV ForwardCell(const PersistentForward&, const Plan&, int) {}
  // Of a cell in the step at time t; t_next: the time of the step after it.
  DEV Asked ask(int, int, int, int) const { return {}; }
  DEV Cell<float> advance(const float (&preactivation)[kGates], float c, float,
                          const Asked&) const {
    return cuda::advance<ActivationOf<E>>(preactivation, c);
  }
  // What the recurrent product of the step after is given of h.
  DEV float operand(float h, const Asked&) const { return h; }
  DEV float first_operand(float h, int, int, int) const { return h; }
};

template <class E>
class BackwardCell<E, PersistentBackward> {
 public:
  struct Asked {};
  // h_prev: the gradient of h before the step other than through the recurrent product.
  struct Gradient : CellGradient<float> {
    static constexpr float h_prev = 0;
  };
  DEV BackwardCell(const PersistentBackward&, const Plan&, int) {}
  // Of a cell in the step at time t; t_after: the time of the step undone before.
  DEV Asked ask(int, int, int, int) const { return {}; }
  // From the gradient of what the step undone before was given of h.
  DEV float from_later(float grad, const Asked&) const { return grad; }
  DEV Gradient retreat(const float (&gate)[kGates], float c, float c_prev, float dh, float dc,
                       const float (&grad_gate)[kGates], const Asked&) const {
    return {cuda::retreat<ActivationOf<E>>(gate, c, c_prev, dh, dc, grad_gate)};
  }
  // Of a row that the input has, at its place in arrays over (R, D, H).
  DEV void store_row(int64_t, const Gradient&) const {}
  // When all steps are done; row: of this thread among those that share a unit.
  DEV void finish(int, int) const {}
};

}  // namespace lstm_kernels::cuda
