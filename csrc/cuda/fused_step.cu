// One time step with its matrix products in one kernel, for few sequences: a cell called on its
// own, streaming inference, and sequences that the persistent kernels do not serve.
//
// A warp owns one hidden unit and reads that unit's four rows of W_hh (and of W_ih, where the
// input's product is not there yet) exactly once, 16 bytes per lane, for up to kRows sequences
// at a time; nothing is packed. The sums over the warp end up in a lane for each gate of each
// sequence, and the lane of the first gate finishes the unit. The order of additions depends on
// the sizes alone.
// Bound: reading 4*H*(H+I) elements from L2 at about 5 TB/s (from device memory the first time),
// plus the launch. Every further kRows sequences read them again, so that a matrix product by the
// library overtakes this kernel at 16 sequences or so.
#include "step.cuh"

namespace lstm_kernels::cuda {
namespace {

constexpr int kWarps = 4;  // of a block; they share the states, through L1
constexpr int kMaxRows = 8;

// Consecutive elements of a row, fetched by one instruction: 16 bytes where alignment permits.
template <class E>
struct Chunk {
  static constexpr int kSize = 16 / sizeof(E);
  E element[kSize];
  DEV explicit Chunk(const E* p) {
    const uint4 bits = __ldg(reinterpret_cast<const uint4*>(p));
    memcpy(element, &bits, sizeof element);
  }
};
template <class E>
struct Single {
  static constexpr int kSize = 1;
  E element[kSize];
  DEV explicit Single(const E* p) : element{*p} {}
};

// Adds this lane's share of the products of kRows rows of x, the last of them repeated where there
// are fewer, with the four rows of w that belong to a unit. Rows have `size` elements.
template <class Piece, int kRows, class E>
DEV void accumulate(Compute<E> (&sum)[kRows * kGates], const E* x, int64_t x_row, int64_t last_row,
                    const E* w, int64_t w_gate, int64_t size, int lane) {
#pragma unroll(kRows == 1 ? 2 : 1)
  for (int64_t k = int64_t(lane) * Piece::kSize; k < size; k += 32 * Piece::kSize) {
    const Piece weights[kGates] = {Piece(w + k), Piece(w + w_gate + k), Piece(w + 2 * w_gate + k),
                                   Piece(w + 3 * w_gate + k)};
#pragma unroll
    for (int row = 0; row < kRows; row++) {
      const Piece states(x + min(int64_t(row), last_row) * x_row + k);
#pragma unroll
      for (int gate = 0; gate < kGates; gate++)
#pragma unroll
        for (int e = 0; e < Piece::kSize; e++)
          sum[row * kGates + gate] += widen(weights[gate].element[e]) * widen(states.element[e]);
    }
  }
}
template <int kRows, class E>
DEV void accumulate(bool aligned, Compute<E> (&sum)[kRows * kGates], const E* x, int64_t x_row,
                    int64_t last_row, const E* w, int64_t w_gate, int64_t size, int lane) {
  if (aligned) {
    accumulate<Chunk<E>, kRows>(sum, x, x_row, last_row, w, w_gate, size, lane);
  } else {
    accumulate<Single<E>, kRows>(sum, x, x_row, last_row, w, w_gate, size, lane);
  }
}

// The sum over the warp of value `lane % kValues`. Lanes that differ in one bit of their number
// exchange halves: each keeps the values that agree with its own bit.
template <int kValues, class A>
DEV A warp_sum(const A (&value)[kValues], int lane) {
  if constexpr (kValues == 1) {
    return value[0];
  } else {
    constexpr int kHalf = kValues / 2;
    const bool upper = lane & kHalf;
    A half[kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; i++) {
      const A other = __shfl_xor_sync(~0u, upper ? value[i] : value[i + kHalf], kHalf);
      half[i] = (upper ? value[i + kHalf] : value[i]) + other;
    }
    return warp_sum<kHalf>(half, lane);
  }
}

// __launch_bounds__(.., 1): there are few blocks, so occupancy is low anyway. The registers are
// better spent on loads in flight.
template <class E, int kRows>
__global__ void __launch_bounds__(kWarps * 32, 1)
    fused_forward_kernel(const FusedForward call, bool states_aligned, bool input_aligned) {
  using A = Compute<E>;
  const StepForward& p = call.step;
  const int lane = threadIdx.x % 32, gate = lane % kGates, row = lane % (kRows * kGates) / kGates;
  const int64_t unit = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int64_t first_row = int64_t(blockIdx.y) * kRows, n = first_row + row;
  if (unit >= p.H) return;

  // What this lane will need after the products; fetched now, behind them.
  const bool finishes = lane < kRows * kGates && gate == 0 && n < p.N;
  const bool now = n < p.N && takes_part(p.now, n);
  A outside = bias<E>(p, gate, unit);
  if (now && call.input_product)
    outside += at<A>(call.input_product, (n * kGates + gate) * p.H + unit);
  const bool reset = now && p.reset && p.reset[n];
  const A c_before = finishes && now && !reset ? cell_state_before<E>(p, n, unit) : A(0);

  A sum[kRows * kGates] = {};
  const int64_t last_row = p.now.rows - 1 - first_row;
  if (last_row >= 0) {
    if (p.h_before)
      accumulate<kRows>(states_aligned, sum, static_cast<const E*>(p.h_before) + first_row * p.H,
                        p.H, last_row, static_cast<const E*>(call.w_hh) + unit * p.H, p.H * p.H,
                        p.H, lane);
#pragma unroll
    for (int r = 0; r < kRows; r++)
      if (p.reset && p.reset[first_row + min(int64_t(r), last_row)])
#pragma unroll
        for (int g = 0; g < kGates; g++) sum[r * kGates + g] = 0;
    if (!call.input_product)
      accumulate<kRows>(input_aligned, sum,
                        static_cast<const E*>(call.input) + first_row * call.input_row,
                        call.input_row, last_row, static_cast<const E*>(call.w_ih) + unit * call.I,
                        p.H * call.I, call.I, lane);
  }
  A total = warp_sum<kRows * kGates>(sum, lane);
#pragma unroll
  for (int bit = kRows * kGates; bit < 32; bit *= 2) total += __shfl_xor_sync(~0u, total, bit);
  total += outside;
  A preactivation[kGates];
#pragma unroll
  for (int g = 0; g < kGates; g++) preactivation[g] = __shfl_sync(~0u, total, lane - gate + g);

  if (!finishes) return;
  if (now) {
    forward_unit<E>(p, n, unit, preactivation, c_before, nullptr);
  } else {
    skip_unit<E>(p, n, unit, nullptr);
  }
}

bool aligned(DType dtype, std::initializer_list<const void*> arrays,
             std::initializer_list<int64_t> strides) {
  return std::all_of(arrays.begin(), arrays.end(),
                     [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }) &&
         std::all_of(strides.begin(), strides.end(),
                     [&](int64_t stride) { return stride * size_of(dtype) % 16 == 0; });
}

template <class E, int kRows>
cudaError_t launch_fused(const FusedForward& call, cudaStream_t stream) {
  const StepForward& p = call.step;
  const dim3 grid(unsigned(ceil_div(p.H, kWarps)), unsigned(ceil_div(p.N, kRows)));
  return launch(Launch::plain, &fused_forward_kernel<E, kRows>, grid, dim3(kWarps * 32), 0, stream,
                call, aligned(p.dtype, {p.h_before, call.w_hh}, {p.H}),
                aligned(p.dtype, {call.input, call.w_ih}, {call.input_row, call.I}));
}

}  // namespace

cudaError_t fused_forward(const FusedForward& call, cudaStream_t stream) {
  return with_dtype(call.step.dtype, [&]<class E>() {
    return call.step.N == 1 ? launch_fused<E, 1>(call, stream)
                            : launch_fused<E, kMaxRows>(call, stream);
  });
}

}  // namespace lstm_kernels::cuda
