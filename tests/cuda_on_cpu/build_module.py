"""Compiles the CUDA sources as plain C++ into the module `cuda_on_cpu`.

python tests/cuda_on_cpu/build_module.py [thread|address]    # prints where the module lies
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from objects import compiled, files_of

HERE = Path(__file__).parent.resolve()
SHIM = HERE / "shim"
KERNELS = HERE.parents[1] / "csrc" / "cuda"
FLOOR = HERE.parents[1] / "benchmarks" / "gpu_floor.cu"
SOURCES = ("limits.cu", "offsets.cu", "persistent_backward.cu", "persistent_forward.cu")
FLAGS = ["-std=c++20", "-O1", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


def build(sanitizer=None, mutant=None):
    """Returns the folder of the module; compiles only what is not in the cache.

    `sanitizer` is None, "thread" or "address". It sees the kernels, not the machine under them nor
    the binding above. `mutant` is a folder with a changed copy of csrc/ and of the stand-in for
    CUDA. What lies next to this file is compiled with it where that makes a difference.
    """
    import pybind11

    cache = HERE / "build"
    cache.mkdir(exist_ok=True)
    system = ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_path("include")]
    sanitize = [f"-fsanitize={sanitizer}"] if sanitizer else []
    versions = (pybind11.__version__, sys.version)
    copies = (mutant / "csrc" / "cuda", mutant / "shim") if mutant else ()
    changed = {
        copy.name
        for folder, original in zip(copies, (KERNELS, SHIM), strict=False)
        for copy in folder.iterdir()
        if copy.read_bytes() != (original / copy.name).read_bytes()
    }

    def compile_unit(source, mutated=False):
        folders = copies if mutated else (KERNELS, SHIM)
        include = [*(f"-I{d}" for d in (*folders, HERE)), *system]
        flags = [
            *FLAGS,
            *(sanitize if source.suffix == ".cu" else []),
            *(["-w"] if mutated else []),
            # A mutant is run for a second or two: it takes longer to optimise it.
            *(["-O0", "-g0"] if mutated and not sanitizer else []),
        ]
        command = ["g++", *flags, *include]
        own = changed and not mutated and source.parent == HERE
        if own and changed & {Path(file).name for file in files_of(command, source)}:
            return compile_unit(source, mutated=True)
        return compiled(command, source, mutant if mutated else cache, versions)

    units = [
        *sorted(HERE.glob("*.cpp")),
        *sorted(HERE.glob("*.cu")),
        *(KERNELS / s for s in SOURCES),
        FLOOR,
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_unit, [*units, SHIM / "machine.cpp"]))
    digest = hashlib.sha256(repr((objects, sanitize)).encode()).hexdigest()[:16]
    module = (mutant or cache) / digest / f"cuda_on_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not module.exists():
        module.parent.mkdir(exist_ok=True)
        partial = module.with_suffix(f".{os.getpid()}")
        subprocess.run(["g++", "-shared", *sanitize, *objects, "-o", partial], check=True)
        partial.rename(module)
    return module.parent


if __name__ == "__main__":
    print(build(*sys.argv[1:]))
