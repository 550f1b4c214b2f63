"""Results in one line: their sizes, and the numbers that a reader looks for first."""

from __future__ import annotations


def one_line(result: object, **facts: object) -> str:
    """`Name(fact=value, ...)`, numbers with three digits."""
    shown = ", ".join(f"{name}={_short(fact)}" for name, fact in facts.items())
    return f"{type(result).__name__}({shown})"


def _short(fact: object) -> str:
    if isinstance(fact, float):
        return f"{fact:.3g}"
    if type(fact) is tuple:
        shown = ", ".join(map(_short, fact))
        return f"({shown},)" if len(fact) == 1 else f"({shown})"
    return repr(fact)
