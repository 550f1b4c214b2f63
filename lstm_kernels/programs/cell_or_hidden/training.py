"""Trains the contenders of all tasks, one process per core."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import Synchronized

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lstm_kernels import LSTM

from .tasks import Task

_CHECK_EVERY = 100  # training steps between two looks at the score
_steps_done: Synchronized[int] | None = None  # of all workers, in a worker


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


@dataclass(frozen=True)
class Trained:
    """A trained model and its scores on the way, as (training step, score)."""

    weights: dict[str, Tensor]
    scores: list[tuple[int, float]]


def train(task: Task, contender: Contender, steps: int, seed: int) -> Trained:
    """Adam with the gradient's norm clipped to 1, until the task is solved or the steps are up."""
    model = contender.model(task, seed)
    generator = torch.Generator().manual_seed(seed)
    test = task.held_out(200, torch.Generator().manual_seed(seed + 1))
    optimizer = torch.optim.Adam(model.parameters(), task.learning_rate)
    scores = []
    for step in range(1, steps + 1):
        x, target = task.batch(task.batch_size, generator)
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(model(x), target))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if _steps_done is not None:
            with _steps_done.get_lock():
                _steps_done.value += 1
        if step % _CHECK_EVERY == 0 or step == steps:
            with torch.no_grad():
                scores.append((step, task.score(model(test[0]), test[1])))
            if task.solved(scores[-1][1]):
                break
    return Trained({name: w.detach() for name, w in model.state_dict().items()}, scores)


def train_all(jobs: Sequence[tuple[Task, Contender]], part: float, seed: int) -> list[Trained]:
    """Trains the jobs side by side, a core each, with a progress bar over their steps.

    Args:
        part: of each task's training steps.
    """
    steps = [max(1, round(part * task.training_steps)) for task, _ in jobs]
    context = multiprocessing.get_context("spawn")  # a forked child may not use torch's threads
    done = context.Value("q", 0)
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    with (
        ProcessPoolExecutor(workers, context, _begin, (done,)) as pool,
        tqdm(total=sum(steps), desc="training", unit="step", mininterval=0.5) as bar,
    ):
        futures = [
            pool.submit(train, task, contender, count, seed)
            for (task, contender), count in zip(jobs, steps, strict=True)
        ]
        waiting = set(futures)
        while waiting:
            _, waiting = wait(waiting, timeout=0.5)
            bar.update(done.value - bar.n)
        return [future.result() for future in futures]


def _begin(done: Synchronized[int]) -> None:
    """In each worker: one thread, for the cores are taken by the other workers."""
    global _steps_done
    _steps_done = done
    torch.set_num_threads(1)
