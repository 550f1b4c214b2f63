"""retention and saturation: how long a cell keeps its content, and which gates stand still."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lstm_kernels._layer import CANDIDATE, FORGET_GATE, INPUT_GATE, OUTPUT_GATE

from ._recording import Recording, States, recordings
from ._repr import one_line
from ._sample import Sample

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_SAMPLED_STEPS = 4096  # rows the quantiles are read from: 1% accurate in probability


@dataclass(frozen=True)
class Retention:
    """How long each unit's cell keeps what it stores; one tensor per layer, (D*H,) each.

    Attributes:
        half_life: steps after which half of a stored value is left, ln(1/2) / mean(ln f): what the
            geometric mean of the forget gate amounts to. `inf` where f = 1 at every step.
        half_life_quantiles: (5, D*H), the 10, 25, 50, 75 and 90% quantiles over the data of
            ln(1/2) / ln f_t, the half-life of a single step. Far apart, they show a unit that keeps
            its value and now and then drops it.
        writes: the fraction of steps at which the input gate is more open than shut.
        shows: the same for the output gate.
        order: the units, the longest half-life first.
        steps: how many steps were seen.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> kept = memory.retention(memory.record(lstm, x))
        >>> tuple(kept.half_life_quantiles[0].shape), kept.steps
        ((5, 8), 240)
    """

    half_life: tuple[Tensor, ...]
    half_life_quantiles: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    shows: tuple[Tensor, ...]
    order: tuple[Tensor, ...]
    steps: int

    def __repr__(self) -> str:
        return one_line(
            self,
            layers=len(self.half_life),
            units=len(self.half_life[0]),
            steps=self.steps,
            median_half_life=tuple(float(life.median()) for life in self.half_life),
        )


@dataclass(frozen=True)
class Saturation:
    """The fraction of steps at which each gate is shut or open (Karpathy, Johnson & Fei-Fei 2015).

    Attributes:
        shut: per layer (4, D*H) in the order i, f, g, o: the gate is below `below`.
        open: the same, the gate is above `above`. The candidate g, in -1..1, counts by its size.
        below, above: the thresholds.
        steps: how many steps were seen.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> gates = memory.saturation(memory.record(lstm, x), below=0.4, above=0.6)
        >>> gates.never_write()[0].tolist()
        []
    """

    shut: tuple[Tensor, ...]
    open: tuple[Tensor, ...]
    below: float
    above: float
    steps: int

    def __repr__(self) -> str:
        return one_line(
            self,
            layers=len(self.open),
            units=self.open[0].shape[1],
            steps=self.steps,
            never_forget=tuple(map(len, self.never_forget())),
            never_write=tuple(map(len, self.never_write())),
        )

    def never_forget(self, fraction: float = 0.99) -> tuple[Tensor, ...]:
        """Per layer, the units whose forget gate is open at this fraction of steps or more."""
        return tuple((open_[FORGET_GATE] >= fraction).nonzero()[:, 0] for open_ in self.open)

    def never_write(self, fraction: float = 0.99) -> tuple[Tensor, ...]:
        """Per layer, the units whose input gate is shut at this fraction of steps or more."""
        return tuple((shut[INPUT_GATE] >= fraction).nonzero()[:, 0] for shut in self.shut)


def retention(states: States, *, zoneout: float = 0.0) -> Retention:
    """How long the cell keeps what it stores, from the forget gates.

    A value in the cell is multiplied by f_t at each step, so that after n steps prod(f) of it is
    left; the half-life is the n at which that is one half. With zoneout of the cell state, z, it is
    multiplied by z + (1 - z) f_t, which then stands for f_t everywhere here. Where a variant
    normalises the cell state that is carried, the norm also scales it.

    Args:
        states: with gates; an `LSTMStates`, a `Recording`, or an iterable of them such as `stream`.
        zoneout: `zoneout_cell` of the LSTM's variant.

    Raises:
        ValueError: there are no gates, no states, or NaN in them; zoneout is no probability.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> kept = memory.retention(memory.record(lstm, x))
        >>> tuple(kept.half_life[0].shape), bool(kept.half_life[0].max() < 5)  # steps, per unit
        ((8,), True)
    """
    if not 0 <= zoneout <= 1:
        raise ValueError(f"zoneout must be a probability, got {zoneout}")
    log_f: list[Tensor] = []
    writes: list[Tensor] = []
    shows: list[Tensor] = []
    samples: list[Sample] = []
    steps = 0
    for recording in recordings(states, gates=True):
        if not samples:
            width = recording.cell[0].shape[-1]
            depth = len(recording.cell)
            log_f, writes, shows = ([torch.zeros(width).double()] * depth for _ in range(3))
            samples = [Sample(_SAMPLED_STEPS) for _ in range(depth)]
        for layer, sample in enumerate(samples):
            forget = zoneout + (1 - zoneout) * recording.gate(layer, FORGET_GATE)
            log_f[layer] = log_f[layer] + forget.log().sum(0, dtype=torch.float64).cpu()
            writes[layer] = writes[layer] + _count(recording.gate(layer, INPUT_GATE) > 0.5)
            shows[layer] = shows[layer] + _count(recording.gate(layer, OUTPUT_GATE) > 0.5)
            sample.offer(len(forget), partial(_rows_of, forget))
        steps += len(forget)
    half_life = tuple(_half_life(total / steps) for total in log_f)
    return Retention(
        half_life,
        tuple(_quantiles(sample) for sample in samples),
        tuple(count / steps for count in writes),
        tuple(count / steps for count in shows),
        tuple(life.argsort(descending=True) for life in half_life),
        steps,
    )


def saturation(states: States, *, below: float = 0.1, above: float = 0.9) -> Saturation:
    """How often each gate is shut or open.

    Args:
        states: with gates; an `LSTMStates`, a `Recording`, or an iterable of them such as `stream`.
        below, above: a gate is shut below the one and open above the other.

    Raises:
        ValueError: there are no gates, no states, or NaN in them.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> memory.saturation(memory.record(lstm, x)).never_forget()[0].tolist()
        []
    """
    shut: list[Tensor] = []
    open_: list[Tensor] = []
    steps = 0
    for recording in recordings(states, gates=True):
        if not shut:
            empty = torch.zeros(4, recording.cell[0].shape[-1]).double()
            shut, open_ = ([empty] * len(recording.cell) for _ in range(2))
        for layer in range(len(shut)):
            gates = _sizes(recording, layer)
            shut[layer] = shut[layer] + torch.stack([_count(gate < below) for gate in gates])
            open_[layer] = open_[layer] + torch.stack([_count(gate > above) for gate in gates])
        steps += len(gates[0])
    return Saturation(
        tuple(count / steps for count in shut),
        tuple(count / steps for count in open_),
        below,
        above,
        steps,
    )


def _rows_of(value: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
    return (value[rows.to(value.device)].cpu(),)


def _sizes(recording: Recording, layer: int) -> tuple[Tensor, ...]:
    """The gates i, f, |g|, o of a layer, each (R, D*H)."""
    gates = [recording.gate(layer, index) for index in range(4)]
    gates[CANDIDATE] = gates[CANDIDATE].abs()
    return tuple(gates)


def _count(happens: Tensor) -> Tensor:
    return happens.sum(0).double().cpu()


def _half_life(log_f: Tensor) -> Tensor:
    """ln(1/2) / ln f, with ln f <= 0; `inf` where it is 0."""
    return math.log(2) / log_f.abs()


def _quantiles(sample: Sample) -> Tensor:
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    (forget,) = sample.columns
    columns = torch.split(forget.double(), 1024, dim=1)  # torch.quantile takes at most 16M values
    return _half_life(torch.cat([part.quantile(levels, dim=0) for part in columns], 1).log())
