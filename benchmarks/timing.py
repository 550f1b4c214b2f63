"""Timing: contenders take turns in one process, so that what disturbs one disturbs all."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

SAMPLE_SECONDS = 0.002  # a sample is as many calls as fill this: far above the clock's resolution
LEAST_ROUNDS, MOST_ROUNDS = 4, 101
# Calls that take less run once more before each sample: the contender before has left its own data
# in the caches, and where it freed much memory, ours and theirs would pay for fresh pages.
WARM_SECONDS = 0.1
# Between contenders the worker threads of the one before stop spinning for work.
PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Ratio:
    """How many times as long the peer took, over the rounds: median and quartiles."""

    median: float
    low: float
    high: float


def alternate(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Seconds of one call of each contender, round by round, for about `seconds` in all."""
    repeats, warmed, cost = {}, set(), 0.0
    for name, call in calls.items():
        call()  # compiles, allocates, packs
        once = clock(call, 1)
        if once < SAMPLE_SECONDS:  # how often to repeat it is worth a second look
            once = min(once, clock(call, 1))
        repeats[name] = max(1, round(SAMPLE_SECONDS / once))
        if once < WARM_SECONDS:
            warmed.add(name)
        cost += (repeats[name] + (name in warmed)) * once + PAUSE_SECONDS
    rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, round(seconds / cost)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            time.sleep(PAUSE_SECONDS)
            if name in warmed:
                calls[name]()
            samples[name].append(clock(calls[name], repeats[name]))
    return samples


def clock(call: Callable[[], object], times: int) -> float:
    """Seconds per call, of `times` calls."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def compare(ours: list[float], theirs: list[float]) -> Ratio:
    """Their time over ours, each pair from the same round: above 1, ours is faster."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Ratio(median(ratios), low, high)
