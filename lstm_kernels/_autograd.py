"""The gradients of the ops.

The backward op runs back through time and returns the gradients of the gates' pre-activations.
Those of the input, the weights and the biases follow from them as a few large matrix products.
Plain torch computes these where another transform differentiates or batches them. The backward op
is another Function, whose derivative is that of the equations in _reference.py. The cell state and
the gates are outputs, so gradients of gradients travel through them too. Forward mode
differentiates the equations themselves: a Function with a forward-mode rule gives wrong results
inside another forward mode, and torch.compile refuses it.

reduced_precision is what a graph was recorded with (see csrc/schema.cpp), for its backward pass
too. In eager mode it is None: each pass goes by what torch's switch says when it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _batching, _ops, _reference
from ._layer import DirectionWeights, Layer, LayerBackward, by_direction
from ._torch_private import forward_mode_active, transforms_active
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
    return transforms_active() or forward_mode_active()


def sequence(layer: Layer, reduced_precision: bool | None = None) -> _ops.Forwarded:
    """Differentiable layer: output, h_n, c_n, cell and gates."""
    if forward_mode_active():
        return _reference.sequence_forward(layer)
    result: _ops.Forwarded = apply(_Sequence, reduced_precision, *layer.flat())
    return result


def recomputed_sequence(
    layer: Layer, reduced_precision: bool | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiable layer that keeps no cell state and no gates: output, h_n and c_n."""
    if forward_mode_active():
        return sequence(layer)[:3]
    arguments = (reduced_precision, *layer.flat())
    result: tuple[Tensor, Tensor, Tensor] = apply(_RecomputedSequence, *arguments)
    return result


