"""The ops of csrc/schema.cpp, each with the shapes of its results.

Under each op stands its fake kernel, which torch.compile and the meta device run instead. An op has
a function around it only where that adds something.

Most ops have two names (see csrc/schema.cpp). In eager mode the functions here call the one without
gradients. They call the one for graphs where the call is recorded, or where a mode sees every op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import _load
from ._layer import Layer, LayerBackward, gathering, kind_of
from ._torch_private import constant_in_graphs, fp32_precision, recording

_load.load()

# output, h_n, c_n, cell, gates; the same and the prepacked weights to use from now on
Forwarded = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
PrepackedForwarded = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
# h, c and gates
Stepped = tuple[Tensor, Tensor, Tensor]
# gradients of w_ih, of w_hh and, alike, of b_ih and b_hh
WeightGradients = tuple[Tensor, Tensor, Tensor]
# gradients of the pre-activations, of h0, of c0 and, with projection, of every h_t
Backward = tuple[Tensor, Tensor, Tensor, Tensor]

_Fake = TypeVar("_Fake", bound=Callable[..., Any])


def fake_of(
    op: str, kind: Callable[..., tuple[Any, ...]] | None = None
) -> Callable[[_Fake], _Fake]:
    """Registers the fake kernel of an op, which may take the first arguments as one of a kind."""

    def register(fake: _Fake) -> _Fake:
        of_op = fake if kind is None else gathering(kind, fake)
        for name in (op, op.removeprefix("_")):
            if hasattr(torch.ops.lstm_kernels, name):
                torch.library.register_fake(f"lstm_kernels::{name}", of_op)
        return fake

    return register


def reduced_precision(tensor: Tensor, recorded: bool | None = None) -> bool:
    """Whether torch lets products of float32 round their factors, as its switch for RNNs says.

    They may to TF32 on CUDA, where torch.backends.cudnn.rnn.fp32_precision is "tf32", and to
    bfloat16 on the CPU, where torch.backends.mkldnn.rnn.fp32_precision is "bf16".

    Args:
        recorded: what a graph was recorded with, which holds whatever the switch says by now.
    """
    if recorded is not None:
        return recorded
    if tensor.is_cuda:
        return tensor.dtype is torch.float32 and _precision_of_rnns("cuda") == "tf32"
    # First what is nearly always False: this is asked in every call.
    return (
        _precision_of_rnns("mkldnn") == "bf16" and tensor.is_cpu and tensor.dtype is torch.float32
    )


def multiplies_in_tf32(tensor: Tensor, reduced_precision: bool) -> bool:
    """Whether products are those of `tf32_product`."""
    return reduced_precision and tensor.is_cuda and tensor.dtype is torch.float32


@constant_in_graphs
def _precision_of_rnns(backend: str) -> str:
    precision: str = fp32_precision(backend, "rnn")
    return precision


def dense(reset: Tensor | None) -> Tensor | None:
    return None if reset is None else reset.contiguous()


def _one_device(tensor: Tensor, *others: Tensor | None) -> None:
    """Refuse tensors some of which only are on the meta device, as the ops of the others would."""
    if any(other is not None and other.device != tensor.device for other in others):
        raise RuntimeError("expected all tensors on one device")


def _batch(rows: Tensor, batch_sizes: Tensor | None, *states: Tensor | None) -> int | torch.SymInt:
    """N of an array of rows, which packed rows tell only through a state, (D, N, ...)."""
    if batch_sizes is None:
        return rows.shape[1]
    for state in states:
        if state is not None:
            return state.shape[1]
    return torch.library.get_ctx().new_dynamic_size()


# ---- one layer -----------------------------------------------------------------------------------

_sequence_forward: Callable[..., Forwarded] = torch.ops.lstm_kernels._sequence_forward.default
_recorded_forward: Callable[..., Forwarded] = torch.ops.lstm_kernels.sequence_forward.default


def sequence_forward(
    layer: Layer,
    save_cell: bool,
    save_gates: bool,
    recompute: bool = False,
    recorded: bool | None = None,
) -> Forwarded:
    """One layer: output, h_n, c_n, cell and gates. `recorded` is as in `reduced_precision`."""
    if not recording():
        return eager_sequence_forward(*layer, save_cell, save_gates, recorded)
    layer = layer._replace(reset=dense(layer.reset))
    reduced = reduced_precision(layer.input, recorded)
    return _recorded_forward(*layer, save_cell, save_gates, reduced, recompute)


def eager_sequence_forward(
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
    recorded: bool | None = None,
) -> Forwarded:
    """sequence_forward where nothing is recorded. Flat, since a Layer takes time to make."""
    ragged = batch_sizes is not None or lengths is not None or reset is not None
    reduced = reduced_precision(input, recorded)
    if not (ragged or save_cell or save_gates or reduced) and input.is_cpu:
        # torch looks into each argument that it is given, defaults too: a tenth of a small step.
        return _sequence_forward(input, h0, c0, weights, has_biases, bidirectional)
    layer = (input, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, dense(reset))
    return _sequence_forward(*layer, save_cell, save_gates, reduced)


@fake_of("_sequence_forward", Layer)
def forward_shapes(
    layer: Layer, save_cell: bool = False, save_gates: bool = False, *_: bool
) -> Forwarded:
    input, weights = layer.input, layer.weights
    _one_device(input, layer.h0, layer.c0, layer.lengths, layer.reset, *weights)
    rows = input.shape[:-1]  # (T, N), or (R) packed
    batch = _batch(input, layer.batch_sizes, layer.h0)
    directions = 1 + layer.bidirectional
    hidden_size, h_size = weights[0].shape[0] // 4, weights[1].shape[1]
    return (
        input.new_empty(*rows, directions * h_size),
        input.new_empty(directions, batch, h_size),
        input.new_empty(directions, batch, hidden_size),
        input.new_empty((*rows, directions * hidden_size) if save_cell else (0,)),
        input.new_empty((*rows, directions, 4, hidden_size) if save_gates else (0,)),
    )


_sequence_backward: Callable[..., Backward] = torch.ops.lstm_kernels._sequence_backward.default
_recorded_backward: Callable[..., Backward] = torch.ops.lstm_kernels.sequence_backward.default


def sequence_backward(call: LayerBackward, recorded: bool | None = None) -> Backward:
    """One layer: gradients of the pre-activations, h0, c0 and, with projection, of every h_t."""
    call = call._replace(reset=dense(call.reset))
    op = _recorded_backward if recording() else _sequence_backward
    return op(*call, reduced_precision(call.cell, recorded))


@fake_of("_sequence_backward", LayerBackward)
def backward_shapes(call: LayerBackward, reduced_precision: bool = False) -> Backward:
    cell, weights = call.cell, call.weights
    batch = _batch(cell, call.batch_sizes, call.c0, call.grad_h_n, call.grad_c_n)
    directions = 1 + call.bidirectional
    hidden_size, h_size = weights[0].shape[0] // 4, weights[1].shape[1]
    projects = kind_of(weights, directions).projects
    return (
        torch.empty_like(call.gates),
        cell.new_empty(directions, batch, h_size),
        cell.new_empty(directions, batch, hidden_size),
        cell.new_empty((*cell.shape[:-1], directions * h_size) if projects else (0,)),
    )


# ---- one layer on the CPU ------------------------------------------------------------------------

# (weights, has_biases, bidirectional, weight_dtype): one layer's weights for prepacked_forward
prepack_weights: Callable[..., Tensor] = torch.ops.lstm_kernels._prepack_weights.default


@fake_of("_prepack_weights")
def _prepacked_shape(weights: Sequence[Tensor], *_: Any) -> Tensor:
    # How many bytes depends on the instruction set.
    return weights[0].new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)


_prepacked_forward: Callable[..., PrepackedForwarded]
_prepacked_forward = torch.ops.lstm_kernels._prepacked_forward.default


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
) -> PrepackedForwarded:
    """sequence_forward on prepacked weights; last, those to use from now on, or an empty tensor."""
    layer = (input, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, dense(reset))
    return _prepacked_forward(*layer, save_cell, save_gates, prepacked)


@fake_of("_prepacked_forward", Layer)
def _prepacked_forward_shapes(
    layer: Layer, save_cell: bool, save_gates: bool, prepacked: Tensor
) -> PrepackedForwarded:
    renewed = prepacked.new_empty(torch.library.get_ctx().new_dynamic_size())
    return *forward_shapes(layer, save_cell, save_gates), renewed


_weight_gradients: Callable[..., WeightGradients]
_weight_gradients = torch.ops.lstm_kernels._weight_gradients.default
_recorded_weight_gradients: Callable[..., WeightGradients]
_recorded_weight_gradients = torch.ops.lstm_kernels.weight_gradients.default


def weight_gradients(
    grad_preactivations: Tensor,
    layer: Layer,
    output: Tensor,
    direction: int,
    gate_masks: Tensor | None = None,
    reduced_precision: bool = False,
) -> WeightGradients:
    """One direction: gradients of w_ih, w_hh and, alike, of b_ih and b_hh."""
    rest = (layer.batch_sizes, layer.lengths, dense(layer.reset), gate_masks, reduced_precision)
    op = _recorded_weight_gradients if recording() else _weight_gradients
    return op(grad_preactivations, layer.input, layer.h0, output, direction, *rest)


@fake_of("_weight_gradients")
def _weight_gradients_shapes(
    grad_preactivations: Tensor, input: Tensor, h0: Tensor | None, output: Tensor, *_: Any
) -> WeightGradients:
    directions, gates, hidden_size = grad_preactivations.shape[-3:]
    units = gates * hidden_size
    return (
        input.new_empty(units, input.shape[-1]),
        input.new_empty(units, output.shape[-1] // directions),
        input.new_empty(units),
    )


_input_gradient: Callable[..., Tensor] = torch.ops.lstm_kernels._input_gradient.default
_recorded_input_gradient: Callable[..., Tensor] = torch.ops.lstm_kernels.input_gradient.default


def input_gradient(
    grad_preactivations: Tensor,
    w_ih: Sequence[Tensor],
    lengths: Tensor | None,
    reduced_precision: bool = False,
) -> Tensor:
    """One layer: gradient of the input, from the w_ih of every direction."""
    op = _recorded_input_gradient if recording() else _input_gradient
    return op(grad_preactivations, w_ih, lengths, reduced_precision)


@fake_of("_input_gradient")
def _input_gradient_shape(grad_preactivations: Tensor, w_ih: Sequence[Tensor], *_: Any) -> Tensor:
    return grad_preactivations.new_empty(*grad_preactivations.shape[:-3], w_ih[0].shape[1])


# ---- one step ------------------------------------------------------------------------------------

# (input, h0, c0, w_ih, w_hh, b_ih, b_hh, save_gates): h, c and gates
eager_cell_forward: Callable[..., Stepped] = torch.ops.lstm_kernels._cell_forward.default
_recorded_cell_forward: Callable[..., Stepped] = torch.ops.lstm_kernels.cell_forward.default


def cell_forward(*arguments: Any) -> Stepped:
    """One step: h, c and gates."""
    return (_recorded_cell_forward if recording() else eager_cell_forward)(*arguments)


@fake_of("_cell_forward")
def _cell_forward_shapes(
    input: Tensor, h0: Tensor, c0: Tensor, *weights_and_save_gates: Any
) -> Stepped:
    *weights, save_gates = weights_and_save_gates
    _one_device(input, h0, c0, *weights)
    gates = (c0.shape[0], 4, c0.shape[1]) if save_gates else (0,)
    return h0.new_empty(h0.shape), c0.new_empty(c0.shape), c0.new_empty(gates)


_cell_backward: Callable[..., tuple[Tensor, Tensor]]
_cell_backward = torch.ops.lstm_kernels._cell_backward.default
_recorded_cell_backward: Callable[..., tuple[Tensor, Tensor]]
_recorded_cell_backward = torch.ops.lstm_kernels.cell_backward.default


def cell_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor,
    gates: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step: gradients of the pre-activations, (N, 4, H), and of c0."""
    op = _recorded_cell_backward if recording() else _cell_backward
    return op(grad_h, grad_c, grad_gates, c0, gates)


