"""Batching rules: what torch.vmap's mapped axis becomes.

Sequences do not see each other, so an axis mapped over the data is more batch: element b of
sequence n becomes row n * B + b, which keeps packed rows in order. Mapped weights are other layers:
they are computed one after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _torch_private

Outputs = tuple[tuple[Tensor, ...], tuple[int, ...]]


def fold(value: Tensor, mapped: int | None, axis: int, size: int) -> Tensor:
    """Merge the mapped axis, or `size` copies where none is mapped, into the batch at `axis`."""
    if mapped is None:
        value = value.unsqueeze(axis + 1)
        value = value.expand(*value.shape[: axis + 1], size, *value.shape[axis + 2 :])
    else:
        value = value.movedim(mapped, axis + 1)
    return value.flatten(axis, axis + 1)


def fold_arguments(
    arguments: Sequence[Any],
    mapped: Sequence[int | None],
    axes: Sequence[int | None],
    size: int,
) -> list[Any]:
    """Fold every tensor argument that has a batch axis; the others are shared."""
    return [
        value if value is None or axis is None else fold(value, dim, axis, size)
        for value, dim, axis in zip(arguments, mapped, axes, strict=True)
    ]


def unfold(results: Sequence[Tensor], axes: Sequence[int], size: int) -> Outputs:
    """Take the mapped axis out of the batch again: the results and where their mapped axis is."""
    values, dims = [], []
    for value, axis in zip(results, axes, strict=True):
        if value.dim() > 1:
            values.append(value.unflatten(axis, (value.shape[axis] // size, size)))
            dims.append(axis + 1)
        else:  # an absent result: an empty vector for every element
            values.append(value.expand(size, *value.shape))
            dims.append(0)
    return tuple(values), tuple(dims)


def one_by_one(
    function: Callable[..., Sequence[Tensor]],
    arguments: Sequence[Any],
    mapped: Sequence[int | None],
    size: int,
) -> Outputs:
    """Call `function` for each element of the mapped axis."""
    results = [
        function(
            *(
                value if dim is None else value.select(dim, element)
                for value, dim in zip(arguments, mapped, strict=True)
            )
        )
        for element in range(size)
    ]
    stacked = tuple(torch.stack(values) for values in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def of_batched_gradients(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A Function's backward, also for gradients that autograd itself has mapped.

    is_grads_batched and torch.autograd.functional with vectorize=True map them by a vmap that is
    older than torch.func and knows few operations; here torch.func.vmap takes its place.
    """

    @functools.wraps(backward)
    def with_batched(ctx: Any, *grads: Tensor | None) -> Any:
        mapped_here = _torch_private.is_mapped_by_autograd
        batched = {
            k: grad for k, grad in enumerate(grads) if grad is not None and mapped_here(grad)
        }
        if not batched:
            return backward(ctx, *grads)
        level = _torch_private.level_of_autograds_vmap()
        present: list[int] = []
        results: list[Tensor | None] = []

        def of_one(*values: Tensor) -> list[Tensor]:
            one = list(grads)
            for k, value in zip(batched, values, strict=True):
                one[k] = value
            results[:] = backward(ctx, *one)
            present[:] = [k for k, value in enumerate(results) if value is not None]
            return [value for value in results if value is not None]

        mapped = torch.func.vmap(of_one)(
            *(_torch_private.unmap(grad, level) for grad in batched.values())
        )
        for k, value in zip(present, mapped, strict=True):
            results[k] = _torch_private.map_first_axis(value, level)
        return tuple(results)

    _torch_private.never_compile(with_batched)  # type: ignore[arg-type]  # code around a graph
    return with_batched
