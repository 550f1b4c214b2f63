"""Contenders for inference on weights that are packed for good, and how far off each is.

`python -m benchmarks.deployed` prints the errors as a Markdown table; the groups quantized and
stream have the speeds.
"""

import copy
import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import lstm_kernels

from .cases import Case
from .onnx_peer import made_session, openvino_call, plain, weights
from .workload import Call, Unavailable, Workload, reduced_precision

# Weights of a trained LSTM reach further than initial ones, and so do their errors.
WEIGHT_SCALES = (1, 4)


def _made(workload: Workload, weight_dtype: torch.dtype | None) -> lstm_kernels.InferenceLSTM:
    return lstm_kernels.LSTM.from_native(workload.native).for_inference(weight_dtype)


def owned(workload: Workload, weight_dtype: torch.dtype | None = None) -> Call:
    """The module that owns its weights."""
    module = _made(workload, weight_dtype)
    return torch.no_grad()(lambda: module(workload.input)[0])


def owned_bfloat16(workload: Workload) -> Call:
    return owned(workload, torch.bfloat16)


def owned_reduced(workload: Workload) -> Call:
    """With products that round both factors to bfloat16, as OpenVINO's."""
    with reduced_precision():
        return owned_bfloat16(workload)


def owned_int8(workload: Workload) -> Call:
    return owned(workload, torch.int8)


def onnx_runtime_int8(workload: Workload, zero: int = 0) -> Call:
    """ONNX Runtime's DynamicQuantizeLSTM, its weights rounded with a scale for each output.

    Without VNNI, its products of int8 weights saturate. Those of uint8 weights do not.
    """
    plain(workload.case)
    arrays: dict[str, np.ndarray] = {}
    w, r, arrays["b"] = weights(workload.native)
    for name, matrices in (("w", w), ("r", r)):
        scales = (np.abs(matrices).max(2) / 127).astype(np.float32)
        dtype = np.uint8 if zero else np.int8
        rounded = (np.round(matrices / scales[:, :, None]) + zero).astype(dtype)
        arrays[name] = np.ascontiguousarray(rounded.transpose(0, 2, 1))  # (D, K, 4*H)
        arrays[f"{name}_scale"] = scales
        arrays[f"{name}_zero"] = np.full(scales.shape, zero, dtype)
    names = ["x", "w", "r", "b", "", "", "", "", "w_scale", "w_zero", "r_scale", "r_zero"]
    session = made_session(workload, "DynamicQuantizeLSTM", "com.microsoft", names, arrays)
    x = {"x": workload.padded.detach().numpy()}
    return lambda: session.run(None, x)[0]


def onnx_runtime_uint8(workload: Workload) -> Call:
    return onnx_runtime_int8(workload, zero=128)


def openvino_float32(workload: Workload) -> Call:
    return openvino_call(workload, "f32")


def openvino_bfloat16(workload: Workload) -> Call:
    """OpenVINO's default where the CPU multiplies bfloat16, and float32 elsewhere."""
    return openvino_call(workload, "bf16")


def torch_ao_int8(workload: Workload) -> Call:
    """torch's own dynamic quantization: one scale for each matrix, and one for each input."""
    model = nn.Sequential(copy.deepcopy(workload.native)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is deprecated
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM}, torch.qint8)[0]
    return torch.no_grad()(lambda: quantized(workload.padded)[0])


def stream(workload: Workload, weight_dtype: torch.dtype | None = None) -> Call:
    """One step of a stream."""
    if not workload.case.cell:
        raise Unavailable("a stream takes single steps")
    of_batch, x = _made(workload, weight_dtype).stream(workload.case.N), workload.padded[0]
    return lambda: of_batch(x)


def stream_int8(workload: Workload) -> Call:
    return stream(workload, torch.int8)


def native_step(workload: Workload) -> Call:
    """nn.LSTM over one step, from the states that it returned before."""
    state: list[tuple[Tensor, Tensor] | None] = [None]

    def step() -> object:
        output, state[0] = workload.native(workload.padded, state[0])
        return output

    return torch.no_grad()(step)


def error(got: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, over that of what was expected."""
    difference = (got.double() - expected).square().mean()
    return math.sqrt(difference / expected.square().mean())


def errors(case: Case, weight_scale: float, contender: Callable[[Workload], Call]) -> float:
    """How far off a contender is from nn.LSTM in float64, on weights times `weight_scale`."""
    workload = Workload(case, threads=1)
    with torch.no_grad():
        for weight in workload.native.parameters():
            weight.mul_(weight_scale)
        wide = nn.LSTM(case.input_size, case.H, dtype=torch.float64)
        wide.load_state_dict(workload.native.state_dict())
        expected = wide(workload.padded.double())[0]
    got = torch.as_tensor(contender(workload)())
    return error(got.reshape(expected.shape), expected)


def main() -> None:
    """Print the errors of all contenders."""
    contenders = {
        "ours, int8": owned_int8,
        "ONNX Runtime, uint8": onnx_runtime_uint8,
        "ONNX Runtime, int8": onnx_runtime_int8,
        "torch.ao, int8": torch_ao_int8,
        "ours, bfloat16 weights": owned_bfloat16,
        "ours, bfloat16 products": owned_reduced,
    }
    lines = [["case", "weights", *contenders], ["---"] * (2 + len(contenders))]
    for n, h in ((1, 128), (1, 512), (16, 256), (64, 512)):
        for scale in WEIGHT_SCALES:
            case = Case(64, n, h)
            found = [errors(case, scale, contender) for contender in contenders.values()]
            weights = "initial" if scale == 1 else f"{scale} times initial"
            lines.append([str(case), weights, *(f"{100 * each:.2g}%" for each in found)])
    for line in lines:
        print("|", " | ".join(line), "|")


if __name__ == "__main__":
    main()
