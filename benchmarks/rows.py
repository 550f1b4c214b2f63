"""Measuring a group: every case, at every thread count, one row each."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import geometric_mean, median

import torch

from .bound import Bound
from .busy import spinning
from .cases import Case
from .groups import Group
from .timing import Ratio, alternate, compare
from .workload import Call, Unavailable, Workload

OURS = "ours"


@dataclass(frozen=True)
class Row:
    """One case at one thread count.

    seconds: median of one call, by contender. ratios: peer over ours, from the same rounds.
    absent: why a contender is not there. fraction: of the bound that ours reaches.
    """

    case: Case
    threads: int
    seconds: dict[str, float]
    ratios: dict[str, Ratio]
    absent: dict[str, str]
    fraction: float | None

    @property
    def gigaflops(self) -> float:
        """Billions of floating-point operations a second that ours does."""
        return self.case.flops / self.seconds[OURS] / 1e9

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"label": str(self.case), "gigaflops": self.gigaflops}


def measure(
    group: Group, peers: list[str] | None, threads: list[int], seconds: float, bound: Bound | None
) -> Iterator[Row]:
    """Rows of a group, as they are measured; `peers` None means all of the group's."""
    with spinning(group.spinning):
        for case in group.cases:
            for count in threads:
                torch.set_num_threads(count)
                torch.compiler.reset()
                yield measure_case(group, case, peers, count, seconds * group.times, bound)


def measure_case(
    group: Group,
    case: Case,
    peers: list[str] | None,
    threads: int,
    seconds: float,
    bound: Bound | None,
) -> Row:
    """One row; a peer that cannot compute the case, or is not installed, is named with why."""
    workload = Workload(case, threads)
    calls: dict[str, Call] = {OURS: group.ours(workload)}
    absent = {}
    for name, build in group.peers.items():
        if (peers is not None and name not in peers) or not group.takes_part(name, case):
            continue
        try:
            calls[name] = build(workload)
        except Unavailable as reason:
            absent[name] = str(reason)
    samples = alternate(calls, seconds)
    ratios = {name: compare(samples[OURS], samples[name]) for name in calls if name != OURS}
    medians = {name: median(values) for name, values in samples.items()}
    fraction = bound.seconds(case, threads) / medians[OURS] if bound else None
    return Row(case, threads, medians, ratios, absent, fraction)


@dataclass(frozen=True)
class Summary:
    """A peer against ours over all rows where both are: of the rows' median ratios."""

    peer: str
    rows: int
    mean: float  # geometric
    worst: float
    worst_case: str


def summarize(rows: list[Row]) -> list[Summary]:
    """One summary a peer."""
    peers = dict.fromkeys(name for row in rows for name in row.ratios)
    summaries = []
    for peer in peers:
        found = {f"{r.case}, threads {r.threads}": r.ratios[peer] for r in rows if peer in r.ratios}
        medians = {label: ratio.median for label, ratio in found.items()}
        worst = min(medians, key=medians.__getitem__)
        mean = geometric_mean(medians.values())
        summaries.append(Summary(peer, len(medians), mean, medians[worst], worst))
    return summaries
