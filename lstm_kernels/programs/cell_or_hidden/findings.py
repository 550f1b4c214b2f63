"""What was measured on a task, in sentences."""

from __future__ import annotations

from statistics import fmean

from lstm_kernels.memory import Retention
from lstm_kernels.memory._wording import NOTABLE, notable_leads, steps_back, verdict

from .measure import Measured
from .tasks import Task


def findings(task: Task, measured: list[Measured]) -> list[str]:
    """What was measured on a task; where a common claim fails, a sentence says so."""
    rnn, *lstms = measured
    best = best_of(task, lstms)
    scores = "; ".join(f"{m.contender.name}: {m.score:.3g}" for m in measured)
    return [
        f"The {task.metric} ({task.guessing:.3g} without memory). {scores}.",
        _gradient(rnn, best, lstms),
        _knowledge(best),
        _forget_bias(lstms),
    ]


def _gradient(rnn: Measured, best: Measured, lstms: list[Measured]) -> str:
    before = "".join(
        f", {steps_back(m.untrained, 'cell')} in c of the {m.contender.name}" for m in lstms
    )
    return (
        "Going back from the last step, the gradient stays above 1% of its last value for "
        f"{steps_back(rnn.trained, 'hidden')} in h of the RNN, "
        f"and in the {best.contender.name} for {steps_back(best.trained, 'hidden')} in h "
        f"and {steps_back(best.trained, 'cell')} in c, "
        f"of which {steps_back(best.trained, 'highway')} along the cell alone. "
        f"Before training it was {steps_back(rnn.untrained, 'hidden')} in the RNN{before}."
    )


def _knowledge(best: Measured) -> str:
    known = best.known
    cell, hidden = fmean(known.cell), fmean(known.hidden)
    of_cell, of_hidden = notable_leads(known.cell, known.hidden)
    return (
        f"Of {known.of}, a probe finds on average {cell:.3g} ({known.metric}) in c and "
        f"{hidden:.3g} in h: {verdict(cell - hidden, NOTABLE)}. Of {len(known.at)} places, c tells "
        f"more at {of_cell} and h at {of_hidden}."
    )


def _forget_bias(lstms: list[Measured]) -> str:
    each = (
        f"with {m.contender.forget_bias:g} the median half-life of a cell is "
        f"{median_half_life(m.untrained_retention)} steps before and "
        f"{median_half_life(m.trained_retention)} after training, "
        f"the longest {_longest(m.trained_retention)}"
        for m in lstms
    )
    return f"The forget bias: {'; '.join(each)}."


def best_of(task: Task, lstms: list[Measured]) -> Measured:
    """The LSTM with the best score."""
    pick = max if task.higher_is_better else min
    return pick(lstms, key=lambda m: m.score)


def median_half_life(kept: Retention | None) -> str:
    """The half-life of the median unit, in steps."""
    assert kept is not None
    return f"{float(kept.half_life[-1].median()):.3g}"


def _longest(kept: Retention | None) -> str:
    assert kept is not None
    longest = float(kept.half_life[-1].max())
    return f"{longest:,.0f}" if longest >= 100 else f"{longest:.3g}"
