"""The page: the findings with their tables and pictures, task by task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from matplotlib import pyplot
from matplotlib.axes import Axes

from lstm_kernels.memory import plot
from lstm_kernels.memory._page import Page

from .claims import Claim
from .measure import AFTER, BEFORE, SEQUENCES, Run
from .summary import headline, measures, summary
from .tasks import Task
from .training import CONTENDERS

_SHOWN = 1e-8  # of the largest gradient: a plain RNN's falls to 0 within the first steps back
_LOOKS = {
    "RNN": (plot.OTHER, "-"),
    "LSTM, forget bias 0": ("0.6", "-"),
    "LSTM, forget bias 1": ("0.35", "--"),
    "LSTM, forget bias 3": ("0.1", "-"),
}


def make_page(
    tasks: list[Task], runs: dict[str, list[Run]], claims: dict[str, list[Claim]], seeds: int
) -> Page:
    """The whole page, of what was measured on each task."""
    page = Page("How the cell state and the hidden state of an LSTM differ, measured")
    page.paragraph(
        "The hidden state h is made anew at every step and is all that the rest of the network "
        "sees. The cell state c is kept: c = f * c + i * g, and h = o * tanh(c). Three tasks, each "
        "learnt by a plain RNN and by LSTMs with forget bias 0, 1 and 3, with the same number of "
        "recurrent parameters, training steps and learning rate, show what follows from that. "
        f"Everything was trained from {seeds} seeds. A number is the median, with the lowest and "
        "the highest of the seeds; bands in pictures are the same range."
    )
    for task in tasks:
        _section(page, task, runs[task.name], claims[task.name])
    return page


def write_pictures(tasks: list[Task], runs: dict[str, list[Run]], folder: Path) -> None:
    """One picture per task, for documents: what the states share and cost, one dot per seed."""
    for task in tasks:
        best = headline(task, runs[task.name])
        learnt = [r for r in runs[task.name] if r.contender == best and r.learnt]
        figure = _draw_rest(task, runs[task.name], learnt).get_figure(root=True)
        assert figure is not None
        figure.savefig(folder / f"{task.name}.png", dpi=90)
        pyplot.close(figure)


def _section(page: Page, task: Task, runs: list[Run], claims: list[Claim]) -> None:
    best = headline(task, runs)
    learnt = [r for r in runs if r.contender == best and r.learnt]
    page.heading(f"{task.name.capitalize()}: {task.question}")
    page.table(
        ["holds in", "claim"],
        [[f"{claim.holds} of {claim.of} seeds", claim.text] for claim in claims],
        f"What the states carry is judged where the {best} has learnt the task.",
    )
    page.picture(_draw_learning(task, runs, learnt), "Left: learning. " + _known(task, best))
    page.picture(
        _draw_gradients(runs, best),
        "Gradient of the loss of the last step with respect to every state. The axis ends at "
        f"{_SHOWN:g} of its top.",
    )
    page.picture(
        _draw_rest(task, runs, learnt),
        f"One dot per seed. Overlap: R2 of one state from the other, median unit of the {best}. "
        "Cost: of a change of c or h before one step, as a part of the way from the score to "
        "guessing. Half-life: of the median cell. Lyapunov: the largest exponent against the "
        "growth of the gradient per step back; where the signs agree, dots lie bottom left or top "
        "right.",
    )
    page.table(*_numbers(task, runs))


def _known(task: Task, best: str) -> str:
    return (
        f"Right: what probes find of {task.known} in each state of the {best}, on held-out "
        "sequences; solid: a linear probe, dashed: a small network."
    )


def _numbers(task: Task, runs: list[Run]) -> tuple[list[str], list[list[str]], str]:
    found = {
        c.name: summary([r for r in runs if r.contender == c.name], measures(task))
        for c in CONTENDERS
    }
    rows = [
        [name, *(str(of[name]) if name in of else "-" for of in found.values())]
        for name in measures(task)
        if any(name in of for of in found.values())
    ]
    caption = (
        f"On {SEQUENCES:,} sequences that were not trained on, over all seeds, learnt or not. "
        "Training stops where the task is learnt. Reach: for how many steps back the gradient "
        "stays above 1% of its last value."
    )
    return ["", *found], rows, caption


def _draw_learning(task: Task, runs: list[Run], learnt: list[Run]) -> Axes:
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, (colour, dashes) in _LOOKS.items():
        for n, r in enumerate(r for r in runs if r.contender == name):
            steps, scores = zip(*r.curve, strict=True)
            label = name if n == 0 else None
            left.plot(steps, scores, dashes, color=colour, linewidth=1, alpha=0.7, label=label)
    left.axhline(task.guessing, color="0.5", linewidth=0.8, linestyle=":", label="without memory")
    left.set_xlabel("training step")
    left.set_ylabel(task.metric)
    left.legend(frameon=False)
    known = [r.knowledge for r in learnt if r.knowledge is not None]
    for state, colour, name in (("cell", plot.CELL, "c"), ("hidden", plot.HIDDEN, "h")):
        for probe, dashes in (("linear", "-"), ("mlp", "--")):
            found = [getattr(k, state)[probe] for k in known]
            if found:
                _band(right, known[0].at, found, colour, dashes, f"{name}, {probe}")
    if known:
        right.plot(known[0].at, known[0].chance, color="0.5", linewidth=0.8, label="chance")
        right.set_xlabel(known[0].along)
        right.set_ylabel("$R^2$" if known[0].metric == "R2" else known[0].metric)
        right.legend(frameon=False)
    right.locator_params(axis="x", integer=True)
    shown: Axes = right
    return shown


def _draw_gradients(runs: list[Run], best: str) -> Axes:
    """Before and after training, on one scale."""
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    lines = [("RNN", "hidden", plot.OTHER, "-", "RNN: dL/dh")]
    lines.append((best, "hidden", plot.HIDDEN, "-", "LSTM: dL/dh"))
    lines.append((best, "cell", plot.CELL, "-", "LSTM: dL/dc"))
    lines.append((best, "highway", plot.HIGHWAY, "--", "LSTM: dL/dc along the cell alone"))
    for ax, stage in ((left, BEFORE), (right, AFTER)):
        for contender, kind, colour, dashes, label in lines:
            norms = [r.gradient[stage][kind] for r in runs if r.contender == contender]
            _band(ax, range(len(norms[0])), norms, colour, dashes, label)
        ax.set_yscale("log")
        ax.set_title(f"{stage}: RNN and {best}")
        ax.set_xlabel("step t")
        ax.grid(color="0.9", linewidth=0.8)
    left.set_ylabel("norm of the gradient")
    left.legend(frameon=False)
    right.set_ylim(bottom=_SHOWN * right.get_ylim()[1])
    shown: Axes = right
    return shown


def _draw_rest(task: Task, runs: list[Run], learnt: list[Run]) -> Axes:
    """Overlap, cost, half-life, and the exponents against the gradient's growth."""
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 8), layout="constrained")
    (overlap, cost), (life, exponents) = axes
    _dots(overlap, {name: [r.overlap[name] for r in learnt] for name in _keys(learnt, "overlap")})
    figure.suptitle(task.name)
    overlap.set_xlabel("$R^2$ of one state from the other, held out")
    _dots(cost, {name: [r.ablation[name] for r in learnt] for name in _keys(learnt, "ablation")})
    cost.set_xlabel("cost of a change of c or h: 0 none, 1 guessing")
    lives = {
        f"{c.name[6:]}, {stage}": [
            median(r.half_life[stage]) for r in runs if r.contender == c.name
        ]
        for c in CONTENDERS[1:]
        for stage in (BEFORE, AFTER)
    }
    _dots(life, lives)
    life.set_xscale("log")
    life.set_xlabel("half-life of the median cell (steps)")
    for c in CONTENDERS:
        own = [r for r in runs if r.contender == c.name]
        for stage, marker in ((BEFORE, "o"), (AFTER, "x")):
            points = [r.lyapunov[stage] for r in own], [r.growth[stage] for r in own]
            colour = plot.OTHER if not c.is_lstm else _LOOKS[c.name][0]
            exponents.scatter(*points, 22, color=colour, marker=marker, label=f"{c.name}, {stage}")
    exponents.axhline(0, color="0.7", linewidth=0.8)
    exponents.axvline(0, color="0.7", linewidth=0.8)
    exponents.set_xlabel("largest Lyapunov exponent per step")
    exponents.set_ylabel("growth of the gradient per step back")
    exponents.set_yscale("symlog", linthresh=0.1)
    exponents.set_xscale("symlog", linthresh=0.1)
    exponents.legend(frameon=False, fontsize=7)
    shown: Axes = exponents
    return shown


