"""The report as a reader sees it: one file, nothing fetched, rendered by a browser."""

import base64
import math
import re
import shutil
import subprocess

import matplotlib
import numpy as np
import pytest
import torch
from models import Reader, delay_line, fixed_gates

import lstm_kernels
from lstm_kernels import memory
from lstm_kernels.memory._carried import carried, interval
from lstm_kernels.memory._page import Page

matplotlib.use("Agg")
from matplotlib import image, pyplot

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Reader(lstm_kernels.LSTM(3, 16, 2, batch_first=True))


X = torch.randn(8, 40, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def page(model, tmp_path):
    return memory.report(
        model, X, tmp_path / "report.html", tokens=["ab"[t % 2] for t in range(40)]
    )


@pytest.mark.slow
def test_page_is_self_contained(page):
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)"', html)
    assert len(pictures) == 6
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in pictures)
    assert pyplot.get_fignums() == []


@pytest.mark.slow
def test_page_says_what_was_measured(model, page):
    html = page.read_text(encoding="utf-8")
    states = memory.record(model, X)
    life = memory.retention(states).half_life
    for layer in life:
        assert f"<td>{float(layer.median()):,.3g} steps</td>" in html
    assert "Measured over 320 steps" in html


def test_sentences_say_which_state_knows_more(tmp_path):
    """A delay line: both know equally far back, and the page says that the claim fails."""
    torch.manual_seed(0)
    x = torch.randint(0, 2, (200, 8, 1), dtype=torch.float64) * 2 - 1
    html = memory.report(delay_line(3), x, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "up to 3 steps back in the cell state and up to 3 steps back in the hidden state" in html
    assert "the cell state tells more at 0 and the hidden state at 0" in html
    assert "against the common claim, both know about as much" in html


def test_what_erasing_costs_is_that_of_the_equations():
    """Constant gates and weights of 0: c counts up towards its bound, and nothing reads h."""
    i, f, g, o, steps = 0.5, 0.9, 0.5, 0.5, 40
    lstm = fixed_gates(i, f, g, o)
    x = torch.randn(steps, 6, 1, dtype=torch.float64)
    first = memory.record(lstm, x)
    found = carried(lstm, lstm, x, x, first, lstm=None, progress=False)
    at, c, h, erased = steps // 2, 0.0, [], []
    for _ in range(steps):
        c = f * c + i * g
        h.append(o * math.tanh(c))
    c = 0.0
    for _ in range(at, steps):
        c = f * c + i * g
        erased.append(o * math.tanh(c))
    h = np.array(h[at:])
    expected = np.linalg.norm(h - erased) / np.linalg.norm(h - h.mean())
    assert found.at == at
    # 40 steps of sums that stay below 3, in float64
    torch.testing.assert_close(
        found.erased["cell"], torch.full((6,), expected, dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert (found.erased["hidden"] == 0).all()
    # The change of h is a part of that of c, and that part still settles when the mean begins.
    torch.testing.assert_close(
        found.exponents.exp(), torch.full((6,), f, dtype=torch.float64), rtol=1e-3, atol=0
    )
    assert found.refused == []


def test_the_page_says_where_the_popular_answer_holds(tmp_path):
    x = torch.randn(40, 6, 1, dtype=torch.float64)
    html = memory.report(fixed_gates(0.5, 0.9, 0.5, 0.5), x, tmp_path / "report.html")
    html = html.read_text(encoding="utf-8")
    assert "to erase c costs more than to erase h.</td><td>Holds in 6 of 6 sequences.</td>" in html
    assert "each step multiplies it by 0.9 [0.9, 0.9]" in html
    known = memory.report(delay_line(3), x, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "knows more of the distant past than h.</td><td>Neither leads:" in known


@pytest.mark.slow
def test_what_a_model_does_not_allow_is_left_out_with_the_reason(tmp_path):
    torch.manual_seed(0)
    model = Reader(lstm_kernels.LSTM(3, 8, batch_first=True, bidirectional=True))
    html = memory.report(model, X, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not measured: ablate() does not support a bidirectional LSTM" in html
    assert "to erase c" not in html
    assert "can be read from the other state (R2)" in html


class Last(Reader):
    """One result for each sequence."""

    def forward(self, x):
        return super().forward(x)[:, -1]


class Total(Reader):
    """One number for all."""

    def forward(self, x):
        return super().forward(x).sum()


def carried_by(kind):
    torch.manual_seed(0)
    model = kind(lstm_kernels.LSTM(3, 16, batch_first=True, dtype=torch.float64))
    x = X.double()
    first = memory.record(model, x)
    return carried(model, model.recurrent, x, x, first, lstm=None, progress=False)


@pytest.mark.parametrize("kind", [Reader, Last])
@pytest.mark.slow
def test_erasure_finds_the_sequences_of_an_output(kind):
    found = carried_by(kind)
    assert found.refused == []
    assert found.erased["cell"].shape == found.erased["hidden"].shape == (8,)
    assert (found.erased["cell"] > 0).all()


@pytest.mark.slow
def test_an_output_that_does_not_vary_is_no_measure():
    found = carried_by(Total)
    assert found.erased is None
    assert found.refused == ["the model's output does not vary, so no change compares with it"]


def test_intervals_are_the_median_and_the_deciles():
    assert interval(torch.arange(101.0)) == "50 [10, 90]"
    assert interval(torch.tensor([0.25])) == "0.25"


@pytest.mark.slow
def test_a_loader_and_a_loss(model, tmp_path):
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, X[:, -1, :2]), 4)
    path = memory.report(
        model,
        loader,
        tmp_path / "report.html",
        loss=lambda output, target: (output[:, -1] - target).square().sum(),
        max_lag=3,
        progress=False,
    )
    assert "What this LSTM remembers" in path.read_text(encoding="utf-8")
    with pytest.raises(TypeError, match="data is a one-shot iterator"):
        memory.report(model, iter([X]), tmp_path / "report.html")


@pytest.mark.slow
def test_half_life_is_in_the_lead(tmp_path):
    f = 0.9
    x = torch.randn(60, 8, 1, dtype=torch.float64)
    lstm = fixed_gates(0.5, f, 0.5, 0.5, hidden_size=2)
    with torch.no_grad():
        lstm.weight_ih_l0[4:6] = 0.1
    html = memory.report(lstm, x, tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"is left after {math.log(0.5) / math.log(f):.3g} steps" in html


def test_page_escapes_text(tmp_path):
    page = Page("<b> & title")
    page.paragraph("a < b")
    page.table(["<th>"], [["<td>"]], "<caption>")
    html = page.write(tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (
        "&lt;b&gt; &amp; title",
        "a &lt; b",
        "&lt;th&gt;",
        "&lt;td&gt;",
        "&lt;caption&gt;",
    ):
        assert text in html


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian package chromium)")
def test_a_browser_renders_it(page, tmp_path):
    """Headless, without network: title, text and the lines of every picture are on the page."""
    shot = tmp_path / "page.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"]
    command += ["--window-size=800,5200"]
    command += [f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = image.imread(shot)[..., :3]
    assert pixels.shape[1] == 800
    dark = (pixels < 0.5).all(-1)
    assert dark[:120].any()  # the title
    rows = np.flatnonzero((pixels.min(-1) < 0.9).any(1))
    assert rows.max() > 3000  # two more tables, and six pictures below each other
    for colour in (memory.plot.CELL, memory.plot.HIDDEN, memory.plot.HIGHWAY):
        wanted = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(-1) < 0.02).sum() > 100  # lines of that colour
