"""Three tasks whose need for memory is known: adding, copying, and predicting text.

Input, output and targets are steps first. `last` is the loss that looks at the last step only, so
that its gradient shows how far back the state still matters. They are small, so that a few minutes
train several seeds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from lstm_kernels.memory import Recording

from ..characters.model import CharacterModel
from ..characters.text import Corpus, make_corpus, read_text
from .knowledge import Knowledge, at_steps, of_lags


class ReadOut(nn.Module):
    """A recurrent module and a linear layer on every h_t: (T, N, I) to (T, N, outputs)."""

    def __init__(self, recurrent: nn.RNNBase, outputs: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(recurrent.hidden_size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.recurrent(x)[0])
        return result


class Task(ABC):
    """What is learnt, by which model, and how it is scored."""

    name: str
    question: str
    inputs: int  # what the recurrent module reads per step
    lstm_units: int
    training_steps: int
    batch_size: int
    learning_rate: float
    decays = False  # the learning rate, to 0 along half a cosine
    metric: str
    higher_is_better = False
    guessing: float  # the score of a model without memory
    enough: float | None  # the score at which it is learnt and training stops
    changed_at: int  # the step before which `ablate` changes the state
    known: str  # what the probes look for

    @abstractmethod
    def model(self, recurrent: Callable[[int, int], nn.RNNBase], units: int) -> nn.Module:
        """A model around `recurrent(inputs, units)`."""

    @abstractmethod
    def batch(self, sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Input and targets of this number of sequences."""

    def held_out(self, sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same, of data that was not trained on; a synthetic task always draws new data."""
        return self.batch(sequences, generator)

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """What is trained."""

    @abstractmethod
    def last(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of the last step."""

    @abstractmethod
    def score(self, output: Tensor, target: Tensor) -> float:
        """How well it is solved, in the task's metric."""

    def score_after(self, output: Tensor, target: Tensor) -> float:
        """The score of the part of the output that a change at `changed_at` can spoil."""
        return self.score(output, target)

    @abstractmethod
    def knowledge(self, recording: Recording, x: Tensor) -> Knowledge:
        """What the states tell of the past of x."""

    def learnt(self, score: float) -> bool:
        """Whether the score is good enough; a task without a threshold is always learnt."""
        if self.enough is None:
            return True
        return score >= self.enough if self.higher_is_better else score <= self.enough

    def rnn_units(self) -> int:
        """Units of an nn.RNN with as many recurrent parameters as the LSTM."""

        def parameters(gates: int, units: int) -> int:
            return gates * units * (self.inputs + units + 2)

        budget = parameters(4, self.lstm_units)
        return min(
            range(self.lstm_units, 4 * self.lstm_units),
            key=lambda units: abs(parameters(1, units) - budget),
        )


class Adding(Task):
    """The sum of the two marked numbers among T, at the end (Hochreiter & Schmidhuber 1997)."""

    name = "adding"
    question = (
        "Two of 50 random numbers are marked, one in each half; at the end, what is their sum?"
    )
    inputs = 2
    lstm_units = 24
    training_steps = 2000
    batch_size = 20
    learning_rate = 1e-2
    metric = "mean squared error"
    guessing = 1 / 6  # the variance of the sum of two uniform numbers
    enough = 0.002
    length = 50
    changed_at = length // 2
    known = "the number marked in the first half"

    def model(self, recurrent: Callable[[int, int], nn.RNNBase], units: int) -> nn.Module:
        return ReadOut(recurrent(self.inputs, units), 1)

    def batch(self, sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        values = torch.rand(self.length, sequences, generator=generator)
        marks = torch.zeros(self.length, sequences)
        for start in (0, self.length // 2):
            at = torch.randint(self.length // 2, (sequences,), generator=generator)
            marks[start + at, torch.arange(sequences)] = 1
        return torch.stack([values, marks], -1), (values * marks).sum(0)

    def knowledge(self, recording: Recording, x: Tensor) -> Knowledge:
        half = self.length // 2
        first = (x[:half, :, 0] * x[:half, :, 1]).sum(0)
        return at_steps(recording, first, [half - 1, half + half // 2, self.length - 1])

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return mse_loss(output[-1, :, 0], target)

    last = loss

    def score(self, output: Tensor, target: Tensor) -> float:
        return float(self.loss(output, target))


class Copying(Task):
    """A few symbols, repeated after a delay and a cue (Hochreiter & Schmidhuber 1997)."""

    name = "copying"
    symbols, kinds, delay = 3, 4, 20
    question = (
        f"{symbols} symbols out of {kinds} are shown, then {delay} blanks and a cue: "
        "which symbols were they?"
    )
    inputs = kinds + 2  # blank and cue
    lstm_units = 32
    training_steps = 2000
    batch_size = 20
    learning_rate = 5e-3
    metric = "accuracy"
    higher_is_better = True
    guessing = 1 / kinds
    enough = 0.99
    changed_at = symbols + delay // 2
    known = "the first symbol"

    @property
    def cue(self) -> int:
        """The step at which the cue is read, the last one before the answer begins."""
        return self.symbols + self.delay - 1

    def model(self, recurrent: Callable[[int, int], nn.RNNBase], units: int) -> nn.Module:
        return ReadOut(recurrent(self.inputs, units), self.kinds)

    def batch(self, sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shown = torch.randint(self.kinds, (self.symbols, sequences), generator=generator)
        steps = torch.full((self.cue + 1 + self.symbols, sequences), self.kinds)
        steps[: self.symbols] = shown
        steps[self.cue] = self.kinds + 1
        return one_hot(steps, self.inputs).float(), shown

    def knowledge(self, recording: Recording, x: Tensor) -> Knowledge:
        return at_steps(recording, x[0].argmax(-1), [self.symbols - 1, self.changed_at, self.cue])

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output[-self.symbols :].flatten(0, 1), target.flatten())

    def last(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output[-1], target[-1])

    def score(self, output: Tensor, target: Tensor) -> float:
        return float((output[-self.symbols :].argmax(-1) == target).float().mean())


class Text(Task):
    """The next character of English text: the demo's model and corpus."""

    name = "text"
    question = "Given Python's own documentation up to here, what is the next character?"
    inputs = 32
    lstm_units = 64
    training_steps = 1000
    batch_size = 16
    learning_rate = 1e-2
    decays = True
    metric = "bits per character"
    enough = None
    length = 64
    changed_at = length // 2
    after = 8  # characters that are scored after a change
    known = "the character read k steps before"
    kinds = 16  # of characters that the probes tell apart: the most frequent ones and all others

    def __init__(self) -> None:
        self.corpus: Corpus = make_corpus(read_text(None), self.batch_size, self.length)
        counts = self.corpus.train.bincount().double()
        frequency = counts / counts.sum()
        self.guessing = float(-(frequency * frequency.clamp(min=1e-12).log2()).sum())

    def model(self, recurrent: Callable[[int, int], nn.RNNBase], units: int) -> nn.Module:
        make: Any = recurrent  # the demo names a class; any maker will do
        return _Logits(
            CharacterModel(make, len(self.corpus.alphabet), units, embedding_size=self.inputs)
        )

    def batch(self, sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._windows(self.corpus.train, sequences, generator)

    def held_out(self, sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self._windows(self.corpus.validation, sequences, generator)

    def _windows(
        self, text: Tensor, sequences: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        start = torch.randint(len(text) - self.length, (sequences,), generator=generator)
        window = text[torch.arange(self.length + 1)[:, None] + start]
        return window[:-1], window[1:]

    def knowledge(self, recording: Recording, x: Tensor) -> Knowledge:
        order = self.corpus.train.bincount(minlength=len(self.corpus.alphabet)).argsort()
        kind = torch.empty_like(order)
        kind[order.flip(0)] = torch.arange(len(order)).clamp(max=self.kinds - 1)
        return of_lags(recording, kind[x], max_lag=10)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output.flatten(0, 1), target.flatten())

    def last(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output[-1], target[-1])

    def score(self, output: Tensor, target: Tensor) -> float:
        warm = self.length // 4  # the first steps have no past to go by
        return float(self.loss(output[warm:], target[warm:])) / math.log(2)

    def score_after(self, output: Tensor, target: Tensor) -> float:
        after = slice(self.changed_at, self.changed_at + self.after)
        return float(self.loss(output[after], target[after])) / math.log(2)


class _Logits(nn.Module):
    """The demo's model without the state it returns."""

    def __init__(self, model: CharacterModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens)[0]
        return logits
