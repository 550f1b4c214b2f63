"""What the states tell of something that was seen before."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lstm_kernels.memory import Horizon, Recording, horizon


@dataclass(frozen=True)
class Knowledge:
    """What a linear probe reads from each state of the last layer about something seen before."""

    of: str  # what is looked for
    along: str  # what `at` counts
    at: list[int]
    hidden: list[float]
    cell: list[float]
    chance: list[float]
    metric: str

    @classmethod
    def over_time(cls, of: str, recording: Recording, target: Tensor, every: int) -> Knowledge:
        """Of one value per sequence, (N,), read from the state of each step on its own."""
        at = list(range(0, recording.steps, every))
        found = [_at_step(recording, target, step) for step in at]
        return cls(
            of,
            "step t",
            at,
            [float(known.hidden[-1]) for known in found],
            [float(known.cell[-1]) for known in found],
            [float(known.chance) for known in found],
            found[0].metric,
        )


def _at_step(recording: Recording, target: Tensor, step: int) -> Horizon:
    at = slice(step, step + 1)
    hidden, cell = (tuple(v[at] for v in kind) for kind in (recording.hidden, recording.cell))
    return horizon(Recording(hidden, cell), target.unsqueeze(0), max_lag=0)
