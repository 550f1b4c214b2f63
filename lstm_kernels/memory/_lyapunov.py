"""lyapunov: whether small changes of the state grow or die out along the sequence.

A change (dh, dc) of the state of step t - 1 becomes one of step t by the Jacobian of the step. With
a the gates' pre-activations,

    da = W_hh dh
    dc' = f dc + c f (1 - f) da_f + g i (1 - i) da_i + i (1 - g^2) da_g
    dh' = tanh(c') o (1 - o) da_o + o (1 - tanh(c')^2) dc'

(with a projection, W_hr dh'). Any change turns towards the one that grows most, so one random
direction per sequence is enough. It is scaled back to length 1 at every step. The exponent is the
mean logarithm of these scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lstm_kernels import LSTM
from lstm_kernels._layer import CANDIDATE, FORGET_GATE, INPUT_GATE, OUTPUT_GATE

from ._record import (
    batches,
    called_once,
    check_input,
    evaluating,
    find,
    intercepted,
    recorded_call,
)
from ._recording import Layout
from ._repr import one_line
from ._unrolled_rnn import unrolled_rnn

Advance = Callable[[int, tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Lyapunov:
    """The largest Lyapunov exponent of each sequence, per step.

    Attributes:
        exponents: per layer (D, N), of the layer's recurrence with its input as it was. Above 0,
            changes of the state and gradients grow with distance; below 0, they vanish. exp of it
            is the mean factor per step.
        steps: how many steps the means are over, of all sequences.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> memory.lyapunov(lstm, x).steps  # 29 of the last steps of each of 6 sequences
        174
    """

    exponents: tuple[Tensor, ...]
    steps: int

    def __repr__(self) -> str:
        return one_line(
            self,
            layers=len(self.exponents),
            sequences=self.exponents[0].shape[1],
            steps=self.steps,
            median=tuple(float(v.median()) for v in self.exponents),
        )


def lyapunov(
    model: nn.Module, x: Any, *, lstm: str | None = None, progress: bool = True
) -> Lyapunov:
    """The largest Lyapunov exponent of every layer along the sequences of `x`.

    The first quarter of each sequence is left out of the mean: there, the change still turns. The
    model runs in evaluation mode without gradients.

    Args:
        model: any module with one `lstm_kernels.LSTM` or `nn.RNN` inside.
        x: the input, or a data loader of inputs or of tuples that begin with the input.
        lstm: the name of the LSTM or RNN in `model.named_modules()`, where there are several.
        progress: show a progress bar over a data loader.

    Raises:
        ValueError: `model` has no LSTM or RNN, calls it more than once, or resets its states; a
            sequence has fewer than 3 steps; `x` is empty or holds NaN.
        NotImplementedError: the LSTM computes a variant.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> exponents = memory.lyapunov(lstm, x).exponents[0]
        >>> tuple(exponents.shape), bool(exponents.max() < 0)  # changes die out
        ((1, 6), True)
    """
    module = find(model, lstm, (LSTM, nn.RNN))
    if isinstance(module, LSTM) and module.variant is not None and module.variant.changes_steps:
        raise NotImplementedError(f"lyapunov has no Jacobians of {module.variant}")
    found: list[list[Tensor]] = []
    steps = 0
    for batch, _ in batches(x, progress):
        check_input(batch)
        with torch.no_grad(), evaluating(model):
            layers, counted = _of_batch(model, module, batch)
        found.append(layers)
        steps += counted
    if not found:
        raise ValueError("x is empty: there is nothing to analyse")
    return Lyapunov(tuple(torch.cat(parts, 1) for parts in zip(*found, strict=True)), steps)


def _of_batch(model: nn.Module, module: nn.Module, x: Any) -> tuple[list[Tensor], int]:
    """Per layer (D, N), and the steps behind them."""
    calls: list[tuple[list[list[_Direction]], Tensor]] = []

    def replacement(forward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        if isinstance(module, LSTM):
            result, layers, lengths = _lstm(module, forward, arguments)
        else:
            assert isinstance(module, nn.RNN)
            result, layers, lengths = _rnn(module, arguments)
        calls.append((layers, lengths))
        return result

    with intercepted(module, replacement):
        model(x)
    layers, lengths = called_once(calls)
    if not len(lengths) or int(lengths.min()) < 3:
        shortest = int(lengths.min()) if len(lengths) else 0
        raise ValueError(f"x must have at least 3 steps in every sequence, got {shortest}")
    first = lengths // 4 + 1  # step 0 has no state before it whose change it could carry on
    exponents = [torch.stack([d.exponent(first, lengths) for d in layer]) for layer in layers]
    return exponents, int((lengths - first).sum())


@dataclass(frozen=True)
class _Direction:
    """The Jacobians of one direction of one layer, applied step by step."""

    total: int
    widths: tuple[int, ...]  # of the states: h and c, or h alone
    device: torch.device
    advance: Advance  # the change after the s-th step of the recurrence, from that before it

    def exponent(self, first: Tensor, lengths: Tensor) -> Tensor:
        """(N,), the mean over the steps first..length - 1 of the recurrence."""
        generator = torch.Generator().manual_seed(0)
        change = tuple(
            torch.randn(len(lengths), width, generator=generator, dtype=torch.float64).to(
                self.device
            )
            for width in self.widths
        )
        grown = torch.zeros(len(lengths), dtype=torch.float64, device=self.device)
        for step in range(1, self.total):
            change = self.advance(step, change)
            size = torch.cat(change, 1).norm(dim=1)
            change = tuple(part / size.clamp(min=1e-300)[:, None] for part in change)
            counts = (step >= first) & (step < lengths)
            grown += torch.where(counts, size.log(), 0)
        return (grown / (lengths - first)).cpu()


def _lstm(
    lstm: LSTM, forward: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[Any, list[list[_Direction]], Tensor]:
    if arguments.get("reset") is not None:
        raise ValueError("model resets its states: give each episode as a sequence instead")
    result, recording = recorded_call(lstm, forward, arguments, gates=True)
    assert recording.gates is not None
    lengths = recording.lengths
    if lengths is None:
        lengths = torch.full((recording.sequences,), recording.steps)
    directions = 1 + lstm.bidirectional
    layers = []
    for layer, (cell, gates) in enumerate(zip(recording.cell, recording.gates, strict=True)):
        layers.append(
            [
                _lstm_direction(
                    lstm.all_weights[layer * directions + d],
                    _in_order(cell.chunk(directions, 2)[d], lengths, d == 1),
                    _in_order(gates[:, :, d], lengths, d == 1),
                    bool(lstm.proj_size),
                )
                for d in range(directions)
            ]
        )
    return result, layers, lengths.to(recording.cell[0].device)


def _lstm_direction(
    weights: Sequence[Tensor], cell: Tensor, gates: Tensor, projects: bool
) -> _Direction:
    """Of cell (T, N, H) and gates (T, N, 4, H) in the order of the recurrence."""
    w_hh = weights[1].detach().double()
    w_hr = weights[-1].detach().double() if projects else None

    def advance(step: int, change: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        dh, dc = change
        a = (dh @ w_hh.mT).unflatten(1, (4, -1))
        now = gates[step].double()
        i, f, g, o = (now[:, at] for at in (INPUT_GATE, FORGET_GATE, CANDIDATE, OUTPUT_GATE))
        shown = cell[step].double().tanh()
        dc = (
            f * dc
            + cell[step - 1].double() * f * (1 - f) * a[:, FORGET_GATE]
            + g * i * (1 - i) * a[:, INPUT_GATE]
            + i * (1 - g.square()) * a[:, CANDIDATE]
        )
        dh = shown * o * (1 - o) * a[:, OUTPUT_GATE] + o * (1 - shown.square()) * dc
        return dh if w_hr is None else dh @ w_hr.mT, dc

    return _Direction(len(cell), (w_hh.shape[1], cell.shape[2]), cell.device, advance)


def _rnn(rnn: nn.RNN, arguments: dict[str, Any]) -> tuple[Any, list[list[_Direction]], Tensor]:
    input = arguments["input"]
    packed = isinstance(input, PackedSequence)
    layout = Layout(rnn.batch_first, packed or input.dim() == 3)
    result, hidden = unrolled_rnn(rnn, input, arguments.get("hx"), layout)
    total, sequences = len(hidden[0]), hidden[0][0].shape[0]
    lengths = torch.full((sequences,), total)
    if packed:
        lengths = pad_packed_sequence(input)[1]
    directions = 1 + rnn.bidirectional
    layers = [
        [
            _rnn_direction(
                rnn,
                rnn.all_weights[at + d][1],
                _in_order(torch.stack(hidden[at + d]), lengths, d == 1),
            )
            for d in range(directions)
        ]
        for at in range(0, len(hidden), directions)
    ]
    return result, layers, lengths.to(hidden[0][0].device)


def _rnn_direction(rnn: nn.RNN, w_hh: Tensor, hidden: Tensor) -> _Direction:
    """Of hidden (T, N, H) in the order of the recurrence."""
    w_hh = w_hh.detach().double()

    def advance(step: int, change: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h = hidden[step].double()
        slope = 1 - h.square() if rnn.nonlinearity == "tanh" else (h > 0).double()
        return (slope * (change[0] @ w_hh.mT),)

    return _Direction(len(hidden), (hidden.shape[2],), hidden.device, advance)


def _in_order(steps: Tensor, lengths: Tensor, backwards: bool) -> Tensor:
    """The steps (T, N, ...) as the recurrence takes them: backwards, from each last valid one."""
    if not backwards:
        return steps
    time = torch.arange(len(steps), device=steps.device)[:, None]
    at = (lengths.to(steps.device) - 1 - time).clamp(min=0)
    return steps[at, torch.arange(steps.shape[1], device=steps.device)]
