"""Contenders for variants of the LSTM: ours, and the same equations in eager torch."""

from typing import Any

import torch
from torch import Tensor

import lstm_kernels
from lstm_kernels import Variant, VariantWeights, _variants, _variants_reference
from lstm_kernels._layer import Layer

from .contenders import ours, run, run_module
from .onnx_peer import IR_VERSION, OPSET, weights
from .workload import Call, Unavailable, Workload

VARIANTS = {
    "peephole": Variant(peephole=True),
    "coupled": Variant(coupled="forget"),
    "clip": Variant(clip=3.0),
    "zoneout": Variant(zoneout_cell=0.1, zoneout_hidden=0.1),
    "dropout": Variant(recurrent_dropout=0.2),
    "dropout per gate": Variant(recurrent_dropout=0.2, dropout_on="gates"),
    "layer norm": Variant(layer_norm="separate", cell_norm="carried"),
    "joint layer norm": Variant(layer_norm="joint", cell_norm="carried"),
}


def module_of(workload: Workload) -> lstm_kernels.LSTM:
    """The case's variant with the workload's weights. It draws its masks where it trains."""
    case = workload.case
    torch.manual_seed(0)  # peepholes are drawn
    module = lstm_kernels.LSTM(case.input_size, case.H, variant=VARIANTS[case.variant])
    module.load_state_dict(workload.native.state_dict(), strict=False)
    return module.train(case.training)


def ours_variant(workload: Workload) -> Call:
    return run_module(workload, module_of(workload))


def ours_plain(workload: Workload) -> Call:
    """The plain LSTM of these sizes: what the variant costs in addition."""
    return ours(workload)


def eager_loop(workload: Workload) -> Call:
    """The variant's equations in torch, one step at a time."""
    module = module_of(workload)
    variant = VARIANTS[workload.case.variant]
    parameters = dict(module.named_parameters())
    own = [parameters[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    shapes = variant.weight_shapes(workload.case.H)
    of_variant = VariantWeights(**{name: parameters[f"{name}_l0"] for name in shapes})

    def forward() -> Tensor:
        x = workload.padded
        bound = variant.bind([of_variant] if shapes else [])
        call = _variants.call_of(x, own, 1, 1, None)
        tensors = bound.of_layer(0, x, call, module.training)
        layer = Layer(x, None, None, own, True, False)
        return _variants_reference.sequence_forward(layer, variant, tensors)[0]

    return run(workload, forward, list(module.parameters()))


def onnx_runtime(workload: Workload) -> Call:
    """ONNX Runtime's LSTM operator, which has peepholes, f = 1 - i and clip."""
    case = workload.case
    if case.training or case.variant not in ("peephole", "coupled", "clip"):
        raise Unavailable("ONNX's LSTM has peepholes, f = 1 - i and clip, for inference")
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed") from None
    module = module_of(workload).eval()
    values = dict(zip("wrb", weights(workload.native), strict=True))
    of_variant: dict[str, dict[str, Any]] = {
        "peephole": {},
        "coupled": {"input_forget": 1},
        "clip": {"clip": VARIANTS["clip"].clip},
    }
    attributes = of_variant[case.variant]
    names = ["x", "w", "r", "b"]
    if case.variant == "peephole":  # ours of i, f and o; ONNX's of i, o and f
        names += ["", "", "", "p"]
        i, f, o = module.get_parameter("peephole_l0").detach()
        values["p"] = torch.cat([i, o, f])[None].numpy()
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    shape = [case.T, case.N, case.input_size]
    graph = helper.make_graph(
        [helper.make_node("LSTM", names, ["y"], hidden_size=case.H, **attributes)],
        "lstm",
        [helper.make_tensor_value_info("x", floats, shape)],
        [helper.make_tensor_value_info("y", floats, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workload.threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = {"x": workload.padded.detach().numpy()}
    with torch.no_grad():
        expected = module(workload.padded)[0]
    found = torch.from_numpy(session.run(None, x)[0])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    return lambda: session.run(None, x)
