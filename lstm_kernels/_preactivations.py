"""Gates before activation, from the states of every step.

The gates that a call returns are activated, and where they saturate the way back is not exact.
Their arguments are one product of what each step read: its input, and the hidden state before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._layer import DirectionWeights, by_direction


def preactivations(
    x: Tensor,
    hidden: Sequence[Tensor],
    h0: Tensor | None,
    weights: Sequence[Tensor],
    bidirectional: bool,
    lengths: Tensor | None,
    reset: Tensor | None,
    h_reset: Tensor | None,
) -> list[Tensor]:
    """For each layer (T, N, D, 4, H), from its input (T, N, I) and hidden states (T, N, D*P)."""
    directions = 1 + bidirectional
    of_layer = len(weights) // len(hidden)
    past = None
    if lengths is not None:
        past = torch.arange(x.shape[0], device=x.device)[:, None] >= lengths
        x = x.masked_fill(past.unsqueeze(-1), 0)  # the padding may hold anything
    results = []
    for layer, states in enumerate(hidden):
        each = by_direction(weights[layer * of_layer : (layer + 1) * of_layer], bidirectional)
        of_directions = []
        for d, (w, h) in enumerate(zip(each, states.chunk(directions, -1), strict=True)):
            row = layer * directions + d
            first = torch.zeros_like(h[0]) if h0 is None else h0[row]
            before = _before(h, first, d == 1, past)
            if reset is not None:
                start = 0 if h_reset is None else h_reset[row]
                before = torch.where(reset.unsqueeze(-1), start, before)
            of_directions.append(products(x, before, w))
        z = torch.stack(of_directions, -3)
        results.append(z if past is None else z.masked_fill(past[..., None, None, None], 0))
        x = states
    return results


def _before(h: Tensor, first: Tensor, reverse: bool, past: Tensor | None) -> Tensor:
    """The hidden state before each step, (T, N, P)."""
    if not reverse:
        return torch.cat([first.unsqueeze(0), h[:-1]])
    later = torch.cat([h[1:], first.unsqueeze(0)])
    if past is None:
        return later
    is_last = torch.cat([past[1:], torch.ones_like(past[:1])]) & ~past
    return torch.where(is_last.unsqueeze(-1), first, later)


def products(x: Tensor, before: Tensor, w: DirectionWeights) -> Tensor:
    """The arguments of the gates, (..., 4, H), of steps on x (..., I) from h (..., P)."""
    z = x @ w.w_ih.mT + before @ w.w_hh.mT
    if w.b_ih is not None and w.b_hh is not None:
        z = z + w.b_ih + w.b_hh
    by_gate: Tensor = z.unflatten(-1, (4, -1))
    return by_gate
