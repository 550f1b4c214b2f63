"""The measured answer: how the two states differ on three tasks, compared with a plain RNN."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from .findings import findings
from .measure import Measured
from .page import make_page
from .tasks import Adding, Copying, Task, Text
from .training import CONTENDERS, train_all


def answer(folder: Path, part: float, seed: int) -> tuple[Path, dict[str, list[str]]]:
    """Trains, measures, and writes memory.html and memory.json into the folder.

    Args:
        part: of the training steps of each task.

    Returns:
        The page, and the findings of each task as sentences.
    """
    tasks: list[Task] = [Adding(), Copying(), Text()]
    jobs = [(task, contender) for task in tasks for contender in CONTENDERS]
    trained = train_all(jobs, part, seed)
    measured: dict[str, list[Measured]] = {task.name: [] for task in tasks}
    for (task, contender), result in zip(jobs, trained, strict=True):
        measured[task.name].append(Measured.of(task, contender, result, seed))

    numbers = {task.name: _numbers(task, measured[task.name]) for task in tasks}
    (folder / "memory.json").write_text(json.dumps(numbers, indent=1) + "\n")
    sentences = {name: of_task["findings"] for name, of_task in numbers.items()}
    page = make_page(tasks, measured, seed)
    return page.write(folder / "memory.html"), sentences


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


def _short(values: Tensor) -> list[float]:
    """Four digits are more than a run with another seed would confirm."""
    return [float(f"{value:.4g}") for value in values.tolist()]
