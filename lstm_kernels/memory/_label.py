"""label: which units follow a labelling of the steps, such as quotes or the time of day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ._recording import Recording, States
from ._repr import one_line
from ._steps import StepSample, paired, per_step


class Unit(NamedTuple):
    """One unit's state and how well it follows the labels on held-out data."""

    score: float
    state: str  # "hidden" or "cell"
    layer: int
    unit: int

    def __repr__(self) -> str:
        return one_line(self, **self._asdict())


@dataclass(frozen=True)
class Tracking:
    """How well each unit follows a labelling.

    One half of the data gives the direction (a unit may go down where the label goes up) and the
    order of `best`. The other half gives the scores, so that choosing the best of many units does
    not raise its score.

    Attributes:
        metric: "AUC" for bool labels (0.5 is chance, 1 separates them perfectly) or
            "correlation" for numbers (Pearson; 0 is none, 1 is perfect).
        hidden, cell: per layer, the score of each unit's h_t (D*P,) and c_t (D*H,).
        best: all units, those first that follow best on the first half.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> found = memory.label(memory.record(lstm, x), x[..., 0])
        >>> found.metric, len(found.best)  # both states of 8 units
        ('correlation', 16)
    """

    metric: Literal["AUC", "correlation"]
    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    best: list[Unit]

    def __repr__(self) -> str:
        return one_line(self, metric=self.metric, units=len(self.best), best=self.best[0])


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

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> best = memory.label(memory.record(lstm, x), x[..., 0] > 0).best[0]
        >>> best.score > 0.5, best.layer
        (True, 0)
    """
    sample = StepSample(max_steps)
    for recording, own in paired(states, labels):
        sample.offer(recording, _goal(recording, own))
    steps = sample.steps()
    binary = steps.values.dtype == torch.bool
    score, chance = (_auc, 0.5) if binary else (_correlation, 0.0)
    # Every other sequence, or the later steps of the only one.
    second = (
        steps.sequence % 2 == 1
        if sample.sequences > 1
        else steps.time >= steps.time.double().quantile(0.5)
    )
    goal = steps.values[:, 0]
    found, strength = [], []
    for state in (*steps.hidden, *steps.cell):
        lead = score(state[~second], goal[~second]) - chance
        found.append(lead.sign() * (score(state[second], goal[second]) - chance) + chance)
        strength.append(lead.abs())
    layers = len(steps.cell)
    hidden, cell = tuple(found[:layers]), tuple(found[layers:])
    units = _units("hidden", hidden) + _units("cell", cell)
    order = torch.cat(strength).argsort(descending=True, stable=True)
    best = [units[index] for index in order.tolist()]
    return Tracking("AUC" if binary else "correlation", hidden, cell, best)


def _goal(recording: Recording, labels: Any) -> Tensor:
    """The labels, (T, N)."""
    goal = per_step(recording, labels, "labels")
    expected = recording.steps, recording.sequences
    if goal.shape != expected:
        raise ValueError(
            f"labels must be (T, N) = {expected} in the layout of the input, "
            f"got {tuple(goal.shape)} in time-first layout"
        )
    if goal.dtype != torch.bool and not goal.is_floating_point():
        raise TypeError(
            f"labels must be bool or floating, got {goal.dtype}; for class k, pass labels == k"
        )
    return goal


def _units(state: str, layers: tuple[Tensor, ...]) -> list[Unit]:
    return [
        Unit(score, state, layer, unit)
        for layer, scores in enumerate(layers)
        for unit, score in enumerate(scores.tolist())
    ]


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
