"""ONNX: our layers as ONNX's own LSTM nodes, for torch.onnx.export, and such nodes as modules.

Its older exporter (`dynamo=False`) needs nothing more for a model that holds our modules; one of
them alone it calls with keyword arguments by position: put it into an nn.Sequential. The newer
exporter (`dynamo=True`) needs the packages onnx and onnxscript, and the table that
`translation_table` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from . import _torch_private
from ._layer import kind_of
from ._onnx_node import OnnxLSTM, from_node
from ._variant_ops import GivenTensors, variant_of
from ._variants import ACTIVATIONS

__all__ = ["OnnxLSTM", "from_node", "translation_table"]

_ONNX_NAMES = {
    name.lower(): name
    for name in (
        "Sigmoid",
        "Tanh",
        "Relu",
        "Affine",
        "LeakyRelu",
        "ThresholdedRelu",
        "ScaledTanh",
        "HardSigmoid",
        "Elu",
        "Softsign",
        "Softplus",
    )
}

_OLDEST_OPSET = 14  # of those that torch.onnx.export still writes


def translation_table() -> dict[Any, Callable[..., Any]]:
    """The translations of this library's ops, for torch.onnx.export.

    Each layer becomes one LSTM node, in both directions if it has two, with `lengths` as its
    sequence_lens; an LSTMCell becomes one of a single step, or with gates the equations. The sizes
    T and N may be dynamic. Of variants ONNX has peepholes, f = 1 - i, clip and activations. What
    ONNX's LSTM does not have raises NotImplementedError during the export: the states and gates of
    every step, projections, resets, packed sequences and other variants.

    Raises:
        ImportError: onnxscript is missing.

    Examples:
        >>> import torch
        >>> import lstm_kernels
        >>> program = torch.onnx.export(
        ...     lstm_kernels.LSTM(3, 4).eval(),
        ...     (torch.randn(5, 2, 3),),
        ...     dynamo=True,
        ...     verbose=False,
        ...     custom_translation_table=lstm_kernels.onnx.translation_table(),
        ... )
        >>> "LSTM" in {node.op_type for node in program.model.graph}
        True
    """
    import onnxscript

    op: Any = onnxscript.opset18  # its annotations leave out the constants that it takes
    translations = _translations(op, lambda value: value.shape)
    library = torch.ops.lstm_kernels
    return {getattr(library, name).default: run for name, run in translations.items()}


def _translations(
    op: Any, shape: Callable[[Any], Sequence[int]]
) -> dict[str, Callable[..., tuple[Any, ...]]]:
    """Each op in ONNX, of which `op` makes nodes; `shape` tells the shape of a weight."""

    def in_onnx_order(weight: Any) -> Any:
        """Rows i, f, g, o as i, o, f, g."""
        rows = torch.arange(shape(weight)[0]).view(4, -1)[[0, 3, 1, 2]].flatten()
        return op.Gather(weight, op.Constant(value_ints=rows.tolist()), axis=0)

    def of_directions(directions: Sequence[Sequence[Any]]) -> Any:
        """The weights of each direction below each other, (D, rows, ...)."""
        first = op.Constant(value_ints=[0])
        each = []
        for weights in directions:
            rows = [in_onnx_order(weight) for weight in weights]
            joined = rows[0] if len(rows) == 1 else op.Concat(*rows, axis=0)
            each.append(op.Unsqueeze(joined, first))
        return each[0] if len(each) == 1 else op.Concat(*each, axis=0)

    def nothing() -> Any:
        return op.Constant(value_floats=[])

    def sequence_forward(
        input: Any,
        h0: Any,
        c0: Any,
        weights: Sequence[Any],
        has_biases: bool,
        bidirectional: bool,
        batch_sizes: Any = None,
        lengths: Any = None,
        reset: Any = None,
        save_cell: bool = False,
        save_gates: bool = False,
        *_: bool,
        peepholes: Any = None,
        **attributes: Any,
    ) -> tuple[Any, ...]:
        kind = kind_of(weights, 1 + bidirectional)
        for problem, present in (
            ("the states and gates of every step", save_cell or save_gates),
            ("projections", kind.projects),
            ("resets", reset is not None),
            ("packed sequences", batch_sizes is not None),
        ):
            if present:
                raise NotImplementedError(f"ONNX's LSTM has no {problem}")
        starts = range(0, len(weights), kind.each)
        output, h_n, c_n = op.LSTM(
            input,
            of_directions([weights[k : k + 1] for k in starts]),
            of_directions([weights[k + 1 : k + 2] for k in starts]),
            of_directions([weights[k + 2 : k + 4] for k in starts]) if has_biases else None,
            None if lengths is None else op.Cast(lengths, to=6),  # 6: int32
            h0,
            c0,
            peepholes,
            direction="bidirectional" if bidirectional else "forward",
            hidden_size=shape(weights[1])[1],
            **attributes,
        )
        # (T, D, N, H) to (T, N, D * H); 0 keeps a size.
        output = op.Transpose(output, perm=[0, 2, 1, 3])
        output = op.Reshape(output, op.Constant(value_ints=[0, 0, -1]))
        return output, h_n, c_n, nothing(), nothing()

    def variant_forward(
        input: Any,
        h0: Any,
        c0: Any,
        weights: Sequence[Any],
        has_biases: bool,
        bidirectional: bool,
        batch_sizes: Any,
        lengths: Any,
        reset: Any,
        peephole: Any,
        norm_gates: Any,
        norm_cell: Any,
        input_gate: Any,
        hidden_mask: Any,
        gate_masks: Any,
        candidate_mask: Any,
        zoneout_cell: Any,
        zoneout_hidden: Any,
        options: Sequence[float],
        save_cell: bool,
        save_gates: bool,
        reduced_precision: bool,
    ) -> tuple[Any, ...]:
        masks = (hidden_mask, gate_masks, candidate_mask, zoneout_cell, zoneout_hidden)
        variant = variant_of(options, GivenTensors(peephole, None, None, input_gate, *masks))
        for problem, present in (
            ("layer norm", norm_gates is not None or norm_cell is not None),
            ("i = 1 - f", variant.coupled == "input"),
            ("bound on the cell state", variant.cell_clip is not None),
            ("input gate from outside", input_gate is not None),
            ("dropout and zoneout", any(mask is not None for mask in masks)),
            ("zoneout", variant.zoneout_cell > 0 or variant.zoneout_hidden > 0),
        ):
            if present:
                raise NotImplementedError(f"ONNX's LSTM has no {problem}")
        attributes: dict[str, Any] = {"input_forget": int(variant.coupled == "forget")}
        if variant.clip is not None:
            attributes["clip"] = variant.clip
        activations = variant.each_activation * (1 + bidirectional)
        attributes["activations"] = [_ONNX_NAMES[one.name] for one in activations]
        alphas, betas = (
            [one[1 + k] for one in activations if len(ACTIVATIONS[one.name]) > k] for k in range(2)
        )
        attributes |= {"activation_alpha": alphas} if alphas else {}
        attributes |= {"activation_beta": betas} if betas else {}
        peepholes = None
        if peephole is not None:  # (D, 3, H) of i, f, o; ONNX's are of i, o, f
            order = op.Constant(value_ints=[0, 2, 1])
            peepholes = op.Reshape(op.Gather(peephole, order, axis=1), [0, -1])
        ragged = (batch_sizes, lengths, reset)
        kind = (has_biases, bidirectional)
        results = sequence_forward(
            input,
            h0,
            c0,
            weights,
            *kind,
            *ragged,
            save_cell,
            save_gates,
            peepholes=peepholes,
            **attributes,
        )
        return *results, nothing()

    def cell_forward(
        input: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, save_gates: bool
    ) -> tuple[Any, ...]:
        if save_gates:
            return equations(input, h0, c0, w_ih, w_hh, b_ih, b_hh)
        first = op.Constant(value_ints=[0])
        _, h, c = op.LSTM(
            op.Unsqueeze(input, first),
            of_directions([[w_ih]]),
            of_directions([[w_hh]]),
            None if b_ih is None else of_directions([[b_ih, b_hh]]),
            None,
            op.Unsqueeze(h0, first),
            op.Unsqueeze(c0, first),
            direction="forward",
            hidden_size=shape(w_hh)[1],
        )
        return op.Squeeze(h, first), op.Squeeze(c, first), nothing()

    def equations(
        input: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any
    ) -> tuple[Any, ...]:
        """A step with its gates, which ONNX's LSTM does not return."""
        z = op.Add(
            op.MatMul(input, op.Transpose(w_ih, perm=[1, 0])),
            op.MatMul(h0, op.Transpose(w_hh, perm=[1, 0])),
        )
        if b_ih is not None:
            z = op.Add(z, op.Add(b_ih, b_hh))
        z = op.Reshape(z, op.Constant(value_ints=[0, 4, -1]))
        i, f, g, o = (
            function(op.Gather(z, op.Constant(value_int=gate), axis=1))
            for gate, function in enumerate((op.Sigmoid, op.Sigmoid, op.Tanh, op.Sigmoid))
        )
        c = op.Add(op.Mul(f, c0), op.Mul(i, g))
        second = op.Constant(value_ints=[1])
        gates = op.Concat(*(op.Unsqueeze(gate, second) for gate in (i, f, g, o)), axis=1)
        return op.Mul(o, op.Tanh(c)), c, gates

    return {
        "sequence_forward": sequence_forward,
        "variant_forward": variant_forward,
        "cell_forward": cell_forward,
    }


