"""Hand-built LSTMs and states whose memory is known, and a model around one."""

from __future__ import annotations

import math

import torch
from torch import nn

import lstm_kernels
from lstm_kernels import LSTMStates

OPEN, SHUT = 40.0, -40.0  # pre-activations: a gate within 4e-18 of 1 or 0


class Reader(nn.Module):
    """A linear read-out of what a recurrent module returns."""

    def __init__(self, recurrent: nn.RNNBase, outputs: int = 2) -> None:
        super().__init__()
        self.recurrent = recurrent
        directions = 1 + recurrent.bidirectional
        width = directions * (recurrent.proj_size or recurrent.hidden_size)
        self.head = nn.Linear(width, outputs, dtype=recurrent.weight_ih_l0.dtype)

    def forward(self, x):
        output = self.recurrent(x)[0]
        if isinstance(output, nn.utils.rnn.PackedSequence):
            return self.head(output.data)
        return self.head(output)


def fixed_gates(i, f, g, o, hidden_size=1, **options):
    """An LSTM whose gates have these activations at every step, whatever it reads."""
    lstm = lstm_kernels.LSTM(1, hidden_size, dtype=torch.float64, **options)

    def logit(p):
        return math.log(p) - math.log1p(-p)

    with torch.no_grad():
        for name, weight in lstm.named_parameters():
            weight.zero_()
            if name.startswith("bias_ih"):
                values = torch.tensor(
                    [logit(i), logit(f), math.atanh(g), logit(o)], dtype=torch.float64
                )
                weight.copy_(values.repeat_interleave(hidden_size))
    return lstm


def delay_line(length):
    """An LSTM whose unit k holds a fixed function of x_{t-k}, for k = 0 .. length and no more.

    Every step overwrites the cell (f = 0, i = 1), and unit k + 1 copies what unit k shows.
    """
    units = length + 1
    lstm = lstm_kernels.LSTM(1, units, dtype=torch.float64)
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
        i, f, _, o = lstm.bias_ih_l0.unflatten(0, (4, units))
        i.fill_(OPEN), f.fill_(SHUT), o.fill_(OPEN)
        lstm.weight_ih_l0.unflatten(0, (4, units))[2, 0, 0] = 1
        recurrent = lstm.weight_hh_l0.unflatten(0, (4, units))[2]
        for k in range(length):
            recurrent[k + 1, k] = 1
    return lstm


def states_of(values, hidden=None):
    """States of one layer with these cells (T, N, H), and the same hidden states by default."""
    values = torch.as_tensor(values)
    return LSTMStates((values if hidden is None else hidden,), (values,), None)
