"""The raw ops of csrc/schema.cpp, each with the shapes of its results.

Under each function stands its fake kernel, which torch.compile and the meta device run instead.

An op called on a tensor that wants a gradient silently gives none, so nothing here is public:
lstm_kernels.functional chooses between these and the differentiable functions of _autograd.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import _load
from ._layer import kind_of

_load.load()

_sequence_forward = torch.ops.lstm_kernels._sequence_forward.default
_prepack_weights = torch.ops.lstm_kernels._prepack_weights.default
_prepacked_forward = torch.ops.lstm_kernels._prepacked_forward.default
_sequence_backward = torch.ops.lstm_kernels._sequence_backward.default
_weight_gradients = torch.ops.lstm_kernels._weight_gradients.default
_input_gradient = torch.ops.lstm_kernels._input_gradient.default
_cell_forward = torch.ops.lstm_kernels._cell_forward.default
_cell_backward = torch.ops.lstm_kernels._cell_backward.default


_Fake = TypeVar("_Fake", bound=Callable[..., Any])


def _fake(op: str) -> Callable[[_Fake], _Fake]:
    """Registers the fake kernel of an op."""

    def register(fake: _Fake) -> _Fake:
        torch.library.register_fake(f"lstm_kernels::{op}", fake)
        return fake

    return register


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _allow_tf32(tensor: Tensor) -> bool:
    """Whether torch lets cuDNN's LSTM, and so this one, multiply float32 in TF32."""
    return (
        tensor.is_cuda
        and tensor.dtype is torch.float32
        and torch.backends.cudnn.rnn.fp32_precision == "tf32"  # type: ignore[attr-defined]
    )


def _one_device(tensor: Tensor, *others: Tensor | None) -> None:
    """Refuse tensors some of which only are on the meta device, as the ops of the others would."""
    if any(other is not None and other.device != tensor.device for other in others):
        raise RuntimeError("expected all tensors on one device")


