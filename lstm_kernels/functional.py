"""LSTM and LSTMCell as functions: they check arguments once, choose the gradients, call the ops.

Arguments are checked first, except on the fast path (eager, one layer or step, no transforms).
There the op validates them; if it fails, the same checks run to make the message, in
torch.nn.LSTM's words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard, overload

import torch
import torch.nn.functional as F
from torch import Tensor, is_grad_enabled
from torch.compiler import is_dynamo_compiling
from torch.nn.utils.rnn import PackedSequence

from . import (
    _autograd,
    _checks,
    _episodes,
    _ops,
    _overloads,
    _variant_autograd,
    _variant_ops,
    _variants,
)
from ._layer import Layer, have_biases, project
from ._layouts import Layout, layout_of
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
from ._variants import BoundVariant, Call, Variant, call_of

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
        hx: `(h_0, c_0)`, (L * D, N, H_out) and (L * D, N, H); zeros if None. Without N for
            unbatched input; for packed input in the original order of the sequences.
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

    Examples:
        >>> import torch
        >>> from lstm_kernels import lstm
        >>> w_ih, w_hh = torch.randn(16, 3), torch.randn(16, 4)
        >>> output, (h_n, c_n) = lstm(torch.randn(5, 2, 3), None, [w_ih, w_hh])
        >>> tuple(output.shape), tuple(c_n.shape)
        ((5, 2, 4), (1, 2, 4))
    """
    plain = num_layers == 1 and lengths is None and reset is None and reset_state is None
    if plain and (variant is None or not is_grad_enabled()) and ops_look(input, hx, weights):
        layer = (input, hx, weights, bidirectional, batch_first)
        saved = (return_states or return_gates, return_gates)
        if variant is None:
            return _plain_layer(*layer, *saved, recompute, _prepacked)
        of_layer = _variants.bound(variant)
        if of_layer.reset_state is None:
            return _variant_layer(*layer, *saved, training, of_layer)
    overloaded = variant is None and _overloads.possible(input, hx, weights)
    if overloaded or reset_state is not None:
        options = {
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
        result = _elsewhere(overloaded, input, hx, weights, variant, _prepacked, options)
        if result is not NotImplemented:
            return result

    bound = None if variant is None else _variants.bound(variant)
    layout = layout_of(input, batch_first)
    stack, autocast = _fitting_layers(
        input, hx, weights, num_layers, bidirectional, lengths, reset, layout
    )
    of_variant = None if bound is None else _fitting_variant(bound, stack, num_layers, layout)
    if _prepacked is not None and (bound is not None or not _prepacked.serve(weights, autocast)):
        _prepacked = None
    stack = _as_the_ops_take_it(stack, layout, autocast)
    return_states = return_states or return_gates
    run = _Run(
        return_states,
        return_gates,
        training,
        recompute,
        _traced() or _autograd.wanted(stack.input, stack.h0, stack.c0, *stack.weights),
        of_variant,
        _prepacked,
    )
    results = _run_layers(stack, num_layers, dropout, run)
    changeable = run.differentiable and _is_changeable(stack, num_layers, results[-1][0])
    own_output = changeable and not recompute
    return _returned(results, layout, return_states, return_gates, own_output)


def _plain_layer(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    bidirectional: bool,
    batch_first: bool,
    save_cell: bool,
    save_gates: bool,
    recompute: bool,
    prepacked: Prepacked | None,
) -> Any:
    """The fast path of `lstm`: what the op refuses is looked at afterwards."""
    layout, x, h0, c0 = _laid_out(input, hx, batch_first)
    directions = 2 if bidirectional else 1
    kind = have_biases(weights, directions), bidirectional
    arguments = (x, h0, c0, weights, *kind, None, None, None)
    own_output = False
    try:
        if is_grad_enabled() and _autograd.wanted(x, h0, c0, *weights):
            layer = Layer(*arguments)
            result = _differentiable(layer, save_cell, recompute)
            own_output = not recompute and _is_changeable(layer, 1, result[0])
        elif prepacked is not None and prepacked.serve(weights, None):
            result = prepacked.forward(0, *arguments, save_cell, save_gates)
        else:
            result = _ops.eager_sequence_forward(*arguments, save_cell, save_gates)
    except Exception as refusal:
        fits = (x, h0, c0, weights, 1, directions, None, None)
        _checks.explain(refusal, _checks.sequence_fits, *fits)
    if save_cell or own_output:
        return _returned([result], layout, save_cell, save_gates, own_output)
    output, h_n, c_n, _, _ = result
    return layout.results(output, h_n, c_n)


def _laid_out(
    input: Tensor, hx: Sequence[Tensor] | None, batch_first: bool
) -> tuple[Layout, Tensor, Any, Any]:
    """The layout of an input, and it and the states as the ops take them."""
    layout = layout_of(input, batch_first)
    h0, c0 = (None, None) if hx is None else _checks.pair(hx, "lstm")
    return layout, *layout.given(input, h0, c0)


def _variant_layer(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    bidirectional: bool,
    batch_first: bool,
    save_cell: bool,
    save_gates: bool,
    training: bool,
    bound: BoundVariant,
) -> Any:
    """The fast path of `lstm` for a variant, where no derivative can be asked for."""
    layout, x, h0, c0 = _laid_out(input, hx, batch_first)
    directions = 2 if bidirectional else 1
    try:
        call = call_of(x, weights, 1, directions, None)
        layer = Layer(x, h0, c0, weights, have_biases(weights, directions), bidirectional)
        bound = layout.variant(bound)
        result = _variant_forward(bound, call, layer, save_cell, save_gates, training)
    except Exception as refusal:
        fits = (x, h0, c0, weights, 1, directions, None, None)
        _checks.explain(refusal, _checks.sequence_fits, *fits)
    return _returned([result], layout, save_cell, save_gates)


def _variant_forward(
    bound: BoundVariant,
    call: Call,
    layer: Layer,
    save_cell: bool,
    save_gates: bool,
    training: bool,
) -> _ops.Forwarded:
    """One layer by its op, which looks at the layer; the variant's tensors are looked at here."""
    bound.check(layer.input, call, None)
    dropped = bound.drop_weights(0, layer.weights, call.directions, training)
    layer = layer._replace(weights=dropped)
    if not bound.changes_steps:
        return _ops.eager_sequence_forward(*layer, save_cell, save_gates)
    tensors = bound.of_layer(0, layer.input, call, training)
    return _variant_ops.forward(layer, bound.variant, tensors, save_cell, save_gates)[:5]


def _elsewhere(
    overloaded: bool,
    input: Any,
    hx: Any,
    weights: Sequence[Any],
    variant: Any,
    prepacked: Prepacked | None,
    options: dict[str, Any],
) -> Any:
    """A call that is not one of layers over tensors, or NotImplemented where it is one."""
    result: Any = NotImplemented
    if overloaded:
        result = _overloads.lstm(lstm, input, hx, weights, **options)
    if result is NotImplemented and options["reset_state"] is not None:
        if variant is not None:
            raise ValueError("the reset_state of a variant is an argument of Variant.bind")
        result = _episodes.run(lstm, input, hx, weights, _prepacked=prepacked, **options)
    return result


def _fitting_layers(
    input: Any,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    lengths: Tensor | None,
    reset: Tensor | None,
    layout: Layout,
) -> tuple[Layer, torch.dtype | None]:
    """The arguments of all layers, which fit each other, as (T, N, ...); and autocast's dtype."""
    h0, c0 = (None, None) if hx is None else _checks.pair(hx, "lstm")
    _checks.ragged_kinds(layout.packed, lengths, reset)
    x, h0, c0 = layout.given(input, h0, c0)
    lengths, reset = layout.ragged(lengths, reset)
    autocast = _checks.autocast_dtype(x)
    directions = 2 if bidirectional else 1
    with tracing_paused() if _traced() else _NOTHING_ELSE:
        packed = layout.packed
        _checks.sequence_fits(x, h0, c0, weights, num_layers, directions, packed, autocast)
        _checks.ragged_fits(x, lengths, reset, directions)
    kind = have_biases(weights, num_layers * directions), bidirectional
    return Layer(x, h0, c0, weights, *kind, layout.batch_sizes, lengths, reset), autocast


def _fitting_variant(
    bound: BoundVariant, stack: Layer, num_layers: int, layout: Layout
) -> tuple[BoundVariant, Call]:
    """The variant of a call, whose tensors fit and are as (T, N, ...), and the call's sizes."""
    directions = 2 if stack.bidirectional else 1
    call = call_of(stack.input, stack.weights, num_layers, directions, stack.batch_sizes)
    bound = layout.variant(bound)
    bound.check(stack.input, call, stack.reset)
    return bound if layout.order is None else bound.sorted(layout.order), call


def _as_the_ops_take_it(stack: Layer, layout: Layout, autocast: torch.dtype | None) -> Layer:
    """The arguments in the order and the dtypes of the ops."""
    order = layout.order
    if order is None and stack.lengths is None and stack.reset is None and autocast is None:
        return stack
    x, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, reset = stack
    if h0 is not None and c0 is not None and order is not None:
        h0, c0 = h0.index_select(1, order), c0.index_select(1, order)
    if autocast is not None:
        x, h0, c0, *weights = _autocast((x, h0, c0, *weights), autocast)
    lengths = None if lengths is None else lengths.to(torch.int64)
    reset = None if reset is None else reset.to(torch.bool)
    kind = has_biases, bidirectional
    return Layer(x, h0, c0, weights, *kind, batch_sizes, lengths, reset)


class _Run(NamedTuple):
    """How the layers of a call run.

    differentiable: a derivative may be asked for, of what no graph records.
    """

    save_cell: bool
    save_gates: bool
    training: bool
    recompute: bool
    differentiable: bool
    variant: tuple[BoundVariant, Call] | None
    prepacked: Prepacked | None


def _run_layers(stack: Layer, num_layers: int, dropout: float, run: _Run) -> list[_ops.Forwarded]:
    """Output, h_n, c_n, cell and gates of each layer."""
    results: list[_ops.Forwarded] = []
    x = stack.input
    for index in range(num_layers):
        if index > 0 and run.training and dropout > 0:
            x = F.dropout(x, dropout, True)
        layer = stack if num_layers == 1 else stack.nth(index, num_layers, x)
        results.append(_run_layer(layer, index, run))
        x = results[-1][0]
    return results


# torch.compile meets this alone where it left a graph for a packed input. Then it is run as it is.
never_compile(_run_layers)  # type: ignore[arg-type]


def _run_layer(layer: Layer, index: int, run: _Run) -> _ops.Forwarded:
    save_cell, save_gates = run.save_cell, run.save_gates
    if run.variant is not None:
        bound, call = run.variant
        weights = bound.drop_weights(index, layer.weights, call.directions, run.training)
        layer = layer._replace(weights=weights)
        if bound.changes_steps:
            how = {"training": run.training, "recompute": run.recompute}
            return _variant_autograd.layer(bound, index, call, layer, save_cell, save_gates, **how)
    if recording():  # asked here: a graph may have ended since the call began
        return _ops.sequence_forward(layer, save_cell, save_gates, run.recompute)
    if run.differentiable:
        result: _ops.Forwarded = _differentiable(layer, save_cell, run.recompute)
        return result
    if run.prepacked is not None:
        return run.prepacked.forward(index, *layer, save_cell, save_gates)
    return _ops.eager_sequence_forward(*layer, save_cell, save_gates)


def _differentiable(layer: Layer, save_cell: bool, recompute: bool) -> Any:
    """`_ops.sequence_forward` where a derivative may be asked for."""
    if recompute and not save_cell:
        return *_autograd.recomputed_sequence(layer), None, None
    return _autograd.sequence(layer)


def _returned(
    results: Sequence[_ops.Forwarded],
    layout: Layout,
    return_states: bool,
    return_gates: bool,
    own_output: bool = False,
) -> Any:
    """The results of all layers in the caller's layout.

    own_output: the output must share no memory with what the backward pass reads.
    """
    output, h_n, c_n, _, _ = results[-1]
    if len(results) > 1:
        h_n, c_n = (torch.cat([result[k] for result in results]) for k in (1, 2))
    if not return_states:
        return layout.results(output.clone() if own_output else output, h_n, c_n)
    hidden, _, _, cells, gates = zip(*results, strict=True)
    hidden = (*hidden[:-1], output.clone())  # the output is the caller's to write to
    states = LSTMStates(
        tuple(map(layout.back, hidden)),
        tuple(map(layout.back, cells)),
        tuple(map(layout.back, gates)) if return_gates else None,
    )
    return *layout.results(output, h_n, c_n), states


def ops_look(
    input: object, hx: Sequence[Tensor] | None, weights: Sequence[Any]
) -> TypeGuard[Tensor]:
    """Whether the ops get a call's very tensors, and so refuse what does not fit.

    Looking at them in Python beforehand would take as long as a small step. Where something is
    between, it may convert them or compute with their shapes alone.
    """
    return (
        type(input) is Tensor
        and not is_dynamo_compiling()
        and (input.is_cpu or input.is_cuda)
        and not any_autocast_enabled()
        and not count_dispatch_modes()
        and not transforms_active()
        and not forward_mode_active()
        and tracing_state() is None
        and not (is_grad_enabled() and _overloads.possible(input, hx, weights))
    )


def _is_changeable(stack: Layer, num_layers: int, output: Tensor) -> bool:
    """Whether the caller may change the output in place before backward(), as after nn.LSTM.

    Where nn.LSTM's fused kernels run it does not, since they need the output there, as ours do.
    """
    fused = (
        output.dtype is torch.float32
        and not stack.bidirectional
        and stack.batch_sizes is None
        and not project(stack.weights, num_layers)
    )
    return output.is_cpu and not fused


def _traced() -> bool:
    """Whether torch.jit.trace records the call, with or without gradients wanted when it does."""
    return not is_dynamo_compiling() and tracing_state() is not None


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

    Examples:
        >>> import torch
        >>> from lstm_kernels import lstm_cell
        >>> w_ih, w_hh = torch.randn(16, 3), torch.randn(16, 4)
        >>> h, c, gates = lstm_cell(torch.randn(2, 3), None, w_ih, w_hh, return_gates=True)
        >>> tuple(h.shape), tuple(gates.shape)
        ((2, 4), (2, 4, 4))
    """
    weights = (w_ih, w_hh, b_ih, b_hh)
    if (variant is None or not is_grad_enabled()) and ops_look(input, hx, weights):
        if variant is None:
            return _plain_step(input, hx, weights, return_gates)
        return _variant_step(input, hx, weights, return_gates, training, _variants.bound(variant))
    if variant is None and _overloads.possible(input, hx, weights):
        result = _overloads.lstm_cell(lstm_cell, input, hx, weights, return_gates=return_gates)
        if result is not NotImplemented:
            return result
    x, h0, c0, batched = batched_step(input, hx)
    autocast = _checks.autocast_dtype(x)
    with tracing_paused() if _traced() else _NOTHING_ELSE:
        _checks.cell_fits(x, h0, c0, *weights, 2 if batched else 1, autocast)
    if autocast is not None:
        if x.device.type == "cpu":  # as in nn.LSTMCell there: the states keep their dtype
            autocast = x.dtype if c0 is None else c0.dtype
        x, h0, c0, *cast = _autocast((x, h0, c0, *weights), autocast)
        weights = tuple(cast)
    if h0 is None or c0 is None:
        h0 = c0 = _zero_state(x, w_hh)
    step = (x, h0, c0, *weights)
    if variant is not None:
        bound = _variants.bound(variant)
        bound = bound if batched else bound.unbatched()
        h, c, gates = _variant_autograd.cell(bound, training, *step)
    else:
        h, c, gates = _run_step(step, return_gates)
    if batched:
        return (h, c, gates) if return_gates else (h, c)
    return unbatched_step(h, c, gates, return_gates)


def _variant_step(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    return_gates: bool,
    training: bool,
    bound: BoundVariant,
) -> Any:
    """The fast path of `lstm_cell` for a variant: a sequence of one step."""
    x, h0, c0, batched = batched_step(input, hx)
    try:
        bound = bound if batched else bound.unbatched()
        size = weights[1].shape[1]
        call = Call(1, x.shape[0], size, size, 1, 1)
        h, c = (None if state is None else state.unsqueeze(0) for state in (h0, c0))
        given = [weight for weight in weights if weight is not None]
        layer = Layer(x.unsqueeze(0), h, c, given, weights[2] is not None, False)
        h, _, c, _, gates = _variant_forward(bound, call, layer, False, return_gates, training)
    except Exception as refusal:
        fits = (x, h0, c0, *weights, 2 if batched else 1, None)
        _checks.explain(refusal, _checks.cell_fits, *fits)
    h, c = h.squeeze(0), c.squeeze(0)
    gates = gates.squeeze(0).squeeze(1) if return_gates else gates
    if batched:
        return (h, c, gates) if return_gates else (h, c)
    return unbatched_step(h, c, gates, return_gates)


def _plain_step(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    return_gates: bool,
) -> Any:
    """The fast path of `lstm_cell`: what the op refuses is looked at afterwards."""
    x, h0, c0, batched = batched_step(input, hx)
    if h0 is None or c0 is None:
        h0 = c0 = _zero_state(x, weights[1])
    try:
        if is_grad_enabled() and _autograd.wanted(x, h0, c0, *weights):
            h, c, gates = _autograd.cell(x, h0, c0, *weights)
        else:
            h, c, gates = _ops.eager_cell_forward(x, h0, c0, *weights, return_gates)
    except Exception as refusal:
        fits = (x, h0, c0, *weights, 2 if batched else 1, None)
        _checks.explain(refusal, _checks.cell_fits, *fits)
    if batched:
        return (h, c, gates) if return_gates else (h, c)
    return unbatched_step(h, c, gates, return_gates)


def batched_step(
    input: Tensor, hx: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor | None, Tensor | None, bool]:
    """Input and states as (N, ...), and whether the caller's are."""
    dims = input.dim()
    if dims != 2 and dims != 1:
        raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {dims}D instead")
    h0, c0 = (None, None) if hx is None else _checks.pair(hx, "lstm_cell")
    if dims == 2:
        return input, h0, c0, True
    _checks.cell_state_dims(h0, c0)
    if h0 is not None and c0 is not None:
        h0, c0 = h0.unsqueeze(0), c0.unsqueeze(0)
    return input.unsqueeze(0), h0, c0, False


def _zero_state(x: Tensor, w_hh: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0], w_hh.shape[1])


def _run_step(step: tuple[Any, ...], return_gates: bool) -> _ops.Stepped:
    """h, c and gates of a step that Python has looked at."""
    if recording() or not _autograd.wanted(*step):
        return _ops.cell_forward(*step, return_gates)
    return _autograd.cell(*step)


def unbatched_step(h: Tensor, c: Tensor, gates: Tensor, return_gates: bool) -> Any:
    """The results of a step without N."""
    h, c = h.squeeze(0), c.squeeze(0)
    return (h, c, gates.squeeze(0)) if return_gates else (h, c)


def _autocast(values: Sequence[Tensor | None], dtype: torch.dtype) -> list[Any]:
    return [None if value is None else value.to(dtype) for value in values]
