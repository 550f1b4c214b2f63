"""Contenders for variants of the LSTM: ours, the same equations in eager torch, other libraries."""

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import lstm_kernels
from lstm_kernels import Masks, Variant, VariantWeights, _variants, _variants_reference
from lstm_kernels._layer import Layer

from .contenders import ours, run, run_module
from .onnx_peer import IR_VERSION, OPSET, weights
from .workload import Call, Unavailable, Workload, installed

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
    return loop(workload, _variants_reference.step)


def compiled_loop(workload: Workload) -> Call:
    """The same loop, its step compiled, for this variant alone: torch compiles eight at most."""
    torch.compiler.reset()
    return loop(workload, torch.compile(_variants_reference.step))


def loop(workload: Workload, step: Callable[..., Any]) -> Call:
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
        with mock.patch.object(_variants_reference, "step", step):
            return _variants_reference.sequence_forward(layer, variant, tensors)[0]

    return run(workload, forward, list(module.parameters()))


def onnx_runtime(workload: Workload) -> Call:
    """ONNX Runtime's LSTM operator, which has peepholes, f = 1 - i and clip."""
    case = workload.case
    if case.training or case.variant not in ("peephole", "coupled", "clip"):
        raise Unavailable("ONNX's LSTM has peepholes, f = 1 - i and clip, for inference")
    onnx, onnxruntime = installed("onnx"), installed("onnxruntime")
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


def keras(workload: Workload) -> Call:
    """Keras' LSTM with recurrent dropout, on torch."""
    case = workload.case
    if case.variant != "dropout per gate":
        raise Unavailable("Keras has dropout per gate")
    os.environ["KERAS_BACKEND"] = "torch"  # read when it is imported
    library = installed("keras")
    if library.backend.backend() != "torch":
        raise Unavailable("Keras has been imported with another backend")
    rate = VARIANTS[case.variant].recurrent_dropout
    layer = library.layers.LSTM(case.H, return_sequences=True, recurrent_dropout=rate)
    layer.build((case.N, case.T, case.input_size))
    w_ih, w_hh, b_ih, b_hh = (value.detach() for value in workload.native.parameters())
    layer.set_weights([w_ih.mT.numpy(), w_hh.mT.numpy(), (b_ih + b_hh).numpy()])
    module, masks = module_of(workload), None
    if case.training:  # once with the same masks: Keras forgets what it was given
        drawn = torch.full((case.N, 1, 4, case.H), 1 - rate).bernoulli() / (1 - rate)
        masks = [Masks(recurrent=drawn)]
        layer.cell._recurrent_dropout_mask = list(drawn.squeeze(1).unbind(1))

    def forward() -> Tensor:
        output: Tensor = layer(workload.padded.transpose(0, 1), training=case.training)
        return output.transpose(0, 1)

    with torch.no_grad():
        expected = module(workload.padded, masks=masks)[0]
        torch.testing.assert_close(forward(), expected, rtol=1e-4, atol=1e-5)
    return run(workload, forward, [weight.value for weight in layer.trainable_weights])


def torchaudio(workload: Workload) -> Call:
    """The LSTM with layer norm of torchaudio's RNN-T."""
    case = workload.case
    if case.variant != "joint layer norm":
        raise Unavailable("torchaudio has a joint layer norm")
    # Its library may be made for another torch. The LSTM needs none.
    extension = ModuleType("torchaudio._extension")
    vars(extension).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=lambda function: function
    )
    sys.modules.setdefault(extension.__name__, extension)
    made = installed("torchaudio.models.rnnt")._CustomLSTM
    theirs, module = made(case.input_size, case.H, layer_norm=True), module_of(workload)
    ours = module.state_dict()
    names = ("weight_ih", "weight_hh", "norm_gates", "norm_cell", "bias_ih", "bias_hh")
    w_ih, w_hh, of_gates, of_cell, b_ih, b_hh = (ours[f"{name}_l0"] for name in names)
    of_ours = {"x2g.weight": w_ih, "p2g.weight": w_hh}
    of_ours |= {"g_norm.weight": of_gates[0], "g_norm.bias": b_ih + b_hh}
    of_ours |= {"c_norm.weight": of_cell[0], "c_norm.bias": of_cell[1]}
    theirs.load_state_dict(of_ours)

    def forward() -> Tensor:
        output: Tensor = theirs(workload.padded, None)[0]
        return output

    with torch.no_grad():
        expected = module(workload.padded)[0]
        torch.testing.assert_close(forward(), expected, rtol=1e-4, atol=1e-5)
    return run(workload, forward, list(theirs.parameters()))
