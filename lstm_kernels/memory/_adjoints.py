"""The gradient that arrives at every h_t and c_t of an LSTM.

Autograd never shows it: the states are one tensor per sequence, and the gradient of that tensor
holds only what reads it from outside, not what flows back through the recurrence. With a the gates'
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

from lstm_kernels import LSTM

from ._recording import Recording
from ._retention import F, O


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
    """The whole gradient of the states of one layer, each (D, T, N, P) or (D, T, N, H)."""

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
    directions = 1 + lstm.bidirectional
    adjoints: list[Adjoints] = []
    from_above = outside.output
    for layer in reversed(range(lstm.num_layers)):
        own = slice(layer * directions, (layer + 1) * directions)
        grad_h = _valid(_sum(from_above, outside.hidden[layer]), recording)
        grad_c = _valid(outside.cell[layer], recording)
        h_n, c_n = (None if end is None else end[own] for end in (outside.h_n, outside.c_n))
        cell, gates = _of_layer(recording, layer)
        weights = [[w.detach().to(cell.dtype) for w in ws] for ws in lstm.all_weights[own]]
        # (T, N, D, 4, H), zero where a sequence has no step
        grad_a = torch.ops.lstm_kernels._sequence_backward(
            grad_h,
            h_n,
            c_n,
            grad_c,
            _valid(outside.gates[layer], recording),
            None if c0 is None else c0[own],
            [w.contiguous() for ws in weights for w in ws],
            lstm.bias,
            lstm.bidirectional,
            None,
            recording.lengths,
            reset,
            cell,
            gates,
        )[0].view(gates.shape)
        parts = []
        for d, (_, w_hh, *rest) in enumerate(weights):
            parts.append(
                _direction(
                    _Direction(
                        outside_h=_part(grad_h, d, directions),
                        outside_c=_part(grad_c, d, directions),
                        h_n=None if h_n is None else h_n[d],
                        c_n=None if c_n is None else c_n[d],
                        grad_a=grad_a[:, :, d].flatten(2),
                        cell=cell.chunk(directions, 2)[d],
                        gates=gates[:, :, d],
                        w_hh=w_hh,
                        w_hr=rest[-1] if lstm.proj_size else None,
                        lengths=recording.lengths,
                        reset=reset,
                    ),
                    backwards=d == 1,
                )
            )
        adjoints.append(Adjoints(*map(torch.stack, zip(*parts, strict=True))))
        from_above = grad_a.flatten(2) @ torch.cat([w_ih for w_ih, *_ in weights])
    return adjoints[::-1]


@dataclass(frozen=True)
class _Direction:
    """One direction of one layer, steps first; absent gradients are zero."""

    outside_h: Tensor | None
    outside_c: Tensor | None
    h_n: Tensor | None
    c_n: Tensor | None
    grad_a: Tensor  # (T, N, 4*H)
    cell: Tensor
    gates: Tensor  # (T, N, 4, H)
    w_hh: Tensor
    w_hr: Tensor | None
    lengths: Tensor | None
    reset: Tensor | None


def _direction(at: _Direction, backwards: bool) -> tuple[Tensor, Tensor, Tensor]:
    """dh (T, N, P), dc and its highway (T, N, H)."""
    wide = torch.promote_types(at.cell.dtype, torch.float32)

    def steps(value: Tensor | None, width: int) -> Tensor:
        """A copy of the steps in the order in which the recurrence takes them."""
        if value is None:
            return torch.zeros(*at.cell.shape[:2], width, dtype=wide, device=at.cell.device)
        return value.flip(0).to(wide) if backwards else value.to(wide, copy=True)

    width = at.cell.shape[2]
    outside_h, outside_c = steps(at.outside_h, at.w_hh.shape[1]), steps(at.outside_c, width)
    _add_at_last(outside_h, at.h_n, at.lengths, backwards)
    _add_at_last(outside_c, at.c_n, at.lengths, backwards)
    later = steps(at.grad_a, 4 * width)[1:]
    forget = steps(at.gates[:, :, F], width)[1:]
    if at.reset is not None:  # nothing flows into the step before a reset
        later.masked_fill_(at.reset[1:, :, None], 0)
        forget.masked_fill_(at.reset[1:, :, None], 0)
    hidden = outside_h.clone()
    hidden[:-1] += later @ at.w_hh.to(wide)

    slope = steps(at.gates[:, :, O], width) * (1 - steps(at.cell, width).tanh().square())
    ways = torch.stack([hidden, outside_h])
    if at.w_hr is not None:
        ways = ways @ at.w_hr.to(wide)
    flow = ways.mul_(slope).add_(outside_c)  # (2, T, N, H): the whole, and the highway alone
    at_step, forget_next = flow.unbind(1), forget.unbind(0)
    for t in reversed(range(len(forget_next))):
        at_step[t].addcmul_(forget_next[t], at_step[t + 1])
    whole, highway = flow.unbind(0)
    if not backwards:
        return hidden, whole, highway
    hidden, whole, highway = (value.flip(0) for value in (hidden, whole, highway))
    if at.lengths is not None:  # here the recurrence ends at the padding: that is h0 and c0
        padding = torch.arange(len(hidden), device=at.lengths.device)[:, None] >= at.lengths
        for value in (hidden, whole, highway):
            value.masked_fill_(padding[..., None], 0)
    return hidden, whole, highway


def _add_at_last(
    outside: Tensor, end: Tensor | None, lengths: Tensor | None, backwards: bool
) -> None:
    """Adds the gradient of the last state, (N, H), to the last step of each sequence."""
    if end is None:
        return
    if lengths is None:
        outside[-1] += end
        return
    # Backwards, every sequence ends at the same step; one of no steps hands h0 and c0 through.
    last = torch.full_like(lengths, len(outside)) if backwards else lengths
    row = torch.arange(len(lengths), device=lengths.device)
    outside[(last - 1).clamp(min=0), row] += end * (lengths > 0)[:, None]


def _of_layer(recording: Recording, layer: int) -> tuple[Tensor, Tensor]:
    assert recording.gates is not None
    return recording.cell[layer].contiguous(), recording.gates[layer].contiguous()


def _part(value: Tensor | None, direction: int, directions: int) -> Tensor | None:
    return None if value is None else value.chunk(directions, 2)[direction]


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