def sequence_forward(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    save_cell: bool,
    save_gates: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One layer: output, h_n, c_n, cell and gates (see csrc/schema.cpp)."""
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    ragged = batch_sizes is not None or lengths is not None or reset is not None
    if not ragged and not save_cell and not save_gates and input.is_cpu:
        # torch looks into each argument that it is given, defaults too: a tenth of a small step.
        result = _sequence_forward(input, h0, c0, weights, has_biases, bidirectional)
        return result
    result = _sequence_forward(
        input,
        h0,
        c0,
        weights,
        has_biases,
        bidirectional,
        batch_sizes,
        lengths,
        _dense(reset),
        save_cell,
        save_gates,
        _allow_tf32(input),
    )
    return result


@_fake("_sequence_forward")
def _sequence_forward_shapes(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None = None,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    save_cell: bool = False,
    save_gates: bool = False,
    allow_tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    _one_device(input, h0, c0, lengths, reset, *weights)
    rows = input.shape[:-1]  # (T, N), or (R) packed
    if batch_sizes is None:
        batch: int | torch.SymInt = rows[1]
    elif h0 is not None:
        batch = h0.shape[1]
    else:
        batch = torch.library.get_ctx().new_dynamic_size()
    directions = 1 + bidirectional
    hidden_size, h_size = weights[0].shape[0] // 4, weights[1].shape[1]
    cell = (*rows, directions * hidden_size) if save_cell else (0,)
    gates = (*rows, directions, 4, hidden_size) if save_gates else (0,)
    return (
        input.new_empty(*rows, directions * h_size),
        input.new_empty(directions, batch, h_size),
        input.new_empty(directions, batch, hidden_size),
        input.new_empty(cell),
        input.new_empty(gates),
    )


def prepack_weights(
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    weight_dtype: torch.dtype | None,
) -> Tensor:
    """One layer's weights, laid out for prepacked_forward."""
    with torch.no_grad():
        prepacked: Tensor = _prepack_weights(weights, has_biases, bidirectional, weight_dtype)
    return prepacked


@_fake("_prepack_weights")
def _prepack_weights_shapes(
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    weight_dtype: torch.dtype | None,
) -> Tensor:
    # How many bytes depends on the instruction set.
    size = torch.library.get_ctx().new_dynamic_size()
    return weights[0].new_empty(size, dtype=torch.uint8)


def prepacked_forward(
    prepacked: Tensor,
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    save_cell: bool,
    save_gates: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """sequence_forward on prepacked weights; last, those to use from now on, or an empty tensor."""
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _prepacked_forward(
        input,
        h0,
        c0,
        weights,
        has_biases,
        bidirectional,
        batch_sizes,
        lengths,
        _dense(reset),
        save_cell,
        save_gates,
        prepacked,
    )
    return result


@_fake("_prepacked_forward")
def _prepacked_forward_shapes(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    save_cell: bool,
    save_gates: bool,
    prepacked: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    kind = (has_biases, bidirectional)
    ragged = (batch_sizes, lengths, reset)
    results = _sequence_forward_shapes(
        input, h0, c0, weights, *kind, *ragged, save_cell, save_gates
    )
    return *results, prepacked.new_empty(torch.library.get_ctx().new_dynamic_size())


def sequence_backward(
    grad_output: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_cell: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    cell: Tensor,
    gates: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One layer: gradients of the pre-activations, h0, c0 and, with projection, of every h_t."""
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _sequence_backward(
        grad_output,
        grad_h_n,
        grad_c_n,
        grad_cell,
        grad_gates,
        c0,
        weights,
        has_biases,
        bidirectional,
        batch_sizes,
        lengths,
        _dense(reset),
        cell,
        gates,
        _allow_tf32(cell),
    )
    return result


@_fake("_sequence_backward")
def _sequence_backward_shapes(
    grad_output: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_cell: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    cell: Tensor,
    gates: Tensor,
    allow_tf32: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    states = (c0, grad_h_n, grad_c_n)
    if batch_sizes is None:
        batch: int | torch.SymInt = cell.shape[1]
    elif any(state is not None for state in states):
        batch = next(state.shape[1] for state in states if state is not None)
    else:
        batch = torch.library.get_ctx().new_dynamic_size()
    directions = 1 + bidirectional
    hidden_size, h_size = weights[0].shape[0] // 4, weights[1].shape[1]
    projects = kind_of(weights, directions).projects
    return (
        torch.empty_like(gates),
        cell.new_empty(directions, batch, h_size),
        cell.new_empty(directions, batch, hidden_size),
        cell.new_empty((*cell.shape[:-1], directions * h_size) if projects else (0,)),
    )


def weight_gradients(
    grad_preactivations: Tensor,
    input: Tensor,
    h0: Tensor | None,
    output: Tensor,
    direction: int,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction on the CPU: gradients of w_ih, w_hh and, alike, of b_ih and b_hh."""
    result: tuple[Tensor, Tensor, Tensor] = _weight_gradients(
        grad_preactivations,
        input,
        h0,
        output,
        direction,
        batch_sizes,
        lengths,
        _dense(reset),
    )
    return result


@_fake("_weight_gradients")
def _weight_gradients_shapes(
    grad_preactivations: Tensor,
    input: Tensor,
    h0: Tensor | None,
    output: Tensor,
    direction: int,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    directions, gates, hidden_size = grad_preactivations.shape[-3:]
    units = gates * hidden_size
    return (
        input.new_empty(units, input.shape[-1]),
        input.new_empty(units, output.shape[-1] // directions),
        input.new_empty(units),
    )


def input_gradient(
    grad_preactivations: Tensor, w_ih: Sequence[Tensor], lengths: Tensor | None
) -> Tensor:
    """One layer on the CPU: gradient of the input, from the w_ih of every direction."""
    result: Tensor = _input_gradient(grad_preactivations, w_ih, lengths)
    return result


@_fake("_input_gradient")
def _input_gradient_shapes(
    grad_preactivations: Tensor, w_ih: Sequence[Tensor], lengths: Tensor | None
) -> Tensor:
    return grad_preactivations.new_empty(*grad_preactivations.shape[:-3], w_ih[0].shape[1])


def cell_forward(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    save_gates: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: h, c and gates."""
    result: tuple[Tensor, Tensor, Tensor] = _cell_forward(
        input, h0, c0, w_ih, w_hh, b_ih, b_hh, save_gates
    )
    return result


@_fake("_cell_forward")
def _cell_forward_shapes(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    save_gates: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    _one_device(input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    gates = (c0.shape[0], 4, c0.shape[1]) if save_gates else (0,)
    return h0.new_empty(h0.shape), c0.new_empty(c0.shape), c0.new_empty(gates)


def cell_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor,
    c: Tensor,
    gates: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step: gradients of the pre-activations, (N, 4, H), and of c0."""
    result: tuple[Tensor, Tensor] = _cell_backward(
        _dense(grad_h),
        _dense(grad_c),
        _dense(grad_gates),
        c0.contiguous(),
        c.contiguous(),
        gates.contiguous(),
    )
    return result


@_fake("_cell_backward")
def _cell_backward_shapes(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor,
    c: Tensor,
    gates: Tensor,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(gates), torch.empty_like(c0)
