"""How pages put results into words: one phrase for each kind of finding."""

from __future__ import annotations

from collections.abc import Sequence

from ._gradient_flow import GradientFlow

NOTABLE = 0.02  # a difference of probe scores; 500 sequences or more give one less by chance


def verdict(cell_ahead: float, notable: float = 0) -> str:
    """Which state knows more of the past; a lead of at most `notable` counts as none."""
    if cell_ahead > notable:
        return "the cell state knows more of the past"
    if cell_ahead < -notable:
        return "against the common claim, the hidden state knows more of the past"
    return "against the common claim, both know about as much"


def notable_leads(cell: Sequence[float], hidden: Sequence[float]) -> tuple[int, int]:
    """At how many places the cell state's score is notably higher, and the hidden state's."""
    ahead = [c - h for c, h in zip(cell, hidden, strict=True)]
    return sum(lead > NOTABLE for lead in ahead), sum(lead < -NOTABLE for lead in ahead)


def steps_back(flow: GradientFlow, kind: str) -> str:
    """For how many steps back the last layer's gradient stays above 1% of its last value."""
    steps, total = flow.reach(kind)[-1], flow.hidden[-1].shape[1]
    if steps >= total:
        return f"all {total} steps"
    return "1 step" if steps == 1 else f"{steps} steps"
