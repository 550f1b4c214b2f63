"""ONNX: what torch.onnx.export needs to write our layers as ONNX's own LSTM nodes.

Needs the packages onnx and onnxscript, as torch.onnx.export itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._layer import kind_of


def translation_table() -> dict[Any, Callable[..., Any]]:
    """The translations of this library's ops, for torch.onnx.export.

    ::

        torch.onnx.export(model, (x,), "model.onnx", dynamo=True,
                          custom_translation_table=lstm_kernels.onnx.translation_table())

    Each layer becomes one LSTM node, in both directions if it has two, with `lengths` as its
    sequence_lens. The sizes T and N may be dynamic. What ONNX's LSTM does not have raises
    NotImplementedError during the export: the states and gates of every step, projections, resets
    and packed sequences.

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
            direction="bidirectional" if bidirectional else "forward",
            hidden_size=weights[1].shape[1],
        )
        # (T, D, N, H) to (T, N, D * H); 0 keeps a size.
        output = op.Reshape(op.Transpose(output, perm=[0, 2, 1, 3]), [0, 0, -1])
        nothing = op.Constant(value_floats=[])
        return output, h_n, c_n, nothing, nothing

    return {torch.ops.lstm_kernels.sequence_forward.default: sequence_forward}
