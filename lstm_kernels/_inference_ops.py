"""The ops on weights that an inference module owns, each with the shapes of its results.

They have no gradients: lstm_kernels.inference refuses to call them where one is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import _load
from ._ops import dense, fake_of, reduced_precision

_load.load()

#: One step on (input, h, c, owned, reset=None): h and c are updated where they are. Bound as it is,
#: for a function around it would take longer than it does.
owned_step: Callable[..., Tensor] = torch.ops.lstm_kernels._owned_step.default
_own_weights = torch.ops.lstm_kernels._own_weights.default
_own_quantized = torch.ops.lstm_kernels._own_quantized.default
_owned_forward = torch.ops.lstm_kernels._owned_forward.default
_owned_cell = torch.ops.lstm_kernels._owned_cell.default
_owned_states = torch.ops.lstm_kernels._owned_states.default


def own_weights(
    weights: Sequence[Tensor],
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    weight_dtype: torch.dtype | None,
) -> Tensor:
    """The weights of all layers, laid out for the ops below, in the precision of this moment."""
    kind, reduced = (has_biases, bidirectional, weight_dtype), reduced_precision(weights[0])
    owned: Tensor = _own_weights(weights, num_layers, *kind, reduced)
    return owned


@fake_of("_own_weights")
def _own_weights_shapes(
    weights: Sequence[Tensor],
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    weight_dtype: torch.dtype | None,
    reduced_precision: bool,
) -> Tensor:
    # How many bytes depends on the instruction set.
    size = torch.library.get_ctx().new_dynamic_size()
    return weights[0].new_empty(size, dtype=torch.uint8)


def own_quantized(
    weights: Sequence[Tensor],
    scales: Sequence[Tensor],
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
) -> Tensor:
    """own_weights for int8 matrices with the scales of their rows, and float32 biases."""
    owned: Tensor = _own_quantized(weights, scales, num_layers, has_biases, bidirectional)
    return owned


@fake_of("_own_quantized")
def _own_quantized_shapes(
    weights: Sequence[Tensor],
    scales: Sequence[Tensor],
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
) -> Tensor:
    return _own_weights_shapes(weights, num_layers, has_biases, bidirectional, None, False)


class OwnedCall(NamedTuple):
    """The arguments that the ops on a stack of layers share (see csrc/schema.cpp)."""

    input: Tensor
    h0: Tensor | None
    c0: Tensor | None
    owned: Tensor
    num_layers: int
    hidden_size: int
    h_size: int
    bidirectional: bool
    batch_sizes: Tensor | None = None
    lengths: Tensor | None = None
    reset: Tensor | None = None


def owned_forward(call: OwnedCall) -> tuple[Tensor, Tensor, Tensor]:
    """A stack of layers: output, h_n and c_n."""
    result: tuple[Tensor, Tensor, Tensor]
    if call.batch_sizes is None and call.lengths is None and call.reset is None:
        # torch looks into each argument that it is given, defaults too.
        result = _owned_forward(*call[:8])
    else:
        result = _owned_forward(*call._replace(reset=dense(call.reset)))
    return result


@fake_of("_owned_forward", OwnedCall)
def _owned_forward_shapes(call: OwnedCall) -> tuple[Tensor, Tensor, Tensor]:
    rows = call.input.shape[:-1]  # (T, N), or (R) packed
    if call.batch_sizes is None:
        batch: int | torch.SymInt = rows[1]
    elif call.h0 is not None:
        batch = call.h0.shape[1]
    else:
        batch = torch.library.get_ctx().new_dynamic_size()
    directions = 1 + call.bidirectional
    return (
        call.input.new_empty(*rows, directions * call.h_size),
        call.input.new_empty(call.num_layers * directions, batch, call.h_size),
        call.input.new_empty(call.num_layers * directions, batch, call.hidden_size),
    )


_States = tuple[list[Tensor], Tensor, Tensor, list[Tensor], list[Tensor]]


def owned_states(call: OwnedCall, save_gates: bool) -> _States:
    """The same with every step's states, layer by layer: hidden, h_n, c_n, cell and gates."""
    result: _States = _owned_states(*call._replace(reset=dense(call.reset)), save_gates)
    return result


@fake_of("_owned_states", OwnedCall)
def _owned_states_shapes(call: OwnedCall, save_gates: bool) -> _States:
    output, h_n, c_n = _owned_forward_shapes(call)
    rows, directions = call.input.shape[:-1], 1 + call.bidirectional
    cell = (*rows, directions * call.hidden_size)
    gates = (*rows, directions, 4, call.hidden_size)
    layers = range(call.num_layers)
    return (
        [torch.empty_like(output) for _ in layers],
        h_n,
        c_n,
        [call.input.new_empty(cell) for _ in layers],
        [call.input.new_empty(gates) for _ in layers if save_gates],
    )


def owned_cell(
    input: Tensor, h0: Tensor, c0: Tensor, owned: Tensor, save_gates: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one layer: h, c and gates."""
    result: tuple[Tensor, Tensor, Tensor] = _owned_cell(input, h0, c0, owned, save_gates)
    return result


@fake_of("_owned_cell")
def _owned_cell_shapes(
    input: Tensor, h0: Tensor, c0: Tensor, owned: Tensor, save_gates: bool
) -> tuple[Tensor, Tensor, Tensor]:
    gates = (c0.shape[0], 4, c0.shape[1]) if save_gates else (0,)
    return h0.new_empty(h0.shape), c0.new_empty(c0.shape), c0.new_empty(gates)


@fake_of("_owned_step")
def _owned_step_shapes(
    input: Tensor, h: Tensor, c: Tensor, owned: Tensor, reset: Tensor | None = None
) -> Tensor:
    return input.new_empty(input.shape[0], h.shape[2])
