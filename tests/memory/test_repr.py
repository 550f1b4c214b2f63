"""Results show their sizes and their headline numbers, never whole tensors."""

import pytest
import torch
from models import Reader, delay_line, fixed_gates, states_of

import lstm_kernels
from lstm_kernels import memory

X = torch.randn(12, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_recording():
    recording = memory.record(fixed_gates(0.5, 0.5, 0.5, 0.5, 3, num_layers=2), X)
    sizes = "layers=2, steps=12, sequences=4, units=3"
    assert repr(recording) == f"Recording({sizes}, gates=True, padded=False)"


def test_retention_and_saturation():
    states = memory.record(fixed_gates(0.05, 0.95, 0.5, 0.5, 3), X)
    sizes = "layers=1, units=3, steps=48"
    # ln(1/2) / ln(0.95) = 13.5
    assert repr(memory.retention(states)) == f"Retention({sizes}, median_half_life=(13.5,))"
    assert (
        repr(memory.saturation(states))
        == f"Saturation({sizes}, never_forget=(3,), never_write=(3,))"
    )


def test_horizon():
    torch.manual_seed(0)
    x = torch.randint(0, 2, (300, 8, 1), dtype=torch.float64) * 2 - 1
    assert repr(memory.horizon(delay_line(2), x, max_lag=4)) == (
        "Horizon(layers=1, max_lag=4, steps=2368, metric='R2', hidden_reach=(2,), cell_reach=(2,))"
    )


def test_gradient_flow():
    lstm = fixed_gates(0.5, 0.2, 0.5, 0.5)
    flow = memory.gradient_flow(lstm, X, lambda r: r[0][-1].sum() * 0 + 0.125)
    assert repr(flow).startswith("GradientFlow(layers=1, steps=12, loss=0.125, hidden_reach=(")
    flow = memory.gradient_flow(lstm, X, lambda r: r[0][-1].sum())
    # The gates ignore h, so only c carries the gradient: 0.2^2 of it is above 1%, 0.2^3 is not.
    assert repr(flow).endswith("hidden_reach=(1,), cell_reach=(3,), highway_reach=(3,))")
    plain = memory.gradient_flow(
        Reader(torch.nn.RNN(1, 2, dtype=torch.float64)), X, lambda y: y[-1].sum()
    )
    assert "cell" not in repr(plain)


def test_tracking_and_its_units():
    inside = torch.arange(40).view(20, 2) % 3 == 0
    cell = torch.zeros(20, 2, 3)
    cell[..., 2] = inside.float()
    assert repr(memory.label(states_of(cell), inside)) == (
        "Tracking(metric='AUC', units=6, best=Unit(score=1, state='hidden', layer=0, unit=2))"
    )


def test_ablation():
    found = memory.Ablation(torch.zeros(9, 5, 4), torch.full((9, 5, 4), -0.25), 1 / 3, None)
    assert repr(found) == (
        "Ablation(output=(9, 5, 4), largest_change=0.25, baseline_loss=0.333, loss=None)"
    )
    empty = memory.Ablation(torch.zeros(0, 2), torch.zeros(0, 2), None, None)
    assert "output=(0, 2), largest_change=0" in repr(empty)


@pytest.mark.slow
@pytest.mark.parametrize("hidden_size", [2, 300])
def test_a_line_is_short_however_large_the_model(hidden_size):
    torch.manual_seed(0)
    model = Reader(lstm_kernels.LSTM(1, hidden_size, 3).double())
    recording = memory.record(model, X)
    labels = torch.randn(12, 4)
    for found in (
        recording,
        memory.retention(recording),
        memory.saturation(recording),
        memory.horizon(model, X, max_lag=2),
        memory.gradient_flow(model, X, lambda y: y.sum()),
        memory.label(recording, labels),
        memory.ablate(model, X, 3),
    ):
        assert "tensor" not in repr(found)
        assert len(repr(found)) < 150
