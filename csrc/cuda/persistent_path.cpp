// A layer by one persistent kernel (persistent_forward.cu, persistent_backward.cu) for all its
// steps and directions. Forward, torch's library multiplies the whole input with w_ih before. A
// variant's kernel takes the same, and what the variant adds.
#include "input_product.h"
#include "kernels.h"
#include "paths.h"
#include "variant_step.h"

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

// What a kernel reads and writes, and the tensors that only it needs.
class ForwardKernelCall {
 public:
  ForwardKernelCall(const Layer& layer, const Forward& call, const Plan& plan,
                    const OnDevice& device)
      : workspace_(workspace(layer, plan)) {
    const auto& [T, N, I, H, P, D] = layer.size;
    parameters.dtype = layer.dtype;
    parameters.size = layer.size;
    parameters.rows = device_rows(layer, device, offsets_);
    const Tensor rows = input_rows(layer, call.input, 0, T);
    for (int d = 0; d < D; d++) {
      const DirectionTensors& weights = layer.directions[size_t(d)];
      x_gates_[d] = empty({layer.rows.R, kGates * H}, layer.kind);
      device.multiply(*x_gates_[d], rows, transposed(weights.w_ih));
      const DirectionWeights data = weights.data();
      parameters.x_gates[d] = data_or_null(x_gates_[d]);
      parameters.w_hh[d] = data.w_hh;
      parameters.b_ih[d] = data.b_ih;
      parameters.b_hh[d] = data.b_hh;
    }
    parameters.h0 = data_or_null(call.h0);
    parameters.c0 = data_or_null(call.c0);
    parameters.output = call.output.mutable_data_ptr();
    parameters.h_n = call.h_n.mutable_data_ptr();
    parameters.c_n = call.c_n.mutable_data_ptr();
    parameters.cell = result_or_null(call.cell);
    parameters.gates = result_or_null(call.gates);
    parameters.workspace = workspace_.mutable_data_ptr();
  }

  PersistentForward parameters{};

 private:
  Tensor workspace_;
  OptionalTensor offsets_, x_gates_[2];
};

class BackwardKernelCall {
 public:
  BackwardKernelCall(const Layer& layer, const Backward& call, const Plan& plan,
                     const OnDevice& device)
      : workspace_(workspace(layer, plan)) {
    parameters.dtype = layer.dtype;
    parameters.size = layer.size;
    parameters.rows = device_rows(layer, device, offsets_);
    for (int d = 0; d < layer.size.D; d++)
      parameters.w_hh[d] = layer.directions[size_t(d)].w_hh.const_data_ptr();
    parameters.c0 = data_or_null(call.c0);
    parameters.cell = call.cell.const_data_ptr();
    parameters.gates = call.gates.const_data_ptr();
    parameters.grad_output = data_or_null(call.grad_output);
    parameters.grad_h_n = data_or_null(call.grad_h_n);
    parameters.grad_c_n = data_or_null(call.grad_c_n);
    parameters.grad_cell = data_or_null(call.grad_cell);
    parameters.grad_gates = data_or_null(call.grad_gates);
    parameters.grad_preactivations = call.grad_preactivations.mutable_data_ptr();
    parameters.grad_h0 = call.grad_h0.mutable_data_ptr();
    parameters.grad_c0 = call.grad_c0.mutable_data_ptr();
    parameters.workspace = workspace_.mutable_data_ptr();
  }

  PersistentBackward parameters{};

 private:
  Tensor workspace_;
  OptionalTensor offsets_;
};

}  // namespace

bool persistent_path(const Layer& layer, const Forward& call, const Plan& plan,
                     const OnDevice& device) {
  const ForwardKernelCall plain(layer, call, plan, device);
  return launched(persistent_forward(plain.parameters, plan, device.stream()));
}

bool persistent_path(const Layer& layer, const VariantForward& call, const Plan& plan,
                     const OnDevice& device) {
  const ForwardKernelCall plain(layer, call, plan, device);
  return launched(persistent_variant_forward(
      PersistentVariantForward{plain.parameters, call.variant, VariantFloats(call.variant)}, plan,
      device.stream()));
}

bool persistent_path(const Layer& layer, const Backward& call, const Plan& plan,
                     const OnDevice& device) {
  const BackwardKernelCall plain(layer, call, plan, device);
  return launched(persistent_backward(plain.parameters, plan, device.stream()));
}

bool persistent_path(const Layer& layer, const VariantBackward& call, const Plan& plan,
                     const OnDevice& device) {
  const auto& [T, N, I, H, P, D] = layer.size;
  const BackwardKernelCall plain(layer, call, plan, device);
  PersistentVariantBackward p{plain.parameters,
                              call.variant,
                              VariantFloats(call.variant),
                              result_or_null(call.grad_input_gate),
                              nullptr,
                              0};
  OptionalTensor sums;
  if (call.variant.adds_up_parameters()) {
    p.rows_of_sums = int64_t(plan.groups) * plan.tile_rows;
    sums = empty({D, p.rows_of_sums, kParameterSums, H}, wide(layer.kind));
    zero(*sums, wide(layer.dtype), device);
    p.sums = sums->mutable_data_ptr();
  }
  if (!launched(persistent_variant_backward(p, plan, device.stream()))) return false;
  for (int d = 0; sums && d < D; d++)
    check(add_parameter_gradients(
        {layer.dtype, p.rows_of_sums, H,
         read_from(sums, d * p.rows_of_sums * kParameterSums * H, wide(layer.dtype)),
         write_from(call.grad_parameters, d * kParameterSums * H, layer.dtype)},
        device.stream()));
  return true;
}

}  // namespace lstm_kernels::cuda
