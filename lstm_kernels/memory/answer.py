"""The measured answer: how the two states differ on three tasks, beside a plain RNN."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from torch import Tensor, nn

from lstm_kernels import LSTM

from . import plot
from .gates import Retention, retention
from .gradients import GradientFlow, gradient_flow
from .page import Page
from .recording import find, record
from .tasks import Adding, Copying, Knowledge, Task, Text
from .training import CONTENDERS, Contender, Trained, train_all

_SEQUENCES = 500  # held out, for the measurements
_SHOWN = 1e-12  # of the largest gradient: a plain RNN's falls to 0 within the first steps back
_NOTABLE = 0.02  # a difference of probe scores; 500 sequences give them a deviation of about this


@dataclass(frozen=True)
class Measured:
    """One contender on one task, untrained and trained."""

    contender: Contender
    units: int
    parameters: int  # of the recurrent module
    curve: list[tuple[int, float]]  # (training step, score)
    score: float
    untrained: GradientFlow
    trained: GradientFlow
    untrained_retention: Retention | None
    trained_retention: Retention | None
    knowledge: Knowledge | None

    @classmethod
    def of(cls, task: Task, contender: Contender, result: Trained, seed: int) -> Measured:
        """Measures on sequences that were not trained on."""
        x, target = task.held_out(_SEQUENCES, torch.Generator().manual_seed(seed + 2))
        model = contender.model(task, seed)
        recurrent = find(model, None, (LSTM, nn.RNN))
        is_lstm = contender.is_lstm

        def flow() -> GradientFlow:
            return gradient_flow(model, [(x, target)], task.last, progress=False)

        def kept() -> Retention | None:
            return retention(record(model, x)) if is_lstm else None

        untrained, untrained_retention = flow(), kept()
        model.load_state_dict(result.weights)
        with torch.no_grad():
            score = task.score(model(x), target)
        return cls(
            contender,
            recurrent.hidden_size,
            sum(weight.numel() for weight in recurrent.parameters()),
            result.scores,
            score,
            untrained,
            flow(),
            untrained_retention,
            kept(),
            task.knowledge(model, x) if is_lstm else None,
        )


def answer(folder: Path, part: float, seed: int) -> tuple[Path, dict[str, list[str]]]:
    """Trains, measures, and writes memory.html and memory.json into the folder.

    Args:
        part: of the training steps of each task.

    Returns:
        the page, and the findings of each task as sentences.
    """
    tasks: list[Task] = [Adding(), Copying(), Text()]
    jobs = [(task, contender) for task in tasks for contender in CONTENDERS]
    trained = train_all(jobs, part, seed)
    measured: dict[str, list[Measured]] = {task.name: [] for task in tasks}
    for (task, contender), result in zip(jobs, trained, strict=True):
        measured[task.name].append(Measured.of(task, contender, result, seed))

    page = Page("How the cell state and the hidden state of an LSTM differ, measured")
    page.paragraph(
        "The hidden state h is made anew at every step and is all that the rest of the network "
        "sees. The cell state c is kept: c = f * c + i * g, and h = o * tanh(c). Three tasks, each "
        "learnt by a plain RNN and by LSTMs with forget bias 0, 1 and 3, with the same number of "
        "recurrent parameters, training steps and learning rate, show what follows from that. All "
        f"numbers are of one run, seed {seed}."
    )
    page.table(*_overview(tasks, measured))
    for task in tasks:
        _section(page, task, measured[task.name])
    numbers = {task.name: _numbers(task, measured[task.name]) for task in tasks}
    (folder / "memory.json").write_text(json.dumps(numbers, indent=1) + "\n")
    sentences = {name: of_task["findings"] for name, of_task in numbers.items()}
    return page.write(folder / "memory.html"), sentences


def findings(task: Task, measured: list[Measured]) -> list[str]:
    """What was measured on a task; where a common claim fails, that is said."""
    rnn, *lstms = measured
    best = _best(task, lstms)
    scores = "; ".join(f"{m.contender.name}: {m.score:.3g}" for m in measured)
    known = best.knowledge
    assert known is not None
    cell, hidden = _mean(known.cell), _mean(known.hidden)
    ahead = [c - h for c, h in zip(known.cell, known.hidden, strict=True)]
    return [
        f"The {task.metric} ({task.guessing:.3g} without memory). {scores}.",
        f"Going back from the last step, the gradient stays above 1% of its last value for "
        f"{_back(rnn.trained, 'hidden')} in h of the RNN, and in the {best.contender.name} for "
        f"{_back(best.trained, 'hidden')} in h and {_back(best.trained, 'cell')} in c, of which "
        f"{_back(best.trained, 'highway')} along the cell alone. Before training it was "
        f"{_back(rnn.untrained, 'hidden')} in the RNN"
        + "".join(f", {_back(m.untrained, 'cell')} in c of the {m.contender.name}" for m in lstms)
        + ".",
        f"Of {known.of}, a probe finds on average {cell:.3g} ({known.metric}) in c and "
        f"{hidden:.3g} in h: {_verdict(cell - hidden)}. Of {len(ahead)} places, c tells more at "
        f"{sum(d > _NOTABLE for d in ahead)} and h at {sum(d < -_NOTABLE for d in ahead)}.",
        "The forget bias: "
        + "; ".join(
            f"with {m.contender.forget_bias:g} the median half-life of a cell is "
            f"{_median(m.untrained_retention)} steps before and {_median(m.trained_retention)} "
            f"after training, the longest {_longest(m.trained_retention)}"
            for m in lstms
        )
        + ".",
    ]


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores)


def _verdict(difference: float) -> str:
    if difference > _NOTABLE:
        return "the cell state knows more of the past"
    if difference < -_NOTABLE:
        return "against the common claim, the hidden state knows more of the past"
    return "against the common claim, both know about as much"


def _best(task: Task, lstms: list[Measured]) -> Measured:
    pick = max if task.higher_is_better else min
    return pick(lstms, key=lambda m: m.score)


def _back(flow: GradientFlow, kind: str) -> str:
    steps, total = flow.reach(kind)[-1], flow.hidden[-1].shape[1]
    if steps >= total:
        return f"all {total} steps"
    return "1 step" if steps == 1 else f"{steps} steps"


def _median(kept: Retention | None) -> str:
    assert kept is not None
    return f"{float(kept.half_life[-1].median()):.3g}"


def _longest(kept: Retention | None) -> str:
    assert kept is not None
    longest = float(kept.half_life[-1].max())
    return f"{longest:,.0f}" if longest >= 100 else f"{longest:.3g}"


def _overview(
    tasks: list[Task], measured: dict[str, list[Measured]]
) -> tuple[list[str], list[list[str]], str]:
    """The answer at a glance: a row per task, of the plain RNN and the best LSTM."""
    header = ["task", "RNN scores", "LSTM scores", "RNN gradient, h", "LSTM gradient, h"]
    header += ["LSTM gradient, c", "h knows", "c knows", "half-life of c"]
    rows = []
    for task in tasks:
        rnn, *lstms = measured[task.name]
        best = _best(task, lstms)
        known = _known(best)
        rows.append(
            [
                f"{task.name}, {task.metric}",
                f"{rnn.score:.3g}",
                f"{best.score:.3g}",
                _back(rnn.trained, "hidden"),
                _back(best.trained, "hidden"),
                _back(best.trained, "cell"),
                f"{_mean(known.hidden):.2f}",
                f"{_mean(known.cell):.2f}",
                f"{_median(best.trained_retention)} steps",
            ]
        )
    caption = (
        "The trained plain RNN beside the LSTM whose forget bias did best. Gradient: how far back "
        "it stays above 1% of its last value. Knows: what a linear probe finds of the past in each "
        "state, on average (R2 for adding, else accuracy). Half-life: of the median unit."
    )
    return header, rows, caption


def _section(page: Page, task: Task, measured: list[Measured]) -> None:
    page.heading(f"{task.name.capitalize()}: {task.question}")
    for sentence in findings(task, measured):
        page.paragraph(sentence)
    page.table(
        ["", "units", "parameters", task.metric, "training steps", "half-life, median (steps)"],
        [
            [
                m.contender.name,
                str(m.units),
                f"{m.parameters:,}",
                f"{m.score:.4g}",
                f"{m.curve[-1][0]:,}",
                _median(m.trained_retention) if m.contender.is_lstm else "-",
            ]
            for m in measured
        ],
        f"On {_SEQUENCES} sequences that were not trained on. Training stops where the task is "
        "solved.",
    )
    rnn, *lstms = measured
    best = _best(task, lstms)
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for ax, stage in ((left, "untrained"), (right, "trained")):
        plot.gradient_flow(getattr(rnn, stage), name="RNN", ax=ax)
        plot.gradient_flow(getattr(best, stage), name="LSTM", ax=ax)
        ax.set_title(f"{stage}: RNN and {best.contender.name}")
    right.set_ylabel("")
    right.set_ylim(bottom=_SHOWN * right.get_ylim()[1])
    right.legend([], frameon=False)  # the same lines as on the left
    page.picture(
        right,
        "Gradient of the loss of the last step with respect to every state. The axis ends at "
        f"{_SHOWN:g} of its top.",
    )
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    _draw_curves(left, task, measured)
    _draw_knowledge(right, best)
    page.picture(
        right,
        f"Left: learning. Right: what a linear probe finds of {_known(best).of} in each state of "
        f"the {best.contender.name}, on held-out sequences.",
    )


def _draw_curves(ax: Axes, task: Task, measured: list[Measured]) -> None:
    looks = ((plot.OTHER, "-"), ("0.2", ":"), ("0.2", "--"), ("0.2", "-"))
    for m, (colour, dashes) in zip(measured, looks, strict=True):
        steps, scores = zip(*m.curve, strict=True)
        ax.plot(steps, scores, dashes, color=colour, label=m.contender.name)
    ax.axhline(task.guessing, color="0.5", linewidth=0.8, label="without memory")
    ax.set_xlabel("training step")
    ax.set_ylabel(task.metric)
    ax.legend(frameon=False)


def _draw_knowledge(ax: Axes, m: Measured) -> None:
    known = _known(m)
    floor = min(known.chance) - 0.1
    for scores, colour, name in (
        (known.cell, plot.CELL, "cell state"),
        (known.hidden, plot.HIDDEN, "hidden state"),
    ):
        ax.plot(known.at, [max(score, floor) for score in scores], color=colour, label=name)
    ax.plot(known.at, known.chance, color="0.5", linewidth=0.8, label="chance")
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel(known.along)
    ax.set_ylabel("$R^2$" if known.metric == "R2" else known.metric)
    ax.legend(frameon=False)


def _known(m: Measured) -> Knowledge:
    assert m.knowledge is not None
    return m.knowledge


def _short(values: Tensor) -> list[float]:
    """Four digits are more than a run with another seed would confirm."""
    return [float(f"{value:.4g}") for value in values.tolist()]


def _numbers(task: Task, measured: list[Measured]) -> dict[str, Any]:
    """All that the page shows, for a program to read."""
    return {
        "metric": task.metric,
        "guessing": task.guessing,
        "findings": findings(task, measured),
        "contenders": [
            {
                "name": m.contender.name,
                "units": m.units,
                "parameters": m.parameters,
                "score": m.score,
                "curve": m.curve,
                "gradient": {
                    stage: {
                        kind: [_short(norm[0]) for norm in layers]
                        for kind, layers in vars(getattr(m, stage)).items()
                        if isinstance(layers, tuple)
                    }
                    for stage in ("untrained", "trained")
                },
                "half_life": {
                    stage: None if kept is None else _short(kept.half_life[-1])
                    for stage, kept in (
                        ("untrained", m.untrained_retention),
                        ("trained", m.trained_retention),
                    )
                },
                "knowledge": None if m.knowledge is None else asdict(m.knowledge),
            }
            for m in measured
        ],
    }
