"""Runs the groups that the command line asks for, and leaves their results in a folder."""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from . import footprint, report
from .bound import Bound
from .bound import measure as measure_bound
from .groups import Group, groups
from .machine import cpu_name, describe, folder_name
from .results_folder import RESULTS, Refused
from .results_folder import check as check_folder
from .rows import measure, summarize

GROUPS = (*groups(full=False), footprint.NAME)


class BadOption(Exception):
    """An option that will not do; the message says what would."""


def run(options: argparse.Namespace, command: list[str]) -> None:
    """Measures, prints and saves each group.

    Raises:
        BadOption: before anything is measured.
    """
    chosen = {name: group for name, group in groups(options.full).items() if name in options.group}
    threads = options.threads or sorted({1, len(os.sched_getaffinity(0))})
    folder = options.output or RESULTS / folder_name(options.isa)
    check(options, threads, chosen, folder)
    isa = torch.ops.lstm_kernels._cpu_isa().split()[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOption(f"cannot make {folder}: {error.strerror}") from None
    about: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.cpu", *command]),
        "machine": describe(),
    }

    bound = measure_bound(threads, isa)
    print_bound(bound)
    about["bound"] = bound and bound.to_json()
    for name, group in chosen.items():
        rows = []
        steps = len(group.cases) * len(threads)
        for row in tqdm(
            measure(group, options.peer, threads, options.seconds, bound), name, steps, leave=False
        ):
            rows.append(row)
        summaries = summarize(rows)
        report.print_table(group.question, rows, summaries)
        found: dict[str, object] = {}
        if name == "scaling":
            powers = report.growth(rows)
            for what, power in powers.items():
                report.CONSOLE.print(f"time grows with the power {power:.2f} of {what}")
            report.draw_scaling(folder / f"{name}.png", group.question, cpu_name(), rows)
            found["growth"] = powers
        elif summaries:
            peers = [summary.peer for summary in summaries]
            report.draw_ratios(folder / f"{name}.png", group.question, cpu_name(), rows, peers)
        report.save(folder / f"{name}.json", group.question, rows, summaries, **about, **found)
    if footprint.NAME in options.group:
        footprint.run(folder / f"{footprint.NAME}.json", about)


def check(
    options: argparse.Namespace, threads: list[int], chosen: dict[str, Group], folder: Path
) -> None:
    """Raises BadOption for what argparse cannot know to be wrong."""
    if min(threads) < 1:
        raise BadOption(f"--threads {min(threads)}: at least one thread is needed")
    if options.seconds <= 0:
        raise BadOption(f"--seconds {options.seconds}: must be more than 0")
    known = dict.fromkeys(peer for group in chosen.values() for peer in group.peers)
    for peer in options.peer or ():
        if peer not in known:
            raise BadOption(f"--peer {peer!r}: choose from {', '.join(map(repr, known))}")
    try:
        check_folder(folder)
    except Refused as error:
        raise BadOption(str(error)) from None


def print_bound(bound: Bound | None) -> None:
    """One line a thread count."""
    if bound is None:
        report.CONSOLE.print("No C++ compiler: the bound of this machine is not measured.")
        return
    levels = [*(f"L{level}" for level in range(1, len(bound.caches) + 1)), "memory"]
    peaks = {"float32": bound.float32, "float64": bound.float64, "bfloat16": bound.bfloat16}
    for threads, read in bound.read.items():
        rates = [f"{peak[threads] / 1e9:.0f} {name}" for name, peak in peaks.items() if peak]
        reads = [f"{level} {rate / 1e9:.0f}" for level, rate in zip(levels, read, strict=True)]
        report.CONSOLE.print(
            f"threads {threads}: GF/s {', '.join(rates)}; GB/s read: {', '.join(reads)}"
        )
