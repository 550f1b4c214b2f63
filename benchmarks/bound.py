"""The bound of this machine, measured with the results, and what it means for a case."""

import ctypes
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from .cases import Case

SOURCE = Path(__file__).with_name("bound.cpp")
ISAS = Path(__file__).parents[1] / "csrc/cpu/isas.def"
# The compiler's flags of each instruction set, those of the kernels.
TARGETS = {
    name: flags.split()
    for name, flags in re.findall(r'^ISA\((\w+), "([^"]*)"', ISAS.read_text(), re.MULTILINE)
}
# On a shared machine a peak is what the best of several short tries reaches.
TRIES, SECONDS = 5, 0.05


@dataclass
class Bound:
    """Peaks of the machine, by number of threads.

    float32, float64: floating-point operations per second, a multiply-add counting two.
    bfloat16: those of products of pairs; none where the instruction set has no such thing.
    caches: bytes of each level of data cache, per core, the last one shared.
    read: bytes per second read by all threads from each cache level, and last from memory.
    """

    caches: list[int]
    float32: dict[int, float] = field(default_factory=dict)
    float64: dict[int, float] = field(default_factory=dict)
    read: dict[int, list[float]] = field(default_factory=dict)
    bfloat16: dict[int, float] = field(default_factory=dict)

    def seconds(self, case: Case, threads: int) -> float:
        """The least time that `case` can take: arithmetic at the peak, or, where that takes longer,
        reading the recurrent weights once a step.

        Each thread reads its share of them, as much of it as fits from the first cache, what more
        fits the second from there, and so on. 16-bit weights are multiplied in float32, so their
        peak is that of float32, unless there are products of pairs.
        """
        own = {"float64": self.float64, "bfloat16": self.bfloat16}.get(case.dtype)
        peak = (own or self.float32)[threads]
        share = case.recurrent_bytes / threads
        reading, held = 0.0, 0.0
        for size, rate in zip([*self.caches, math.inf], self.read[threads], strict=True):
            reading += max(0.0, min(share, size) - held) / (rate / threads)
            held = size
        return max(case.flops / peak, case.recurrent_reads * reading)

    def to_json(self) -> dict[str, object]:
        """The peaks as JSON can hold them."""
        return asdict(self)


def measure(threads: list[int], isa: str) -> Bound | None:
    """Measures the bound with code for `isa`; None where there is no C++ compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    bound = Bound(cache_sizes())
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bound.so"
        flags = ["-std=c++20", "-O2", "-ffp-contract=fast", "-Wno-psabi", "-shared", "-fPIC"]
        target = TARGETS[isa] if os.uname().machine == "x86_64" else []
        command = [compiler, *flags, *target, "-pthread", str(SOURCE), "-o", str(library)]
        subprocess.run(command, check=True)
        probe = ctypes.CDLL(str(library))
    for function in (probe.fma_rate_f32, probe.fma_rate_f64, probe.pair_rate, probe.read_rate):
        function.restype = ctypes.c_double

    def best(function: Callable[..., float], *arguments: object) -> float:
        return max(function(*arguments, ctypes.c_double(SECONDS)) for _ in range(TRIES))

    # A buffer is far larger than the cache before and fits well into its own, which on a virtual
    # machine others may share; for memory, it is several times the last cache.
    buffers = [bound.caches[0] // 2]
    buffers += [min(size // 2, 4 * before) for before, size in pairwise(bound.caches)]
    buffers += [4 * bound.caches[-1]]
    for count in threads:
        bound.float32[count] = best(probe.fma_rate_f32, ctypes.c_int(count))
        bound.float64[count] = best(probe.fma_rate_f64, ctypes.c_int(count))
        if isa == "avx512_bf16":
            bound.bfloat16[count] = best(probe.pair_rate, ctypes.c_int(count))
        shared = [*buffers[:-2], *(size // count for size in buffers[-2:])]
        bound.read[count] = [
            best(probe.read_rate, ctypes.c_int(count), ctypes.c_size_t(size)) for size in shared
        ]
    return bound


def cache_sizes() -> list[int]:
    """Bytes of each level of data cache that this process's first core sees, smallest first."""
    sizes = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (index / "type").read_text().strip() != "Instruction":
            text = (index / "size").read_text().strip()
            unit = {"K": 2**10, "M": 2**20}[text[-1]]
            sizes[int((index / "level").read_text())] = int(text[:-1]) * unit
    # Where the kernel does not say: what nearly every server of the last ten years has at least.
    return [sizes[level] for level in sorted(sizes)] or [32 * 2**10, 2**20, 16 * 2**20]
