"""Command line: reproduce the measured answer to how cell and hidden state differ."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def part(text: str) -> float:
    """A number in 0..1; argparse puts this function's name into its error message."""
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError(text)
    return value


def count(text: str) -> int:
    """A number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, trains, measures and writes the report."""
    parser = argparse.ArgumentParser(
        prog="python -m lstm_kernels.memory",
        description="Trains LSTMs with forget bias 0, 1 and 3 and a plain RNN of as many "
        "parameters on three tasks that need memory, from several seeds, and measures what the "
        "hidden and the cell state carry, for how long, and how gradients travel. Writes "
        "memory.html, memory.json, memory.md and a picture of each task.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("memory"), help="folder for the report")
    add("--part", type=part, default=1.0, help="part of the training steps, for a quicker look")
    add("--seeds", type=count, default=5, help="how many times everything is trained")
    options = parser.parse_args(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"cannot make {options.output}: {error.strerror}")
    try:
        from .answer import answer
    except ImportError as error:
        parser.error(f"{error}; pip install 'lstm_kernels[memory]'")
    page, findings = answer(options.output, options.part, options.seeds)
    for task, sentences in findings.items():
        print(f"\n{task.capitalize()}")
        for sentence in sentences:
            print(f"  * {sentence}")
    print(f"\nThe report: {page}")
