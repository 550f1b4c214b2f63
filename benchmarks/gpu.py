"""`python -m benchmarks.gpu`: this library against nn.LSTM and others on an NVIDIA GPU.

Contenders take turns in one process; a ratio is the median over rounds of their time over ours, by
CUDA events. First the plans that the persistent kernels can be given are compared, which tells what
the model in csrc/cuda/choose.h should know. After the rows the profiler says what ran, separately:
it slows launches down for the rest of a process. Results are written after every row and the table
after every question, so that nothing is lost when time runs out or a row hangs.
"""

import argparse
import contextlib
import faulthandler
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_kernels

from . import gpu_floor
from .cases import Case
from .gpu_cases import PUBLISHED, SOURCE, Question, questions
from .machine import describe
from .results_folder import RESULTS, Refused, check
from .variants import VARIANTS

DEVICE = "cuda"
ROW_SECONDS = 60  # a row that takes longer hangs: end, and say where
GRID = "never slower"  # too many rows to be drawn or to be compared with the floor
FLOOR_ROWS, FLOOR_TARGET = 64, 1.5  # of a batch at most; times the floor
TIMING_SHARE = 0.75  # of the seconds; the rest is the profiler's
GRAPH_STEPS = 20
Call = Callable[[], object]
Entry = dict[str, Any]  # as JSON can hold it
AS_INSTALLED = (
    torch.backends.cuda.matmul.fp32_precision,
    torch.backends.cudnn.rnn.fp32_precision,  # type: ignore[attr-defined]
)
PLANS = tuple(
    (units, rows, exchange)
    for exchange in ("tagged", "counter")
    for units in (8, 16)
    for rows in (8, 16, 24, 32)
)


def dtype_of(case: Case) -> torch.dtype:
    return torch.float32 if case.dtype == "tf32" else getattr(torch, case.dtype)


def set_precisions(question: Question, case: Case) -> None:
    """TF32 for the cases that are about it, and for no other; or what torch starts with."""
    precision = "tf32" if case.dtype == "tf32" else "ieee"
    matmul, rnn = AS_INSTALLED if question.as_installed else (precision, precision)
    torch.backends.cuda.matmul.fp32_precision = matmul
    torch.backends.cudnn.rnn.fp32_precision = rnn  # type: ignore[attr-defined]


def free_memory() -> None:
    """Gives back what torch keeps, or nothing where an error has stopped the device for good."""
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


def layer_call(
    case: Case, module: nn.Module, x: torch.Tensor | PackedSequence, **options: bool
) -> Call:
    """One forward pass, or one forward and backward pass with all gradients."""
    if not case.training:

        def forward() -> object:
            with torch.no_grad():
                return module(x, **options)

        return forward

    data = x if isinstance(x, torch.Tensor) else x.data
    output = module(x)[0]
    upstream = torch.ones_like(output if isinstance(output, torch.Tensor) else output.data)

    def step() -> object:
        result = module(x)[0]
        result = result if isinstance(result, torch.Tensor) else result.data
        return torch.autograd.grad(result, [data, *module.parameters()], upstream)

    return step


def loop_call(case: Case, cell: Callable[..., Any], x: torch.Tensor) -> Call:
    """The states of every step, as one gets them from a cell."""

    def loop() -> object:
        h = c = x.new_zeros(case.N, case.H)
        states = []
        with torch.no_grad():
            for step in x:
                h, c = cell(step, (h, c))
                states.append((h, c))
            hidden, cells = zip(*states, strict=True)
            return torch.stack(hidden), torch.stack(cells)

    return loop


def graph_call(case: Case, cell: nn.Module) -> Call:
    """The steps of a cell, each from the state that the one before left, in one CUDA graph."""
    x = torch.randn(case.N, case.input_size, device=DEVICE, dtype=dtype_of(case))
    start = torch.zeros(case.N, case.H, device=DEVICE, dtype=dtype_of(case))
    h = c = start
    side = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(side):
        cell(x, (h, c))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        for _ in range(GRAPH_STEPS):
            h, c = cell(x, (h, c))

    def replay() -> object:
        graph.replay()
        return x, start, h, c  # which the graph reads and writes

    return replay