def cell(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> _ops.Stepped:
    """Differentiable step: h, c and gates."""
    if forward_mode_active():
        return _reference.cell_forward(input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    result: _ops.Stepped = apply(_Cell, input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    return result


def sequence_backward(call: LayerBackward, reduced_precision: bool | None = None) -> _ops.Backward:
    """The differentiable backward op of a layer."""
    if forward_mode_active():
        return _reference.sequence_backward(call)
    result: _ops.Backward = apply(_SequenceBackward, reduced_precision, *call.flat())
    return result


def cell_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The differentiable backward op of a step."""
    if forward_mode_active():
        return _reference.cell_backward(*arguments)
    result: tuple[Tensor, Tensor] = apply(_CellBackward, *arguments)
    return result


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Apply a Function, in eager mode by what Function.apply itself calls in the end.

    Before that it inspects forward's signature, which takes several times as long as a small step.
    """
    if transforms_active():
        return function.apply(*arguments)
    return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]


def differentiated() -> bool:
    """Whether a backward pass is to be differentiated again."""
    return torch.is_grad_enabled() or _transforms_active()


class _Sequence(torch.autograd.Function):
    """One layer over a sequence. Its arguments are reduced_precision and those of Layer.flat."""

    @staticmethod
    def forward(
        reduced_precision: bool | None, *flat: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return _ops.sequence_forward(Layer.of(flat), True, True, recorded=reduced_precision)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        ctx.reduced_precision, has_biases, bidirectional, *tensors = inputs
        output, _, _, cell, gates = outputs
        ctx.kind = has_biases, bidirectional
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output, cell, gates, *tensors)

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        output, cell, gates, *tensors = ctx.saved_tensors
        layer = Layer.of((*ctx.kind, *tensors))
        return None, *_sequence_gradients(ctx, layer, grads, output, cell, gates).flat()

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        return _mapped_sequence(sequence, info.batch_size, in_dims, *arguments)


class _RecomputedSequence(torch.autograd.Function):
    """One layer over a sequence that saves its arguments alone: the forward pass runs again.

    The same call on the same arguments gives the same bits, so gradients are those of _Sequence.
    """

    @staticmethod
    def forward(reduced_precision: bool | None, *flat: Any) -> tuple[Tensor, Tensor, Tensor]:
        layer = Layer.of(flat)
        return _ops.sequence_forward(layer, False, False, recorded=reduced_precision)[:3]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        ctx.reduced_precision, has_biases, bidirectional, *tensors = inputs
        ctx.kind = has_biases, bidirectional
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        layer = Layer.of((*ctx.kind, *ctx.saved_tensors))
        with full_precision(layer.input):
            if wanted(layer.input, layer.h0, layer.c0, *layer.weights):
                again = sequence(layer, ctx.reduced_precision)
            else:
                recorded = ctx.reduced_precision
                again = _ops.sequence_forward(layer, True, True, recorded=recorded)
        output, _, _, cell, gates = again
        grads = (*grads, None, None)
        return None, *_sequence_gradients(ctx, layer, grads, output, cell, gates).flat()

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        return _mapped_sequence(recomputed_sequence, info.batch_size, in_dims, *arguments)


def _mapped_sequence(
    function: Callable[[Layer, bool | None], Sequence[Tensor]],
    size: int,
    in_dims: Sequence[int | None],
    reduced_precision: bool | None,
    *flat: Any,
) -> _batching.Outputs:
    """`sequence` or `recomputed_sequence` of a Function's arguments with a mapped axis."""

    def of_flat(*flat: Any) -> Sequence[Tensor]:
        return function(Layer.of(flat), reduced_precision)

    dims, layer = Layer.of(in_dims[1:]), Layer.of(flat)
    _refuse_mapped_batch_sizes(dims.batch_sizes)
    if any(dim is not None for dim in dims.weights):
        return _batching.one_by_one(of_flat, layer.flat(), dims.flat(), size)
    axes = layer.batch_axes()
    folded = Layer.of(_batching.fold_arguments(layer.flat(), dims.flat(), axes.flat(), size))
    if folded.batch_sizes is not None:
        folded = folded._replace(batch_sizes=folded.batch_sizes * size)
    results = function(folded, reduced_precision)
    rows = axes.input
    return _batching.unfold(results, (rows, 1, 1, rows, rows)[: len(results)], size)


def _sequence_gradients(
    ctx: Any, layer: Layer, grads: Sequence[Any], output: Tensor, cell: Tensor, gates: Tensor
) -> Layer:
    """Gradients of a layer's arguments from those of its results, None where none is needed."""
    needs = Layer.of(ctx.needs_input_grad[1:])
    reduced = _ops.reduced_precision(cell, ctx.reduced_precision)
    directions = by_direction(layer.weights, layer.bidirectional)
    needed = by_direction(needs.weights, layer.bidirectional)
    call = LayerBackward.of_layer(layer, grads, cell, gates)
    with full_precision(cell):
        again = differentiated()
        backward = sequence_backward if again else _ops.sequence_backward
        grad_z, grad_h0, grad_c0, grad_hidden = backward(call, reduced)
        products, grad_input = gradients(
            grad_z,
            layer,
            output,
            [any((need.w_ih, need.w_hh, need.b_ih, need.b_hh)) for need in needed],
            [w.w_ih for w in directions] if needs.input else None,
            by_ops=not again,
            reduced_precision=reduced,
        )
        of_weights: list[Tensor | None] = []
        for d, (w, need) in enumerate(zip(directions, needed, strict=True)):
            of_w_hr = None
            if need.w_hr:
                of_w_hr = projection_gradient(
                    grad_hidden.unflatten(-1, (len(directions), -1)).select(-2, d),
                    gates.select(-3, d),
                    cell.unflatten(-1, (len(directions), -1)).select(-2, d),
                    by_ops=not again,
                    reduced_precision=reduced,
                )
            of_weights += of_needed(w, need, products[d] or (None, None, None), of_w_hr)
    return Layer(
        input=grad_input,
        h0=grad_h0 if needs.h0 else None,
        c0=grad_c0 if needs.c0 else None,
        weights=of_weights,
        has_biases=None,
        bidirectional=None,
    )


def of_needed(
    weights: DirectionWeights,
    needs: DirectionWeights,
    products: tuple[Tensor | None, Tensor | None, Tensor | None],
    of_w_hr: Tensor | None,
) -> list[Tensor | None]:
    """One direction's gradients, in the order of its weights; None where none is needed."""
    of_w_ih, of_w_hh, of_bias = products
    found = DirectionWeights(of_w_ih, of_w_hh, of_bias, of_bias, of_w_hr)  # type: ignore[arg-type]
    return [
        gradient if need else None
        for weight, need, gradient in zip(weights, needs, found, strict=True)
        if weight is not None
    ]


class _SequenceBackward(torch.autograd.Function):
    """The backward op of a layer: itself linear in the gradients it is given.

    Its arguments are reduced_precision and those of LayerBackward.flat.
    """

    @staticmethod
    def forward(
        reduced_precision: bool | None, *flat: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _ops.sequence_backward(LayerBackward.of(flat), reduced_precision)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        call = LayerBackward.of(inputs[1:])
        ctx.kind = call.with_floating([None] * len(call.floating()))._replace(
            batch_sizes=None, lengths=None, reset=None
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*call.ragged(), *call.floating())

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        batch_sizes, lengths, reset, *floating = ctx.saved_tensors
        call = ctx.kind._replace(batch_sizes=batch_sizes, lengths=lengths, reset=reset)

        def equations(*values: Tensor) -> tuple[Tensor, ...]:
            """The backward op in plain torch, as a function of its floating-point arguments."""
            return _reference.sequence_backward(call.with_floating(values))

        # The op does not read what is neither a gradient, c0, cell, gates nor a recurrent weight.
        nothing = LayerBackward(*[None] * len(LayerBackward._fields))
        return None, *nothing.with_floating(pullback(equations, floating, grads)).flat()

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], reduced_precision: bool | None, *flat: Any
    ) -> _batching.Outputs:
        size, in_dims = info.batch_size, in_dims[1:]
        dims, call = LayerBackward.of(in_dims), LayerBackward.of(flat)

        def of_flat(*flat: Any) -> Sequence[Tensor]:
            return sequence_backward(LayerBackward.of(flat), reduced_precision)

        _refuse_mapped_batch_sizes(dims.batch_sizes)
        if any(dim is not None for dim in dims.weights):
            return _batching.one_by_one(of_flat, flat, in_dims, size)
        axes = call.batch_axes()
        folded = LayerBackward.of(_batching.fold_arguments(flat, in_dims, axes.flat(), size))
        if folded.batch_sizes is not None:
            folded = folded._replace(batch_sizes=folded.batch_sizes * size)
        results = sequence_backward(folded, reduced_precision)
        return _batching.unfold(results, (axes.cell, 1, 1, axes.cell), size)


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
        _, _, gates = outputs
        ctx.set_materialize_grads(False)
        # Not c, which the caller may change before backward(), as with nn.LSTMCell.
        ctx.save_for_backward(input, h0, c0, w_ih, w_hh, gates)

    @staticmethod
    @_batching.of_batched_gradients
    def backward(
        ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None, grad_gates: Tensor | None
    ) -> Any:
        input, h0, c0, w_ih, w_hh, gates = ctx.saved_tensors
        need_input, need_h0, need_c0, need_w_ih, need_w_hh, need_b_ih, need_b_hh = (
            ctx.needs_input_grad
        )
        with full_precision(c0):
            backward = cell_backward if differentiated() else _ops.cell_backward
            grad_z, grad_c0 = backward(grad_h, grad_c, grad_gates, c0, gates)
            z = grad_z.flatten(1)
            bias = z.sum(0) if need_b_ih or need_b_hh else None
            return (
                product(z, w_ih) if need_input else None,
                product(z, w_hh) if need_h0 else None,
                grad_c0 if need_c0 else None,
                product(z.mT, input) if need_w_ih else None,
                product(z.mT, h0) if need_w_hh else None,
                bias if need_b_ih else None,
                bias if need_b_hh else None,
            )

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        _, _, _, *of_weights = in_dims
        if any(dim is not None for dim in of_weights):
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
        return tuple(pullback(_reference.cell_backward, ctx.saved_tensors, grads))

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> _batching.Outputs:
        folded = _batching.fold_arguments(arguments, in_dims, (0,) * 5, info.batch_size)
        return _batching.unfold(cell_backward(*folded), (0, 0), info.batch_size)


def pullback(
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


def full_precision(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Gradients keep the dtype of the forward pass, also when backward() runs under autocast."""
    device = tensor.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
