"""Calls on what takes the place of tensors: proxies of torch.fx, and expanded weights.

torch.fx records a call of this library as it does one of torch.nn: as a leaf, which is not looked
into. Expanded weights (torch.nn.utils._per_sample_grad) leave the gradient of each sequence in
`weight.grad_sample`; here that is a vector-Jacobian product of one sequence, mapped over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.overrides import has_torch_function
from torch.utils.checkpoint import get_device_states, set_device_states

from . import _torch_private

Run = Callable[..., list[Tensor]]


def leaf(module: nn.Module, input: Proxy, hx: Any, options: dict[str, Any]) -> Any:
    """A call of a module, recorded by torch.fx; NotImplemented where the graph cannot name it."""
    tracer = input.tracer
    if not isinstance(tracer, Tracer) or tracer.root is module:
        return NotImplemented
    given = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    arguments = (input,) if hx is None else (input, hx)
    return tracer.create_proxy("call_module", tracer.path_of_module(module), arguments, given)


def possible(*values: Any) -> bool:
    """Whether `lstm` or `lstm_cell` may have something to do with these arguments.

    A quick look, for every call that records gradients.
    """
    for value in values:
        if has_torch_function(value if isinstance(value, (tuple, list)) else (value,)):
            return True
    return False


def lstm(
    function: Callable[..., Any],
    input: Any,
    hx: Any,
    weights: Sequence[Any],
    *,
    batch_first: bool,
    lengths: Tensor | None,
    reset: Tensor | None,
    **options: Any,
) -> Any:
    """functional.lstm, which is `function`, or NotImplemented where the arguments are tensors."""
    ragged = {"lengths": lengths, "reset": reset}
    tracer = _tracer(input, hx, weights, lengths, reset)
    if tracer is not None:
        given = {"batch_first": batch_first, **ragged, **options}
        return tracer.create_proxy("call_function", function, (input, hx, weights), given)
    if not any(map(_torch_private.is_expanded_weight, weights)):
        return NotImplemented
    if isinstance(input, PackedSequence):
        return _packed(function, input, hx, weights, **options)
    if input.dim() != 3:
        raise RuntimeError(
            f"Expanded Weights need a batch: expected input to be 3D, got {input.dim()}D"
        )
    axis = 0 if batch_first else 1
    h0, c0 = (None, None) if hx is None else hx

    def run(weights: Sequence[Tensor], x: Any, h: Any, c: Any, lengths: Any, reset: Any) -> Any:
        states = None if h is None else (h, c)
        return function(x, states, weights, lengths=lengths, reset=reset, **options)

    samples = (input, h0, c0, lengths, reset)
    rows = (axis, 1, 1, 0, axis)
    return _per_sample(run, weights, samples, rows, lambda k: 1 if k in (1, 2) else axis)


def _packed(
    function: Callable[..., Any], input: PackedSequence, hx: Any, weights: Any, **options: Any
) -> Any:
    """`lstm` of a PackedSequence, as padded sequences and their lengths."""
    padded, lengths = pad_packed_sequence(input)
    result = lstm(
        function,
        padded,
        hx,
        weights,
        batch_first=False,
        lengths=lengths.to(padded.device),
        reset=None,
        **options,
    )
    order = input.sorted_indices
    lengths = lengths if order is None else lengths[order.cpu()]

    def pack(rows: Tensor) -> PackedSequence:
        rows = rows if order is None else rows.index_select(1, order)
        return PackedSequence(pack_padded_sequence(rows, lengths).data, *input[1:])

    output, last, *states = result
    every = [
        type(of)(*(part if part is None else tuple(map(pack, part)) for part in of))
        for of in states
    ]
    return (pack(output), last, *every)


def lstm_cell(
    function: Callable[..., Any], input: Any, hx: Any, weights: Sequence[Any], **options: Any
) -> Any:
    """functional.lstm_cell, which is `function`, or NotImplemented where they are tensors."""
    tracer = _tracer(input, hx, weights)
    if tracer is not None:
        return tracer.create_proxy("call_function", function, (input, hx, *weights), options)
    if not any(map(_torch_private.is_expanded_weight, weights)):
        return NotImplemented
    if input.dim() != 2:
        raise RuntimeError(
            f"Expanded Weights need a batch: expected input to be 2D, got {input.dim()}D"
        )
    h0, c0 = (None, None) if hx is None else hx

    def run(weights: Sequence[Tensor], x: Tensor, h: Any, c: Any) -> Any:
        return function(x, None if h is None else (h, c), *weights, **options)

    given = [weight for weight in weights if weight is not None]
    return _per_sample(run, given, (input, h0, c0), (0, 0, 0), lambda _: 0)


def _tracer(*values: Any) -> Any:
    """The tracer of the first proxy, or None."""
    for value in values:
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, Proxy):
                return part.tracer
    return None


def _per_sample(
    run: Callable[..., Any],
    weights: Sequence[Any],
    samples: Sequence[Tensor | None],
    axes: Sequence[int],
    axis_of_result: Callable[[int], int],
) -> Any:
    """`run(weights, *samples)` of one sequence, for all of them along `axes`.

    Its k-th tensor gets the sequences back along axis_of_result(k).
    """
    batch = next(
        sample.shape[axis] for sample, axis in zip(samples, axes, strict=True) if sample is not None
    )
    for weight in weights:
        if _torch_private.is_expanded_weight(weight) and weight.batch_size != batch:
            raise RuntimeError(
                "Expected ExpandedWeights to have batch size matching input but got input batch "
                f"size of {batch} with ExpandedWeight of batch size {weight.batch_size}"
            )
    structure: list[Any] = []

    def flat(weights: Sequence[Tensor], *given: Tensor) -> list[Tensor]:
        rest = iter(given)
        result = run(weights, *(None if value is None else next(rest) for value in samples))
        structure[:] = [result]
        return list(_leaves(result))

    present = [value for value in samples if value is not None]
    present_axes = [axis for axis, value in zip(axes, samples, strict=True) if value is not None]
    apply: Callable[..., tuple[Tensor, ...]] = _PerSample.apply
    results = apply(flat, present_axes, axis_of_result, len(present), *present, *weights)
    return _like(structure[0], iter(results))


def _leaves(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif result is not None:
        for part in result:
            yield from _leaves(part)


def _like(structure: Any, values: Iterator[Tensor]) -> Any:
    """The values in the places of the tensors of a nested result."""
    if structure is None:
        return None
    if isinstance(structure, Tensor):
        return next(values)
    parts = [_like(part, values) for part in structure]
    return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)


class _PerSample(torch.autograd.Function):
    """Results of all sequences; backward leaves each sequence's gradients at the weights.

    Dropout draws the same numbers in both passes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        flat: Run,
        axes: list[int],
        axis_of_result: Callable[[int], int],
        count: int,
        *tensors: Any,
    ) -> tuple[Tensor, ...]:
        samples, weights = tensors[:count], tensors[count:]
        plain = [_torch_private.unexpanded(weight) for weight in weights]
        ctx.flat, ctx.axes, ctx.axis_of_result = flat, axes, axis_of_result
        ctx.weights, ctx.plain = weights, plain
        ctx.random = (torch.get_rng_state(), *get_device_states(*samples))
        ctx.save_for_backward(*samples)

        def one(*given: Tensor) -> tuple[Tensor, ...]:
            return tuple(flat(plain, *given))

        mapped = torch.func.vmap(one, tuple(axes), randomness="different")(*samples)
        return tuple(
            value.movedim(0, axis_of_result(k)).contiguous() for k, value in enumerate(mapped)
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        samples = ctx.saved_tensors
        floating = [k for k, sample in enumerate(samples) if sample.is_floating_point()]

        def one(given: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Any:
            def of_floating(weights: Sequence[Tensor], *values: Tensor) -> tuple[Tensor, ...]:
                all_given = list(given)
                for k, value in zip(floating, values, strict=True):
                    all_given[k] = value
                return tuple(ctx.flat(weights, *all_given))

            pull = torch.func.vjp(of_floating, ctx.plain, *(given[k] for k in floating))[1]
            return pull(tuple(cotangents))

        axes_of_grads = [ctx.axis_of_result(k) for k in range(len(grads))]
        with torch.random.fork_rng():
            state, devices, states = ctx.random
            torch.set_rng_state(state)
            set_device_states(devices, states)
            mapped = torch.func.vmap(one, (tuple(ctx.axes), axes_of_grads), randomness="different")
            of_weights, *of_floating = mapped(samples, list(grads))
        for weight, of_weight in zip(ctx.weights, of_weights, strict=True):
            if _torch_private.is_expanded_weight(weight):
                _torch_private.set_grad_sample(weight, of_weight)
        of_samples: list[Tensor | None] = [None] * len(samples)
        for k, value in zip(floating, of_floating, strict=True):
            of_samples[k] = value.movedim(0, ctx.axes[k])
        return None, None, None, None, *of_samples, *(None for _ in ctx.weights)
