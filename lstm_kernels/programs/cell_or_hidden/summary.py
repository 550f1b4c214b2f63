"""Numbers over seeds: the median, and the range from the lowest to the highest.

Of five seeds, the true median lies outside the range of the five in one case of sixteen: the range
is a 94% interval of the median, whatever the distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from .knowledge import Knowledge
from .measure import AFTER, BEFORE, Run
from .tasks import Task
from .training import CONTENDERS

Measure = Callable[[Run], "float | None"]  # None where a run has no such number


@dataclass(frozen=True)
class Interval:
    """The median, lowest and highest of `count` runs."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        return cls(median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        if self.count == 1:
            return _number(self.median)
        return f"{_number(self.median)} [{_number(self.low)}, {_number(self.high)}]"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.3g}"


def summary(runs: Sequence[Run], measures: dict[str, Measure]) -> dict[str, Interval]:
    """Of each measure that these runs have."""
    found = {}
    for name, measure in measures.items():
        values = [value for value in map(measure, runs) if value is not None]
        if values:
            found[name] = Interval.of(values)
    return found


def headline(task: Task, runs: Sequence[Run]) -> str:
    """The LSTM that learnt from most seeds; of several, the one with the best median score."""
    sign = 1 if task.higher_is_better else -1

    def rank(name: str) -> tuple[int, float]:
        own = [r for r in runs if r.contender == name]
        return sum(r.learnt for r in own), sign * median(r.score for r in own)

    return max((c.name for c in CONTENDERS if c.is_lstm), key=rank)


def measures(task: Task) -> dict[str, Measure]:
    """The numbers of a run that the page and the README tabulate."""
    found: dict[str, Measure] = {
        task.metric: lambda r: r.score,
        "training steps": lambda r: r.steps,
        "change of the score in the last fifth of training": last_fifth,
    }
    for stage in (BEFORE, AFTER):
        found |= {
            f"gradient reach in h, {stage}": _reach("hidden", stage),
            f"gradient reach in c, {stage}": _reach("cell", stage),
            f"gradient reach along the cell alone, {stage}": _reach("highway", stage),
            f"growth of the gradient per step back, {stage}": _plain("growth", stage),
            f"Lyapunov exponent, {stage}": _plain("lyapunov", stage),
            f"half-life of the median cell, {stage}": _half_life(median, stage),
            f"half-life of the longest-lived cell, {stage}": _half_life(max, stage),
        }
    for letter, state in (("c", "cell"), ("h", "hidden")):
        for probe in ("linear", "mlp"):
            found[f"{letter} knows, {probe}"] = _knows(state, probe)
    for source in ("h from c", "c from h"):
        for probe in ("linear", "mlp"):
            found[f"R2 of {source}, {probe}"] = _entry("overlap", f"{source}, {probe}")
    for change in ("zeroed", "held for 10 steps", "swapped", "moved by |h|"):
        for letter in "ch":
            found[f"cost of {letter} {change}"] = _entry("ablation", f"{letter} {change}")
    return found


def last_fifth(r: Run) -> float | None:
    """How much the score changed in the last fifth of training, by medians of its checks."""
    scores = [score for _, score in r.curve]
    fifth = len(scores) // 5
    if fifth < 1:
        return None
    return median(scores[-fifth:]) - median(scores[-2 * fifth : -fifth])


def knows(known: Knowledge, state: str, probe: str) -> float:
    """The median over the places: the score between guessing (0) and certainty (1)."""
    scores: list[float] = getattr(known, state)[probe]
    above = [(s - g) / (1 - g) for s, g in zip(scores, known.chance, strict=True)]
    return median(above)


def _knows(state: str, probe: str) -> Measure:
    return lambda r: None if r.knowledge is None else knows(r.knowledge, state, probe)


def _reach(kind: str, stage: str) -> Measure:
    return lambda r: r.reach[stage].get(kind)


def _plain(name: str, stage: str) -> Measure:
    def value(r: Run) -> float:
        found: float = getattr(r, name)[stage]
        return found

    return value


def _entry(name: str, key: str) -> Measure:
    return lambda r: getattr(r, name).get(key)


def _half_life(of: Callable[[list[float]], float], stage: str) -> Measure:
    return lambda r: of(r.half_life[stage]) if r.half_life else None
