"""How many floating-point operations each op counts for in torch.utils.flop_counter.

As for torch's own ops these are the products alone, two operations per multiply-add; a backward
pass has twice those of its forward pass. Padding counts like any other row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from . import _load
from ._layer import by_direction

_load.load()
Shape = Sequence[int]


def _ops(*names: str) -> list[Any]:
    """Ops by the names that graphs use, each with the one that eager calls use, if it has one."""
    library = torch.ops.lstm_kernels
    both = [name for plain in names for name in (plain, f"_{plain}")]
    return [getattr(library, name) for name in both if hasattr(library, name)]


@register_flop_formula(_ops("sequence_forward", "prepacked_forward", "variant_forward"))
def _sequence_forward(
    input: Shape, h0: Any, c0: Any, weights: Sequence[Shape], *_: Any, **__: Any
) -> int:
    matrices = sum(math.prod(shape) for shape in weights if len(shape) == 2)
    return 2 * math.prod(input[:-1]) * matrices


@register_flop_formula(_ops("sequence_backward", "variant_backward"))
def _sequence_backward(*arguments: Any, out_shape: Sequence[Shape], **_: Any) -> int:
    """The gradient of each h_t, and with projection, of what was projected."""
    weights, bidirectional, gates = arguments[6], arguments[8], out_shape[0]
    directions = by_direction(weights, bidirectional)
    matrices = [w.w_hh for w in directions] + [w.w_hr for w in directions if w.w_hr is not None]
    rows = math.prod(gates[:-3])
    return int(2 * rows * sum(math.prod(shape) for shape in matrices))


@register_flop_formula(_ops("weight_gradients"))
def _weight_gradients(
    grad_preactivations: Shape, input: Shape, h0: Any, output: Shape, *_: Any, **__: Any
) -> int:
    *rows, directions, gates, hidden_size = grad_preactivations
    return 2 * math.prod(rows) * gates * hidden_size * (input[-1] + output[-1] // directions)


@register_flop_formula(_ops("input_gradient"))
def _input_gradient(grad_preactivations: Shape, w_ih: Sequence[Shape], *_: Any, **__: Any) -> int:
    return 2 * math.prod(grad_preactivations[:-3]) * sum(math.prod(shape) for shape in w_ih)


@register_flop_formula(_ops("cell_forward"))
def _cell_forward(
    input: Shape, h0: Any, c0: Any, w_ih: Shape, w_hh: Shape, *_: Any, **__: Any
) -> int:
    return 2 * input[0] * (math.prod(w_ih) + math.prod(w_hh))


@register_flop_formula(_ops("owned_forward", "owned_states"))
def _owned_forward(
    input: Shape,
    h0: Any,
    c0: Any,
    owned: Any,
    num_layers: int,
    hidden_size: int,
    h_size: int,
    bidirectional: bool,
    *_: Any,
    **__: Any,
) -> int:
    directions = 1 + bidirectional
    sizes = [input[-1], *[directions * h_size] * (num_layers - 1)]
    of_row = sum(4 * hidden_size * (size + h_size) for size in sizes)
    if h_size != hidden_size:
        of_row += num_layers * h_size * hidden_size
    return 2 * math.prod(input[:-1]) * directions * of_row


@register_flop_formula(_ops("owned_step"))
def _owned_step(input: Shape, h: Shape, c: Shape, owned: Any, *_: Any, **__: Any) -> int:
    flops: int = _owned_forward(input, None, None, owned, h[0], c[-1], h[-1], False)
    return flops


@register_flop_formula(_ops("owned_cell"))
def _owned_cell(input: Shape, h0: Shape, c0: Shape, owned: Any, *_: Any, **__: Any) -> int:
    return _owned_step(input, (1, *h0), (1, *c0), owned)
