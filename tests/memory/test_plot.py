"""Pictures: what is drawn, its labels, and that nothing is drawn outside."""

import matplotlib
import numpy as np
import pytest
import torch
from models import Reader
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import memory

matplotlib.use("Agg")
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Reader(lstm_kernels.LSTM(3, 30, 2))


X = torch.randn(12, 4, 3, generator=torch.Generator().manual_seed(0))


def rendered(ax):
    """Draws at 800 px and returns the pixels."""
    ax.figure.set_dpi(100)
    ax.figure.canvas.draw()
    pixels = torch.from_numpy(np.array(ax.figure.canvas.buffer_rgba()))
    assert pixels.shape[1] == 800
    assert (pixels[..., :3] < 250).any(-1).float().mean() > 0.01  # not blank
    return pixels


def test_states(model):
    recording = memory.record(model, X)
    ax = memory.plot.states(recording, state="hidden", units=[3, 1], tokens=list("hello world\n"))
    shown = torch.as_tensor(np.asarray(ax.images[0].get_array()))
    assert_close(shown, recording.hidden[-1][:, 0, [3, 1]].T, rtol=0, atol=0)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["3", "1"]
    assert [t.get_text() for t in ax.get_xticklabels()] == [*"hello world", "\u21b5"]
    assert ax.get_ylabel() == "unit"
    rendered(ax)
    assert memory.plot.states(recording).images[0].get_array().shape == (24, 12)
    with pytest.raises(ValueError, match="tokens must have 12 labels"):
        memory.plot.states(recording, tokens=["a"])


def test_retention_and_saturation(model):
    found = memory.retention(memory.record(model, X))
    ax = memory.plot.retention(found)
    for line, life, order in zip(ax.lines, found.half_life, found.order, strict=True):
        assert_close(torch.as_tensor(line.get_ydata()), life[order], rtol=0, atol=0)
    assert "steps" in ax.get_ylabel()
    assert ax.get_yscale() == "log"
    rendered(ax)
    ax = memory.plot.saturation(memory.saturation(memory.record(model, X)))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "input gate",
        "forget gate",
        "output gate",
    ]
    rendered(ax)


def test_a_half_life_without_end_is_left_open():
    life = torch.tensor([float("inf"), 3.0])
    found = memory.Retention((life,), (life.expand(5, 2),), (life,), (life,), (torch.arange(2),), 1)
    rendered(memory.plot.retention(found))


def test_gradient_flow_and_horizon(model):
    flow = memory.gradient_flow(model, X, lambda y: y[-1].sum())
    ax = memory.plot.gradient_flow(flow, name="LSTM")
    plain = memory.gradient_flow(Reader(torch.nn.RNN(3, 5)), X, lambda y: y[-1].sum())
    assert memory.plot.gradient_flow(plain, name="RNN", ax=ax) is ax
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == [
        "LSTM: dL/dh",
        "LSTM: dL/dc",
        "LSTM: dL/dc along the cell alone",
        "RNN: dL/dh",
    ]
    rendered(ax)
    found = memory.horizon(model, torch.randn(12, 40, 3), max_lag=4)
    ax = memory.plot.horizon(found)
    assert_close(
        torch.as_tensor(ax.lines[3].get_ydata()), found.cell[1].clamp(min=-0.05), rtol=0, atol=0
    )
    assert "lag" in ax.get_xlabel()
    rendered(ax)


def test_text_wraps_and_colours():
    tokens = list("a line\nand more of it than fits")
    values = torch.linspace(-1, 1, len(tokens))
    ax = memory.plot.text(tokens, values, columns=12)
    assert len(ax.patches) == len(ax.texts) == len(tokens)
    assert max(patch.get_y() for patch in ax.patches) == 2  # "a line", then 24 characters in two
    assert ax.patches[0].get_facecolor() != ax.patches[-1].get_facecolor()
    pixels = rendered(ax)
    assert pixels.shape[0] < 300
    with pytest.raises(ValueError, match=r"values must be \(2,\), one per token, got \(3,\)"):
        memory.plot.text(["a", "b"], torch.zeros(3))