class _Nodes:
    """Makes nodes in a graph of the older exporter, called like onnxscript's opset."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def node(*inputs: Any, **attributes: Any) -> Any:
            given = [self._absent() if value is None else value for value in inputs]
            outputs = {"outputs": 3} if name == "LSTM" else {}
            named = {f"{key}_{_letter(value)}": value for key, value in attributes.items()}
            return self._graph.op(name, *given, **named, **outputs)

        return node

    def Constant(self, **value: Any) -> Any:
        (number,) = value.values()
        dtype = torch.float32 if "value_floats" in value else torch.int64
        return self._graph.op("Constant", value_t=torch.tensor(number, dtype=dtype))

    def _absent(self) -> Any:
        absent = self._graph.op("prim::Constant")
        absent.setType(_torch_private.optional_tensor_type())
        return absent


def _letter(value: Any) -> str:
    return "s" if isinstance(value, str) else "i"


def _argument(value: Any) -> Any:
    """An argument of an op in a graph of the older exporter: a number, None or values."""
    node = value.node()
    if node.kind() == "prim::ListConstruct":
        return [*node.inputs()]
    if node.mustBeNone():
        return None
    if value.type().kind() in ("BoolType", "IntType"):
        return value.toIValue()
    if node.kind() == "onnx::Constant" and node.t("value").dtype is torch.bool:
        return bool(node.t("value"))
    return value


def _register_with_the_older_exporter() -> None:
    def symbolic(name: str) -> Callable[..., Any]:
        def run(graph: Any, *arguments: Any) -> tuple[Any, ...]:
            translations = _translations(_Nodes(graph), lambda value: value.type().sizes())
            return translations[name](*map(_argument, arguments))

        return run

    for name in ("sequence_forward", "cell_forward"):
        torch.onnx.register_custom_op_symbolic(  # type: ignore[attr-defined]
            f"lstm_kernels::{name}", symbolic(name), _OLDEST_OPSET
        )


_register_with_the_older_exporter()
