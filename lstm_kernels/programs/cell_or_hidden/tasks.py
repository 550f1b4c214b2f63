"""Three tasks whose need for memory is known: adding, copying, and predicting text.

Input, output and targets are steps first. `last` is the loss that looks at the last step only, so
that its gradient shows how far back the state still matters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from lstm_kernels.memory import horizon, record

from ..characters.model import CharacterModel
from ..characters.text import Corpus, make_corpus, read_text
from .knowledge import Knowledge


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
    metric: str
    higher_is_better = False
    guessing: float  # the score of a model without memory

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

    @abstractmethod
    def knowledge(self, model: nn.Module, x: Tensor) -> Knowledge:
        """What the states of the LSTM in a model tell of the past of x."""

    @abstractmethod
    def solved(self, score: float) -> bool:
        """Whether training may stop."""

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
        "Two of 200 random numbers are marked, one in each half; at the end, what is their sum?"
    )
    inputs = 2
    lstm_units = 32
    training_steps = 3000
    batch_size = 20
    learning_rate = 1e-2
    metric = "mean squared error"
    guessing = 1 / 6  # the variance of the sum of two uniform numbers
    length = 200

    def model(self, recurrent: Callable[[int, int], nn.RNNBase], units: int) -> nn.Module:
        return ReadOut(recurrent(self.inputs, units), 1)

    def batch(self, sequences: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        values = torch.rand(self.length, sequences, generator=generator)
        marks = torch.zeros(self.length, sequences)
        for start in (0, self.length // 2):
            at = torch.randint(self.length // 2, (sequences,), generator=generator)
            marks[start + at, torch.arange(sequences)] = 1
        return torch.stack([values, marks], -1), (values * marks).sum(0)

    def knowledge(self, model: nn.Module, x: Tensor) -> Knowledge:
        first = (x[: self.length // 2, :, 0] * x[: self.length // 2, :, 1]).sum(0)
        recording = record(model, x, gates=False)
        return Knowledge.over_time("the number marked in the first half", recording, first, 10)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return mse_loss(output[-1, :, 0], target)

    last = loss

    def score(self, output: Tensor, target: Tensor) -> float:
        return float(self.loss(output, target))

    def solved(self, score: float) -> bool:
        return score < 0.001


class Copying(Task):
    """A few symbols, repeated after a delay and a cue (Hochreiter & Schmidhuber 1997)."""

    name = "copying"
    symbols, kinds, delay = 5, 8, 40
    question = (
        f"{symbols} symbols out of {kinds} are shown, then {delay} blanks and a cue: "
        "which symbols were they?"
    )
    inputs = kinds + 2  # blank and cue
    lstm_units = 64
    training_steps = 3000
    batch_size = 20
    learning_rate = 1e-2
    metric = "accuracy"
    higher_is_better = True
    guessing = 1 / kinds

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

    def knowledge(self, model: nn.Module, x: Tensor) -> Knowledge:
        recording = record(model, x, gates=False)
        return Knowledge.over_time("the first symbol", recording, x[0].argmax(-1), 3)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output[-self.symbols :].flatten(0, 1), target.flatten())

    def last(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output[-1], target[-1])

    def score(self, output: Tensor, target: Tensor) -> float:
        return float((output[-self.symbols :].argmax(-1) == target).float().mean())

    def solved(self, score: float) -> bool:
        return score > 0.999


class Text(Task):
    """The next character of English text: the demo's model and corpus."""

    name = "text"
    question = "Given Python's own documentation up to here, what is the next character?"
    inputs = 64
    lstm_units = 128
    training_steps = 400
    batch_size = 32
    learning_rate = 5e-3
    metric = "bits per character"
    length = 96

    def __init__(self) -> None:
        self.corpus: Corpus = make_corpus(read_text(None), self.batch_size, self.length)
        counts = self.corpus.train.bincount().double()
        frequency = counts / counts.sum()
        self.guessing = float(-(frequency * frequency.clamp(min=1e-12).log2()).sum())

    def model(self, recurrent: Callable[[int, int], nn.RNNBase], units: int) -> nn.Module:
        make: Any = recurrent  # the demo names a class; any maker will do
        return _Logits(CharacterModel(make, len(self.corpus.alphabet), units))

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

    def knowledge(self, model: nn.Module, x: Tensor) -> Knowledge:
        known = horizon(model, x, max_lag=20, max_steps=5000)
        scores = (known.hidden[-1], known.cell[-1], known.chance)
        hidden, cell, chance = (score.tolist() for score in scores)
        of, along = "the character read k steps before", "lag k (steps back)"
        return Knowledge(of, along, known.lags.tolist(), hidden, cell, chance, known.metric)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output.flatten(0, 1), target.flatten())

    def last(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output[-1], target[-1])

    def score(self, output: Tensor, target: Tensor) -> float:
        warm = self.length // 4  # the first steps have no past to go by
        return float(self.loss(output[warm:], target[warm:])) / math.log(2)

    def solved(self, score: float) -> bool:
        return False


class _Logits(nn.Module):
    """The demo's model without the state it returns."""

    def __init__(self, model: CharacterModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens)[0]
        return logits
