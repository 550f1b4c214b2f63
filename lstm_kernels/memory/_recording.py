"""Recording: the states of one batch in one layout, which every analysis starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lstm_kernels import LSTMStates

from ._repr import one_line


@dataclass(frozen=True)
class Layout:
    """How the caller lays out what has a value at every step."""

    batch_first: bool = False
    batched: bool = True

    def time_first(self, value: Tensor | PackedSequence) -> Tensor:
        """`value` as (T, N, ...), padded where it was packed."""
        if isinstance(value, PackedSequence):
            return pad_packed_sequence(value)[0]
        if not self.batched:
            return value.unsqueeze(1)
        return value.transpose(0, 1) if self.batch_first else value


def packed_like(packed: PackedSequence, value: Tensor) -> PackedSequence:
    """`value` (T, N, ...) packed as `packed` is."""
    if packed.sorted_indices is not None:
        value = value.index_select(1, packed.sorted_indices)
    lengths = (torch.arange(value.shape[1])[:, None] < packed.batch_sizes).sum(1)
    return packed._replace(data=pack_padded_sequence(value, lengths).data)


def map_states(function: Callable[[Any], Any], states: LSTMStates) -> Any:
    """An LSTMStates of what `function` makes of each tensor, taken in the order of the fields."""
    kinds: Any = (None if kind is None else tuple(map(function, kind)) for kind in states)
    return LSTMStates(*kinds)


@dataclass(frozen=True)
class Recording:
    """The states of one batch, laid out (T, N, ...) whatever the layout of the model.

    Attributes:
        hidden: per layer (T, N, D*P).
        cell: per layer (T, N, D*H).
        gates: per layer (T, N, D, 4, H), or None.
        lengths: (N,), the number of valid steps of each sequence, or None where all T are.
        layout: how the caller's own tensors (targets, labels) map to (T, N, ...).

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> recording = memory.record(lstm, x)
        >>> tuple(recording.cell[0].shape), tuple(recording.gates[0].shape)
        ((40, 6, 8), (40, 6, 1, 4, 8))
    """

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    gates: tuple[Tensor, ...] | None = None
    lengths: Tensor | None = None
    layout: Layout = Layout()

    @classmethod
    def of(
        cls,
        states: LSTMStates,
        *,
        batch_first: bool = False,
        lengths: Tensor | None = None,
    ) -> Recording:
        """Wraps what `lstm(x, return_states=True)` returned.

        Args:
            states: of batched, unbatched or packed input.
            batch_first: the states are (N, T, ...), as a module with `batch_first=True` gives.
            lengths: (N,), the valid steps of each padded sequence; packed states know theirs.

        Raises:
            TypeError: `states` is not an `LSTMStates`.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM, memory
            >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
            >>> _, _, states = lstm(x, return_states=True)
            >>> memory.Recording.of(states)
            Recording(layers=1, steps=40, sequences=6, units=8, gates=False, padded=False)
        """
        if not isinstance(states, LSTMStates):
            raise TypeError(f"states must be LSTMStates or Recordings, got {type(states).__name__}")
        first = states.hidden[0]
        if isinstance(first, PackedSequence):
            layout = Layout(batch_first)
            lengths = pad_packed_sequence(first)[1].to(first.data.device)
        else:
            layout = Layout(batch_first, batched=first.dim() == 3)
        hidden, cell, gates = map_states(layout.time_first, states)
        return cls(hidden, cell, gates, lengths, layout)

    def __repr__(self) -> str:
        return one_line(
            self,
            layers=len(self.cell),
            steps=self.steps,
            sequences=self.sequences,
            units=self.cell[0].shape[-1],
            gates=self.gates is not None,
            padded=self.lengths is not None,
        )

    @property
    def sequences(self) -> int:
        """N, how many sequences were recorded."""
        return int(self.cell[0].shape[1])

    @property
    def steps(self) -> int:
        """T, the steps of the longest sequence."""
        return int(self.cell[0].shape[0])

    @property
    def empty(self) -> bool:
        """No sequence has a step."""
        lengths = self.lengths
        return self.steps * self.sequences == 0 or (lengths is not None and not lengths.any())

    @property
    def valid(self) -> Tensor | None:
        """(T, N) bool, True where a sequence has that step; None where all have."""
        if self.lengths is None:
            return None
        return torch.arange(self.steps, device=self.lengths.device)[:, None] < self.lengths

    def rows(self, value: Tensor) -> Tensor:
        """The valid steps of `value` (T, N, ...) side by side, (R, ...)."""
        return value.flatten(0, 1) if self.lengths is None else value[self.valid]

    def gate(self, layer: int, index: int) -> Tensor:
        """One activated gate of a layer, (R, D*H); index 0..3 for i, f, g, o."""
        assert self.gates is not None
        return self.rows(self.gates[layer][..., index, :].flatten(-2))


States: TypeAlias = "LSTMStates | Recording | Iterable[LSTMStates | Recording]"


def recordings(states: States, *, gates: bool = False) -> Iterator[Recording]:
    """The recordings that an analysis was given: one, several, or a stream of them.

    Raises:
        TypeError: `states` is something else.
        ValueError: there are none, gates are needed and absent, or a state holds NaN.
    """
    if isinstance(states, (LSTMStates, Recording)):
        states = [cast("LSTMStates | Recording", states)]
    elif not isinstance(states, Iterable):
        raise TypeError(f"states must be LSTMStates or Recordings, got {type(states).__name__}")
    count = 0
    for item in states:
        recording = item if isinstance(item, Recording) else Recording.of(item)
        if gates and recording.gates is None:
            raise ValueError(
                "states holds no gates, and this analysis needs them: call the LSTM with "
                "return_gates=True, or record with gates=True"
            )
        if recording.empty:
            continue
        for name, values in (("cell", recording.cell), ("hidden", recording.hidden)):
            for layer, value in enumerate(values):
                refuse_nan(value, f"states.{name}[{layer}]")
        count += 1
        yield recording
    if count == 0:
        raise ValueError("states is empty: there is nothing to analyse")


def refuse_nan(value: Tensor, name: str) -> None:
    """Raises ValueError where a floating `value` holds NaN."""
    if value.is_floating_point() and bool(value.sum().isnan()) and bool(value.isnan().any()):
        raise ValueError(f"{name} holds NaN")
