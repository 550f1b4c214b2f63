"""Prints registers, spills and shared memory of every CUDA kernel on every architecture.

    python .ci/cuda_resources.py [architecture ...]    # default: those that are built

Exits 1 where a kernel spills. The persistent ones hold W_hh in 128 registers of every thread for
all time steps, and whatever else they need must fit the other 127.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KERNELS = Path(__file__).parent.parent.resolve() / "csrc" / "cuda"
ARCHITECTURES = ("80", "90a", "100", "120")
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def compile_verbosely(nvcc, source, architecture):
    """What ptxas says of each kernel in a source: (kernel, registers, spilled bytes, shared)."""
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    command = [nvcc, "-std=c++20", "-O3", "-cubin", target, "-Xptxas=-v", "-Werror=all-warnings"]
    command += ["-Xcompiler=-Wall,-Wextra,-Werror", "-o", os.devnull, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{source.name} for sm_{architecture}:\n{done.stdout}{done.stderr}")
    rows = []
    for entry in ENTRY.finditer(done.stderr):
        demangled = subprocess.run(
            ["c++filt", entry["name"]], capture_output=True, text=True, check=True
        ).stdout
        kernel = demangled.strip().replace("lstm_kernels::cuda::", "").split("(lstm")[0]
        kernel = kernel.removeprefix("void ").replace("(anonymous namespace)::", "").split("(")[0]
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        spilled = int(entry["stores"]) + int(entry["loads"])
        rows.append((kernel, int(entry["registers"]), spilled, int(shared[1]) if shared else 0))
    return rows


def main(*architectures):
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not nvcc:
        print("nvcc is not here: the CUDA kernels were not looked at")
        return
    known = subprocess.run(
        [nvcc, "--list-gpu-arch"], check=True, capture_output=True, text=True
    ).stdout.split()
    architectures = architectures or [
        a for a in ARCHITECTURES if f"compute_{a.removesuffix('a')}" in known
    ]
    jobs = [(nvcc, s, a) for s in sorted(KERNELS.glob("*.cu")) for a in architectures]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: compile_verbosely(*job), jobs))
    spilling = []
    print(f"{'kernel':70} {'sm':>4} {'registers':>9} {'spilled':>8} {'static shared':>13}")
    for (_, _, architecture), rows in zip(jobs, results, strict=True):
        for kernel, registers, spilled, shared in rows:
            print(f"{kernel:70} {architecture:>4} {registers:9} {spilled:8} {shared:13}")
            if spilled:
                spilling.append(f"{kernel} on sm_{architecture}")
    if not any(kernel.startswith("persistent") for rows in results for kernel, *_ in rows):
        sys.exit("no persistent kernel was found in the compiler's report")
    if spilling:
        sys.exit("kernels that spill: " + "; ".join(spilling))


if __name__ == "__main__":
    main(*sys.argv[1:])
