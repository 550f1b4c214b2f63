// Storage types and the types they are computed in: float16 and bfloat16 in float.
#pragma once
#include "ptx.cuh"

namespace lstm_kernels::cuda {

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
DEV float widen(__half v) { return __half2float(v); }
DEV float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

// To the nearest number of the storage type.
template <class E>
DEV E narrow(Compute<E> v) {
  return v;
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
