"""The CUDA ops as ops on CPU tensors: all of csrc/cuda but device.cpp and register.cpp, compiled as
plain C++ against the stand-in for CUDA, behind `torch.ops.cuda_on_cpu`."""

import functools
import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from objects import compiled

import lstm_kernels  # noqa: F401  (registers the ops whose schemas these take)

HERE = Path(__file__).parent.resolve()
SHIM = HERE.parent / "shim"
KERNELS = HERE.parents[2] / "csrc" / "cuda"
TORCH = Path(torch.__file__).parent
HOST = (
    "ops.cpp",
    "persistent_path.cpp",
    "step_path.cpp",
    "variant_ops.cpp",
    "variant_step_path.cpp",
)
INSTRUMENTED = ("fused_step.cu", "step.cu", "variant_step.cu", *HOST)
INSTRUMENTED += ("persistent_variant_forward.cu", "persistent_variant_backward.cu")
OPS = ("_sequence_forward", "_sequence_backward", "_cell_forward", "_cell_backward")
OPS += ("_variant_forward", "_variant_backward", "_tf32_product", "_pack_offsets")
FLAGS = ["-std=c++20", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unknown-pragmas", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
FLAGS += ["-Daoti_torch_empty_strided=poisoned_empty_strided"]  # see device_on_cpu.cpp
_libraries = []  # a torch.library.Library takes its schemas back when it is collected


def build(sanitizer=None, kernels=KERNELS):
    """Returns the shared library, built unless it is there already.

    A sanitizer ("address") sees the units of INSTRUMENTED; the stand-in for CUDA must stay without.
    `kernels` is another csrc/cuda, whose library is left in the folder above.
    """
    flags = [f"-fsanitize={sanitizer}"] if sanitizer else []
    units = [*sorted(kernels.glob("*.cu")), *(kernels / name for name in HOST)]
    units += [*sorted(HERE.glob("*.cpp")), SHIM / "machine.cpp"]
    cache = HERE.parent / "build"
    cache.mkdir(exist_ok=True)
    include = [f"-I{kernels}", f"-I{SHIM}", "-isystem", TORCH / "include"]
    warnings = [] if kernels == KERNELS else ["-w"]

    def compile_unit(source):
        instrument = flags if source.name in INSTRUMENTED else []
        command = ["g++", *FLAGS, *warnings, *instrument, *include]
        return compiled(command, source, cache, torch.__version__)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_unit, units))
    digest = hashlib.sha256(repr((objects, flags)).encode()).hexdigest()[:16]
    library = (cache if kernels == KERNELS else kernels.parent) / f"ops_on_cpu{digest}.so"
    if not library.exists():
        linked = library.with_suffix(f".{os.getpid()}")
        command = ["g++", "-shared", *flags, *objects, TORCH / "lib/libtorch_cpu.so", "-o", linked]
        subprocess.run(command, check=True)
        linked.rename(library)
    return library


@functools.cache
def load(sanitizer=None):
    """Builds and loads; returns `torch.ops.cuda_on_cpu`, its ops with the library's own schemas.

    CUDA_ON_CPU_OPS names a library that is built already.
    """
    torch.ops.load_library(os.environ.get("CUDA_ON_CPU_OPS") or build(sanitizer))
    definitions = torch.library.Library("cuda_on_cpu", "FRAGMENT")
    for op in OPS:
        schema = str(getattr(torch.ops.lstm_kernels, op).default._schema)
        definitions.define(schema.removeprefix("lstm_kernels::"))
    _libraries.append(definitions)
    return torch.ops.cuda_on_cpu