def contenders(question: Question, case: Case) -> dict[str, Call]:
    """Ours and the peer."""
    torch.manual_seed(0)
    dtype, size = dtype_of(case), (case.input_size, case.H)
    if case.cell:
        native_cell = nn.LSTMCell(*size, device=DEVICE, dtype=dtype)
        ours_cell = lstm_kernels.LSTMCell.from_native(native_cell)
        return {
            "ours": graph_call(case, ours_cell),
            question.peer: graph_call(case, native_cell),
        }
    native = nn.LSTM(
        *size, case.layers, bidirectional=case.bidirectional, device=DEVICE, dtype=dtype
    )
    ours = lstm_kernels.LSTM.from_native(native)
    native.flatten_parameters()
    x = torch.randn(case.T, case.N, case.input_size, device=DEVICE, dtype=dtype)
    x.requires_grad_(case.training)
    if case.packed:
        packed = pack_padded_sequence(x.detach(), torch.tensor(case.lengths))
        packed.data.requires_grad_(case.training)
        return {
            "ours": layer_call(case, ours, packed),
            question.peer: layer_call(case, native, packed),
        }
    if case.variant:
        variant = VARIANTS[case.variant]
        varied = lstm_kernels.LSTM(*size, device=DEVICE, dtype=dtype, variant=variant)
        return {"ours": layer_call(case, varied, x), question.peer: layer_call(case, ours, x)}
    if question.peer == "nn.LSTM":
        return {"ours": layer_call(case, ours, x), question.peer: layer_call(case, native, x)}
    with_states = layer_call(case, ours, x, return_states=True)
    if question.peer == "without states":
        return {"ours": with_states, question.peer: layer_call(case, ours, x)}
    cell = nn.LSTMCell(*size, device=DEVICE, dtype=dtype)
    weights = native.state_dict().items()
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in weights})
    step = torch.compile(cell) if question.peer == "compiled LSTMCell loop" else cell
    return {"ours": with_states, question.peer: loop_call(case, step, x)}


