"""report: one page that says what a model's hidden and cell state carry, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lstm_kernels import LSTM

from . import plot
from ._carried import Carried, answers, carried, growth, table
from ._gradient_flow import GradientFlow, gradient_flow
from ._horizon import Horizon, horizon
from ._page import Page
from ._record import batches, find, record, stream
from ._recording import Recording
from ._retention import Retention, Saturation, retention, saturation
from ._wording import notable_leads, steps_back, verdict


def report(
    model: nn.Module,
    data: Any,
    path: str | Path,
    *,
    loss: Callable[..., Tensor] | None = None,
    target_fn: Callable[[Any], Tensor | PackedSequence] | None = None,
    tokens: Sequence[str] | None = None,
    max_lag: int = 20,
    lstm: str | None = None,
    progress: bool = True,
) -> Path:
    """Writes one self-contained HTML page about what the LSTM in a model remembers.

    The page says what each state carries, with intervals over units or sequences. It also says
    which parts of the popular answer (long-term against short-term memory) hold in this model.

    Args:
        model: any module with one `lstm_kernels.LSTM` inside.
        data: an input, or a data loader of inputs or of tuples that begin with the input. Each
            analysis iterates over it once.
        path: of the page.
        loss: what `gradient_flow` differentiates; default, the squared norm of what the model
            returns for the last step.
        target_fn: what `horizon` looks for in the past; default, the input.
        tokens: labels of the steps of the first sequence, written along it.
        max_lag: how far back `horizon` looks, less where the sequences are shorter.
        lstm, progress: as for `stream`.

    Returns:
        The path.

    Raises:
        TypeError: `data` is an iterator, which gives its batches only once.
        ValueError: what the analyses refuse.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> memory.report(lstm, x, "memory.html", max_lag=5, progress=False).name
        'memory.html'
    """
    module = find(model, lstm, (LSTM,))
    if iter(data) is data:
        raise TypeError(
            "data is a one-shot iterator, but report() iterates over it several times: "
            "give a tensor, a list or a DataLoader"
        )
    x, _ = next(iter(batches(data, progress=False)))
    first = record(model, x, lstm=lstm)
    lags = max(0, min(max_lag, first.steps - 6))  # leaves steps for the probes' folds over time
    found = _Found(
        first,
        retention(stream(model, data, lstm=lstm, progress=progress)),
        saturation(stream(model, data, lstm=lstm, progress=progress)),
        horizon(model, data, target_fn or _itself, max_lag=lags, lstm=lstm, progress=progress),
        gradient_flow(model, data, loss or _last_step(module), lstm=lstm, progress=progress),
        carried(model, module, data, x, first, lstm=lstm, progress=progress),
    )
    return _page(found, tokens).write(path)


class _Found(NamedTuple):
    """What the page shows."""

    first: Recording  # of the first batch
    kept: Retention
    gates: Saturation
    known: Horizon
    flow: GradientFlow
    both: Carried


def _page(found: _Found, tokens: Sequence[str] | None) -> Page:
    page = Page("What this LSTM remembers")
    for sentence in _findings(found):
        page.lead(sentence)
    page.table(*_table(found))
    _answer(page, found)
    page.heading("Both states, step by step")
    page.paragraph(
        "The hidden state h is what the rest of the model sees; it is made anew at every step. The "
        "cell state c is kept: each step multiplies it by the forget gate and adds what the input "
        "gate lets in."
    )
    _draw_states(page, found.first, tokens)
    page.heading("For how long the cell keeps what it stores")
    page.picture(
        plot.retention(found.kept),
        "Half-life of each unit's cell, from its forget gates; band: 10% to 90% of the steps "
        "(first layer).",
    )
    page.picture(
        plot.saturation(found.gates),
        "Each dot is a gate of one unit of the last layer. Bottom right: always shut; top left: "
        "always open; near the origin: in between, a gate that weighs.",
    )
    page.heading("What each state knows of the past")
    page.picture(
        plot.horizon(found.known),
        f"Score of a linear probe for what was seen k steps back, on held-out data "
        f"({found.known.steps} steps).",
    )
    page.heading("How gradients travel back")
    page.paragraph(
        "The gradient of the loss with respect to each state of each step, over every way through "
        "the network. The dashed line is the part that came back along the cell alone."
    )
    page.picture(plot.gradient_flow(found.flow), "Norm of the gradient, last layer.")
    return page


def _answer(page: Page, found: _Found) -> None:
    page.heading("What each state carries")
    header, rows = table(found.both, found.known, found.flow)
    caption = (
        "Of the last layer. Brackets hold the 10% and the 90% quantile of its units, or, for the "
        f"erasure, of the {found.first.sequences} sequences of the first batch. A change of 1 is "
        "as much as the output varies. Another training of the model may give other numbers."
    )
    page.table(header, rows, caption)
    sentence = growth(found.both)
    if sentence is not None:
        page.paragraph(sentence)
    for reason in found.both.refused:
        page.paragraph(f"Not measured: {reason}.")
    page.heading("Where the popular answer holds, and where not")
    page.table(
        ["the popular answer", "in this model"],
        answers(found.both, found.known, found.flow),
        "A lead of at most 0.02 in a score counts as none.",
    )


def _findings(found: _Found) -> list[str]:
    """The findings as sentences, of the last layer."""
    life, known, flow = found.kept.half_life[-1], found.known, found.flow
    hidden, cell = known.reach("hidden")[-1], known.reach("cell")[-1]
    of_cell, of_hidden = notable_leads(known.cell[-1].tolist(), known.hidden[-1].tolist())
    return [
        f"In the median unit, half of what the cell stored is left after {_number(life.median())} "
        f"steps; in the longest-lived one, after {_number(life.max())}.",
        f"A linear probe finds what was seen {_lag(cell)} in the cell state and {_lag(hidden)} in "
        "the hidden state, where to find is to come half the way from guessing to certainty.",
        f"At the distances from 0 to {int(known.lags[-1])} steps back, the cell state tells more "
        f"at {of_cell} and the hidden state at {of_hidden}: {verdict(of_cell - of_hidden)}.",
        "Going back from the last step, the gradient of the loss stays above 1% of its last value "
        f"for {steps_back(flow, 'cell')} in the cell state, "
        f"for {steps_back(flow, 'highway')} along the cell alone, "
        f"and for {steps_back(flow, 'hidden')} in the hidden state.",
    ]


def _number(value: float | Tensor) -> str:
    return f"{float(value):,.3g}"


def _lag(reach: int) -> str:
    if reach < 1:
        return "at no step" if reach < 0 else "at the same step only"
    return "up to 1 step back" if reach == 1 else f"up to {reach} steps back"


def _table(found: _Found) -> tuple[list[str], list[list[str]], str]:
    kept, gates, known = found.kept, found.gates, found.known
    header = ["layer", "units", "half-life, median", "half-life, longest", "never forget"]
    header += ["never write", "h knows", "c knows"]
    rows = [
        [
            str(layer),
            str(len(life)),
            f"{_number(life.median())} steps",
            f"{_number(life.max())} steps",
            str(len(gates.never_forget()[layer])),
            str(len(gates.never_write()[layer])),
            _lag(known.reach("hidden")[layer]),
            _lag(known.reach("cell")[layer]),
        ]
        for layer, life in enumerate(kept.half_life)
    ]
    caption = (
        f"Measured over {kept.steps:,} steps. To never forget (write) is a forget gate above 0.9 "
        "(an input gate below 0.1) at 99% of them; to know is half the way from chance to "
        "certainty."
    )
    return header, rows, caption


def _draw_states(page: Page, first: Recording, tokens: Sequence[str] | None) -> None:
    """Both states of the units whose cell varies most, over the beginning of the first sequence."""
    shown = min(first.steps, 100)
    part = Recording(
        tuple(h[:shown] for h in first.hidden),
        tuple(c[:shown] for c in first.cell),
        None,
        None if first.lengths is None else first.lengths.clamp(max=shown),
    )
    length = shown if part.lengths is None else int(part.lengths[0])
    variable = first.cell[-1][:length, 0].float().std(0, correction=0)
    units = variable.argsort(descending=True)[:24].tolist()
    labels = None if tokens is None else list(tokens)[:length]
    for state, name in (("cell", "cell state c"), ("hidden", "hidden state h")):
        chosen = (
            units if first.hidden[-1].shape == first.cell[-1].shape or state == "cell" else None
        )
        ax = plot.states(part, state=state, units=chosen, tokens=labels)  # type: ignore[arg-type]
        page.picture(
            ax,
            f"The {name} of the first sequence, last layer: the units whose cell varies most.",
        )


def _itself(x: Any) -> Any:
    return x


def _last_step(module: LSTM) -> Callable[..., Tensor]:
    """The squared norm of the last step of a model's result, whatever came with the input."""

    def loss(result: Any, *_: Any) -> Tensor:
        if isinstance(result, (tuple, list)) and not isinstance(result, PackedSequence):
            result = result[0]
        if isinstance(result, PackedSequence):
            result = result.data[-1]
        elif result.dim() >= 3:
            result = result[:, -1] if module.batch_first else result[-1]
        return torch.as_tensor(result).square().sum()

    return loss
