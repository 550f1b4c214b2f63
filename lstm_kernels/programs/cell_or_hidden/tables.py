"""The measured answer as tables in Markdown, for documents."""

from __future__ import annotations

from typing import Any

from .summary import Interval

_OF_CONTENDERS = (
    ("gradient reach in h, untrained", "gradient stays above 1% in h, untrained (steps back)"),
    ("gradient reach in c, untrained", "the same in c"),
    ("gradient reach in h, trained", "gradient stays above 1% in h, trained"),
    ("gradient reach in c, trained", "the same in c"),
    ("half-life of the median cell, trained", "half-life of the median cell, trained (steps)"),
    ("half-life of the longest-lived cell, trained", "of the longest-lived cell"),
    ("Lyapunov exponent, untrained", "Lyapunov exponent per step, untrained"),
    ("Lyapunov exponent, trained", "Lyapunov exponent per step, trained"),
)
_OF_STATES = (
    ("knows, linear", "{} knows of the past, linear probe (0 guessing, 1 certainty)"),
    ("knows, mlp", "{} knows of the past, small network"),
)
_OVERLAPS = (
    ("R2 of h from c, linear", "R2 of h from c, linear probe"),
    ("R2 of c from h, linear", "R2 of c from h, linear probe"),
    ("R2 of h from c, mlp", "R2 of h from c, small network"),
    ("R2 of c from h, mlp", "R2 of c from h, small network"),
)
_CHANGES = ("zeroed", "held for 10 steps", "swapped", "moved by |h|")


def tables(numbers: dict[str, Any]) -> list[str]:
    """Lines of Markdown, from what memory.json holds."""
    tasks = numbers["tasks"]
    return [
        *_contenders(tasks),
        "",
        *_states(tasks),
        "",
        *_claims(tasks),
    ]


def _contenders(tasks: dict[str, Any]) -> list[str]:
    names = list(next(iter(tasks.values()))["summary"])
    lines = _header(["", *names])
    for task, found in tasks.items():
        metric, of = found["metric"], found["summary"]
        title = f"**{task}**: {metric} ({found['guessing']:.3g} by guessing)"
        lines.append(_row([title, *(_cell(of[name], metric) for name in names)]))
        if found["learnt at"] is not None:
            learnt = (
                [run["learnt"] for run in found["runs"] if run["contender"] == name]
                for name in names
            )
            lines.append(_row(["learnt in", *(f"{sum(k)} of {len(k)} seeds" for k in learnt)]))
        else:
            lines += _curve(found, names)
            fifth = "change of the score in the last fifth of training"
            lines.append(_row([fifth, *(_cell(of[name], fifth) for name in names)]))
        for key, title in _OF_CONTENDERS:
            lines.append(_row([title, *(_cell(of[name], key) for name in names)]))
    return lines


def _curve(found: dict[str, Any], names: list[str]) -> list[str]:
    """The score at a fifth, a half and four fifths of the training steps.

    A score that still falls at the end says that no contender has reached its best.
    """
    curves = {
        name: [run["curve"] for run in found["runs"] if run["contender"] == name] for name in names
    }
    checks = len(next(iter(curves.values()))[0])
    lines = []
    for index in dict.fromkeys(max(0, round(checks * part) - 1) for part in (0.2, 0.5, 0.8)):
        (step,) = {curve[index][0] for of in curves.values() for curve in of}
        scores = (Interval.of([curve[index][1] for curve in of]) for of in curves.values())
        lines.append(_row([f"{found['metric']} after {step:,} steps", *map(str, scores)]))
    return lines


def _states(tasks: dict[str, Any]) -> list[str]:
    own = [found["summary of the headline"] for found in tasks.values()]
    lines = _header(["", *tasks])
    lines.append(_row(["the LSTM that did best", *(found["headline"] for found in tasks.values())]))
    keys = [(f"{letter} {key}", t.format(letter)) for key, t in _OF_STATES for letter in "ch"]
    keys += _OVERLAPS
    keys += [(f"cost of {s} {change}",) * 2 for change in _CHANGES for s in "ch"]
    lines += [_row([title, *(_cell(of, key) for of in own)]) for key, title in keys]
    return lines


def _claims(tasks: dict[str, Any]) -> list[str]:
    holds = {
        task: {claim["text"]: f"{claim['holds']} of {claim['of']}" for claim in found["claims"]}
        for task, found in tasks.items()
    }
    texts = dict.fromkeys(text for of in holds.values() for text in of)
    lines = _header(["holds in this number of seeds", *tasks])
    return lines + [_row([text, *(of.get(text, "-") for of in holds.values())]) for text in texts]


def _cell(of: dict[str, Any], key: str) -> str:
    return str(Interval(**of[key])) if key in of else "-"


def _header(cells: list[str]) -> list[str]:
    return [_row(cells), "|" + " --- |" * len(cells)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
