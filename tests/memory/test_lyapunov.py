"""lyapunov against recurrences whose exponent is known, and against autograd's Jacobians."""

import math

import pytest
import torch
from models import Reader, fixed_gates
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import memory


@pytest.mark.parametrize("f", [0.3, 0.99])
def test_without_recurrent_weights_it_is_the_forget_gate(f):
    lstm = fixed_gates(0.5, f, 0.5, 0.5, 3)
    found = memory.lyapunov(lstm, torch.randn(40, 5, 1, dtype=torch.float64))
    # The cell contracts by f; h follows, slower by the slope of a tanh that settles.
    assert_close(found.exponents[0], torch.full((1, 5), math.log(f)).double(), rtol=0, atol=0.02)


@pytest.mark.parametrize("radius", [0.8, 1.25])
def test_of_a_linear_rnn_it_is_the_spectral_radius(radius):
    rnn = nn.RNN(1, 4, nonlinearity="relu", dtype=torch.float64)
    with torch.no_grad():
        for weight in rnn.parameters():
            weight.zero_()
        rnn.bias_ih_l0.fill_(1)  # every unit stays above 0
        rnn.weight_hh_l0.copy_(radius * torch.eye(4).roll(1, 0))
    found = memory.lyapunov(Reader(rnn), torch.zeros(30, 2, 1, dtype=torch.float64))
    assert_close(found.exponents[0], torch.full((1, 2), math.log(radius)).double())
    assert found.steps == 2 * (30 - 8)


@pytest.mark.parametrize("proj_size", [0, 2])
def test_it_is_the_growth_that_autograd_finds(proj_size):
    torch.manual_seed(0)
    lstm = lstm_kernels.LSTM(2, 5, proj_size=proj_size, dtype=torch.float64)
    with torch.no_grad():
        lstm.weight_hh_l0.mul_(4)
    x = torch.randn(24, 1, 2, dtype=torch.float64)
    width = proj_size or 5

    def advance(state, step):
        h, c = state[:width], state[width:]
        _, (h, c) = lstm(x[step : step + 1], (h.view(1, 1, -1), c.view(1, 1, -1)))
        return torch.cat([h.flatten(), c.flatten()])

    state = advance(torch.zeros(width + 5, dtype=torch.float64), 0)
    generator = torch.Generator().manual_seed(0)
    change = torch.cat(
        [torch.randn(1, size, generator=generator, dtype=torch.float64)[0] for size in (width, 5)]
    )
    logs = []
    for step in range(1, 24):
        change = torch.func.jacrev(advance)(state, step) @ change
        logs.append(change.norm().log())
        change = change / change.norm()
        state = advance(state, step)
    found = memory.lyapunov(lstm, x).exponents[0]
    assert_close(found[0, 0], torch.stack(logs[24 // 4 :]).mean(), rtol=1e-9, atol=1e-9)


def test_directions_layers_and_lengths():
    """Padding changes nothing; the backward direction is that of the reversed sequence."""
    torch.manual_seed(1)
    lstm = lstm_kernels.LSTM(2, 4, bidirectional=True, dtype=torch.float64)
    x = torch.randn(20, 3, 2, dtype=torch.float64)
    lengths = torch.tensor([20, 9, 14])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    found = memory.lyapunov(lstm, packed).exponents[0]
    for n, length in enumerate(lengths.tolist()):
        for d, order in ((0, x[:length, n]), (1, x[:length, n].flip(0))):
            one = lstm_kernels.LSTM(2, 4, dtype=torch.float64)
            suffix = "_reverse" if d else ""
            with torch.no_grad():
                for name, weight in one.named_parameters():
                    weight.copy_(getattr(lstm, name + suffix))
            alone = memory.lyapunov(one, torch.stack([order] * 3, 1)).exponents[0]
            assert_close(found[d, n], alone[0, n])


def test_two_layers_and_a_loader():
    torch.manual_seed(2)
    model = Reader(lstm_kernels.LSTM(2, 4, 2, batch_first=True))
    x = torch.randn(8, 12, 2)
    found = memory.lyapunov(model, x.split(4), progress=False)
    assert [v.shape for v in found.exponents] == [(1, 8), (1, 8)]
    assert repr(found).startswith("Lyapunov(layers=2, sequences=8, steps=64, median=(-")


def test_an_rnn_with_packed_input():
    torch.manual_seed(3)
    rnn = nn.RNN(2, 4, dtype=torch.float64)
    x = torch.randn(12, 3, 2, dtype=torch.float64)
    packed = pack_padded_sequence(x, torch.tensor([12, 8, 5]))
    found = memory.lyapunov(rnn, packed).exponents[0]
    assert_close(found[0, 0], memory.lyapunov(rnn, x).exponents[0][0, 0])
    assert_close(found[0, 2], memory.lyapunov(rnn, x[:5]).exponents[0][0, 2])


def test_bad_input():
    lstm = lstm_kernels.LSTM(2, 4)
    with pytest.raises(ValueError, match="x must have at least 3 steps in every sequence, got 2"):
        memory.lyapunov(lstm, torch.randn(2, 5, 2))
    with pytest.raises(ValueError, match="x is empty"):
        memory.lyapunov(lstm, [])
    with pytest.raises(ValueError, match="x holds NaN"):
        memory.lyapunov(lstm, torch.full((4, 2, 2), math.nan))

    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            return self.lstm(x, reset=torch.zeros(x.shape[:2], dtype=torch.bool))[0]

    with pytest.raises(ValueError, match="model resets its states"):
        memory.lyapunov(Agent(), torch.randn(9, 2, 2))
