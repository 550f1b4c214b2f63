"""What each state of a model carries, side by side, and where the popular answer holds in it.

Intervals are over the units or the sequences of this one model. They say nothing of what another
training of it would give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from lstm_kernels import LSTM

from ._ablate import Ablation, ablate
from ._gradient_flow import GradientFlow
from ._horizon import Horizon
from ._lyapunov import lyapunov
from ._overlap import Overlap, overlap
from ._record import stream
from ._recording import Recording
from ._wording import NOTABLE, steps_back

_Result = TypeVar("_Result")
Which = Literal["cell", "hidden"]


@dataclass(frozen=True)
class Carried:
    """Measurements of both states; None where a model does not allow one.

    Attributes:
        shared: how much of each state a linear probe reads from the other.
        erased: per state, what erasing it before the step `at` changes in the output of each
            sequence: 0 is nothing, 1 is as much as the output varies.
        exponents: (N,), the largest Lyapunov exponent of each sequence of the first batch.
        at: the middle of the first batch.
        refused: why a measurement is None, one sentence each.
    """

    shared: Overlap | None
    erased: dict[Which, Tensor] | None
    exponents: Tensor | None
    at: int
    refused: list[str]


def carried(
    model: nn.Module,
    module: LSTM,
    data: Any,
    x: Any,
    first: Recording,
    *,
    lstm: str | None,
    progress: bool,
) -> Carried:
    """Measures on all data how much the states share, and the rest on its first batch x."""
    at = first.steps // 2 if first.lengths is None else int(first.lengths.median()) // 2

    refused: list[str] = []

    def if_allowed(measure: Callable[[], _Result]) -> _Result | None:
        """None where the analysis refuses this model or data, and then the reason."""
        try:
            return measure()
        except (NotImplementedError, ValueError) as reason:
            refused.append(str(reason))
            return None

    def shared() -> Overlap:
        return overlap(stream(model, data, gates=False, lstm=lstm, progress=progress))

    def erased() -> dict[Which, Tensor]:
        return {s: _changes(ablate(model, x, at, state=s, lstm=lstm), first, at) for s in _STATES}

    def exponents() -> Tensor:
        return lyapunov(model, x, lstm=lstm, progress=False).exponents[-1][0]

    measured = (if_allowed(shared), if_allowed(erased), if_allowed(exponents))
    return Carried(*measured, at, refused)


_STATES: tuple[Which, ...] = ("cell", "hidden")


def _changes(found: Ablation, first: Recording, at: int) -> Tensor:
    """Per sequence, the change of the output after the erasure, in parts of how much it varies.

    Raises:
        ValueError: the output does not vary, so that there is nothing to compare a change with.
    """
    before, after = (_by_sequence(of, first, at) for of in (found.baseline, found.output))
    varies = (before - before.mean((0, 1))).norm(dim=(1, 2)).square().mean().sqrt()
    if not varies > 0:
        raise ValueError("the model's output does not vary, so no change compares with it")
    parts: Tensor = (after - before).norm(dim=(1, 2)) / varies
    return parts


def _by_sequence(output: Tensor, first: Recording, at: int) -> Tensor:
    """(N, steps from `at` on, features); (N, 1, features) of an output without steps.

    An output that is neither counts as one sequence.
    """
    output = output.double()
    if output.dim() >= 3 and output.numel():
        ordered = first.layout.time_first(output)
        if ordered.shape[:2] == (first.steps, first.sequences):
            return ordered[at:].flatten(2).transpose(0, 1)
    if output.dim() >= 1 and output.shape[0] == first.sequences:
        return output.reshape(first.sequences, 1, -1)
    return output.reshape(1, 1, -1)


def table(found: Carried, known: Horizon, flow: GradientFlow) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what was measured of c and of h, of the last layer."""
    rows = [
        ["knows the step just read (probe's score)", *(_score(known, s, 0) for s in _STATES)],
        ["knows the past, up to (steps back)", *(_lag(known.reach(s)[-1]) for s in _STATES)],
        ["gradient stays above 1% (steps back)", *(steps_back(flow, s) for s in _STATES)],
    ]
    if found.shared is not None:
        shares = (found.shared.cell_from_hidden[-1], found.shared.hidden_from_cell[-1])
        rows.append(["can be read from the other state (R2)", *map(interval, shares)])
    if found.erased is not None:
        costs = (interval(found.erased[s]) for s in _STATES)
        rows.append([f"erased before step {found.at}: change of the output", *costs])
    return ["", "cell state c", "hidden state h"], rows


def answers(found: Carried, known: Horizon, flow: GradientFlow) -> list[list[str]]:
    """Rows: a sentence of the popular answer, and whether it holds in this model."""
    lags = len(known.lags)
    rows = []
    if lags > 1:
        far = slice(lags // 2, lags)
        span = f"{int(known.lags[far][0])} to {int(known.lags[-1])} steps back"
        cell, hidden = (float(getattr(known, s)[-1][far].mean()) for s in _STATES)
        rows.append(
            [
                "c is the long-term memory: it knows more of the distant past than h.",
                f"{_verdict(cell - hidden, NOTABLE)}: {_against(cell, hidden)}, {span}.",
            ]
        )
    cell, hidden = (float(getattr(known, s)[-1][0]) for s in _STATES)
    rows.append(
        [
            "h is the short-term memory: it knows more than c of the step just read.",
            f"{_verdict(hidden - cell, NOTABLE)}: {_against(hidden, cell)}.",
        ]
    )
    if found.erased is not None:
        more = found.erased["cell"] > found.erased["hidden"]
        rows.append(
            [
                "h is made anew at every step, so to erase c costs more than to erase h.",
                f"Holds in {int(more.sum())} of {len(more)} sequences.",
            ]
        )
    assert flow.cell is not None
    reach = {s: flow.reach(s)[-1] for s in _STATES}
    rows.append(
        [
            "Gradients reach farther back in c than in h.",
            f"{_verdict(reach['cell'] - reach['hidden'], 0)}: {steps_back(flow, 'cell')} against "
            f"{steps_back(flow, 'hidden')}.",
        ]
    )
    if found.shared is not None:
        of_h, of_c = (
            float(of[-1].median())
            for of in (found.shared.hidden_from_cell, found.shared.cell_from_hidden)
        )
        rows.append(
            [
                "h shows only a part of c: a probe reads more of h from c than of c from h.",
                f"{_verdict(of_h - of_c, NOTABLE)}: R2 {_against(of_h, of_c)}, median units.",
            ]
        )
    return rows


def growth(found: Carried) -> str | None:
    """What becomes of a small change of the state, as a sentence."""
    if found.exponents is None:
        return None
    factor = found.exponents.exp()
    ends = "grows" if factor.median() > 1 else "dies out"
    return (
        f"A small change of both states {ends}: each step multiplies it by {interval(factor)}, "
        "which is the largest Lyapunov exponent as a factor."
    )


def interval(values: Tensor) -> str:
    """The median of several numbers, and the range from 10% to 90% of them."""
    values = values.double()
    if len(values) < 2:
        return _number(float(values[0]))
    low, middle, high = values.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist()
    return f"{_number(middle)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 1 else f"{value:,.3g}"


def _lag(reach: int) -> str:
    return "not one" if reach < 0 else str(reach)


def _against(one: float, other: float) -> str:
    return f"{one:.2f} against {other:.2f}"


def _score(known: Horizon, state: Which, lag: int) -> str:
    return f"{float(getattr(known, state)[-1][lag]):.2f}"


def _verdict(lead: float, notable: float) -> str:
    if lead > notable:
        return "Holds"
    return "Does not hold" if lead < -notable else "Neither leads"
