"""`python -m benchmarks.isolated`: calls as programs make them, not in a tight loop.

A stream or a policy computes a little, then calls the LSTM once; or another process, or a thread of
the same one, has a core at that time. Which core a library's threads are on is drawn when a process
starts, and pools of threads disturb each other. So each library and number of threads has separate
processes, started several times in turn, and every call counts: the median, the 99th percentile,
the worst, and the whole time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import geometric_mean, mean, median
from typing import Any

SHAPES = [
    (64, 1, 128),
    (32, 1, 256),
    (16, 4, 256),
    (64, 16, 128),
    (128, 1, 512),
    (128, 16, 256),
    (128, 1, 128),
]
LIBRARIES = ("ours", "nn.LSTM", "ONNX Runtime")
# What happens before a call, for how long in seconds, and what has a core meanwhile.
CONDITIONS = {
    "sleep 1 ms": ("sleep", 0.001, None),
    "sleep 3 ms": ("sleep", 0.003, None),
    "work 1 ms": ("work", 0.001, None),
    "work 3 ms": ("work", 0.003, None),
    "tight loop": ("nothing", 0.0, None),
    "a busy process": ("nothing", 0.0, "process"),
    "a busy thread": ("nothing", 0.0, "thread"),
}


def pause(kind: str, seconds: float) -> None:
    if kind == "sleep":
        time.sleep(seconds)
    elif kind == "work":
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass


@contextmanager
def spinning_thread() -> Iterator[None]:
    """A thread of this process that never rests and needs no interpreter lock."""
    stop, data = threading.Event(), bytes(16 << 20)

    def spin() -> None:
        while not stop.is_set():
            hashlib.sha256(data)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def child(library: str, threads: int, calls: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every call, by condition and shape."""
    import torch

    from . import contenders
    from .busy import spinning
    from .cases import Case
    from .workload import Call, Workload

    builds: dict[str, Callable[[Workload], Call]] = {
        "ours": contenders.ours_prepacked,
        "nn.LSTM": contenders.native,
        "ONNX Runtime": contenders.onnx_runtime_without_spinning,
    }
    torch.set_num_threads(threads)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in CONDITIONS}
    for t, n, h in SHAPES:
        call = builds[library](Workload(Case(t, n, h), threads))
        for _ in range(3):
            call()
        for name, (kind, seconds, load) in CONDITIONS.items():
            loaded = {"process": lambda: spinning(1), "thread": spinning_thread}
            times = []
            with loaded[load]() if load else nullcontext():
                for _ in range(calls):
                    pause(kind, seconds)
                    begin = time.perf_counter()
                    call()
                    times.append(time.perf_counter() - begin)
            found[name][f"T{t} N{n} H{h}"] = times
    return found


def measure(starts: int, calls: int, threads: list[int]) -> dict[str, Any]:
    """All samples: condition, shape, "library threads", start, call."""
    samples: dict[str, dict[str, dict[str, list[list[float]]]]] = {}
    for start in range(starts):
        for library in LIBRARIES:
            for count in threads:
                command = [sys.executable, "-m", "benchmarks.isolated", "--child", library]
                command += ["--threads", str(count), "--calls", str(calls)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                for condition, shapes in json.loads(done.stdout).items():
                    for shape, times in shapes.items():
                        rows = samples.setdefault(condition, {}).setdefault(shape, {})
                        rows.setdefault(f"{library} {count}", []).append(times)
        print(f"start {start + 1} of {starts}", file=sys.stderr, flush=True)
    return summarize(samples, threads)


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def summarize(
    samples: dict[str, dict[str, dict[str, list[list[float]]]]], threads: list[int]
) -> dict[str, Any]:
    """Per condition and shape: milliseconds of each contender, and the ratios that are asked for.

    best: the fastest of both libraries at any number of threads, over ours with all; p99: ours with
    one thread over ours with all; whole: the faster peer's whole time with all threads over ours.
    Medians over the starts, but p99, which is of all calls.
    """
    most = max(threads)
    ours, alone = f"ours {most}", f"ours {min(threads)}"
    found: dict[str, Any] = {}
    for condition, shapes in samples.items():
        rows: dict[str, dict[str, Any]] = {}
        for shape, contenders in shapes.items():
            p50 = {who: median(median(s) for s in starts) for who, starts in contenders.items()}
            whole = {who: median(mean(s) for s in starts) for who, starts in contenders.items()}
            every = {who: [x for s in starts for x in s] for who, starts in contenders.items()}
            p99 = {who: percentile(values, 0.99) for who, values in every.items()}
            candidates = [p50[f"{name} {k}"] for name in LIBRARIES[:2] for k in threads]
            peers = [whole[f"{name} {most}"] for name in LIBRARIES[1:]]
            rows[shape] = {
                "best": min(candidates) / p50[ours],
                "p99": p99[alone] / p99[ours],
                "whole": min(peers) / whole[ours],
                "milliseconds": {
                    who: {
                        "p50": 1e3 * p50[who],
                        "whole": 1e3 * whole[who],
                        "p99": 1e3 * p99[who],
                        "worst": 1e3 * max(every[who]),
                    }
                    for who in contenders
                },
            }
        ratios = {
            name: {
                "geomean": geometric_mean([row[name] for row in rows.values()]),
                "worst": min(row[name] for row in rows.values()),
            }
            for name in ("best", "p99", "whole")
        }
        found[condition] = {"ratios": ratios, "shapes": rows}
    return found


def print_table(found: dict[str, Any]) -> None:
    print(f"{'':18}{'best of all':>16}{'p99, 1 thread':>16}{'whole, peers':>16}  geomean / worst")
    for condition, results in found.items():
        ratios = results["ratios"]
        cells = [f"{r['geomean']:.2f} / {r['worst']:.2f}" for r in ratios.values()]
        print(f"{condition:18}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.isolated", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--starts", type=int, default=10, help="processes of each contender")
    parser.add_argument("--calls", type=int, default=15, help="calls of each shape in a process")
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all cores")
    parser.add_argument("--output", type=Path, help="folder for isolated.json")
    parser.add_argument("--child", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.threads[0], options.calls)))
        return
    import os

    from .machine import describe, folder_name
    from .results_folder import RESULTS, Refused, check

    folder = options.output or RESULTS / folder_name(None)
    try:
        check(folder)
    except Refused as error:
        parser.error(str(error))

    threads = options.threads or sorted({1, len(os.sched_getaffinity(0))})
    found = measure(options.starts, options.calls, threads)
    print_table(found)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "question": "How long does a call take that does not stand in a tight loop?",
        "command": " ".join(["python -m benchmarks.isolated", *sys.argv[1:]]),
        "machine": describe(),
    }
    text = json.dumps(about | {"conditions": found}, indent=1)
    (folder / "isolated.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
