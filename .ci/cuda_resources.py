"""Prints registers, spills and shared memory of every CUDA kernel on every architecture.

    python .ci/cuda_resources.py [LOG]    # default: build/link/ptxas.log, left by link_cuda.py

Exits 1 where a kernel spills more than a number. The persistent ones hold W_hh in 128 registers of
every thread for all time steps, and whatever else they need must fit the other 127. Those of
FullFloat may spill: they take every factor apart into two, and were measured as they are.
"""

import re
import subprocess
import sys
from pathlib import Path

LOG = Path(__file__).parent.parent.resolve() / "build" / "link" / "ptxas.log"
A_NUMBER = 4 + 4  # bytes: stored once, before all steps, and read once in each
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\w+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def short(mangled: str) -> str:
    """A kernel's name without namespaces and parameters."""
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout
    name = name.strip().replace("lstm_kernels::cuda::", "").split("(lstm")[0]
    return name.removeprefix("void ").replace("(anonymous namespace)::", "").split("(")[0]


def main(log: Path) -> None:
    if not log.exists():
        print(f"{log} is not here: the CUDA kernels were not compiled")
        return
    spilling, kernels = [], set()
    print(f"{'kernel':70} {'sm':>4} {'registers':>9} {'spilled':>8} {'static shared':>13}")
    for entry in ENTRY.finditer(log.read_text()):
        kernel, architecture = short(entry["name"]), entry["architecture"]
        spilled = int(entry["stores"]) + int(entry["loads"])
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        static = int(shared[1]) if shared else 0
        print(f"{kernel:70} {architecture:>4} {entry['registers']:>9} {spilled:8} {static:13}")
        kernels.add(kernel)
        if spilled > A_NUMBER and "FullFloat" not in kernel:
            spilling.append(f"{kernel} on sm_{architecture}")
    if not any(kernel.startswith("persistent") for kernel in kernels):
        sys.exit("no persistent kernel was found in the compiler's report")
    if spilling:
        sys.exit("kernels that spill: " + "; ".join(spilling))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else LOG)
