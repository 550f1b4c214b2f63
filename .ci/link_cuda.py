"""Compiles the CUDA library and links it against a CUDA build of torch.

    python .ci/link_cuda.py [FOLDER] [--architectures LIST]

FOLDER is build/link by default; the unpacked torch (1 GB) stays there. LIST is CMake's, and by
default what the build itself takes: every architecture.

No GPU is needed, and of torch's wheel only headers and libraries, so none of its 3 GB of
dependencies are fetched. The linker must find every symbol of ours in torch or in the C++ runtime,
and the library may need no further CUDA library: torch brings the only copy of each, and the
CUDA runtime is linked into ours. The kernels of the GPU benchmark are compiled and linked along.
What the compiler says of each kernel stays in FOLDER/ptxas.log, for cuda_resources.py.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.resolve()
TORCH = "2.11.0"  # the oldest one supported; its wheel on PyPI is a CUDA build
Command = list[str | Path]
ALLOWED = ("libtorch", "libc10", "libstdc++", "libgcc_s", "libm.", "libc.", "ld-linux")


def unpacked_torch(folder: Path) -> Path:
    """The headers and libraries of torch's CUDA build, fetched unless they are there."""
    there = folder / f"torch-{TORCH}"
    if there.exists():
        return there
    wheels = folder / "wheels"
    fetch: Command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    fetch += ["--dest", wheels]
    fetch += ["--only-binary=:all:", "--python-version=3.12"]
    fetch += [f"--platform=manylinux_2_28_{platform.machine()}", f"torch=={TORCH}"]
    subprocess.run(fetch, check=True)
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    for path in wheels.glob("torch-*.whl"):
        with zipfile.ZipFile(path) as wheel:
            wanted = ("torch/include/", "torch/lib/", "torch/__init__.py")
            wheel.extractall(partial, [n for n in wheel.namelist() if n.startswith(wanted)])
    partial.rename(there)
    shutil.rmtree(wheels)
    return there


def build(folder: Path, torch: Path, architectures: str | None) -> Path:
    """Configure and build as setup.py does, with that torch, warnings as errors."""
    environment = {**os.environ, "PYTHONPATH": str(torch)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    configure: Command = ["cmake", "-S", ROOT, "-B", folder / "cmake", "-G", "Ninja"]
    configure += [f"-DPython3_EXECUTABLE={sys.executable}", "-DLSTM_KERNELS_CUDA=ON"]
    configure += ["-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", "-DCMAKE_CUDA_FLAGS=-Xptxas=-v"]
    if architectures is not None:
        configure += [f"-DCMAKE_CUDA_ARCHITECTURES={architectures}"]
    configure += [
        "-DCMAKE_MODULE_LINKER_FLAGS=-Wl,-z,defs,--unresolved-symbols=ignore-in-shared-libs"
    ]
    # All anew: the compiler speaks only of what it compiles.
    target: Command = ["cmake", "--build", folder / "cmake", "--clean-first", "--target"]
    target += ["lstm_kernels_cuda", "gpu_floor"]
    for command in (configure, target):
        done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(done.stdout)
    (folder / "ptxas.log").write_text(done.stdout)
    return folder / "cmake" / "lstm_kernels_cuda.so"


def needed(library: Path) -> list[str]:
    """The libraries that it names."""
    dynamic = subprocess.run(
        ["readelf", "--dynamic", library], check=True, capture_output=True, text=True
    ).stdout
    return [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]


def main() -> None:
    if not (shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists()):
        print("nvcc is not here: the CUDA sources were neither compiled nor linked")
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "link")
    parser.add_argument("--architectures")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    torch = unpacked_torch(folder)
    fetched = time.monotonic()
    library = build(folder, torch, options.architectures)
    strangers = [name for name in needed(library) if not name.startswith(ALLOWED)]
    if strangers:
        sys.exit(f"{library.name} needs libraries that torch does not bring: {strangers}")
    print(
        f"{library.name}: {library.stat().st_size / 2**20:.1f} MiB, needs "
        f"{', '.join(needed(library))}; torch fetched in {fetched - start:.0f} s, compiled and "
        f"linked in {time.monotonic() - fetched:.0f} s"
    )


if __name__ == "__main__":
    main()
