"""horizon: probes from a state to what was seen before."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ._probe import FOLDS, Probe, check_probe, folds_of, predictor
from ._record import batches, record
from ._recording import Recording, States
from ._repr import one_line
from ._steps import Steps, StepSample, paired, per_step

_NOTHING = 0.1  # an R2 below it says that a state does not know


@dataclass(frozen=True)
class Horizon:
    """How well each state tells what was seen k steps before, on held-out data.

    Attributes:
        lags: (K,), the distances k in steps; 0 is the input just read.
        hidden: per layer (K,), the score of a probe from h_t.
        cell: per layer (K,), the score of a probe from c_t.
        metric: "R2" for numbers (1 is perfect, 0 no better than the mean, pooled over features), or
            "accuracy" for classes.
        chance: (K,), the score of always guessing the mean, or the most frequent class.
        steps: how many steps the probes were fitted and tested on.
        probe: what read the states, "linear" or "mlp".

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> known = memory.horizon(memory.record(lstm, x), x, max_lag=3)
        >>> known.lags.tolist(), tuple(known.hidden[0].shape), known.reach("cell")[0] >= 0
        ([0, 1, 2, 3], (4,), True)
    """

    lags: Tensor
    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    metric: Literal["R2", "accuracy"]
    chance: Tensor
    steps: int
    probe: Probe = "linear"

    def reach(self, state: Literal["hidden", "cell"], threshold: float = 0.5) -> tuple[int, ...]:
        """Per layer, the largest lag that the state knows; -1 where it knows none.

        A state knows a lag if (score - chance) >= threshold * (1 - chance).
        """
        reached = []
        for score in getattr(self, state):
            known = (score - self.chance) >= threshold * (1 - self.chance)
            known &= self.chance < 1
            reached.append(int(self.lags[known].max()) if known.any() else -1)
        return tuple(reached)

    def __repr__(self) -> str:
        return one_line(
            self,
            layers=len(self.cell),
            max_lag=len(self.lags) - 1,
            steps=self.steps,
            metric=self.metric,
            hidden_reach=self.reach("hidden"),
            cell_reach=self.reach("cell"),
        )


@overload
def horizon(
    model: nn.Module,
    x: Any,
    target_fn: Callable[[Any], Tensor | PackedSequence] | None = None,
    /,
    *,
    max_lag: int = 20,
    max_steps: int = 10_000,
    probe: Probe = "linear",
    lstm: str | None = None,
    progress: bool = True,
) -> Horizon: ...
@overload
def horizon(
    states: States,
    targets: Any,
    /,
    *,
    max_lag: int = 20,
    max_steps: int = 10_000,
    probe: Probe = "linear",
) -> Horizon: ...
def horizon(
    model: Any,
    x: Any,
    target_fn: Callable[[Any], Tensor | PackedSequence] | None = None,
    /,
    *,
    max_lag: int = 20,
    max_steps: int = 10_000,
    probe: Probe = "linear",
    lstm: str | None = None,
    progress: bool = True,
) -> Horizon:
    """How far back h_t and c_t know what was seen: of `(model, x)`, or of `(states, targets)`.

    For each lag k a ridge regression reads the target of step t - k from the state of step t. It
    is fitted and tested on different sequences (different spans of time where there are fewer than
    five). All lags use the same steps t, so that their scores compare. The fits take ten
    eigen-decompositions of H x H per state and layer, however little data there is. Outliers and
    ill-conditioned states cannot push a score far below that of guessing.

    Args:
        model, x: a model with one `lstm_kernels.LSTM` inside, and its input or a data loader; or
            states (an `LSTMStates`, a `Recording`, or an iterable of them) and the targets.
        target_fn: maps the input to the targets; default, the input itself. A model seldom keeps
            raw numbers that it was given: say what it should know of them.
        targets: (T, N) or (T, N, F) in the layout of the input (one for each of several states):
            floating, scored by R2, or integer or bool classes, scored by accuracy.
        max_lag: the largest k, at least 0.
        max_steps: a uniform sample of this many steps is used where there are more.
        probe: "linear", or "mlp": a network of one hidden layer on top of the linear probe, which
            takes some seconds per state and layer.
        lstm, progress: as for `stream`.

    Raises:
        ValueError: the sequences are too short for `max_lag`, a target does not fit or holds NaN,
            or what `recordings` of the states refuse.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> known = memory.horizon(lstm, x, max_lag=3)
        >>> known.metric, bool(known.cell[0][0] > 0.5)  # the input just read, from c_t
        ('R2', True)
    """
    if max_lag < 0:
        raise ValueError(f"max_lag must be at least 0, got {max_lag}")
    check_probe(probe)
    if isinstance(model, nn.Module):
        pairs = _recorded(model, x, target_fn, lstm, progress)
    else:
        if target_fn is not None:
            raise TypeError("target_fn needs a model; with states, give the targets themselves")
        pairs = paired(model, x)
    sample = StepSample(max_steps, max_lag)
    for recording, targets in pairs:
        sample.offer(recording, _goal(recording, targets))
    found = _probe(sample.steps(), probe)
    if isinstance(model, nn.Module) and target_fn is None:
        _warn_of_raw_input(found)
    return found


def _warn_of_raw_input(found: Horizon) -> None:
    """Numbers that a model was given are seldom what it keeps; symbols often are."""
    best = max(float(score.max()) for score in (*found.hidden, *found.cell))
    if found.metric == "R2" and best < _NOTHING:
        warnings.warn(
            f"no state tells the input itself (the best R2 is {best:.2f}, and 0 is a guess): give "
            "target_fn, which maps the input to what the model should know of each step",
            stacklevel=3,
        )


def _recorded(
    model: nn.Module,
    data: Any,
    target_fn: Callable[[Any], Tensor | PackedSequence] | None,
    lstm: str | None,
    progress: bool,
) -> Iterator[tuple[Recording, Any]]:
    for x, _ in batches(data, progress):
        recording = record(model, x, gates=False, lstm=lstm)
        yield recording, x if target_fn is None else target_fn(x)


def _goal(recording: Recording, targets: Any) -> Tensor:
    """What the probes look for, (T, N) or (T, N, F)."""
    goal = per_step(recording, targets, "targets")
    expected = recording.steps, recording.sequences
    if goal.shape[:2] != expected or goal.dim() > 3 or goal.is_complex():
        raise ValueError(
            f"targets must be (T, N) or (T, N, F) with T, N = {expected} in the layout "
            f"of the input, got {tuple(goal.shape)} in time-first layout"
        )
    return goal


def _probe(steps: Steps, probe: Probe) -> Horizon:
    """Fits a probe for each state and lag."""
    known = steps.values
    fold = folds_of(steps)
    lags = torch.arange(known.shape[1])
    numbers = known.is_floating_point()
    score = _r2 if numbers else _accuracy
    return Horizon(
        lags,
        tuple(score(state, known, fold, probe) for state in steps.hidden),
        tuple(score(state, known, fold, probe) for state in steps.cell),
        "R2" if numbers else "accuracy",
        torch.zeros(len(lags)).double() if numbers else _most_frequent(known),
        len(known),
        probe,
    )


def _r2(state: Tensor, known: Tensor, fold: Tensor, probe: Probe) -> Tensor:
    """Per lag; `known` is (R, K) or (R, K, F)."""
    known = known.double().flatten(2) if known.dim() > 2 else known.double().unsqueeze(2)
    spread = (known - known.mean(0)).square().sum((0, 2))
    if not spread.all():
        raise ValueError("targets are constant: there is nothing to know")
    predicted = predictor(probe)(state, known.flatten(1), fold, FOLDS).view(known.shape)
    return 1 - (known - predicted).square().sum((0, 2)) / spread


def _accuracy(state: Tensor, known: Tensor, fold: Tensor, probe: Probe) -> Tensor:
    """Per lag, the class whose indicator is predicted highest; `known` is (R, K)."""
    known = _classes(known)
    classes, index = torch.unique(known, return_inverse=True)
    together = max(1, 1024 // len(classes))  # lags, so that their indicators fit in memory
    scores = []
    for part in index.split(together, dim=1):
        indicator = torch.nn.functional.one_hot(part, len(classes)).flatten(1)
        predicted = predictor(probe)(state, indicator, fold, FOLDS).view(*part.shape, -1)
        scores.append((predicted.argmax(2) == part).double().mean(0))
    return torch.cat(scores)


def _most_frequent(known: Tensor) -> Tensor:
    known = _classes(known)
    counts = [torch.unique(column, return_counts=True)[1].max() for column in known.unbind(1)]
    return torch.stack(counts) / len(known)


def _classes(known: Tensor) -> Tensor:
    if known.dim() == 3 and known.shape[2] != 1:
        raise ValueError(
            f"targets of classes must be (T, N), got {known.shape[2]} of them per step"
        )
    return known.flatten(1)
