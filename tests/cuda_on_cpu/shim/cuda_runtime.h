// As much of CUDA's headers as the kernels use, on the machine of machine.h.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <map>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "machine.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// ---- types ------------------------------------------------------------------------------------
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
using std::max;
using std::min;

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 b) {
  return std::bit_cast<float>(uint32_t(b.bits) << 16);
}
inline __nv_bfloat16 __float2bfloat16(float f) {  // to nearest, ties to even
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if (f != f) return {0x7fff};
  return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
inline float __half2float(__half h) {
  const uint32_t sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31;
  const uint32_t mantissa = h.bits & 0x3ff;
  if (exponent == 0)
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(float(mantissa) * 0x1p-24f));
  return std::bit_cast<float>(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) |
                              mantissa << 13);
}
inline __half __float2half(float f) {  // to nearest, ties to even
  const uint32_t u = std::bit_cast<uint32_t>(f) & 0x7fffffff;
  const uint32_t sign = std::bit_cast<uint32_t>(f) >> 16 & 0x8000;
  const float magnitude = std::fabs(f);
  if (f != f) return {0x7fff};
  if (magnitude >= 65520.f) return {uint16_t(sign | 0x7c00)};
  if (magnitude < 0x1p-14f) return {uint16_t(sign | uint32_t(std::nearbyint(magnitude * 0x1p24f)))};
  return {uint16_t(sign | (((u + 0xfff + (u >> 13 & 1)) >> 13) - (112u << 10)))};
}
inline float __uint_as_float(unsigned u) { return std::bit_cast<float>(u); }
inline unsigned __float_as_uint(float f) { return std::bit_cast<unsigned>(f); }

// ---- synchronisation and warp functions ---------------------------------------------------------
inline void __syncthreads(machine::Location where = machine::Location::current()) {
  machine::block_barrier(where);
}
inline void __syncwarp(unsigned mask = ~0u,
                       machine::Location where = machine::Location::current()) {
  machine::warp_meet(mask, "__syncwarp", where, nullptr, [](void**, unsigned) {}, true);
}
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32,
              machine::Location where = machine::Location::current()) {
  const int lane = (machine::lane() & -width) | (source & (width - 1));
  return machine::from_bits<T>(
      machine::exchange(mask, machine::to_bits(v), lane, "__shfl_sync", where));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32,
                  machine::Location where = machine::Location::current()) {
  const int me = machine::lane();
  int source = me ^ lane_mask;
  if ((source & -width) > (me & -width)) source = me;  // lower segments may be read, higher not
  return machine::from_bits<T>(
      machine::exchange(mask, machine::to_bits(v), source, "__shfl_xor_sync", where));
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, int delta, int width = 32,
                   machine::Location where = machine::Location::current()) {
  const int me = machine::lane();
  int source = me + delta;
  if ((source ^ me) & -width) source = me;
  return machine::from_bits<T>(
      machine::exchange(mask, machine::to_bits(v), source, "__shfl_down_sync", where));
}

// ---- memory -------------------------------------------------------------------------------------
// By the cache of constants, which no instruction makes look again: memory that changes during a
// launch may be seen as it was.
template <class T>
T __ldg(const T* p) {
  T v = *p;
  machine::through_cache(p, &v, sizeof v);
  return v;
}

// ---- the runtime API ----------------------------------------------------------------------------
using cudaStream_t = void*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorCooperativeLaunchTooLarge = 720,
  cudaErrorNotSupported = 801,
};
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}

// A launch has ended when it returns, so events order nothing; who waited for whom is remembered.
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };
enum { cudaEventDisableTiming = 2 };
struct Event {
  cudaStream_t stream = nullptr;
  int number = 0;  // of those recorded on the stream, from 0 on
};
using cudaEvent_t = Event*;
namespace machine {
inline cudaStream_t capturing = nullptr;                   // the one stream that a graph captures
inline std::vector<std::pair<cudaStream_t, Event>> waits;  // who waited, for what
inline std::map<cudaStream_t, int> recorded;               // events, of each stream
}  // namespace machine
inline cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream && stream == machine::capturing ? cudaStreamCaptureStatusActive
                                                   : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  static std::deque<Event> events;
  *event = &events.emplace_back();
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *event = {stream, machine::recorded[stream]++};
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  machine::waits.emplace_back(stream, *event);
  return cudaSuccess;
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
template <class F>
cudaError_t cudaFuncSetAttribute(F*, cudaFuncAttribute, int bytes) {
  return bytes <= 227 * 1024 ? cudaSuccess : cudaErrorInvalidValue;
}

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrCooperativeLaunch = 95,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 132
           : attribute == cudaDevAttrCooperativeLaunch ? 1
                                                       : 227 * 1024;
  return cudaSuccess;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeCooperative = 2 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int cooperative;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... a) {
  const std::tuple<P...> arguments(std::forward<A>(a)...);
  const bool cooperative = config->numAttrs > 0 && config->attrs[0].val.cooperative;
  if (cooperative && !machine::has_room_for(config->gridDim))
    return cudaErrorCooperativeLaunchTooLarge;
  machine::run(config->gridDim, config->blockDim, config->dynamicSmemBytes,
               [&] { std::apply(kernel, arguments); });
  return cudaSuccess;
}
