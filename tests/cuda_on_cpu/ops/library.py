"""The CUDA ops as ops on CPU tensors: all of csrc/cuda but device.cpp and register.cpp, compiled as
plain C++ against the stand-in for CUDA, behind `torch.ops.cuda_on_cpu`."""

import functools
import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import lstm_kernels  # noqa: F401  (registers the ops whose schemas these take)

HERE = Path(__file__).parent.resolve()
SHIM = HERE.parent / "shim"
KERNELS = HERE.parents[2] / "csrc" / "cuda"
TORCH = Path(torch.__file__).parent
HOST = ("ops.cpp", "persistent_path.cpp", "step_path.cpp", "variant_ops.cpp", "variant_path.cpp")
INSTRUMENTED = ("fused_step.cu", "step.cu", "variant_step.cu", *HOST)
OPS = ("_sequence_forward", "_sequence_backward", "_cell_forward", "_cell_backward")
OPS += ("_variant_forward", "_variant_backward", "_tf32_product", "_pack_offsets")
FLAGS = ["-std=c++20", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
FLAGS += ["-Daoti_torch_empty_strided=poisoned_empty_strided"]  # see device_on_cpu.cpp
_libraries = []  # a torch.library.Library takes its schemas back when it is collected


def build(sanitizer=None):
    """Returns the shared library, built unless it is there already.

    A sanitizer ("address") sees the units of INSTRUMENTED; the stand-in for CUDA must stay without.
    """
    flags = [f"-fsanitize={sanitizer}"] if sanitizer else []
    units = [*sorted(KERNELS.glob("*.cu")), *(KERNELS / name for name in HOST)]
    units += [*sorted(HERE.glob("*.cpp")), SHIM / "machine.cpp"]
    headers = [p for d in (KERNELS, KERNELS.parent, SHIM) for p in sorted(d.glob("*.*h"))]
    digest = hashlib.sha256(repr((FLAGS, torch.__version__)).encode())
    for path in units + headers:
        digest.update(path.name.encode() + path.read_bytes())
    folder = HERE.parent / "build" / f"ops_{digest.hexdigest()[:16]}"
    library = folder / f"ops_on_cpu{sanitizer or ''}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    include = [f"-I{KERNELS}", f"-I{SHIM}", "-isystem", TORCH / "include"]

    def compile_unit(source):
        instrument = flags if source.name in INSTRUMENTED else []
        out = folder / f"{source.name}{sanitizer if instrument else ''}.o"
        if not out.exists():
            partial = out.with_suffix(f".{os.getpid()}")
            command = ["g++", *FLAGS, *instrument, *include, "-x", "c++", "-c", source]
            subprocess.run([*command, "-o", partial], check=True)
            partial.rename(out)
        return out

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_unit, units))
    linked = library.with_suffix(f".{os.getpid()}")
    command = ["g++", "-shared", *flags, *objects, TORCH / "lib" / "libtorch_cpu.so", "-o", linked]
    subprocess.run(command, check=True)
    linked.rename(library)
    return library


@functools.cache
def load(sanitizer=None):
    """Builds and loads; returns `torch.ops.cuda_on_cpu`, its ops with the library's own schemas."""
    torch.ops.load_library(build(sanitizer))
    definitions = torch.library.Library("cuda_on_cpu", "FRAGMENT")
    for op in OPS:
        schema = str(getattr(torch.ops.lstm_kernels, op).default._schema)
        definitions.define(schema.removeprefix("lstm_kernels::"))
    _libraries.append(definitions)
    return torch.ops.cuda_on_cpu
