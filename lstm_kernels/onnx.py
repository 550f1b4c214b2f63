"""ONNX: our layers as ONNX's own LSTM nodes, for torch.onnx.export, and such nodes as modules.

Needs the packages onnx and onnxscript, as torch.onnx.export itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._layer import kind_of
from ._onnx_node import OnnxLSTM, from_node
from ._variant_ops import variant_of
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


def translation_table() -> dict[Any, Callable[..., Any]]:
    """The translations of this library's ops, for torch.onnx.export.

    ::

        torch.onnx.export(model, (x,), "model.onnx", dynamo=True,
                          custom_translation_table=lstm_kernels.onnx.translation_table())

    Each layer becomes one LSTM node, in both directions if it has two, with `lengths` as its
    sequence_lens. The sizes T and N may be dynamic. Of variants ONNX has peepholes, f = 1 - i, clip
    and activations. What ONNX's LSTM does not have raises NotImplementedError during the export:
    the states and gates of every step, projections, resets, packed sequences and other variants.

    Raises:
        ImportError: onnxscript is missing.
    """
    import onnxscript

    op: Any = onnxscript.opset18  # its annotations leave out the constants that it takes

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
    ) -> tuple[Any, Any, Any, Any, Any]:
        of_direction = kind_of(weights, 1 + bidirectional)
        for problem, present in (
            ("the states and gates of every step", save_cell or save_gates),
            ("projections", of_direction.projects),
            ("resets", reset is not None),
            ("packed sequences", batch_sizes is not None),
        ):
            if present:
                raise NotImplementedError(f"ONNX's LSTM has no {problem}")

        def stacked(*kinds: int) -> Any:
            """The weights of these kinds, (D, len(kinds) * 4*H, ...), gates in ONNX's order."""
            directions = []
            for start in range(0, len(weights), of_direction.each):
                rows = []
                for kind in kinds:
                    i, f, g, o = op.Split(weights[start + kind], num_outputs=4)
                    rows += [i, o, f, g]
                directions.append(op.Unsqueeze(op.Concat(*rows, axis=0), [0]))
            return op.Concat(*directions, axis=0)

        output, h_n, c_n = op.LSTM(
            input,
            stacked(0),
            stacked(1),
            stacked(2, 3) if has_biases else None,
            None if lengths is None else op.Cast(lengths, to=6),  # 6: int32
            h0,
            c0,
            peepholes,
            direction="bidirectional" if bidirectional else "forward",
            hidden_size=weights[1].shape[1],
            **attributes,
        )
        # (T, D, N, H) to (T, N, D * H); 0 keeps a size.
        output = op.Reshape(op.Transpose(output, perm=[0, 2, 1, 3]), [0, 0, -1])
        nothing = op.Constant(value_floats=[])
        return output, h_n, c_n, nothing, nothing

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
        input_gate: Any,
        hidden_mask: Any,
        candidate_mask: Any,
        zoneout_cell: Any,
        zoneout_hidden: Any,
        options: Sequence[float],
        save_cell: bool,
        save_gates: bool,
    ) -> tuple[Any, Any, Any, Any, Any]:
        variant = variant_of(options, on_candidate=False)
        masks = (hidden_mask, candidate_mask, zoneout_cell, zoneout_hidden)
        for problem, present in (
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
        return sequence_forward(
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

    ops = torch.ops.lstm_kernels
    return {
        ops.sequence_forward.default: sequence_forward,
        ops.variant_forward.default: variant_forward,
    }
