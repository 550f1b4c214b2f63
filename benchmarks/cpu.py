"""`python -m benchmarks.cpu`: the CPU benchmarks, each group one question."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

GROUPS = (
    "inference",
    "prepacked",
    "prepacked_narrow",
    "training",
    "narrow",
    "ragged",
    "cell",
    "single",
    "states",
    "lengths",
    "reset",
    "recompute",
    "analysis",
    "busy",
    "scaling",
    "memory",
)


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu",
        description="Measures lstm_kernels against its peers, in one process and by turns.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--group", nargs="+", choices=GROUPS, default=list(GROUPS), help="questions to answer")
    add("--peer", nargs="+", help="whom to compare with; without it, all the group's peers")
    add("--threads", nargs="+", type=int, help="thread counts; without it, 1 and all cores")
    add("--seconds", type=float, default=0.3, help="measuring time for each row")
    add("--full", action="store_true", help="the whole grid of shapes: takes hours")
    add("--isa", choices=("avx512", "avx2"), help="hold everyone to this instruction set")
    add("--output", type=Path, help="folder for JSON and pictures; default: by processor")
    return parser


def hold_to(isa: str) -> None:
    """Everyone's own switch for an instruction set; read when their libraries load."""
    os.environ["LSTM_KERNELS_CPU_ISA"] = isa
    os.environ["ATEN_CPU_CAPABILITY"] = isa
    os.environ["ONEDNN_MAX_CPU_ISA"] = {"avx512": "AVX512_CORE", "avx2": "AVX2"}[isa]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line()
    options = parser.parse_args(arguments)
    if options.isa:
        hold_to(options.isa)
    try:
        from . import suite  # only now: it loads torch
    except ImportError as error:  # a package that is not there, or an instruction set
        parser.error(str(error))
    try:
        suite.run(options, sys.argv[1:] if arguments is None else list(arguments))
    except suite.BadOption as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
