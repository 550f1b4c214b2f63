"""overlap: how much of each state is a function of the other at the same step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._probe import FOLDS, Probe, check_probe, folds_of, predictor
from ._recording import States, recordings
from ._repr import one_line
from ._steps import StepSample


@dataclass(frozen=True)
class Overlap:
    """What each state carries of the other: R2 of every unit, on held-out data.

    1 - R2 of h_t from c_t is what h_t carries that a probe cannot read from c_t, and the other way
    round. A unit that never varies counts as known, with 1.

    Attributes:
        hidden_from_cell: per layer (D*P,), each unit's h_t from all of c_t.
        cell_from_hidden: per layer (D*H,), each unit's c_t from all of h_t.
        steps: how many steps the probes were fitted and tested on.
        probe: what read the states, "linear" or "mlp".

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> shared = memory.overlap(memory.record(lstm, x), max_steps=200)
        >>> shared.steps, shared.probe
        (200, 'linear')
    """

    hidden_from_cell: tuple[Tensor, ...]
    cell_from_hidden: tuple[Tensor, ...]
    steps: int
    probe: Probe

    def __repr__(self) -> str:
        return one_line(
            self,
            layers=len(self.hidden_from_cell),
            steps=self.steps,
            probe=self.probe,
            hidden_from_cell=tuple(float(v.median()) for v in self.hidden_from_cell),
            cell_from_hidden=tuple(float(v.median()) for v in self.cell_from_hidden),
        )


def overlap(states: States, *, probe: Probe = "linear", max_steps: int = 10_000) -> Overlap:
    """How much of h_t can be read from c_t of the same step, and of c_t from h_t.

    `h = o * tanh(c)`: what h_t adds to c_t is the output gate, and what it hides is what the gate
    keeps shut.

    Args:
        states: an `LSTMStates`, a `Recording`, or an iterable of them.
        probe: "linear", or "mlp" for a network of one hidden layer on top of it.
        max_steps: a uniform sample of this many steps is used where there are more.

    Raises:
        ValueError: an unknown probe, too little data, or what `recordings` of the states refuse.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> shared = memory.overlap(memory.record(lstm, x))
        >>> tuple(shared.hidden_from_cell[0].shape), bool(shared.hidden_from_cell[0].median() > 0.5)
        ((8,), True)
    """
    check_probe(probe)
    sample = StepSample(max_steps)
    for recording in recordings(states):
        sample.offer(recording, torch.zeros(recording.steps, recording.sequences))
    steps = sample.steps()
    fold = folds_of(steps)

    def read(source: Tensor, wanted: Tensor) -> Tensor:
        wanted = wanted.double()
        spread = (wanted - wanted.mean(0)).square().sum(0)
        missed = (wanted - predictor(probe)(source, wanted, fold, FOLDS)).square().sum(0)
        return torch.where(spread > 0, 1 - missed / spread, 1)

    pairs = list(zip(steps.hidden, steps.cell, strict=True))
    return Overlap(
        tuple(read(cell, hidden) for hidden, cell in pairs),
        tuple(read(hidden, cell) for hidden, cell in pairs),
        len(fold),
        probe,
    )
