"""match: where else the chosen units do what they do in a selected span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ._recording import Recording, States, recordings


@dataclass(frozen=True, order=True)
class Match:
    """A span that resembles the selected one.

    Attributes:
        distance: root mean square difference of the units' values over the span, in units of
            each one's standard deviation in the data that was searched first; 0 is identical.
        recording, sequence: where it is: which of the recordings, which of its N sequences.
        start, stop: its steps, start <= t < stop.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> best = memory.match(memory.record(lstm, x), units=0, span=(10, 14), top=1)[0]
        >>> best.distance > 0, 0 <= best.sequence < 6
        (True, True)
    """

    distance: float
    recording: int
    sequence: int
    start: int
    stop: int


def match(
    states: States,
    units: int | Sequence[int],
    span: tuple[int, int],
    *,
    sequence: int = 0,
    state: Literal["cell", "hidden"] = "cell",
    layer: int = -1,
    top: int = 10,
) -> list[Match]:
    """The spans in which the units move as they do in a selected span, best first.

    It answers the question of LSTMVis (Strobelt et al. 2018) by distance instead of thresholds:
    every window of every sequence is compared with the selected one, all at once.

    Args:
        states: an `LSTMStates`, a `Recording`, or an iterable of them, the span in the first.
        units: one or several.
        span: (start, stop), the selected steps.
        sequence: which of the N sequences the span is in.
        state, layer: which state of which layer is compared.
        top: how many matches to return; no two of them overlap, nor with the selected span.

    Raises:
        ValueError: the span, a unit, the sequence or the layer is not there, or what `recordings`
            refuses.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> found = memory.match(memory.record(lstm, x), units=[0, 1], span=(10, 14), top=3)
        >>> len(found), found[0].stop - found[0].start
        (3, 4)
    """
    if state not in ("cell", "hidden"):
        raise ValueError(f"state must be 'cell' or 'hidden', got {state!r}")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    chosen = [units] if isinstance(units, int) else list(units)
    pattern: Tensor | None = None
    scale: Tensor | None = None
    best: list[Match] = []
    for index, recording in enumerate(recordings(states)):
        values = _values(recording, state, layer, chosen)
        if pattern is None or scale is None:
            pattern = _selected(recording, values, sequence, span)
            spread = recording.rows(values).double().std(0, correction=0)
            scale = torch.where(spread > 0, spread, 1)
        values, wanted = values / scale, pattern / scale
        distance = _distances(recording, values, wanted)
        if index == 0:
            selected = distance[:, sequence]
            selected[max(0, span[0] - len(pattern) + 1) : span[1]] = torch.inf
        for start, n in _nearest(distance, len(pattern), top):
            stop = start + len(pattern)
            exact = float((values[start:stop, n] - wanted).square().mean().sqrt())
            best.append(Match(exact, index, n, start, stop))
        best = sorted(best)[:top]
    return best


def _values(recording: Recording, state: str, layer: int, units: list[int]) -> Tensor:
    """(T, N, U), float64."""
    layers = getattr(recording, state)
    if not -len(layers) <= layer < len(layers):
        raise ValueError(f"layer must be less than {len(layers)}, got {layer}")
    width = layers[layer].shape[-1]
    for unit in units:
        if not 0 <= unit < width:
            raise ValueError(f"units must be in 0..{width - 1}, got {unit}")
    if not units:
        raise ValueError("units is empty")
    values: Tensor = layers[layer][..., units]
    return values.double()


def _selected(recording: Recording, values: Tensor, sequence: int, span: tuple[int, int]) -> Tensor:
    if not 0 <= sequence < recording.sequences:
        raise ValueError(f"sequence must be in 0..{recording.sequences - 1}, got {sequence}")
    steps = recording.steps if recording.lengths is None else int(recording.lengths[sequence])
    start, stop = span
    if not 0 <= start < stop <= steps:
        raise ValueError(f"span must be 0 <= start < stop <= {steps}, got {span}")
    return values[start:stop, sequence]


def _distances(recording: Recording, values: Tensor, pattern: Tensor) -> Tensor:
    """(T - S + 1, N): of each window of S steps from the pattern (S, U); inf across an end."""
    steps, sequences = values.shape[:2]
    span = len(pattern)
    if steps < span:
        return values.new_empty(0, sequences)
    signal = values.permute(1, 2, 0)  # (N, U, T)
    # The difference from the pattern's mean keeps the expanded square from cancelling.
    mean = pattern.mean(0)
    signal, kernel = signal - mean[:, None], (pattern - mean).T.unsqueeze(0)
    cross = torch.conv1d(signal, kernel)
    energy = torch.conv1d(signal.square(), torch.ones_like(kernel))
    squares = (energy - 2 * cross + kernel.square().sum()).clamp(min=0) / kernel.numel()
    distance = squares.sqrt().squeeze(1).T.contiguous()
    if recording.lengths is not None:
        starts = torch.arange(len(distance), device=distance.device)[:, None]
        distance[starts + span > recording.lengths] = torch.inf
    return distance


def _nearest(distance: Tensor, span: int, top: int) -> list[tuple[int, int]]:
    """(start, sequence) of the best windows of one recording, none overlapping another."""
    found: list[tuple[int, int]] = []
    left = distance.clone()
    while len(found) < top and left.numel():
        start, n = divmod(int(left.argmin()), left.shape[1])
        if left[start, n].isinf():
            break
        found.append((start, n))
        left[max(0, start - span + 1) : start + span, n] = torch.inf
    return found
