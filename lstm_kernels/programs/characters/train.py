"""Training, one step at a time, so that two models can take turns on the same batches."""

import math
import time
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .model import State
from .text import chunks


class Contender:
    """A model in training, with its optimizer, the state it carries, and its step times.

    Args:
        model: what `CharacterModel` computes, bare or wrapped for distributed training.
        steps: how many steps the learning rate falls over, from `learning_rate` to nothing.
    """

    def __init__(self, name: str, model: nn.Module, steps: int, learning_rate: float) -> None:
        self.name = name
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.state: State | None = None
        self.seconds: list[float] = []

    def rewind(self) -> None:
        """Starts the streams anew: the carried state is forgotten."""
        self.state = None

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """One training step on a chunk (T, N), timed; returns its loss in bits per character."""
        synchronize(inputs.device)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        logits, (h, c) = self.model(inputs, self.state)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        synchronize(inputs.device)
        self.seconds.append(time.perf_counter() - start)
        self.schedule.step()
        self.state = (h.detach(), c.detach())
        return loss.item() / math.log(2)

    def characters_per_second(self, characters: int) -> float:
        """Median training throughput, if each step consumes this number of `characters`."""
        return characters / median(self.seconds)


def speedup(ours: Contender, theirs: Contender) -> float:
    """Median over the steps of their time divided by ours, each pair taken one after the other."""
    return median(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))


@torch.no_grad()
def evaluate(model: nn.Module, tokens: Tensor, batch_size: int, length: int) -> float:
    """Bits per character over `tokens` (characters,), the state carried from chunk to chunk."""
    state = None
    losses = []
    for inputs, targets in chunks(tokens, batch_size, length):
        logits, state = model(inputs, state)
        losses.append(cross_entropy(logits.flatten(0, 1), targets.flatten()))
    return torch.stack(losses).mean().item() / math.log(2)


def synchronize(device: torch.device) -> None:
    """Waits for the device, so that a clock read next to it means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
