"""The measured answer: how the two states differ on three tasks, compared with a plain RNN."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .claims import Claim, claims
from .measure import SEQUENCES, Run, run
from .page import make_page, write_pictures
from .summary import headline, measures, summary
from .tables import tables
from .tasks import Adding, Copying, Task, Text
from .training import CONTENDERS, Contender

_steps_done: Synchronized[int] | None = None  # of all workers, in a worker


def answer(folder: Path, part: float, seeds: int) -> tuple[Path, dict[str, list[str]]]:
    """Trains, measures, and writes into the folder: memory.html, memory.json, memory.md, pictures.

    Args:
        part: of the training steps of each task.
        seeds: how many times everything is trained.

    Returns:
        The page, and the findings of each task as sentences.
    """
    tasks: list[Task] = [Adding(), Copying(), Text()]
    runs = run_all(tasks, part, seeds)
    of_task = {task.name: [r for r in runs if r.task == task.name] for task in tasks}
    found = {task.name: claims(task, of_task[task.name]) for task in tasks}
    numbers = {
        "seeds": list(range(seeds)),
        "tasks": {
            task.name: _numbers(task, of_task[task.name], found[task.name]) for task in tasks
        },
    }
    numbers = _short(numbers)
    (folder / "memory.json").write_text(_json(numbers) + "\n")
    (folder / "memory.md").write_text("\n".join(tables(numbers)) + "\n")
    page = make_page(tasks, of_task, found, seeds)
    write_pictures(tasks, of_task, folder)
    sentences = {name: [claim.sentence for claim in of] for name, of in found.items()}
    return page.write(folder / "memory.html"), sentences


def run_all(tasks: Sequence[Task], part: float, seeds: int) -> list[Run]:
    """Every contender on every task from every seed, a core each, with a progress bar."""
    jobs = [
        (task, contender, seed)
        for seed in range(seeds)
        for task in sorted(tasks, key=lambda task: -task.lstm_units)  # the longest first
        for contender in CONTENDERS
    ]
    steps = [max(1, round(part * task.training_steps)) for task, _, _ in jobs]
    context = multiprocessing.get_context("spawn")  # a forked child may not use torch's threads
    done = context.Value("q", 0)
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    with (
        ProcessPoolExecutor(workers, context, _begin, (done,)) as pool,
        tqdm(total=sum(steps), desc="training", unit="step", mininterval=0.5) as bar,
    ):
        futures = [
            pool.submit(_run, task, contender, count, seed, SEQUENCES)
            for (task, contender, seed), count in zip(jobs, steps, strict=True)
        ]
        waiting = set(futures)
        while waiting:
            _, waiting = wait(waiting, timeout=0.5)
            bar.update(done.value - bar.n)
        return [future.result() for future in futures]


def _begin(done: Synchronized[int]) -> None:
    """In each worker: one thread, for the cores are taken by the other workers."""
    global _steps_done
    _steps_done = done
    torch.set_num_threads(1)


def _run(task: Task, contender: Contender, steps: int, seed: int, sequences: int) -> Run:
    """In a worker. A run that ends early counts as all its steps."""
    counted = 0

    def count(more: int = 1) -> None:
        nonlocal counted
        counted += more
        if _steps_done is not None:
            with _steps_done.get_lock():
                _steps_done.value += more

    result = run(task, contender, steps, seed, sequences, count)
    count(steps - counted)
    return result


def _numbers(task: Task, runs: list[Run], found: list[Claim]) -> dict[str, Any]:
    """All that the page shows, for a program to read."""
    best = headline(task, runs)
    learnt = [r for r in runs if r.contender == best and r.learnt]
    return {
        "metric": task.metric,
        "guessing": task.guessing,
        "learnt at": task.enough,
        "headline": best,
        "claims": [asdict(claim) for claim in found],
        "summary": {
            contender.name: _intervals(task, [r for r in runs if r.contender == contender.name])
            for contender in CONTENDERS
        },
        "summary of the headline": _intervals(task, learnt),
        "runs": [asdict(r) for r in runs],
    }


def _intervals(task: Task, runs: list[Run]) -> dict[str, Any]:
    return {name: asdict(of) for name, of in summary(runs, measures(task)).items()}


def _json(numbers: Any) -> str:
    """Indented, but a list of numbers on one line."""
    text = json.dumps(numbers, indent=1)
    return re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text)


def _short(value: Any) -> Any:
    """Four digits are more than a run with another seed would confirm."""
    if isinstance(value, dict):
        return {key: _short(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(of) for of in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
