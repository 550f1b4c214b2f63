"""What a type checker knows of a call: its result follows from its input and its flags.

Each function has one overload for each result, which names the flags; the options that change no
type stand here once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import TypedDict, TypeVar

from ._prepacked import Prepacked
from ._states import LSTMStates
from ._variants import BoundVariant, Masks, Variant

#: A sequence as a call takes it and returns it.
Rows = TypeVar("Rows", Tensor, PackedSequence)

#: The output, (h_n, c_n) and, on request, the states of every step.
Returned = tuple[Rows, tuple[Tensor, Tensor]]
ReturnedStates = tuple[Rows, tuple[Tensor, Tensor], LSTMStates[Rows]]

#: h and c of a step and, on request, its gates.
Stepped = tuple[Tensor, Tensor]
SteppedGates = tuple[Tensor, Tensor, Tensor]


class SequenceOptions(TypedDict, total=False):
    """Options of `lstm`."""

    num_layers: int
    bidirectional: bool
    batch_first: bool
    dropout: float
    training: bool
    lengths: Tensor | None
    reset: Tensor | None
    reset_state: Sequence[Tensor] | None
    recompute: bool
    variant: Variant | BoundVariant | None
    _prepacked: Prepacked | None


class LSTMOptions(TypedDict, total=False):
    """Options of `LSTM.forward`."""

    lengths: Tensor | None
    reset: Tensor | None
    reset_state: Sequence[Tensor] | None
    masks: Sequence[Masks] | None
    input_gate: Tensor | None


class StepOptions(TypedDict, total=False):
    """Options of `lstm_cell`."""

    variant: Variant | BoundVariant | None
    training: bool


class CellOptions(TypedDict, total=False):
    """Options of `LSTMCell.forward`."""

    masks: Masks | None
    input_gate: Tensor | None


_Forward = TypeVar("_Forward")
_Forward_co = TypeVar("_Forward_co", covariant=True)


class _HasForward(Protocol[_Forward_co]):
    @property
    def forward(self) -> _Forward_co: ...


class CallsForward(Protocol):
    """The type of a module's `__call__`, which torch.nn.Module declares to take and return Any."""

    def __get__(self, module: _HasForward[_Forward], owner: object = None) -> _Forward: ...
