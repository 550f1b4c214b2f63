"""Measures a contender on one task, untrained and trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lstm_kernels import LSTM
from lstm_kernels.memory import GradientFlow, Retention, gradient_flow, record, retention
from lstm_kernels.memory._record import find

from .knowledge import Knowledge
from .tasks import Task
from .training import Contender, Trained

SEQUENCES = 500  # held out, for the measurements


@dataclass(frozen=True)
class Measured:
    """One contender on one task, untrained and trained."""

    contender: Contender
    units: int
    parameters: int  # of the recurrent module
    curve: list[tuple[int, float]]  # (training step, score)
    score: float
    untrained: GradientFlow
    trained: GradientFlow
    untrained_retention: Retention | None
    trained_retention: Retention | None
    knowledge: Knowledge | None

    @property
    def known(self) -> Knowledge:
        """`knowledge`, of an LSTM."""
        assert self.knowledge is not None
        return self.knowledge

    @classmethod
    def of(cls, task: Task, contender: Contender, result: Trained, seed: int) -> Measured:
        """Measures on sequences that were not trained on."""
        x, target = task.held_out(SEQUENCES, torch.Generator().manual_seed(seed + 2))
        model = contender.model(task, seed)
        recurrent = find(model, None, (LSTM, nn.RNN))
        is_lstm = contender.is_lstm

        def flow() -> GradientFlow:
            return gradient_flow(model, [(x, target)], task.last, progress=False)

        def kept() -> Retention | None:
            return retention(record(model, x)) if is_lstm else None

        untrained, untrained_retention = flow(), kept()
        model.load_state_dict(result.weights)
        with torch.no_grad():
            score = task.score(model(x), target)
        return cls(
            contender,
            recurrent.hidden_size,
            sum(weight.numel() for weight in recurrent.parameters()),
            result.scores,
            score,
            untrained,
            flow(),
            untrained_retention,
            kept(),
            task.knowledge(model, x) if is_lstm else None,
        )
