"""Which units follow a labelling of the steps: inside quotes, position in the line, time of day."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .recording import Recording, States, recordings, refuse_nan
from .sample import Sample


class Unit(NamedTuple):
    """One unit's state and how well it follows the labels on held-out data."""

    score: float
    state: str  # "hidden" or "cell"
    layer: int
    unit: int


@dataclass(frozen=True)
class Tracking:
    """How well each unit follows a labelling.

    The direction (a unit may go down where the label goes up) and the order of `best` come from one
    half of the data, the scores from the other, so that the best of many units is not flattered.

    Attributes:
        metric: "AUC" for bool labels (0.5 is chance, 1 separates them perfectly) or
            "correlation" for numbers (Pearson; 0 is none, 1 is perfect).
        hidden, cell: per layer, the score of each unit's h_t (D*P,) and c_t (D*H,).
        best: all of them, those that follow best on the first half first.
    """

    metric: Literal["AUC", "correlation"]
    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    best: list[Unit]


def label(states: States, labels: Any, *, max_steps: int = 10_000) -> Tracking:
    """The units that follow a labelling of the steps best.

    Args:
        states: an `LSTMStates`, a `Recording`, or an iterable of them.
        labels: (T, N) in the layout of the input, bool or floating; one for each of several states.
        max_steps: a uniform sample of this many steps is used where there are more.

    Raises:
        TypeError: labels are neither bool nor floating.
        ValueError: labels do not fit the states, hold NaN or are all the same, or what `recordings`
            refuses.
    """
    sample = Sample(max_steps)
    sequences, layers = 0, 0
    several = isinstance(labels, Iterable) and not isinstance(labels, (Tensor, PackedSequence))
    for recording, own in zip(recordings(states), labels if several else [labels], strict=True):
        _offer(sample, recording, own, sequences)
        sequences += recording.sequences
        layers = len(recording.cell)
    sequence, t, goal, *values = sample.columns
    second = sequence % 2 == 1 if sequences > 1 else t >= t.double().quantile(0.5)
    binary = goal.dtype == torch.bool
    score, centre = (_auc, 0.5) if binary else (_correlation, 0.0)
    found, strength = [], []
    for value in values:
        first_half = score(value[~second], goal[~second]) - centre
        found.append(first_half.sign() * (score(value[second], goal[second]) - centre) + centre)
        strength.append(first_half.abs())
    hidden, cell = tuple(found[:layers]), tuple(found[layers:])
    units = [
        Unit(float(score), state, layer, unit)
        for state, scores in (("hidden", hidden), ("cell", cell))
        for layer, layer_scores in enumerate(scores)
        for unit, score in enumerate(layer_scores)
    ]
    order = torch.cat(strength).argsort(descending=True, stable=True)
    best = [units[index] for index in order.tolist()]
    return Tracking("AUC" if binary else "correlation", hidden, cell, best)


def _offer(sample: Sample, recording: Recording, labels: Any, first: int) -> None:
    if not isinstance(labels, (Tensor, PackedSequence)):
        raise TypeError(f"labels must be a tensor, got {type(labels).__name__}")
    goal = recording.layout.time_first(labels)
    expected = recording.cell[0].shape[:2]
    if goal.shape != expected:
        raise ValueError(
            f"labels must be (T, N) = {tuple(expected)} in the layout of the input, "
            f"got {tuple(goal.shape)} in time-first layout"
        )
    if goal.dtype != torch.bool and not goal.is_floating_point():
        raise TypeError(
            f"labels must be bool or floating, got {goal.dtype}; for a class, labels == it"
        )
    refuse_nan(goal, "labels")
    valid = recording.valid
    everywhere = torch.ones(expected, dtype=torch.bool, device=goal.device)
    t, n = (everywhere if valid is None else valid.to(goal.device)).nonzero(as_tuple=True)

    def gather(rows: Tensor) -> tuple[Tensor, ...]:
        at, sequence = t[rows.to(t.device)], n[rows.to(t.device)]
        columns = [first + sequence, at, goal[at, sequence]]
        for value in (*recording.hidden, *recording.cell):
            columns.append(value[at.to(value.device), sequence.to(value.device)])
        return tuple(column.cpu() for column in columns)

    sample.offer(len(t), gather)


def _correlation(values: Tensor, goal: Tensor) -> Tensor:
    """Pearson's r of every column of values (R, F) with goal (R,); 0 for a constant column."""
    x, y = values.double() - values.double().mean(0), goal.double() - goal.double().mean()
    spread = y.square().sum()
    if not spread > 0:
        raise ValueError("labels are all the same in one half of the data")
    scale = (x.square().sum(0) * spread).sqrt()
    return torch.where(scale > 0, y @ x / scale, 0)


def _auc(values: Tensor, goal: Tensor) -> Tensor:
    """Of every column, the chance that a step labelled True has the larger value; ties: half."""
    positive, negative = int(goal.sum()), int((~goal).sum())
    if positive == 0 or negative == 0:
        raise ValueError("labels are all the same in one half of the data")
    ordered, row = values.T.contiguous().sort(1)
    differs = ordered[:, 1:] != ordered[:, :-1]
    edge = differs.new_ones(len(ordered), 1)
    place = torch.arange(1, len(goal) + 1, dtype=torch.int32)
    # Equal values share the mean of their places, from the first of them to the last.
    first = torch.where(torch.cat([edge, differs], 1), place, 0).cummax(1).values
    last = torch.where(torch.cat([differs, edge], 1), place, len(goal)).flip(1)
    last = last.cummin(1).values.flip(1)
    ranks = ((first + last) * goal[row]).sum(1).double() / 2
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)
