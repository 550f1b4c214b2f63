"""Trains a contender on a task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from lstm_kernels import LSTM

from .tasks import Task

_CHECK_EVERY = 100  # training steps between two looks at the score


@dataclass(frozen=True)
class Contender:
    """A plain RNN, or an LSTM with its forget bias."""

    name: str
    forget_bias: float | None

    @property
    def is_lstm(self) -> bool:
        return self.forget_bias is not None

    def model(self, task: Task, seed: int) -> nn.Module:
        """Untrained, with as many recurrent parameters as the others of the task."""
        torch.manual_seed(seed)
        if self.is_lstm:
            return task.model(partial(LSTM, forget_bias=self.forget_bias), task.lstm_units)
        return task.model(nn.RNN, task.rnn_units())


CONTENDERS = (
    Contender("RNN", None),
    Contender("LSTM, forget bias 0", 0.0),
    Contender("LSTM, forget bias 1", 1.0),
    Contender("LSTM, forget bias 3", 3.0),
)


def train(
    task: Task, model: nn.Module, steps: int, seed: int, step_done: Callable[[], None]
) -> list[tuple[int, float]]:
    """Adam with the gradient's norm clipped to 1, until the task is learnt or the steps are up.

    Returns:
        The scores on the way, as (training step, score).
    """
    generator = torch.Generator().manual_seed(seed)
    test = task.held_out(200, torch.Generator().manual_seed(seed + 1))
    optimizer = torch.optim.Adam(model.parameters(), task.learning_rate)
    scores = []
    for step in range(1, steps + 1):
        if task.decays:
            rate = task.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.param_groups[0]["lr"] = rate
        x, target = task.batch(task.batch_size, generator)
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(model(x), target))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step_done()
        if step % _CHECK_EVERY == 0 or step == steps:
            with torch.no_grad():
                scores.append((step, task.score(model(test[0]), test[1])))
            if task.enough is not None and task.learnt(scores[-1][1]):
                break
    return scores
