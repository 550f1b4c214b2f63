"""What a run leaves: a table on the terminal, and JSON and a picture in a folder."""

import json
import math
import sys
from pathlib import Path
from statistics import linear_regression

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from .rows import OURS, Row, Summary

# Okabe and Ito's colour-blind safe palette; the shapes tell the peers apart without colour.
STYLES = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D")]
DARK = "#333333"


# Into a file or a pipe a table goes at its full width.
CONSOLE = Console(width=None if sys.stdout.isatty() else 160)


def print_table(question: str, rows: list[Row], summaries: list[Summary]) -> None:
    """Times, ratios with their quartiles, and how near the bound; then one line a peer."""
    peers = [summary.peer for summary in summaries]
    absent = {name: why for row in rows for name, why in row.absent.items()}
    table = Table(title=question, title_justify="left")
    table.add_column("case")
    for header in ("threads", OURS, "GF/s", "of bound"):
        table.add_column(header, justify="right")
    for peer in peers:
        table.add_column(f"{peer}\ntime", justify="right")
        table.add_column("over ours", justify="right")
    for row in rows:
        cells = [str(row.case), str(row.threads), duration(row.seconds[OURS])]
        cells += [f"{row.gigaflops:.1f}", "" if row.fraction is None else f"{row.fraction:.0%}"]
        for peer in peers:
            if peer in row.ratios:
                ratio = row.ratios[peer]
                spread = f"{ratio.median:.2f}x [dim]{ratio.low:.2f}-{ratio.high:.2f}[/]"
                cells += [duration(row.seconds[peer]), spread]
            else:
                cells += ["", ""]
        table.add_row(*cells)
    CONSOLE.print(table)
    for s in summaries:
        CONSOLE.print(
            f"{s.peer} over ours: geometric mean {s.mean:.2f}x of {s.rows} rows, "
            f"least {s.worst:.2f}x ({s.worst_case})"
        )
    for name, why in absent.items():
        CONSOLE.print(f"{name}: not everywhere: {why}")


def duration(seconds: float) -> str:
    """A time in the unit that gives it one to three digits before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def save(
    path: Path, question: str, rows: list[Row], summaries: list[Summary], **about: object
) -> None:
    """Writes rows and summaries, with whatever else says what they are `about`, as JSON."""
    content = {
        "question": question,
        **about,
        "summary": [vars(summary) for summary in summaries],
        "rows": [row.to_json() for row in rows],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def draw_ratios(path: Path, question: str, cpu: str, rows: list[Row], peers: list[str]) -> None:
    """How many times faster than each peer, a line a case, hollow with more than one thread."""
    labels = list(dict.fromkeys(str(row.case) for row in rows))
    figure = Figure(figsize=(8, 1.6 + 0.24 * len(labels)), dpi=150, layout="constrained")
    axes = figure.subplots()
    for peer, (colour, marker) in zip(peers, STYLES, strict=False):
        for row in rows:
            if peer in row.ratios:
                filled = colour if row.threads == 1 else "white"
                axes.plot(
                    row.ratios[peer].median,
                    labels.index(str(row.case)),
                    marker,
                    color=colour,
                    markerfacecolor=filled,
                    markersize=6,
                )
        axes.plot([], [], marker, color=colour, label=peer)
    axes.axvline(1, color=DARK, linewidth=1)
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    ticks = [tick for tick in (0.25, 0.5, 0.7, 1, 1.4, 2, 4, 8, 16, 32, 64) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("time of the other over ours: right of the line, ours is faster", color=DARK)
    figure.suptitle(
        f"{question}\n{cpu}; filled: 1 thread, hollow: more",
        x=0.01,
        ha="left",
        fontsize=11,
        color=DARK,
    )
    figure.legend(loc="outside lower center", ncols=len(peers), fontsize=9, frameon=False)
    figure.savefig(path)


def growth(rows: list[Row]) -> dict[str, float]:
    """The power of each varied size that the time of ours grows with, a least-squares fit."""
    powers = {}
    for sweep in dict.fromkeys(row.case.sweep for row in rows):
        for threads in dict.fromkeys(row.threads for row in rows):
            chosen = [row for row in rows if (row.case.sweep, row.threads) == (sweep, threads)]
            sizes = [math.log(getattr(row.case, sweep)) for row in chosen]
            times = [math.log(row.seconds[OURS]) for row in chosen]
            powers[f"{sweep}, threads {threads}"] = linear_regression(sizes, times).slope
    return powers


def draw_scaling(path: Path, question: str, cpu: str, rows: list[Row]) -> None:
    """Time against each size that is varied, ours and the peer's, on logarithmic axes."""
    sweeps = list(dict.fromkeys(row.case.sweep for row in rows))
    contenders = list(dict.fromkeys(name for row in rows for name in row.seconds))
    figure = Figure(figsize=(8, 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
    for axes, sweep in zip(panels, sweeps, strict=True):
        for name, (colour, marker) in zip(contenders, STYLES, strict=False):
            for threads, line in zip(dict.fromkeys(r.threads for r in rows), "-:", strict=False):
                points = [
                    (getattr(row.case, sweep), row.seconds[name] * 1e3)
                    for row in rows
                    if row.case.sweep == sweep and row.threads == threads and name in row.seconds
                ]
                label = f"{name}, threads {threads}"
                axes.loglog(
                    *zip(*points, strict=True), line, marker=marker, color=colour, label=label
                )
        axes.set_xlabel(sweep)
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms")
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{question}\n{cpu}", x=0.01, ha="left", fontsize=11, color=DARK)
    figure.savefig(path)
