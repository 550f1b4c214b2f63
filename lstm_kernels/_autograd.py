"""The gradients of the ops.

The backward op runs back through time and returns the gradients of the gates' pre-activations;
those of the input, the weights and the biases follow from them as a few large matrix products, in
plain torch where somebody differentiates or batches them by its own rules. The backward op is a
Function of its own, whose derivative is that of the equations in _reference.py. The cell state and
the gates are outputs, so gradients of gradients travel through them too. Forward mode
differentiates the equations themselves: a Function with a forward-mode rule gives wrong results
inside another forward mode, and torch.compile refuses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _batching, _ops, _reference
from ._weight_gradients import gradients, product, projection_gradient

MaybeTensors = Sequence[Tensor | None]


def wanted(*tensors: Tensor | None) -> bool:
    """Whether a derivative may be asked of these tensors, so that the raw ops would not do."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return _transforms_active()


def _transforms_active() -> bool:
    """Whether torch.func or forward-mode differentiation wants to see every operation."""
    return torch._C._are_functorch_transforms_active() or _forward_mode()


def _forward_mode() -> bool:
    return forward_ad._current_level >= 0


def sequence(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    has_biases: bool,
    bidirectional: bool,
    *weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Differentiable layer: output, h_n, c_n, cell and gates."""
    if _forward_mode():
        return _reference.sequence_forward(
            input, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, reset
        )
    arguments = (input, h0, c0, batch_sizes, lengths, reset, has_biases, bidirectional, *weights)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _apply(_Sequence, *_distinct(arguments))
    return result


def recomputed_sequence(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiable layer that keeps no cell state and no gates: output, h_n and c_n."""
    if _forward_mode():
        return sequence(*arguments)[:3]
    result: tuple[Tensor, Tensor, Tensor] = _apply(_RecomputedSequence, *_distinct(arguments))
    return result


def cell(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiable step: h, c and gates."""
    if _forward_mode():
        return _reference.cell_forward(input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    arguments = (input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    result: tuple[Tensor, Tensor, Tensor] = _apply(_Cell, *_distinct(arguments))
    return result


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply a Function, in eager mode by what Function.apply itself calls in the end.

    Before that it inspects forward's signature, which takes several times as long as a small step.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]


def _distinct(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Views in place of tensors given twice, say as h0 and c0, which torch.compile refuses."""
    if not torch.compiler.is_compiling():
        return arguments
    distinct: list[Any] = []
    for value in arguments:
        again = isinstance(value, Tensor) and any(value is other for other in distinct)
        distinct.append(value.view_as(value) if again else value)
    return tuple(distinct)


def _sequence_backward(
    grad_output: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_cell: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor | None,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    cell: Tensor,
    gates: Tensor,
    has_biases: bool,
    bidirectional: bool,
    *weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The backward op, differentiable where somebody may differentiate it."""
    grads = (grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates)
    ragged = (batch_sizes, lengths, reset)
    if _forward_mode():
        return _reference.sequence_backward(
            *grads, c0, weights, has_biases, bidirectional, *ragged, cell, gates
        )
    if torch.is_grad_enabled() or _transforms_active():
        result: tuple[Tensor, Tensor, Tensor, Tensor] = _apply(
            _SequenceBackward, *grads, c0, *ragged, cell, gates, has_biases, bidirectional, *weights
        )
        return result
    return _ops.sequence_backward(
        *grads, c0, weights, has_biases, bidirectional, *ragged, cell, gates
    )


def _cell_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor,
    c: Tensor,
    gates: Tensor,
) -> tuple[Tensor, Tensor]:
    """The backward op of a step, differentiable where somebody may differentiate it."""
    arguments = (grad_h, grad_c, grad_gates, c0, c, gates)
    if _forward_mode():
        return _reference.cell_backward(*arguments)
    if torch.is_grad_enabled() or _transforms_active():
        result: tuple[Tensor, Tensor] = _apply(_CellBackward, *arguments)
        return result
    return _ops.cell_backward(*arguments)


class _Sequence(torch.autograd.Function):
    """One layer over a sequence."""

    @staticmethod
    def forward(
        input: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        batch_sizes: Tensor | None,
        lengths: Tensor | None,
        reset: Tensor | None,
        has_biases: bool,
        bidirectional: bool,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return _ops.sequence_forward(
            input,
            h0,
            c0,
            weights,
            has_biases,
            bidirectional,
            batch_sizes,
            lengths,
            reset,
            True,
            True,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        input, h0, c0, batch_sizes, lengths, reset, has_biases, bidirectional, *weights = inputs
        output, _, _, cell, gates = outputs
        ctx.has_biases = has_biases
        ctx.bidirectional = bidirectional
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            input, h0, c0, batch_sizes, lengths, reset, output, cell, gates, *weights
        )

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return _sequence_gradients(ctx, grads, ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        return _mapped_sequence(sequence, info.batch_size, in_dims, arguments)


class _RecomputedSequence(torch.autograd.Function):
    """One layer over a sequence that saves its arguments alone: the forward pass runs again.

    The same call on the same arguments gives the same bits, so gradients are those of _Sequence.
    """

    @staticmethod
    def forward(
        input: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        batch_sizes: Tensor | None,
        lengths: Tensor | None,
        reset: Tensor | None,
        has_biases: bool,
        bidirectional: bool,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _ops.sequence_forward(
            input,
            h0,
            c0,
            weights,
            has_biases,
            bidirectional,
            batch_sizes,
            lengths,
            reset,
            False,
            False,
        )[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        ctx.has_biases, ctx.bidirectional = inputs[6:8]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:6], *inputs[8:])

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        data, weights = ctx.saved_tensors[:6], ctx.saved_tensors[6:]
        with _full_precision(data[0]):
            if wanted(*data[:3], *weights):
                again = sequence(*data, ctx.has_biases, ctx.bidirectional, *weights)
            else:
                again = _Sequence.forward(*data, ctx.has_biases, ctx.bidirectional, *weights)
        output, _, _, cell, gates = again
        saved = (*data, output, cell, gates, *weights)
        return _sequence_gradients(ctx, (*grads, None, None), saved)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        return _mapped_sequence(recomputed_sequence, info.batch_size, in_dims, arguments)


def _mapped_sequence(
    function: Callable[..., Sequence[Tensor]],
    size: int,
    in_dims: Sequence[int | None],
    arguments: Sequence[Any],
) -> _batching.Outputs:
    """`sequence` or `recomputed_sequence` of arguments with a mapped axis."""
    _refuse_mapped_batch_sizes(in_dims[3])
    if any(dim is not None for dim in in_dims[8:]):
        return _batching.one_by_one(function, arguments, in_dims, size)
    rows = 1 if arguments[3] is None else 0  # where the batch is: (T, N, ...) or (R, ...)
    axes = (rows, 1, 1, None, 0, 1, None, None, *(None,) * len(arguments[8:]))
    folded = _batching.fold_arguments(arguments, in_dims, axes, size)
    if folded[3] is not None:
        folded[3] = folded[3] * size
    results = function(*folded)
    return _batching.unfold(results, (rows, 1, 1, rows, rows)[: len(results)], size)


def _sequence_gradients(ctx: Any, grads: MaybeTensors, saved: Sequence[Any]) -> Any:
    """Gradients of the arguments of _Sequence from those of its results and from what it saves."""
    input, h0, c0, batch_sizes, lengths, reset, output, cell, gates, *weights = saved
    needs_input, needs_h0, needs_c0, _, _, _, _, _, *needs_weights = ctx.needs_input_grad
    with _full_precision(cell):
        grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates = grads
        grad_z, grad_h0, grad_c0, grad_hidden = _sequence_backward(
            grad_output,
            grad_h_n,
            grad_c_n,
            grad_cell,
            grad_gates,
            c0,
            batch_sizes,
            lengths,
            reset,
            cell,
            gates,
            ctx.has_biases,
            ctx.bidirectional,
            *weights,
        )
        directions = _reference.by_direction(weights, ctx.has_biases, ctx.bidirectional)
        wanted = _reference.by_direction(needs_weights, ctx.has_biases, ctx.bidirectional)
        products, grad_input = gradients(
            grad_z,
            input,
            h0,
            output,
            batch_sizes,
            lengths,
            reset,
            [any((want.w_ih, want.w_hh, want.b_ih, want.b_hh)) for want in wanted],
            [w.w_ih for w in directions] if needs_input else None,
            not (torch.is_grad_enabled() or _transforms_active()),
        )
        of_weights: list[Tensor | None] = []
        for d, (w, want) in enumerate(zip(directions, wanted, strict=True)):
            of_w_ih, of_w_hh, bias = products[d] or (None, None, None)
            of_weights += [of_w_ih if want.w_ih else None, of_w_hh if want.w_hh else None]
            if ctx.has_biases:
                of_weights += [bias if want.b_ih else None, bias if want.b_hh else None]
            if w.w_hr is not None:
                of_weights.append(
                    projection_gradient(
                        grad_hidden.unflatten(-1, (len(directions), -1)).select(-2, d),
                        gates.select(-3, d),
                        cell.unflatten(-1, (len(directions), -1)).select(-2, d),
                    )
                    if want.w_hr
                    else None
                )
    return (
        grad_input,
        grad_h0 if needs_h0 else None,
        grad_c0 if needs_c0 else None,
        *(None,) * 5,
        *of_weights,
    )


class _SequenceBackward(torch.autograd.Function):
    """The backward op of a layer: itself linear in the gradients it is given."""

    @staticmethod
    def forward(
        grad_output: Tensor | None,
        grad_h_n: Tensor | None,
        grad_c_n: Tensor | None,
        grad_cell: Tensor | None,
        grad_gates: Tensor | None,
        c0: Tensor | None,
        batch_sizes: Tensor | None,
        lengths: Tensor | None,
        reset: Tensor | None,
        cell: Tensor,
        gates: Tensor,
        has_biases: bool,
        bidirectional: bool,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _ops.sequence_backward(
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
            reset,
            cell,
            gates,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        *tensors, ctx.has_biases, ctx.bidirectional = inputs[:13]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *inputs[13:])

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        *tensors, cell, gates = ctx.saved_tensors[:11]
        weights = ctx.saved_tensors[11:]
        # The op does not read what is neither a gradient, c0, cell, gates nor a recurrent weight.
        equations = _backward_equations(ctx, tensors)
        found = _pullback(equations, (*tensors[:6], cell, gates, *weights), grads)
        return (*found[:6], None, None, None, *found[6:8], None, None, *found[8:])

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        size = info.batch_size
        _refuse_mapped_batch_sizes(in_dims[6])
        if any(dim is not None for dim in in_dims[13:]):
            return _batching.one_by_one(_sequence_backward, arguments, in_dims, size)
        rows = 1 if arguments[6] is None else 0
        axes = (
            *(rows, 1, 1, rows, rows, 1),
            *(None, 0, 1, rows, rows),
            *(None,) * len(arguments[11:]),
        )
        folded = _batching.fold_arguments(arguments, in_dims, axes, size)
        if folded[6] is not None:
            folded[6] = folded[6] * size
        return _batching.unfold(_sequence_backward(*folded), (rows, 1, 1, rows), size)


class _Cell(torch.autograd.Function):
    """One step."""

    @staticmethod
    def forward(
        input: Tensor,
        h0: Tensor,
        c0: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None,
        b_hh: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _ops.cell_forward(input, h0, c0, w_ih, w_hh, b_ih, b_hh, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        input, h0, c0, w_ih, w_hh, _, _ = inputs
        _, c, gates = outputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, h0, c0, w_ih, w_hh, c, gates)

    @staticmethod
    @_batching.of_batched_gradients
    def backward(
        ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, grad_gates: Tensor | None
    ) -> Any:
        input, h0, c0, w_ih, w_hh, c, gates = ctx.saved_tensors
        needs = ctx.needs_input_grad
        with _full_precision(c):
            grad_z, grad_c0 = _cell_backward(grad_h, grad_c, grad_gates, c0, c, gates)
            z = grad_z.flatten(1)
            bias = z.sum(0) if needs[5] or needs[6] else None
            return (
                product(z, w_ih) if needs[0] else None,
                product(z, w_hh) if needs[1] else None,
                grad_c0 if needs[2] else None,
                product(z.mT, input) if needs[3] else None,
                product(z.mT, h0) if needs[4] else None,
                bias if needs[5] else None,
                bias if needs[6] else None,
            )

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        if any(dim is not None for dim in in_dims[3:]):
            return _batching.one_by_one(cell, arguments, in_dims, info.batch_size)
        axes = (0, 0, 0, None, None, None, None)
        folded = _batching.fold_arguments(arguments, in_dims, axes, info.batch_size)
        return _batching.unfold(cell(*folded), (0, 0, 0), info.batch_size)


class _CellBackward(torch.autograd.Function):
    """The backward op of a step."""

    forward = staticmethod(_ops.cell_backward)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return tuple(_pullback(_reference.cell_backward, ctx.saved_tensors, grads))

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        folded = _batching.fold_arguments(arguments, in_dims, (0,) * 6, info.batch_size)
        return _batching.unfold(_cell_backward(*folded), (0, 0), info.batch_size)


def _backward_equations(ctx: Any, tensors: MaybeTensors) -> Callable[..., tuple[Tensor, ...]]:
    """The backward op in plain torch, as a function of its floating-point arguments."""
    batch_sizes, lengths, reset = tensors[6:9]

    def equations(*floating: Any) -> tuple[Tensor, ...]:
        grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates, c0, cell, gates, *weights = floating
        return _reference.sequence_backward(
            grad_output,
            grad_h_n,
            grad_c_n,
            grad_cell,
            grad_gates,
            c0,
            weights,
            ctx.has_biases,
            ctx.bidirectional,
            batch_sizes,
            lengths,
            reset,
            cell,
            gates,
        )

    return equations


def _pullback(
    function: Callable[..., Sequence[Tensor]], inputs: MaybeTensors, cotangents: MaybeTensors
) -> list[Tensor | None]:
    """The vector-Jacobian product of `function`; absent inputs have no gradient."""
    present = [k for k, value in enumerate(inputs) if value is not None]

    def of_present(*values: Tensor) -> tuple[Tensor, ...]:
        full = list(inputs)
        for k, value in zip(present, values, strict=True):
            full[k] = value
        return tuple(function(*full))

    outputs, pull = torch.func.vjp(of_present, *(inputs[k] for k in present))[:2]
    found = pull(
        tuple(
            torch.zeros_like(output) if given is None else given
            for output, given in zip(outputs, cotangents, strict=True)
        )
    )
    gradients: list[Tensor | None] = [None] * len(inputs)
    for k, gradient in zip(present, found, strict=True):
        gradients[k] = gradient
    return gradients


def _refuse_mapped_batch_sizes(dim: int | None) -> None:
    if dim is not None:
        raise ValueError("vmap over the batch_sizes of packed sequences is not possible")


def _full_precision(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Gradients keep the dtype of the forward pass, also when backward() runs under autocast."""
    device = tensor.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
