"""The gradient that arrives at every h_t and c_t of an LSTM.

Autograd never shows it, because the states are one tensor per sequence. The gradient of that tensor
holds what reads it from outside, and not what flows back through the recurrence. With a the gates'
pre-activations and d the gradient of the loss, the adjoint equations are

    dh_t = outside_t + W_hh^T da_{t+1}
    dc_t = outside_t + o_t (1 - tanh(c_t)^2) dh_t + f_{t+1} dc_{t+1}

(with a projection, W_hr^T dh_t instead of dh_t in the second). The backward kernel returns da of
all steps, so dh is one matrix product, and dc needs one multiply-add per step. Leaving W_hh^T da
out of dh gives the highway: what reaches c_t along the cell alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lstm_kernels import LSTM, _ops
from lstm_kernels._layer import (
    FORGET_GATE,
    OUTPUT_GATE,
    DirectionWeights,
    LayerBackward,
    by_direction,
)

from ._recording import Recording


@dataclass(frozen=True)
class Outside:
    """Gradients that come from outside the LSTM; None where nothing reads the tensor.

    output (T, N, D*P); h_n (L*D, N, P); c_n (L*D, N, H); per layer hidden (T, N, D*P), cell
    (T, N, D*H) and gates (T, N, D, 4, H).
    """

    output: Tensor | None
    h_n: Tensor | None
    c_n: Tensor | None
    hidden: Sequence[Tensor | None]
    cell: Sequence[Tensor | None]
    gates: Sequence[Tensor | None]


class Adjoints(NamedTuple):
    """The whole gradient of the states of one layer, each (D, T, N, P) or (D, T, N, H).

    `highway` is the part of `cell` that came back along the cell alone.
    """

    hidden: Tensor
    cell: Tensor
    highway: Tensor


def lstm_adjoints(
    lstm: LSTM,
    recording: Recording,
    outside: Outside,
    c0: Tensor | None,
    reset: Tensor | None,
) -> list[Adjoints]:
    """The adjoints of every layer, the first layer first.

    Args:
        recording: of the call, with gates.
        c0: (L*D, N, H), the cell state it began with, or None for zeros.
        reset: (T, N) bool or None.
    """
    found: list[Adjoints] = []
    from_above = outside.output
    for index in reversed(range(lstm.num_layers)):
        layer = _layer(lstm, index, recording, outside, from_above, c0, reset)
        grad_a = _preactivations(layer)
        directions = [_direction(layer, d, grad_a) for d in range(len(layer.weights))]
        found.append(Adjoints(*map(torch.stack, zip(*directions, strict=True))))
        from_above = grad_a.flatten(2) @ torch.cat([w.w_ih for w in layer.weights])
    return found[::-1]


@dataclass(frozen=True)
class _Layer:
    """One layer of the call, and the gradients that arrive at it from outside; None is zero."""

    weights: list[DirectionWeights]  # one for each direction
    cell: Tensor  # (T, N, D*H)
    gates: Tensor  # (T, N, D, 4, H)
    c0: Tensor | None  # (D, N, H)
    lengths: Tensor | None
    reset: Tensor | None
    grad_h: Tensor | None  # (T, N, D*P)
    grad_c: Tensor | None  # (T, N, D*H)
    grad_gates: Tensor | None  # (T, N, D, 4, H)
    grad_h_n: Tensor | None  # (D, N, P)
    grad_c_n: Tensor | None  # (D, N, H)


def _layer(
    lstm: LSTM,
    index: int,
    recording: Recording,
    outside: Outside,
    from_above: Tensor | None,
    c0: Tensor | None,
    reset: Tensor | None,
) -> _Layer:
    assert recording.gates is not None
    cell, gates = recording.cell[index].contiguous(), recording.gates[index].contiguous()
    directions = 1 + lstm.bidirectional
    own = slice(index * directions, (index + 1) * directions)
    weights = [w.detach().to(cell.dtype).contiguous() for ws in lstm.all_weights[own] for w in ws]
    c0, grad_h_n, grad_c_n = (
        None if state is None else state[own] for state in (c0, outside.h_n, outside.c_n)
    )
    return _Layer(
        by_direction(weights, lstm.bidirectional),
        cell,
        gates,
        c0,
        recording.lengths,
        reset,
        _valid(_sum(from_above, outside.hidden[index]), recording),
        _valid(outside.cell[index], recording),
        _valid(outside.gates[index], recording),
        grad_h_n,
        grad_c_n,
    )


def _preactivations(layer: _Layer) -> Tensor:
    """da of every step, (T, N, D, 4, H), zero where a sequence has no step."""
    grad_a, *_ = _ops.sequence_backward(
        LayerBackward(
            grad_output=layer.grad_h,
            grad_h_n=layer.grad_h_n,
            grad_c_n=layer.grad_c_n,
            grad_cell=layer.grad_c,
            grad_gates=layer.grad_gates,
            c0=layer.c0,
            weights=[w for weights in layer.weights for w in weights if w is not None],
            has_biases=layer.weights[0].b_ih is not None,
            bidirectional=len(layer.weights) == 2,
            batch_sizes=None,
            lengths=layer.lengths,
            reset=layer.reset,
            cell=layer.cell,
            gates=layer.gates,
        )
    )
    return grad_a.view(layer.gates.shape)


def _direction(layer: _Layer, d: int, grad_a: Tensor) -> Adjoints:
    """The adjoints of one direction, each (T, N, P) or (T, N, H)."""
    weights, cell = layer.weights[d], layer.cell.chunk(len(layer.weights), 2)[d]
    order = _Order(d == 1, layer.lengths, torch.promote_types(cell.dtype, torch.float32))

    def arriving(steps: Tensor | None, last: Tensor | None, width: int) -> Tensor:
        """What arrives from outside at each step of this direction, (T, N, width)."""
        if steps is None:
            found = torch.zeros(*cell.shape[:2], width, dtype=order.dtype, device=cell.device)
        else:
            found = order.take(steps.chunk(len(layer.weights), 2)[d])
        if last is not None:
            order.add_at_last(found, last[d])
        return found

    outside_h = arriving(layer.grad_h, layer.grad_h_n, weights.w_hh.shape[1])
    outside_c = arriving(layer.grad_c, layer.grad_c_n, cell.shape[2])
    later = order.take(grad_a[:, :, d].flatten(2))[1:]
    forget = order.take(layer.gates[:, :, d, FORGET_GATE])[1:]
    if layer.reset is not None:  # nothing flows into the step before a reset
        later.masked_fill_(layer.reset[1:, :, None], 0)
        forget.masked_fill_(layer.reset[1:, :, None], 0)
    hidden = outside_h.clone()
    hidden[:-1] += later @ weights.w_hh.to(order.dtype)

    ways = torch.stack([hidden, outside_h])
    if weights.w_hr is not None:
        ways = ways @ weights.w_hr.to(order.dtype)
    slope = order.take(layer.gates[:, :, d, OUTPUT_GATE]) * (1 - order.take(cell).tanh().square())
    whole, highway = _along_the_cell(ways.mul_(slope).add_(outside_c), forget)
    return Adjoints(*map(order.give_back, (hidden, whole, highway)))


def _along_the_cell(arriving: Tensor, forget: Tensor) -> tuple[Tensor, Tensor]:
    """dc from what arrives at each c_t (2, T, N, H) and f_{t+1} (T - 1, N, H); in place."""
    at_step, forget_next = arriving.unbind(1), forget.unbind(0)
    for t in reversed(range(len(forget_next))):
        at_step[t].addcmul_(forget_next[t], at_step[t + 1])
    whole, highway = arriving.unbind(0)
    return whole, highway


@dataclass(frozen=True)
class _Order:
    """The order in which the recurrence of one direction takes the steps."""

    backwards: bool
    lengths: Tensor | None
    dtype: torch.dtype  # to compute in

    def take(self, steps: Tensor) -> Tensor:
        """A copy of the steps, (T, N, ...), in this order."""
        return steps.flip(0).to(self.dtype) if self.backwards else steps.to(self.dtype, copy=True)

    def add_at_last(self, steps: Tensor, last: Tensor) -> None:
        """Adds the gradient of the last state, (N, ...), to the last step of each sequence."""
        if self.lengths is None:
            steps[-1] += last
            return
        # Backwards, every sequence ends at the same step. Without steps, h0 and c0 pass through.
        at = torch.full_like(self.lengths, len(steps)) if self.backwards else self.lengths
        row = torch.arange(len(at), device=at.device)
        steps[(at - 1).clamp(min=0), row] += last * (self.lengths > 0)[:, None]

    def give_back(self, steps: Tensor) -> Tensor:
        """The steps in the order of time, zero in the padding."""
        if not self.backwards:
            return steps
        steps = steps.flip(0)
        if self.lengths is not None:  # here the recurrence ends at the padding: that is h0 and c0
            padding = torch.arange(len(steps), device=steps.device)[:, None] >= self.lengths
            steps.masked_fill_(padding[..., None], 0)
        return steps


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _valid(gradient: Tensor | None, recording: Recording) -> Tensor | None:
    """Without what a loss sees in the padding."""
    valid = recording.valid
    if gradient is None or valid is None:
        return None if gradient is None else gradient.contiguous()
    return gradient * valid.view(*valid.shape, *[1] * (gradient.dim() - 2))
