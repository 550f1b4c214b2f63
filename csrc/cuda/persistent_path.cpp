// A layer by one persistent kernel (persistent_forward.cu, persistent_backward.cu) for all its
// steps and directions. Forward, torch's library multiplies the whole input with w_ih before.
#include "input_product.h"
#include "kernels.h"
#include "paths.h"

namespace lstm_kernels::cuda {
namespace {

// Who takes part. `offsets` keeps the memory that this points to.
Rows device_rows(const Layer& layer, const OnDevice& device, OptionalTensor& offsets) {
  Rows rows;
  rows.lengths = layer.ragged.lengths;
  rows.reset = layer.ragged.reset;
  if (layer.rows.packed) {
    offsets = empty({layer.size.T + 1}, layer.kind.with(aoti_torch_dtype_int64()));
    rows.offsets = offsets->const_data_ptr<int64_t>();
    check(pack_offsets(layer.ragged.batch_sizes, layer.size.T, offsets->mutable_data_ptr<int64_t>(),
                       device.stream()));
  }
  return rows;
}

Tensor workspace(const Layer& layer, const Plan& plan) {
  return empty({plan.workspace_bytes}, layer.kind.with(aoti_torch_dtype_uint8()));
}

// Whether the launch took place; otherwise the blocks do not fit at this moment.
bool launched(cudaError_t error) {
  if (error == cudaErrorCooperativeLaunchTooLarge) return false;
  check(error);
  return true;
}

}  // namespace

bool persistent_path(const Layer& layer, const Forward& call, const Plan& plan,
                     const OnDevice& device) {
  const auto& [T, N, I, H, P, D] = layer.size;
  OptionalTensor offsets, x_gates[2];
  const Tensor memory = workspace(layer, plan);
  PersistentForward p{};
  p.dtype = layer.dtype;
  p.size = layer.size;
  p.rows = device_rows(layer, device, offsets);
  const Tensor rows = input_rows(layer, call.input, 0, T);
  for (int d = 0; d < D; d++) {
    const DirectionTensors& weights = layer.directions[size_t(d)];
    x_gates[d] = empty({layer.rows.R, kGates * H}, layer.kind);
    device.multiply(*x_gates[d], rows, transposed(weights.w_ih));
    const DirectionWeights data = weights.data();
    p.x_gates[d] = data_or_null(x_gates[d]);
    p.w_hh[d] = data.w_hh;
    p.b_ih[d] = data.b_ih;
    p.b_hh[d] = data.b_hh;
  }
  p.h0 = data_or_null(call.h0);
  p.c0 = data_or_null(call.c0);
  p.output = call.output.mutable_data_ptr();
  p.h_n = call.h_n.mutable_data_ptr();
  p.c_n = call.c_n.mutable_data_ptr();
  p.cell = result_or_null(call.cell);
  p.gates = result_or_null(call.gates);
  p.workspace = memory.mutable_data_ptr();
  return launched(persistent_forward(p, plan, device.stream()));
}

bool persistent_path(const Layer& layer, const Backward& call, const Plan& plan,
                     const OnDevice& device) {
  OptionalTensor offsets;
  const Tensor memory = workspace(layer, plan);
  PersistentBackward p{};
  p.dtype = layer.dtype;
  p.size = layer.size;
  p.rows = device_rows(layer, device, offsets);
  for (int d = 0; d < layer.size.D; d++)
    p.w_hh[d] = layer.directions[size_t(d)].w_hh.const_data_ptr();
  p.c0 = data_or_null(call.c0);
  p.cell = call.cell.const_data_ptr();
  p.gates = call.gates.const_data_ptr();
  p.grad_output = data_or_null(call.grad_output);
  p.grad_h_n = data_or_null(call.grad_h_n);
  p.grad_c_n = data_or_null(call.grad_c_n);
  p.grad_cell = data_or_null(call.grad_cell);
  p.grad_gates = data_or_null(call.grad_gates);
  p.grad_preactivations = call.grad_preactivations.mutable_data_ptr();
  p.grad_h0 = call.grad_h0.mutable_data_ptr();
  p.grad_c0 = call.grad_c0.mutable_data_ptr();
  p.workspace = memory.mutable_data_ptr();
  return launched(persistent_backward(p, plan, device.stream()));
}

}  // namespace lstm_kernels::cuda
