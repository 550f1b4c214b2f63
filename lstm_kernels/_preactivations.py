"""Gates before activation, from the states of every step.

The gates that a call returns are activated, and where they saturate the way back is not exact.
Their arguments are one product of what each step read: its input, and the hidden state before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import _reference
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
    rows = _reference.Rows(x.shape[0], None, lengths)
    x = rows.within(x)  # the padding may hold anything
    results = []
    for layer, states in enumerate(hidden):
        each = by_direction(weights[layer * of_layer : (layer + 1) * of_layer], bidirectional)
        of_directions = []
        for d, (w, h) in enumerate(zip(each, states.chunk(directions, -1), strict=True)):
            row = layer * directions + d
            first = torch.zeros_like(h[0]) if h0 is None else h0[row]
            before = _reference.states_before(h, first, d == 1, rows.active)
            if reset is not None:
                start = 0 if h_reset is None else h_reset[row]
                before = torch.where(reset.unsqueeze(-1), start, before)
            of_directions.append(_of_steps(x, before, w).unsqueeze(-3))
        each_direction = torch.cat(of_directions, -3) if bidirectional else of_directions[0]
        results.append(rows.within(each_direction))
        x = states
    return results


def _of_steps(x: Tensor, before: Tensor, w: DirectionWeights) -> Tensor:
    """`_reference.preactivations`, in one product: the results are large, and written once."""
    both = torch.cat([w.w_ih, w.w_hh], 1)
    bias = None if w.b_ih is None or w.b_hh is None else w.b_ih + w.b_hh
    z = nn.functional.linear(torch.cat([x, before], -1), both, bias)
    by_gate: Tensor = z.unflatten(-1, (4, -1))
    return by_gate
