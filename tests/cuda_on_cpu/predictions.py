"""Prints the times per step that csrc/cuda/choose.h predicts, as docs/gpu.md has them.

PYTHONPATH=. python tests/cuda_on_cpu/predictions.py
"""

import sys

import build_module

from benchmarks.cases import Case
from benchmarks.gpu_floor import floor_microseconds

DEVICE = (132, 227 * 1024, True)  # an H100 or H200: multiprocessors, shared memory, cooperative
DTYPES = {"bfloat16": "bfloat16", "tf32": "float32"}
ROWS = [(dtype, H, N) for dtype in DTYPES for H in (256, 512, 1024) for N in (1, 16, 64)]


def described(machine, which, dtype, H, N):
    """The plan and its time, or that the layer runs step by step."""
    plan = machine.choose(which, *DEVICE, DTYPES[dtype], True, 512, N, H, H, 1)
    if not plan.persistent:
        return "step by step", ""
    tiles = -(-plan.tiles // plan.groups)
    shape = f"{plan.exchange}, {plan.units} units, {tiles} x {plan.tile_rows} rows"
    return shape, f"{machine.predicted_step(which, plan):.2f}"


def table(machine):
    """Lines of Markdown."""
    lines = [
        "| dtype | H | N | forward plan | us | floor | backward plan | us |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for dtype, H, N in ROWS:
        forward, backward = (
            described(machine, which, dtype, H, N) for which in ("forward", "backward")
        )
        floor = floor_microseconds(Case(512, N, H, dtype=dtype))
        cells = (dtype, H, N, *forward, f"{floor:.2f}", *backward)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


if __name__ == "__main__":
    sys.path.insert(0, str(build_module.build()))
    import cuda_on_cpu

    print("\n".join(table(cuda_on_cpu)))
