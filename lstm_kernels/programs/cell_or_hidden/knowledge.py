"""What the states tell of something that was seen before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lstm_kernels.memory import Horizon, Recording, horizon

Probe = Literal["linear", "mlp"]
PROBES: tuple[Probe, Probe] = ("linear", "mlp")


@dataclass(frozen=True)
class Knowledge:
    """What probes read from each state of the last layer about something seen before.

    Attributes:
        along: what `at` counts.
        chance: the score of guessing, at each place.
        hidden, cell: the scores of each probe, by its name.
        metric: "R2" or "accuracy".
    """

    along: str
    at: list[int]
    chance: list[float]
    hidden: dict[str, list[float]]
    cell: dict[str, list[float]]
    metric: str


def at_steps(recording: Recording, target: Tensor, steps: list[int]) -> Knowledge:
    """Of one value per sequence, (N,), read from the state of each step on its own."""
    found = {
        probe: [_at_step(recording, target, step, probe) for step in steps] for probe in PROBES
    }
    first = found["linear"]
    return Knowledge(
        "step t",
        steps,
        [float(known.chance) for known in first],
        {probe: [float(known.hidden[-1]) for known in found[probe]] for probe in PROBES},
        {probe: [float(known.cell[-1]) for known in found[probe]] for probe in PROBES},
        first[0].metric,
    )


def _at_step(recording: Recording, target: Tensor, step: int, probe: Probe) -> Horizon:
    at = slice(step, step + 1)
    hidden, cell = (tuple(v[at] for v in kind) for kind in (recording.hidden, recording.cell))
    return horizon(Recording(hidden, cell), target.unsqueeze(0), max_lag=0, probe=probe)


def of_lags(recording: Recording, targets: Tensor, max_lag: int) -> Knowledge:
    """Of the value (T, N) that was seen k steps before, from the states of all steps."""
    found = {
        probe: horizon(recording, targets, max_lag=max_lag, max_steps=4000, probe=probe)
        for probe in PROBES
    }
    first = found["linear"]
    return Knowledge(
        "lag k (steps back)",
        first.lags.tolist(),
        first.chance.tolist(),
        {probe: found[probe].hidden[-1].tolist() for probe in PROBES},
        {probe: found[probe].cell[-1].tolist() for probe in PROBES},
        first.metric,
    )
