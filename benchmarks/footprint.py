"""How much memory a training step takes: what it saves for backward, and at its highest."""

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

import lstm_kernels

from .cases import Case
from .report import CONSOLE

NAME = "footprint"
QUESTION = "How much memory does a training step take?"
CASES = (Case(128, 16, 256), Case(512, 64, 256), Case(512, 16, 512), Case(256, 64, 128, layers=2))
MODULES: dict[str, Callable[..., nn.Module]] = {
    "ours": lstm_kernels.LSTM,
    "recompute=True": partial(lstm_kernels.LSTM, recompute=True),
    "nn.LSTM": nn.LSTM,
}
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Usage:
    """Bytes of one training step: saved for backward, and above what was resident before it."""

    saved: int
    peak: int


def run(path: Path, about: dict[str, Any]) -> None:
    """Measures, prints and saves as JSON."""
    table = Table(title=f"{QUESTION} (MiB)", title_justify="left")
    table.add_column("case")
    for what in ("saved", "peak above"):
        for name in MODULES:
            table.add_column(f"{what}\n{name}", justify="right")
    rows = []
    for case in CASES:
        usage = {name: in_new_process(name, case) for name in MODULES}
        sizes = [use.saved for use in usage.values()] + [use.peak for use in usage.values()]
        table.add_row(str(case), *(f"{size / MEBIBYTE:.1f}" for size in sizes))
        rows.append(asdict(case) | {name: asdict(use) for name, use in usage.items()})
    CONSOLE.print(table)
    content = {"question": QUESTION, **about, "summary": summarize(rows), "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bytes of nn.LSTM over ours: geometric mean and least over the cases."""
    summaries = []
    for what, words in (("saved", "saved for backward"), ("peak", "at its peak")):
        ratios = [row["nn.LSTM"][what] / row["ours"][what] for row in rows]
        peer = f"nn.LSTM, {words}"
        mean = geometric_mean(ratios)
        summaries.append({"peer": peer, "rows": len(ratios), "mean": mean, "worst": min(ratios)})
    return summaries


def in_new_process(name: str, case: Case) -> Usage:
    """Each contender starts from the same, fresh process, whose allocator has nothing cached."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, name, case).result()


def measure(name: str, case: Case) -> Usage:
    """One training step: forward, and all gradients."""
    module = MODULES[name](case.input_size, case.H, case.layers)
    x = torch.randn(case.T, case.N, case.input_size, requires_grad=True)
    leaves = [x, *module.parameters()]

    def step(x: Tensor) -> None:
        output = module(x)[0]
        torch.autograd.grad(output, leaves, torch.ones_like(output))

    # A first, small step loads what is only loaded once; its own memory is negligible.
    small = torch.randn(2, 2, case.input_size)
    module(small)[0].sum().backward()
    for parameter in module.parameters():
        parameter.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = resident("VmRSS")
    step(x)
    peak = resident("VmHWM") - before
    return Usage(saved_for_backward(module, x), peak)


def saved_for_backward(module: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for backward, without its input and the parameters."""
    known = {leaf.untyped_storage().data_ptr() for leaf in (x, *module.parameters())}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(x)
    return sum(saved.values())


def resident(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