def _keys(runs: list[Run], name: str) -> Sequence[str]:
    return list(getattr(runs[0], name)) if runs else []


def _band(
    ax: Axes,
    at: Sequence[int],
    lines: Sequence[Sequence[float]],
    colour: str,
    dashes: str,
    label: str,
) -> None:
    """The median of several lines, and their range."""

    def each(of: Callable[[Sequence[float]], float]) -> list[float]:
        return [of(values) or float("nan") for values in zip(*lines, strict=True)]

    ax.plot(at, each(median), dashes, color=colour, label=label)
    ax.fill_between(at, each(min), each(max), color=colour, alpha=0.15, linewidth=0)


def _dots(ax: Axes, values: dict[str, list[float]]) -> None:
    """A row per name, a dot per seed, a bar at the median."""
    for row, (name, of) in enumerate(values.items()):
        colour = {"c": plot.CELL, "h": plot.HIDDEN}.get(name.split(" ")[0], "0.3")
        ax.scatter(of, [row] * len(of), 22, color=colour, alpha=0.6, linewidths=0)
        if of:
            ax.plot([median(of)] * 2, [row - 0.3, row + 0.3], color=colour)
    ax.set_yticks(range(len(values)), list(values), fontsize=8)
    ax.invert_yaxis()
    ax.grid(color="0.9", linewidth=0.8)
