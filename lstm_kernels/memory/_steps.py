"""Samples steps of recordings: the states of each, and what the caller gave for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ._recording import Recording, States, recordings, refuse_nan
from ._sample import Sample


def paired(states: States, values: Any) -> Iterator[tuple[Recording, Any]]:
    """Each recording with its value: of several recordings, `values` holds one for each."""
    several = isinstance(values, Iterable) and not isinstance(values, (Tensor, PackedSequence))
    yield from zip(recordings(states), values if several else [values], strict=True)


def per_step(recording: Recording, value: Any, name: str) -> Tensor:
    """`value`, laid out as the recorded input was, as (T, N, ...).

    Raises:
        TypeError: it is no tensor.
        ValueError: it holds NaN.
    """
    if not isinstance(value, (Tensor, PackedSequence)):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    laid_out = recording.layout.time_first(value)
    refuse_nan(laid_out, name)
    return laid_out


class Steps(NamedTuple):
    """R steps, side by side."""

    sequence: Tensor  # (R,) of which sequence, counted over all recordings
    time: Tensor  # (R,) which step of it
    values: Tensor  # (R, K, ...) what was given for this step and the K - 1 steps before it
    hidden: tuple[Tensor, ...]  # per layer (R, D*P)
    cell: tuple[Tensor, ...]  # per layer (R, D*H)


class StepSample:
    """Keeps a uniform sample of all steps that have `max_lag` steps before them."""

    def __init__(self, max_steps: int, max_lag: int = 0) -> None:
        self._sample = Sample(max_steps)
        self._lags = torch.arange(max_lag + 1)
        self.sequences = 0  # of all recordings that were offered
        self._longest = 0

    def offer(self, recording: Recording, values: Tensor) -> None:
        """Offers the steps of one recording, with a value for each, (T, N, ...)."""
        device = values.device
        eligible = torch.ones(values.shape[:2], dtype=torch.bool, device=device)
        if recording.valid is not None:
            eligible &= recording.valid.to(device)
        eligible[: len(self._lags) - 1] = False
        t, n = eligible.nonzero(as_tuple=True)
        first, self.sequences = self.sequences, self.sequences + recording.sequences
        self._longest = max(self._longest, recording.steps)

        def gather(rows: Tensor) -> tuple[Tensor, ...]:
            at, sequence = t[rows.to(device)], n[rows.to(device)]
            known = values[at[:, None] - self._lags.to(device), sequence[:, None]]
            states = (
                state[at.to(state.device), sequence.to(state.device)]
                for state in (*recording.hidden, *recording.cell)
            )
            return tuple(column.cpu() for column in (first + sequence, at, known, *states))

        if len(t):
            self._sample.offer(len(t), gather)

    def steps(self) -> Steps:
        """The sampled steps.

        Raises:
            ValueError: no step has `max_lag` steps before it.
        """
        if self._sample.empty:
            raise ValueError(
                f"the sequences are too short for max_lag={len(self._lags) - 1}: "
                f"the longest has {self._longest} steps"
            )
        sequence, time, values, *states = self._sample.columns
        layers = len(states) // 2
        return Steps(sequence, time, values, tuple(states[:layers]), tuple(states[layers:]))