def milliseconds(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def measure(calls: dict[str, Call], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each contender, round by round, for about so long in all."""
    for call in calls.values():
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    once = sum(milliseconds(call) for call in calls.values()) / 1e3
    rounds = max(3, min(50, round(seconds / max(once, 1e-6))))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            samples[name].append(milliseconds(calls[name]))
    return samples


def kernels(call: Call) -> list[Entry]:
    """What a call runs on the device, by the profiler's names, the longest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda e: e.device_time_total, reverse=True)
    return [
        {"name": event.key[:160], "count": event.count, "microseconds": event.device_time_total}
        for event in events[:5]
    ]


def recurrence(case: Case, ours: list[Entry]) -> float | None:
    """Microseconds of a forward step in the persistent kernel, where that ran."""
    for kernel in ours:
        if "persistent_forward" in kernel["name"]:
            return float(kernel["microseconds"] / kernel["count"] / case.T)
    return None


def row(question: Question, case: Case) -> Entry:
    """One case, measured; or why it could not be."""
    result: Entry = {
        "question": question.name,
        "case": str(case),
        **{"T": case.T, "N": case.N, "H": case.H, "dtype": case.dtype, "training": case.training},
        "peer": question.peer,
        "target": question.target,
    }
    try:
        set_precisions(question, case)
        calls = contenders(question, case)
        samples = measure(calls, question.seconds)
        pairs = zip(samples[question.peer], samples["ours"], strict=True)
        ours = median(samples["ours"])
        steps = GRAPH_STEPS if case.cell else case.T * case.layers
        result |= {
            "milliseconds": {name: median(values) for name, values in samples.items()},
            "ratio": median(theirs / mine for theirs, mine in pairs),
            "microseconds_per_step": ours * 1e3 / steps,
        }
    except Exception as error:  # one row less, not a run less
        result["error"] = f"{type(error).__name__}: {error}"[:500]
    free_memory()
    return result


def profiled(question: Question, case: Case, measured: gpu_floor.Rates | None) -> Entry:
    """What a row's contenders ran, and ours against the floor; or why that is not known."""
    try:
        set_precisions(question, case)
        calls = contenders(question, case)
        for call in calls.values():
            call()
        found = {name: kernels(call) for name, call in calls.items()}
        result = {"kernels": found, **over_floor(case, found["ours"], measured)}
    except Exception as error:
        result = {"profiler_error": f"{type(error).__name__}: {error}"[:500]}
    free_memory()
    return result


def over_floor(case: Case, ours: list[Entry], measured: gpu_floor.Rates | None) -> dict[str, float]:
    """The step of the persistent kernel, and how many times the least one that is."""
    step, floor = recurrence(case, ours), gpu_floor.floor_microseconds(case)
    if step is None or floor is None:
        return {}
    result = {"recurrence_microseconds": step, "floor": floor, "over_floor": step / floor}
    if measured and (floor := gpu_floor.floor_microseconds(case, measured)):
        result |= {"measured_floor": floor, "over_measured_floor": step / floor}
    return result


def line(entry: Entry) -> str:
    if "error" in entry:
        return f"{entry['case']:<44} {entry['error']}"
    met = "" if entry["ratio"] >= entry["target"] else "  MISS"
    return (
        f"{entry['case']:<44} {entry['milliseconds']['ours']:9.3f} ms "
        f"{entry['microseconds_per_step']:8.2f} us/step  "
        f"{entry['ratio']:6.2f}x {entry['peer']} (target {entry['target']:g}){met}"
    )


def floor_line(entry: Entry) -> str:
    step = f"{entry['recurrence_microseconds']:.2f} us/step, {entry['over_floor']:.2f}x floor"
    if "over_measured_floor" in entry:
        step += f", {entry['over_measured_floor']:.2f}x with measured rates"
    return f"{entry['case']:<44} {step}; nn.LSTM: {entry['kernels'][entry['peer']][0]['name']}"


def summary(rows: list[Entry], unreached: int) -> str:
    """One line a question: how many cases met the target, the least and the geometric mean."""
    lines = []
    for name in dict.fromkeys(r["question"] for r in rows):
        of = [r for r in rows if r["question"] == name]
        good = [r for r in of if "ratio" in r]
        if not good:
            lines.append(f"{name:<32} no case could be measured: {of[0]['error']}")
            continue
        worst = min(good, key=lambda r: r["ratio"])
        mean = math.exp(sum(math.log(r["ratio"]) for r in good) / len(good))
        met = sum(r["ratio"] >= r["target"] for r in good)
        lines.append(
            f"{name:<32} {met:3d} of {len(of):3d} at {worst['target']:g}x or more; mean "
            f"{mean:.2f}x, least {worst['ratio']:.2f}x ({worst['case']})"
        )
    long = [r for r in rows if "over_floor" in r and r["question"] != GRID]
    near = [r["over_floor"] for r in long if r["N"] <= FLOOR_ROWS]
    if near:
        met = sum(ratio <= FLOOR_TARGET for ratio in near)
        lines.append(
            f"{'step over floor, N <= 64':<32} {met:3d} of {len(near):3d} within "
            f"{FLOOR_TARGET:g}x; median {median(near):.2f}x, most {max(near):.2f}x"
        )
    for entry in rows:
        if entry["question"] == "published peers' shape" and "ratio" in entry:
            times = ", ".join(
                f"{name} {both[entry['training']]:g} ms" for name, both in PUBLISHED.items()
            )
            lines.append(f"{entry['case']}: {entry['milliseconds']['ours']:.2f} ms; {times}")
    if any(r["question"] == "published peers' shape" for r in rows):
        lines.append(f"(published: {SOURCE})")
    if unreached:
        lines.append(f"{unreached} cases were not reached in the time given")
    return "\n".join(lines)


def draw(path: Path, rows: list[Entry], gpu: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    rows = [r for r in rows if "ratio" in r and r["question"] != GRID]
    figure = Figure(figsize=(8, 1.6 + 0.2 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots()
    for k, entry in enumerate(rows):
        met = entry["ratio"] >= entry["target"]
        axes.plot(entry["ratio"], k, "o" if met else "X", color="#0072B2" if met else "#D55E00")
        axes.plot(entry["target"], k, "|", color="#333333", markersize=9)
    labels = [f"{r['case']} / {r['peer']}" for r in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("time of the other over ours; the bar is the target, a cross misses it")
    axes.set_title(f"lstm_kernels on {gpu}", loc="left")
    figure.savefig(path)


def measure_floor(library: Path) -> tuple[gpu_floor.Rates | None, Entry]:
    """The rates behind the floor and what to write down of them, or of why there are none."""
    faulthandler.dump_traceback_later(ROW_SECONDS, exit=True)
    try:
        rates, found = gpu_floor.measure(library)
    except (OSError, RuntimeError) as error:
        rates, found = None, {"error": f"{type(error).__name__}: {error}"}
    faulthandler.cancel_dump_traceback_later()
    print("What the floor is made of, as measured")
    for name, value in found.items():
        print(f"  {name}: {json.dumps(value)}")
    return rates, found


@contextlib.contextmanager
def forced(**variables: str) -> Iterator[None]:
    """Sets variables of the environment for as long as it lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def compare_plans(cases: Iterable[Case]) -> dict[str, dict[str, float | str]]:
    """Microseconds of a forward step of each case by each plan of PLANS, and by the one chosen."""
    found: dict[str, dict[str, float | str]] = {}
    question = Question("plans", "nn.LSTM", 1.0, ())
    for case in cases:
        faulthandler.dump_traceback_later(ROW_SECONDS, exit=True)
        of_case: dict[str, float | str] = {}
        for plan in (None, *PLANS):
            name = ",".join(map(str, plan)) if plan else "chosen"
            asked = {"LSTM_KERNELS_CUDA_PLAN": name} if plan else {}
            try:
                with forced(LSTM_KERNELS_CUDA_PATH="persistent", **asked):
                    set_precisions(question, case)
                    ours = {"ours": contenders(question, case)["ours"]}
                    of_case[name] = median(measure(ours, 0.02)["ours"]) * 1e3 / case.T
            except Exception as error:
                of_case[name] = f"{type(error).__name__}: {error}"[:200]
        faulthandler.cancel_dump_traceback_later()
        found[str(case)] = of_case
        shown = ", ".join(f"{n} {v:.2f}" for n, v in of_case.items() if isinstance(v, float))
        print(f"{case!s:<44} {shown}", flush=True)
    free_memory()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for JSON and picture")
    parser.add_argument("--seconds", type=float, default=200, help="time for everything")
    parser.add_argument("--floor", type=Path, help="gpu_floor.cu, compiled: measure the model too")
    parser.add_argument("--question", nargs="+", help="only questions with one of these words")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch finds no NVIDIA GPU here: nothing to measure")
    gpu = torch.cuda.get_device_name()
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    folder = options.output or RESULTS / slug
    try:
        check(folder)
    except Refused as error:
        parser.error(str(error))
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "gpu": gpu,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "machine": describe(),
        "published": {**PUBLISHED, "source": SOURCE},
    }
    measured = None
    if options.floor:
        measured, about["floor"] = measure_floor(options.floor)
    start = time.monotonic()
    chosen = [
        q for q in questions() if not options.question or any(w in q.name for w in options.question)
    ]
    done: list[tuple[Question, Case]] = []
    rows: list[Entry] = []
    unreached = 0

    def save() -> None:
        (folder / "gpu.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")

    def save_table() -> None:
        (folder / "gpu.txt").write_text(summary(rows, unreached) + "\n")

    def ask(question: Question, until: float) -> int:
        """Measures the cases of a question that time is left for; returns how many it is not."""
        print(f"\n{question.name}")
        for number, case in enumerate(question.cases):
            if time.monotonic() - start > until:
                return len(question.cases) - number
            faulthandler.dump_traceback_later(ROW_SECONDS, exit=True)
            rows.append(row(question, case))
            faulthandler.cancel_dump_traceback_later()
            print(line(rows[-1]), flush=True)
            done.append((question, case))
            save()
        return 0

    if not options.question:
        print("\nMicroseconds of a forward step, by plan of the persistent kernel")
        about["plans"] = compare_plans(c for c in chosen[0].cases if not c.training)
        save()
    for question in (q for q in chosen if not q.last):
        unreached += ask(question, options.seconds * TIMING_SHARE)
        if rows:
            save_table()
    print("\nIn the persistent kernel")
    for (question, case), entry in zip(done, rows, strict=True):
        if question.peer not in ("nn.LSTM", "nn.LSTMCell") or "error" in entry:
            continue
        if time.monotonic() - start > options.seconds:
            break
        faulthandler.dump_traceback_later(ROW_SECONDS, exit=True)
        entry |= profiled(question, case, measured)
        faulthandler.cancel_dump_traceback_later()
        if "over_floor" in entry and question.name != GRID:
            print(floor_line(entry), flush=True)
        save()
    for question in (q for q in chosen if q.last):
        save_table()
        draw(folder / "gpu.png", rows, gpu)
        unreached += ask(question, options.seconds)
    save_table()
    draw(folder / "gpu.png", rows, gpu)
    print(f"\n{(folder / 'gpu.txt').read_text()}", end="")


if __name__ == "__main__":
    main()
