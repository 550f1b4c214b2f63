"""The page: the findings with their tables and pictures, task by task."""

from __future__ import annotations

from statistics import fmean

from matplotlib import pyplot
from matplotlib.axes import Axes

from lstm_kernels.memory import plot
from lstm_kernels.memory._page import Page
from lstm_kernels.memory._wording import steps_back

from .findings import best_of, findings, median_half_life
from .measure import SEQUENCES, Measured
from .tasks import Task

_SHOWN = 1e-12  # of the largest gradient: a plain RNN's falls to 0 within the first steps back


def make_page(tasks: list[Task], measured: dict[str, list[Measured]], seed: int) -> Page:
    """The whole page, of what was measured on each task."""
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
    return page


def _overview(
    tasks: list[Task], measured: dict[str, list[Measured]]
) -> tuple[list[str], list[list[str]], str]:
    """The answer at a glance: a row per task, of the plain RNN and the best LSTM."""
    header = ["task", "RNN scores", "LSTM scores", "RNN gradient, h", "LSTM gradient, h"]
    header += ["LSTM gradient, c", "h knows", "c knows", "half-life of c"]
    rows = []
    for task in tasks:
        rnn, *lstms = measured[task.name]
        best = best_of(task, lstms)
        known = best.known
        rows.append(
            [
                f"{task.name}, {task.metric}",
                f"{rnn.score:.3g}",
                f"{best.score:.3g}",
                steps_back(rnn.trained, "hidden"),
                steps_back(best.trained, "hidden"),
                steps_back(best.trained, "cell"),
                f"{fmean(known.hidden):.2f}",
                f"{fmean(known.cell):.2f}",
                f"{median_half_life(best.trained_retention)} steps",
            ]
        )
    caption = (
        "The trained plain RNN, and the LSTM whose forget bias did best. Gradient: how far back "
        "it stays above 1% of its last value. Knows: what a linear probe finds of the past in each "
        "state, on average (R2 for adding, else accuracy). Half-life: of the median unit."
    )
    return header, rows, caption


def _section(page: Page, task: Task, measured: list[Measured]) -> None:
    rnn, *lstms = measured
    best = best_of(task, lstms)
    page.heading(f"{task.name.capitalize()}: {task.question}")
    for sentence in findings(task, measured):
        page.paragraph(sentence)
    page.table(*_contenders(task, measured))
    page.picture(
        _draw_gradients(rnn, best),
        "Gradient of the loss of the last step with respect to every state. The axis ends at "
        f"{_SHOWN:g} of its top.",
    )
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    _draw_curves(left, task, measured)
    _draw_knowledge(right, best)
    page.picture(
        right,
        f"Left: learning. Right: what a linear probe finds of {best.known.of} in each state of "
        f"the {best.contender.name}, on held-out sequences.",
    )


def _contenders(task: Task, measured: list[Measured]) -> tuple[list[str], list[list[str]], str]:
    header = ["", "units", "parameters", task.metric, "training steps", "half-life, median (steps)"]
    rows = [
        [
            m.contender.name,
            str(m.units),
            f"{m.parameters:,}",
            f"{m.score:.4g}",
            f"{m.curve[-1][0]:,}",
            median_half_life(m.trained_retention) if m.contender.is_lstm else "-",
        ]
        for m in measured
    ]
    caption = (
        f"On {SEQUENCES} sequences that were not trained on. Training stops where the task is "
        "solved."
    )
    return header, rows, caption


def _draw_gradients(rnn: Measured, best: Measured) -> Axes:
    """Both before and after training, on one scale; returns an Axes of the figure."""
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for ax, stage in ((left, "untrained"), (right, "trained")):
        plot.gradient_flow(getattr(rnn, stage), name="RNN", ax=ax)
        plot.gradient_flow(getattr(best, stage), name="LSTM", ax=ax)
        ax.set_title(f"{stage}: RNN and {best.contender.name}")
    right.set_ylabel("")
    right.set_ylim(bottom=_SHOWN * right.get_ylim()[1])
    right.legend([], frameon=False)  # the same lines as on the left
    shown: Axes = right
    return shown


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
    known = m.known
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
