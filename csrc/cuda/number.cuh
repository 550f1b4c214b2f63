// Storage types and the types they are computed in: float16 and bfloat16 in float.
//
// FullFloat is a float whose matrix products are as exact as float32's, where those of a plain
// float are TF32: tensor cores know no more, so it is taken as the sum of two TF32 numbers, and of
// the four products the three that count are added. An infinite factor gives NaN.
#pragma once
#include "ptx.cuh"

namespace lstm_kernels::cuda {

struct FullFloat {
  float value;
};

// What does not change while the kernel runs.
template <class E>
DEV E read_only(const E* p) {
  return __ldg(p);
}
DEV FullFloat read_only(const FullFloat* p) { return {__ldg(&p->value)}; }

template <class E>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class E>
using Compute = typename ComputeType<E>::type;

DEV float widen(float v) { return v; }
DEV double widen(double v) { return v; }
DEV float widen(FullFloat v) { return v.value; }
DEV float widen(__half v) { return __half2float(v); }
DEV float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

// To the nearest number of the storage type.
template <class E>
DEV E narrow(Compute<E> v) {
  return v;
}
template <>
DEV FullFloat narrow<FullFloat>(float v) {
  return {v};
}
template <>
DEV __half narrow<__half>(float v) {
  return __float2half(v);
}
template <>
DEV __nv_bfloat16 narrow<__nv_bfloat16>(float v) {
  return __float2bfloat16(v);
}

}  // namespace lstm_kernels::cuda
