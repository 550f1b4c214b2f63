"""nn.RNN one step at a time, so that autograd sees every hidden state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ._recording import Layout, packed_like

Steps = list[Tensor]  # h_t (N, H) of one direction, in the order of time


def unrolled_rnn(
    rnn: nn.RNN, input: Tensor | PackedSequence, hx: Tensor | None, layout: Layout
) -> tuple[tuple[Tensor | PackedSequence, Tensor], list[Steps]]:
    """What `rnn(input, hx)` returns, and the h_t of every layer and direction behind it.

    Assumes evaluation mode (no dropout between the layers).
    """
    x = layout.time_first(input)
    valid = None
    if isinstance(input, PackedSequence):
        lengths = pad_packed_sequence(input)[1].to(x.device)
        valid = (torch.arange(len(x), device=x.device)[:, None] < lengths).unsqueeze(-1)
    directions = 1 + rnn.bidirectional
    if hx is None:
        hx = x.new_zeros(rnn.num_layers * directions, x.shape[1], rnn.hidden_size)
    elif not layout.batched:
        hx = hx.unsqueeze(1)
    hx = hx.detach().requires_grad_()  # so that every h_t has a gradient, whatever is frozen
    hidden: list[Steps] = []
    ends: list[Tensor] = []
    for layer in range(rnn.num_layers):
        for d in range(directions):
            weights = rnn.all_weights[layer * directions + d]
            steps, end = _direction(rnn, weights, x, hx[len(ends)], valid, backwards=d == 1)
            hidden.append(steps)
            ends.append(end)
        x = torch.cat([torch.stack(steps) for steps in hidden[-directions:]], -1)
        x = x if valid is None else x * valid
    h_n = torch.stack(ends)
    return (_laid_out(x, input, layout), h_n if layout.batched else h_n.squeeze(1)), hidden


def _direction(
    rnn: nn.RNN,
    weights: Sequence[Tensor],
    x: Tensor,
    h: Tensor,
    valid: Tensor | None,
    backwards: bool,
) -> tuple[Steps, Tensor]:
    """One direction of one layer from state h (N, H): h_t of every step, and the last state."""
    w_ih, w_hh, *biases = weights
    from_input = linear(x, w_ih, biases[0] + biases[1] if biases else None)
    activation = torch.tanh if rnn.nonlinearity == "tanh" else torch.relu
    order = range(len(x))
    steps: dict[int, Tensor] = {}
    for t in reversed(order) if backwards else order:
        steps[t] = activation(from_input[t] + h @ w_hh.mT)
        h = steps[t] if valid is None else torch.where(valid[t], steps[t], h)
    return [steps[t] for t in order], h


def _laid_out(
    output: Tensor, input: Tensor | PackedSequence, layout: Layout
) -> Tensor | PackedSequence:
    """(T, N, D*H) in the layout of the input."""
    if isinstance(input, PackedSequence):
        return packed_like(input, output)
    if not layout.batched:
        return output.squeeze(1)
    return output.transpose(0, 1) if layout.batch_first else output
