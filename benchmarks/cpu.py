"""`python -m benchmarks.cpu`: the CPU benchmarks, each group one question."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .bound import TARGETS

# oneDNN's names of the instruction sets that every contender has a switch for.
ONEDNN = {"avx512": "AVX512_CORE", "avx2": "AVX2"}


def isa_option() -> argparse.ArgumentParser:
    """The one option that is read before torch loads."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", add_help=False)
    isas = [isa for isa in TARGETS if isa in ONEDNN]
    parser.add_argument("--isa", choices=isas, help="limit all libraries to this instruction set")
    return parser


def command_line(groups: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu",
        description="Measures lstm_kernels against its peers, alternately, in one process.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        parents=[isa_option()],
    )
    add = parser.add_argument
    add("--group", nargs="+", choices=groups, default=list(groups), help="questions to answer")
    add("--peer", nargs="+", help="peers to compare with; without it, all the group's peers")
    add("--threads", nargs="+", type=int, help="thread counts; without it, 1 and all cores")
    add("--seconds", type=float, default=0.3, help="measuring time for each row")
    add("--full", action="store_true", help="the whole grid of shapes: takes hours")
    add("--output", type=Path, help="folder for JSON and pictures; default: by processor")
    return parser


def hold_to(isa: str) -> None:
    """Each library's switch for an instruction set; read when the library loads."""
    os.environ["LSTM_KERNELS_CPU_ISA"] = isa
    os.environ["ATEN_CPU_CAPABILITY"] = isa
    os.environ["ONEDNN_MAX_CPU_ISA"] = ONEDNN[isa]


def main(arguments: Sequence[str] | None = None) -> None:
    early = isa_option()
    isa = early.parse_known_args(arguments)[0].isa
    if isa:
        hold_to(isa)
    try:
        from . import suite  # only now: it loads torch
    except ImportError as error:  # a package that is not there, or an instruction set
        early.error(str(error))
    parser = command_line(suite.GROUPS)
    options = parser.parse_args(arguments)
    try:
        suite.run(options, sys.argv[1:] if arguments is None else list(arguments))
    except suite.BadOption as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
