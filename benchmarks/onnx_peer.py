"""ONNX Runtime as a contender: it packs the weights once, when the session is made."""

import numpy as np
import torch
from torch import Tensor, nn

from .cases import Case
from .workload import Call, Unavailable

OPSET, IR_VERSION = 14, 8


def session_call(
    case: Case, native: nn.LSTM, data: Tensor, threads: int, spinning: bool = True
) -> Call:
    """A call that runs `native` as the standard ONNX LSTM operator.

    spinning: whether its threads may spin for work, which is its default.
    """
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed") from None
    if case.training:
        raise Unavailable("ONNX Runtime is for inference")
    if case.dtype != "float32" or case.layers > 1 or case.proj_size or case.packed:
        raise Unavailable("one plain float32 layer only")

    helper = onnx.helper
    shape = [case.T, case.N, case.input_size]
    node = helper.make_node(
        "LSTM",
        ["x", "w", "r", "b"],
        ["y"],
        hidden_size=case.H,
        direction="bidirectional" if case.bidirectional else "forward",
    )
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(value, name)
            for name, value in zip("wrb", weights(native), strict=True)
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads spin for work; after a run they would take the cores from whose turn is next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = {"x": data.detach().numpy()}
    expected = native(data)[0].detach().reshape(case.T, case.N, case.directions, case.H)
    got = torch.from_numpy(session.run(None, x)[0]).transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    return lambda: session.run(None, x)


def weights(native: nn.LSTM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W (D, 4*H, I), R (D, 4*H, H) and B (D, 8*H), the gates in ONNX's order: i, o, f, g."""

    def reorder(weight: Tensor) -> np.ndarray:
        i, f, g, o = weight.detach().chunk(4)
        return torch.cat([i, o, f, g]).numpy()

    directions = [[reorder(weight) for weight in group] for group in native.all_weights]
    w, r, b_w, b_r = (np.stack(kind) for kind in zip(*directions, strict=True))
    return w, r, np.concatenate([b_w, b_r], axis=1)
