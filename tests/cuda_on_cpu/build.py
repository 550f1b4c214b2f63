"""Compiles the CUDA sources as plain C++ into the module `cuda_on_cpu`.

    python tests/cuda_on_cpu/build.py [thread|address]    # prints where the module lies
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent.resolve()
KERNELS = HERE.parents[1] / "csrc" / "cuda"
FLAGS = ["-std=c++20", "-O1", "-g", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


def build(sanitizer=None, kernels=KERNELS, cache=HERE / "build", shim=HERE / "shim"):
    """Returns the folder of the module, built from `kernels` unless it is there already.

    `sanitizer` is None, "thread" or "address"; the machine itself is never instrumented.
    """
    import pybind11

    units = [*sorted(kernels.glob("*.cu")), *sorted(HERE.glob("*.cpp")), shim / "machine.cpp"]
    headers = [p for d in (kernels, kernels.parent, shim, HERE) for p in sorted(d.glob("*.*h"))]
    digest = hashlib.sha256(repr((FLAGS, sanitizer, sys.version)).encode())
    for path in units + headers:
        digest.update(path.name.encode() + path.read_bytes())
    folder = Path(cache) / digest.hexdigest()[:16]
    module = folder / f"cuda_on_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    if module.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    include = [f"-I{d}" for d in (kernels, shim, HERE)]
    include += [f"-isystem{d}" for d in (pybind11.get_include(), sysconfig.get_path("include"))]

    def compile_unit(source):
        instrumented = sanitizer and source.parent != shim
        flags = [f"-fsanitize={sanitizer}"] if instrumented else []
        out = folder / f"{source.name}.o"
        command = ["g++", *FLAGS, *flags, *include, "-x", "c++", "-c", source, "-o", out]
        subprocess.run(command, check=True)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_unit, units))
    flags = [f"-fsanitize={sanitizer}"] if sanitizer else []
    linked = module.with_suffix(f".{os.getpid()}")
    subprocess.run(["g++", "-shared", *flags, *objects, "-o", linked], check=True)
    linked.rename(module)
    return folder


if __name__ == "__main__":
    print(build(*sys.argv[1:]))
