"""Stand-ins for the CUDA libraries that a CUDA build of torch names and this machine lacks.

torch loads on a machine without a GPU, but not without cuDNN, cuBLAS and a dozen more. They are
3 GB, and a computation on the CPU calls none of them. Each stand-in has the name of one of them and
defines every symbol that torch wants of all of them, as a function that aborts: nothing that would
really need CUDA can pass by accident. The CUDA runtime itself is not among them: torch registers
its kernels with it at load. It is a small separate package (nvidia-cuda-runtime).
"""

import re
import subprocess
from pathlib import Path

CUDA_LIBRARY = re.compile(r"lib(cu|nccl|nv)")
CUDA_SYMBOL = re.compile(r"cu|nccl|nvshmem|nvrtc|nvJitLink|nvml")


def _lines(*command: str | Path) -> list[str]:
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()


def symbols(library: Path, kind: str) -> set[str]:
    """The dynamic symbols of a library, --undefined-only or --defined-only."""
    return {line.split()[-1].split("@")[0] for line in _lines("nm", "-D", kind, library)}


def write_stand_ins(site_packages: Path, folder: Path, compiler: str = "cc") -> Path:
    """Write stand-ins for what the torch in site_packages misses; return their folder."""
    folder.mkdir(exist_ok=True)
    torch = sorted((site_packages / "torch/lib").glob("*.so*"))
    there = {path.name for path in torch}
    there |= {path.name for path in (site_packages / "nvidia").rglob("*.so*")}
    needed = {
        match[1]
        for library in torch
        for line in _lines("readelf", "--dynamic", library)
        if (match := re.search(r"NEEDED.*\[(.+)\]", line))
    }
    missing = [name for name in sorted(needed - there) if CUDA_LIBRARY.match(name)]
    wanted = set().union(*(symbols(library, "--undefined-only") for library in torch))
    wanted -= set().union(*(symbols(library, "--defined-only") for library in torch))

    source = folder / "absent.c"
    names = sorted(name for name in wanted if CUDA_SYMBOL.match(name))
    bodies = "".join(f"void {name}(void) {{ abort(); }}\n" for name in names)
    source.write_text(f"#include <stdlib.h>\n{bodies}")
    code = folder / "absent.o"
    _lines(compiler, "-c", "-fPIC", "-w", source, "-o", code)
    for name in missing:
        _lines(compiler, "-shared", f"-Wl,-soname,{name}", code, "-o", folder / name)
    return folder
