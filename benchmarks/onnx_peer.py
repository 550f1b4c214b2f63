"""Runtimes of ONNX models as contenders: they pack the weights once, when a session is made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .cases import Case
from .workload import Call, Unavailable, Workload, installed

OPSET, IR_VERSION = 14, 8


def session_call(workload: Workload, spinning: bool = True) -> Call:
    """A call that runs the workload's LSTM as the standard ONNX operator.

    spinning: whether its threads may spin for work, which is its default.
    """
    case, native, data = workload.case, workload.native, workload.padded
    plain(case)
    w, r, b = weights(native)
    arrays = {"w": w, "r": r, "b": b}
    session = made_session(workload, "LSTM", "", ["x", *arrays], arrays, spinning)
    x = {"x": data.detach().numpy()}
    expected = native(data)[0].detach().reshape(case.T, case.N, case.directions, case.H)
    got = torch.from_numpy(session.run(None, x)[0]).transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    return lambda: session.run(None, x)


def plain(case: Case) -> None:
    """Raise Unavailable for what ONNX's operators do not compute."""
    if case.training:
        raise Unavailable("ONNX Runtime is for inference")
    if case.dtype != "float32" or case.layers > 1 or case.proj_size or case.packed:
        raise Unavailable("one plain float32 layer only")


def made_session(
    workload: Workload,
    operator: str,
    domain: str,
    inputs: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    spinning: bool = True,
) -> Any:
    """A session of ONNX Runtime for a model of one operator: see `_model`."""
    onnxruntime = installed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    # Its threads spin for work; after a run they would take the cores from whose turn is next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(
        _model(workload.case, operator, domain, inputs, arrays),
        options,
        providers=["CPUExecutionProvider"],
    )


def openvino_call(workload: Workload, precision: str) -> Call:
    """A call of OpenVINO on the same model, which multiplies in f32 or, where it can, in bf16."""
    plain(workload.case)
    openvino = installed("openvino")
    arrays = dict(zip("wrb", weights(workload.native), strict=True))
    core = openvino.Core()
    model = core.read_model(_model(workload.case, "LSTM", "", ["x", *arrays], arrays))
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": workload.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    x = workload.padded.detach().numpy()
    return lambda: request.infer([x])[0]


def _model(
    case: Case,
    operator: str,
    domain: str,
    inputs: Sequence[str],
    arrays: Mapping[str, np.ndarray],
) -> bytes:
    """A model of one operator, whose inputs are x and constant arrays; its output is y."""
    onnx = installed("onnx")
    helper = onnx.helper
    shape = [case.T, case.N, case.input_size]
    node = helper.make_node(
        operator,
        list(inputs),
        ["y"],
        domain=domain,
        hidden_size=case.H,
        direction="bidirectional" if case.bidirectional else "forward",
    )
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    versions = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)
    serialized: bytes = model.SerializeToString()
    return serialized


def weights(native: nn.LSTM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W (D, 4*H, I), R (D, 4*H, H) and B (D, 8*H), the gates in ONNX's order: i, o, f, g."""

    def reorder(weight: Tensor) -> np.ndarray:
        i, f, g, o = weight.detach().chunk(4)
        return torch.cat([i, o, f, g]).numpy()

    directions = [[reorder(weight) for weight in group] for group in native.all_weights]
    w, r, b_w, b_r = (np.stack(kind) for kind in zip(*directions, strict=True))
    return w, r, np.concatenate([b_w, b_r], axis=1)
