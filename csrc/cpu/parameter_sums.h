// What the steps of a backward pass add up for the gradients of parameters (ParameterSum).
//
// Each part adds up its own rows, and its own units where parts share rows; Backward::finish adds
// up those of the parts, in their order.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace lstm_kernels::LSTM_ISA {

template <class T>
struct ParameterSums {
  T* data;  // [parameter][stride]
  int64_t stride;

  LSTM_INLINE T* of(int parameter) const { return data + parameter * stride; }
  LSTM_INLINE void add(int parameter, int64_t unit, vec<T> v) const {
    T* at = of(parameter) + unit;
    store(at, load(at) + v);
  }
  // The gradients of peepholes; c_before and updated are what the gates i and f, and o, saw.
  LSTM_INLINE void add_peepholes(int64_t unit, const vec<T> (&dz)[kGates], vec<T> c_before,
                                 vec<T> updated) const {
    add(kOfPeephole, unit, dz[kInputGate] * c_before);
    add(kOfPeephole + 1, unit, dz[kForgetGate] * c_before);
    add(kOfPeephole + 2, unit, dz[kOutputGate] * updated);
  }
};

}  // namespace lstm_kernels::LSTM_ISA
