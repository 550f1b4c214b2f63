"""Resets to given states: each episode becomes a sequence of a packed batch.

The kernels zero states; they do not set them to others. So the steps between two resets are taken
out as sequences, run together as packed rows, and put back. That costs no more than the steps there
are. Where the episodes are is data: the host waits for it, and no graph can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import _checks, _torch_private
from ._layer import Layer
from ._layouts import layout_of
from ._states import LSTMStates
from ._variants import LayerTensors

State = tuple[Tensor, Tensor]
# Of the steps of a batch: how many its episodes may take in an array of all of them, padded.
_PADDED = 4
# Those of LayerTensors that have a value for each step, or one for all.
_OF_STEPS = ("input_gate", "recurrent", "zoneout_cell", "zoneout_hidden")


class _Episodes(NamedTuple):
    """The episodes of a batch, S of them, the longest first.

    sequence: (S,), whose each is. From `reset`: (S,) bool, whether it starts from the given state.
    last: the episode that ends each sequence that has a step; sequences_with_steps: these.
    rows: (R,), t * N + n of each packed row; batch_sizes: (T') on the CPU. size: T and N.
    """

    sequence: Tensor
    from_reset: Tensor
    last: Tensor
    rows: Tensor
    batch_sizes: Tensor
    size: torch.Size

    def packed(self, x: Tensor) -> Tensor:
        """The rows, (R, ...), of what is (T, N, ...)."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def back(self, values: Tensor) -> Tensor:
        """(T, N, ...) of packed rows, zeros where there is none."""
        every = values.new_zeros(self.size.numel(), *values.shape[1:])
        steps: Tensor = every.index_copy(0, self.rows, values).unflatten(0, self.size)
        return steps

    def starts(self, of_reset: Tensor, of_first: Tensor) -> Tensor:
        """The states that they start from, (..., S, H)."""
        return torch.where(self.from_reset[:, None], of_reset, of_first)

    def last_states(self, of_first: Tensor, ends: Tensor) -> Tensor:
        """The last state of each sequence, (..., N, H), from those of the episodes."""
        ended = self.sequence.index_select(0, self.last)
        last = ends.index_select(1, self.last)
        return of_first.to(ends.dtype).index_copy(1, ended, last)

    def first_steps(self, count: int, steps: Tensor) -> Tensor:
        """(1 or count, S, ...): the first steps of every episode, of (1 or T, N, ...).

        Past the end of an episode it has values of other steps.
        """
        if steps.shape[0] == 1:
            return steps.index_select(1, self.sequence)
        begins, (_, batch) = self.rows[: len(self.sequence)], self.size
        later = torch.arange(count, device=begins.device)[:, None] * batch
        rows = (begins + later).clamp(max=self.size.numel() - 1)
        chosen = steps.flatten(0, 1).index_select(0, rows.flatten())
        return chosen.view(*rows.shape, *steps.shape[2:])


def run(*arguments: Any, **options: Any) -> Any:
    """functional.lstm, which comes before its own arguments, with a reset_state."""
    reason = "reset_state: where the episodes are is data, which no graph can depend on"
    if torch.compiler.is_dynamo_compiling():
        _torch_private.refuse_to_compile(reason)
    elif torch.compiler.is_exporting() or _torch_private.tracing():
        raise NotImplementedError(reason)
    return _run(*arguments, **options)


def _run(
    function: Callable[..., Any],
    x: Tensor,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    *,
    lengths: Tensor | None,
    reset: Tensor | None,
    reset_state: Sequence[Tensor],
    batch_first: bool,
    num_layers: int,
    bidirectional: bool,
    **options: Any,
) -> Any:
    h_reset, c_reset = _checks.reset_pair(reset_state)
    if reset is None or not isinstance(x, Tensor):
        raise ValueError("reset_state says where reset leads to: give reset, and padded input")
    _checks.ragged_kinds(None, lengths, reset)
    layout = layout_of(x, batch_first)
    _, h_reset, c_reset = layout.given(x, h_reset, c_reset)
    x, h0, c0 = layout.given(x, *_checks.pair(hx, "lstm"))
    lengths, reset = layout.ragged(lengths, reset)
    autocast = _checks.autocast_dtype(x)
    directions = 1 + bidirectional
    for h, c in ((h0, c0), (h_reset, c_reset)):
        _checks.sequence_fits(x, h, c, weights, num_layers, directions, None, autocast)
    _checks.ragged_fits(x, lengths, reset, directions)
    if h0 is None or c0 is None:
        h0, c0 = torch.zeros_like(h_reset), torch.zeros_like(c_reset)

    options |= {"num_layers": num_layers, "bidirectional": bidirectional}
    found = _episodes(reset.to(torch.bool), lengths)
    if found is None:  # no sequence has a step
        result = function(x, (h0, c0), weights, lengths=lengths, **options)
    else:
        run = partial(function, weights=weights, **options)
        result = _run_episodes(run, found, x, (h0, c0), (h_reset, c_reset))
    output, (h_n, c_n), *states = result
    return *layout.results(output, h_n, c_n), *(_of_states(layout.back, each) for each in states)


_torch_private.never_compile(_run)  # type: ignore[arg-type]


def _run_episodes(
    run: Callable[..., Any], episodes: _Episodes, x: Tensor, first: State, reset: State
) -> tuple[Any, ...]:
    """What `run` returns of all episodes together, put back where they are in x, (T, N, I).

    first, reset: the states that a sequence starts from, and that a reset leads to.
    """
    starts = tuple(
        episodes.starts(
            of_reset.index_select(1, episodes.sequence),
            of_first.index_select(1, episodes.sequence),
        )
        for of_reset, of_first in zip(reset, first, strict=True)
    )
    rows = PackedSequence(episodes.packed(x), episodes.batch_sizes)
    output, ends, *states = run(rows, starts)
    last = tuple(map(episodes.last_states, first, ends))

    def back(packed: PackedSequence) -> Tensor:
        return episodes.back(packed.data)

    return back(output), last, *(_of_states(back, each) for each in states)


def variant_layer(
    run: Callable[[Layer, LayerTensors], tuple[Tensor, ...]], given: Layer, tensors: LayerTensors
) -> tuple[Tensor, ...] | None:
    """A layer of a variant whose tensors have states to reset to.

    Args:
        run: returns output, h_n, c_n, cell and gates, the last two if they are saved.

    Returns:
        These results for the steps of `given`. None where no sequence has a step. None, too, where
        one long episode would make the masks of all of them too large.
    """
    found = _episodes(given.reset, given.lengths)
    if found is None:
        return None
    of_steps = {name: value for name in _OF_STEPS if (value := getattr(tensors, name)) is not None}
    longest = len(found.batch_sizes)
    has_steps = any(value.shape[0] > 1 for value in of_steps.values())
    if has_steps and longest * len(found.sequence) > _PADDED * found.size.numel():
        return None
    of_reset = tensors.reset_h, tensors.reset_c
    of_first = [
        value.new_zeros(1, *value.shape[1:]) if first is None else first
        for value, first in zip(of_reset, (given.h0, given.c0), strict=True)
    ]
    h0, c0 = (
        found.starts(found.first_steps(1, value), first.index_select(1, found.sequence))
        for value, first in zip(of_reset, of_first, strict=True)
    )
    rows = given._replace(
        input=found.packed(given.input),
        h0=h0,
        c0=c0,
        batch_sizes=found.batch_sizes,
        lengths=None,
        reset=None,
    )
    own = {name: found.first_steps(longest, value) for name, value in of_steps.items()}
    output, h_n, c_n, *states = run(rows, tensors._replace(reset_h=None, reset_c=None, **own))
    last = map(found.last_states, of_first, (h_n, c_n))
    # What is not saved is empty, without rows.
    every = (found.back(value) if value.dim() > 1 else value for value in states)
    return found.back(output), *last, *every


def _of_states(function: Callable[[Any], Any], states: LSTMStates) -> LSTMStates:
    kinds: Any = (None if kind is None else tuple(map(function, kind)) for kind in states)
    return LSTMStates(*kinds)


def _episodes(reset: Tensor, lengths: Tensor | None) -> _Episodes | None:
    """The episodes of `reset` (T, N) within the lengths; None where there is no step at all."""
    steps, batch = reset.shape
    time = torch.arange(steps, device=reset.device)
    begins = (reset | (time == 0)[:, None]) & (True if lengths is None else time[:, None] < lengths)
    sequence, start = begins.mT.nonzero().unbind(1)
    if len(sequence) == 0:
        return None
    ends = torch.full((batch,), steps, device=reset.device) if lengths is None else lengths
    is_last = torch.cat([sequence[1:] != sequence[:-1], sequence.new_ones(1, dtype=torch.bool)])
    size = torch.where(is_last, ends[sequence], start.roll(-1)) - start
    size, order = size.sort(descending=True, stable=True)
    sequence, start, is_last = sequence[order], start[order], is_last[order]
    step = torch.arange(int(size[0]), device=reset.device)[:, None]
    active = step < size
    rows = ((start + step) * batch + sequence)[active]
    return _Episodes(
        sequence,
        reset[start, sequence],
        is_last.nonzero().squeeze(1),
        rows,
        active.sum(1).cpu(),
        reset.shape,
    )
