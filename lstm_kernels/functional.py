"""LSTM and LSTMCell as functions: they check arguments once, choose the gradients, call the ops.

Arguments are checked first, except on the fast path (eager, no gradients, no transforms). There the
op validates them; if it fails, the same checks run to make the message, in torch.nn.LSTM's words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, is_grad_enabled
from torch.compiler import is_dynamo_compiling
from torch.nn.utils.rnn import PackedSequence

from . import _autograd, _checks, _episodes, _ops, _overloads, _variant_autograd, _variants
from ._layer import Layer, kind_of
from ._prepacked import Prepacked
from ._states import LSTMStates
from ._torch_private import (
    any_autocast_enabled,
    count_dispatch_modes,
    forward_mode_active,
    never_compile,
    recording,
    tracing_paused,
    tracing_state,
    transforms_active,
)
from ._variants import BoundVariant, Variant

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._types import (
        Returned,
        ReturnedStates,
        Rows,
        SequenceOptions,
        StepOptions,
        Stepped,
        SteppedGates,
    )

_NOTHING_ELSE = contextlib.nullcontext()


@overload
def lstm(
    input: Rows,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    *,
    return_states: Literal[False] = False,
    return_gates: Literal[False] = False,
    **options: Unpack[SequenceOptions],
) -> Returned[Rows]: ...
@overload
def lstm(
    input: Rows,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    *,
    return_states: Literal[True],
    return_gates: bool = False,
    **options: Unpack[SequenceOptions],
) -> ReturnedStates[Rows]: ...
@overload
def lstm(
    input: Rows,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    *,
    return_states: bool = False,
    return_gates: Literal[True],
    **options: Unpack[SequenceOptions],
) -> ReturnedStates[Rows]: ...
@overload
def lstm(
    input: Rows,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    *,
    return_states: bool = False,
    return_gates: bool = False,
    **options: Unpack[SequenceOptions],
) -> Returned[Rows] | ReturnedStates[Rows]: ...
def lstm(
    input: Tensor | PackedSequence,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    training: bool = False,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reset_state: Sequence[Tensor] | None = None,
    return_states: bool = False,
    return_gates: bool = False,
    recompute: bool = False,
    variant: Variant | BoundVariant | None = None,
    _prepacked: Prepacked | None = None,
) -> Any:
    """A stack of LSTM layers over a sequence (equations: see lstm_kernels.LSTM).

    Args:
        input: (T, N, I), unbatched (T, I), (N, T, I) with batch_first, or a PackedSequence;
            float32, float64, bfloat16 or float16.
        hx: `(h_0, c_0)`, (L * D, N, H_out) and (L * D, N, H), without N for unbatched input, in the
            original order of the sequences for packed input; zeros if None.
        weights: for each layer and direction, as in `torch.nn.LSTM._flat_weights`: w_ih (4*H, I),
            w_hh (4*H, H_out), then b_ih (4*H) and b_hh (4*H) if there are biases, then w_hr
            (H_out, H) if the layers project. Their number says which.
        num_layers, bidirectional, batch_first: as in torch.nn.LSTM.
        dropout: probability with which elements are zeroed between layers when `training`.
        lengths: (N,) integers: sequence n of the padded input ends after lengths[n] steps. Outputs
            and states are zero past each end; h_n and c_n are those of each last step.
        reset: (T, N) bool, or 0 and 1 in any dtype, (N, T) with batch_first: both states are zeroed
            before that step.
        reset_state: `(h, c)` like hx: what the states are set to there in place of zeros.
        return_states: also return the states of every step.
        return_gates: also return the gates of every step; implies return_states.
        recompute: keep nothing for the backward pass but the arguments of each layer, and run its
            forward pass again there. Same gradients, bit for bit. Without effect where the states
            are returned, which then are there anyway.
        variant: other equations: a Variant, or Variant.bind's result where it needs tensors.

    Returns:
        `(output, (h_n, c_n))`, or `(output, (h_n, c_n), states)` with `states` an LSTMStates.

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTM does, in its words.
        NotImplementedError: a dtype or device that has no kernel.
    """
    directions = 2 if bidirectional else 1
    # An op sees one layer, and no lengths or reset beyond what memory safety needs.
    ragged = lengths is not None or reset is not None
    look = num_layers != 1 or ragged or variant is not None or not _ops_look(input)
    overloaded = look and variant is None and _overloads.possible(input, hx, weights)
    if overloaded or reset_state is not None:
        options: dict[str, Any] = {
            "num_layers": num_layers,
            "bidirectional": bidirectional,
            "batch_first": batch_first,
            "dropout": dropout,
            "training": training,
            "lengths": lengths,
            "reset": reset,
            "reset_state": reset_state,
            "return_states": return_states,
            "return_gates": return_gates,
            "recompute": recompute,
        }
        result: Any = NotImplemented
        if overloaded:
            result = _overloads.lstm(lstm, input, hx, weights, **options)
        if result is NotImplemented and reset_state is not None:
            if variant is not None:
                raise ValueError("the reset_state of a variant is an argument of Variant.bind")
            result = _episodes.run(lstm, input, hx, weights, _prepacked=_prepacked, **options)
        if result is not NotImplemented:
            return result
    bound = None if variant is None else _variants.bound(variant)
    packed = batch_sizes = sorted_indices = unsorted_indices = None
    x: Tensor = input  # type: ignore[assignment]
    if look and isinstance(input, PackedSequence):
        packed = input
        x, batch_sizes, sorted_indices, unsorted_indices = input
    dims = 3 if packed is not None else x.dim()
    if dims != 3 and dims != 2:
        raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {dims}D instead")
    h0, c0 = (None, None) if hx is None else _checks.pair(hx, "lstm")
    if look:
        _checks.ragged_kinds(packed, lengths, reset)
    if dims == 2:
        _checks.state_dims(h0, c0, dims)
        x = x.unsqueeze(1)
        h0, c0, lengths, reset = (
            None if value is None else value.unsqueeze(axis)
            for value, axis in ((h0, 1), (c0, 1), (lengths, 0), (reset, -1))
        )
        bound = None if bound is None else bound.unbatched()
    elif batch_first and packed is None:
        if x.is_nested:  # which cannot be transposed
            _checks.dense(x)
        x = x.transpose(0, 1)
        reset = reset.mT if reset is not None and reset.dim() == 2 else reset
        bound = None if bound is None else bound.batch_first()

    autocast, traced = None, look and _traced()
    if look:
        autocast = _checks.autocast_dtype(x)
        with tracing_paused() if traced else _NOTHING_ELSE:
            _checks.sequence_fits(x, h0, c0, weights, num_layers, directions, packed, autocast)
            _checks.ragged_fits(x, lengths, reset, directions)
    kind = kind_of(weights, num_layers * directions)
    if h0 is not None and c0 is not None and sorted_indices is not None:
        h0, c0 = h0.index_select(1, sorted_indices), c0.index_select(1, sorted_indices)
    if bound is not None:
        call = _variants.call_of(x, weights, num_layers, directions, batch_sizes)
        bound.check(x, call, reset)
        bound = bound if sorted_indices is None else bound.sorted(sorted_indices)
        _prepacked = None
    if lengths is not None:
        lengths = lengths.to(torch.int64)
    if reset is not None:
        reset = reset.to(torch.bool)
    if _prepacked is not None and not _prepacked.serve(weights, autocast):
        _prepacked = None
    if autocast is not None:
        x, h0, c0, *weights = _autocast((x, h0, c0, *weights), autocast)

    return_states = return_states or return_gates
    recorded = look and recording()
    keep_graph = look and (traced or _autograd.wanted(x, h0, c0, *weights))
    given, results = x, []
    for layer in range(num_layers):
        if layer > 0 and training and dropout > 0:
            x = F.dropout(x, dropout, True)
        h, c, layer_weights = h0, c0, weights
        if num_layers > 1:
            of_layer = directions * kind.each
            layer_weights = weights[layer * of_layer : (layer + 1) * of_layer]
            if h0 is not None and c0 is not None:
                h = h0[layer * directions : (layer + 1) * directions]
                c = c0[layer * directions : (layer + 1) * directions]
        if bound is not None:
            layer_weights = bound.drop_weights(layer, layer_weights, directions, training)
        arguments = (
            x,
            h,
            c,
            layer_weights,
            kind.has_biases,
            bidirectional,
            batch_sizes,
            lengths,
            reset,
            return_states,
            return_gates,
        )
        try:
            if bound is not None and bound.changes_steps:
                *of_variant, save_cell, save_gates = arguments
                result = _variant_autograd.layer(
                    bound,
                    layer,
                    call,
                    Layer(*of_variant),
                    save_cell,
                    save_gates,
                    training=training,
                    recompute=recompute,
                )
            elif keep_graph or recorded:
                *given_layer, save_cell, save_gates = arguments
                run = _ops.sequence_forward if recorded else _differentiable
                result = run(Layer(*given_layer), save_cell, save_gates, recompute)
            elif _prepacked is None:
                result = _ops.eager_sequence_forward(*arguments)
            else:
                result = _prepacked.forward(layer, *arguments)
        except Exception as refusal:
            if look:
                raise
            fits = (given, h0, c0, weights, num_layers, directions, packed, autocast)
            _checks.explain(refusal, _checks.sequence_fits, *fits)
        results.append(result)
        x = result[0]

    _, h_n, c_n, _, _ = results[0]
    if num_layers > 1:
        h_n, c_n = (torch.cat([result[k] for result in results]) for k in (1, 2))
    if unsorted_indices is not None:
        h_n, c_n = h_n.index_select(1, unsorted_indices), c_n.index_select(1, unsorted_indices)
    if dims == 2:
        h_n, c_n = h_n.squeeze(1), c_n.squeeze(1)
    if not return_states:
        if keep_graph and not recompute and _is_changeable(x, directions, packed, kind.projects):
            x = x.clone()
        return _as_given(x, packed, dims, batch_first), (h_n, c_n)
    results[-1] = (x.clone(), *results[-1][1:])  # the output is the caller's to write to
    hidden, _, _, cells, gates = zip(*results, strict=True)
    states = LSTMStates(
        tuple(_as_given(rows, packed, dims, batch_first) for rows in hidden),
        tuple(_as_given(rows, packed, dims, batch_first) for rows in cells),
        tuple(_as_given(rows, packed, dims, batch_first) for rows in gates)
        if return_gates
        else None,
    )
    return _as_given(x, packed, dims, batch_first), (h_n, c_n), states


def _ops_look(input: object) -> bool:
    """Whether the ops get a call's very tensors, and so refuse what does not fit.

    Looking at them in Python beforehand would take as long as a small step. Where something is
    between, it may convert them or compute with their shapes alone.
    """
    return (
        type(input) is Tensor
        and not is_dynamo_compiling()
        and not is_grad_enabled()
        and (input.is_cpu or input.is_cuda)
        and not any_autocast_enabled()
        and not count_dispatch_modes()
        and not transforms_active()
        and not forward_mode_active()
        and tracing_state() is None
    )


def _is_changeable(
    output: Tensor, directions: int, packed: PackedSequence | None, projects: bool
) -> bool:
    """Whether the caller may change the output in place before backward(), as after nn.LSTM.

    Where nn.LSTM's fused kernels run it does not, since they need the output there, as ours do.
    """
    fused = output.dtype is torch.float32 and directions == 1 and packed is None and not projects
    return output.is_cpu and not fused


def _as_given(rows: Tensor, packed: PackedSequence | None, dims: int, batch_first: bool) -> Any:
    """Rows of the ops in the layout of the input."""
    if packed is not None:
        return PackedSequence(rows, *packed[1:])
    if dims == 2:
        return rows.squeeze(1)
    return rows.transpose(0, 1) if batch_first else rows


def _traced() -> bool:
    """Whether torch.jit.trace records the call, with or without gradients wanted when it does."""
    return not is_dynamo_compiling() and tracing_state() is not None


def _differentiable(layer: Layer, save_cell: bool, save_gates: bool, recompute: bool) -> Any:
    """`_ops.sequence_forward` where a derivative may be asked for."""
    if recompute and not save_cell:
        return *_autograd.recomputed_sequence(layer), None, None
    return _autograd.sequence(layer)


# torch.compile meets this where it left a graph for a packed input, and a Function is not for it.
never_compile(_differentiable)  # type: ignore[arg-type]


@overload
def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    return_gates: Literal[False] = False,
    **options: Unpack[StepOptions],
) -> Stepped: ...
@overload
def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    return_gates: Literal[True],
    **options: Unpack[StepOptions],
) -> SteppedGates: ...
@overload
def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    return_gates: bool = False,
    **options: Unpack[StepOptions],
) -> Stepped | SteppedGates: ...
def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    return_gates: bool = False,
    variant: Variant | BoundVariant | None = None,
    training: bool = False,
) -> Any:
    """One LSTM step (Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000).

    Args:
        input: (N, I), or unbatched (I,); float32, float64, bfloat16 or float16.
        hx: `(h, c)`, each (N, H) or (H,); zeros if None.
        w_ih: (4*H, I), gates stacked in the order i, f, g, o.
        w_hh: (4*H, H).
        b_ih, b_hh: (4*H,), both or neither.
        return_gates: also return the activated gates, (N, 4, H) or (4, H).
        variant: other equations: a Variant, or Variant.bind's result where it needs tensors.
        training: whether the variant draws its masks.

    Returns:
        `(h, c)`, or `(h, c, gates)`.

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTMCell does, in its words.
        NotImplementedError: a dtype or device that has no kernel.
    """
    look = variant is not None or not _ops_look(input)
    weights = (w_ih, w_hh, b_ih, b_hh)
    if look and variant is None and _overloads.possible(input, hx, weights):
        result = _overloads.lstm_cell(lstm_cell, input, hx, weights, return_gates=return_gates)
        if result is not NotImplemented:
            return result
    dims = input.dim()
    if dims != 2 and dims != 1:
        raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {dims}D instead")
    h0, c0 = (None, None) if hx is None else _checks.pair(hx, "lstm_cell")
    if dims == 1:
        _checks.cell_state_dims(h0, c0)
        input = input.unsqueeze(0)
        if h0 is not None and c0 is not None:
            h0, c0 = h0.unsqueeze(0), c0.unsqueeze(0)
    autocast, traced = None, look and _traced()
    if look:
        autocast = _checks.autocast_dtype(input)
        with tracing_paused() if traced else _NOTHING_ELSE:
            _checks.cell_fits(input, h0, c0, w_ih, w_hh, b_ih, b_hh, dims, autocast)
    if autocast is not None:
        if input.device.type == "cpu":  # as in nn.LSTMCell there: the states keep their dtype
            autocast = input.dtype if c0 is None else c0.dtype
        input, h0, c0, w_ih, w_hh, b_ih, b_hh = _autocast(
            (input, h0, c0, w_ih, w_hh, b_ih, b_hh), autocast
        )
    if h0 is None or c0 is None:
        h0 = c0 = input.new_zeros(input.shape[0], w_hh.shape[1])
    arguments = (input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    keep_graph = look and variant is None and (traced or _autograd.wanted(*arguments))
    if variant is not None:
        bound = _variants.bound(variant)
        bound = bound.unbatched() if dims == 1 else bound
        h, c, gates = _variant_autograd.cell(bound, training, *arguments)
    elif look and recording():
        h, c, gates = _ops.cell_forward(*arguments, return_gates)
    elif keep_graph:
        h, c, gates = _autograd.cell(*arguments)
    else:
        try:
            h, c, gates = _ops.eager_cell_forward(*arguments, return_gates)
        except Exception as refusal:
            if look:
                raise
            fits = (input, h0, c0, w_ih, w_hh, b_ih, b_hh, dims, autocast)
            _checks.explain(refusal, _checks.cell_fits, *fits)
    if keep_graph:
        c = c.clone()  # the caller may change it before backward(), as with nn.LSTMCell
    if dims == 1:
        h, c = h.squeeze(0), c.squeeze(0)
        gates = gates.squeeze(0) if return_gates else gates
    return (h, c, gates) if return_gates else (h, c)


def _autocast(values: Sequence[Tensor | None], dtype: torch.dtype) -> list[Any]:
    return [None if value is None else value.to(dtype) for value in values]