@fake_of("_cell_backward")
def _cell_backward_shapes(*arguments: Tensor | None) -> tuple[Tensor, Tensor]:
    *_, c0, gates = arguments
    assert c0 is not None
    assert gates is not None
    return torch.empty_like(gates), torch.empty_like(c0)


_tf32_product: Callable[..., Tensor] = torch.ops.lstm_kernels._tf32_product.default


def tf32_product(a: Tensor, b: Tensor) -> Tensor:
    """On CUDA, a @ b of float32 matrices, their elements rounded to TF32."""
    return _tf32_product(a, b)


@fake_of("_tf32_product")
def _tf32_product_shape(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


_pack_offsets: Callable[..., Tensor] = torch.ops.lstm_kernels._pack_offsets.default


def pack_offsets(batch_sizes: Tensor, rows: Tensor) -> Tensor:
    """The first row of each step and the number of all rows, (T + 1), on the device of `rows`."""
    if rows.is_cpu:
        return torch.nn.functional.pad(batch_sizes.cumsum(0), (1, 0))
    return _pack_offsets(batch_sizes, rows)


@fake_of("_pack_offsets")
def _pack_offsets_shape(batch_sizes: Tensor, rows: Tensor) -> Tensor:
    return rows.new_empty(batch_sizes.shape[0] + 1, dtype=torch.int64)
