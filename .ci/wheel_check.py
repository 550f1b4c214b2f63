"""Show that one wheel serves several versions of torch and of Python.

Builds the wheel once, looks into it, and then, in a new virtual environment for each pair of Python
and torch, installs that one file and runs check_installed.py.

The wheel of torch that PyPI serves is its CUDA build, which on import wants 3 GB of libraries of
which a computation on the CPU calls none: absent_cuda.py stands in for them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from absent_cuda import write_stand_ins

ROOT = Path(__file__).parent.parent.resolve()
FLOOR = "2.11.0"
USUAL = "2.13.0"
NEWEST = ""
# What torch imports on the CPU; --no-deps keeps its CUDA libraries away.
REQUIREMENTS = (
    *("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "numpy", "sympy"),
    *("typing-extensions", "nvidia-cuda-runtime"),
)


def build(folder: Path) -> Path:
    """Build the wheel into a folder and return its path."""
    for stale in (ROOT / "build").glob("lib*"):
        shutil.rmtree(stale)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run([*pip, "--no-build-isolation", "--no-deps", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def inspect(wheel: Path) -> None:
    """Stop unless the wheel claims and holds what every Python can use."""
    machine = os.uname().machine
    if not wheel.name.endswith(f"-py3-none-linux_{machine}.whl"):
        sys.exit(f"{wheel.name}: the tag is not py3-none-linux_{machine}")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        strays = [
            name
            for name in archive.namelist()
            if not re.match(r"lstm_kernels/([\w/]+\.(py|typed)|lstm_kernels_(cpu|cuda)\.so)$", name)
            and ".dist-info/" not in name
        ]
        if strays:
            sys.exit(f"{wheel.name} holds what it should not: {' '.join(strays)}")
        library = archive.extract("lstm_kernels/lstm_kernels_cpu.so", folder)
        symbols = subprocess.run(
            ["nm", "-D", "--undefined-only", library], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    # Only torch's C shims are stable; a mangled name would tie the wheel to one release.
    tied = [s for s in symbols.split() if re.match(r"_?Py[A-Z_]|_ZNK?(2at|3c10|5torch)", s)]
    if tied:
        sys.exit(f"{wheel.name} is tied to one torch or Python by {' '.join(tied)}")


def check(wheel: Path, python: str, torch: str, folder: Path) -> None:
    """Install the wheel with one torch under one Python and compute with it."""
    environment = folder / "venv"
    subprocess.run([python, "-m", "venv", "--clear", environment], check=True)
    pip: list[str | Path] = [environment / "bin/python", "-m", "pip"]
    pip += ["--disable-pip-version-check", "install"]
    wanted = f"torch=={torch}" if torch else "torch"
    quiet = ["--quiet", "--no-compile", "--no-deps"]
    subprocess.run([*pip, *quiet, wanted, *REQUIREMENTS, wheel], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    absent = write_stand_ins(packages, folder / "absent")
    subprocess.run(
        [environment / "bin/python", ROOT / ".ci/check_installed.py"],
        check=True,
        cwd=folder,
        env={**os.environ, "LD_LIBRARY_PATH": str(absent)},
    )


def other_pythons() -> list[str]:
    """The oldest and the newest other Python >= 3.10 of this machine that can make environments."""
    found: list[str] = []
    for minor in range(10, 20):
        name = f"python3.{minor}"
        places = [shutil.which(name) or ""]
        places += map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        for place in filter(None, places):
            works = subprocess.run([place, "-c", "import ensurepip"], capture_output=True)
            if works.returncode == 0 and minor != sys.version_info.minor:
                found.append(place)
                break
    return list(dict.fromkeys(found[:1] + found[-1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the oldest and newest torch")
    quick = parser.parse_args().quick
    pairs = [(sys.executable, torch) for torch in (FLOOR, NEWEST)]
    if not quick:
        pairs += [(sys.executable, USUAL)] + [(python, USUAL) for python in other_pythons()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        inspect(wheel)
        print(f"built {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        for python, torch in pairs:
            start = time.perf_counter()
            check(wheel, python, torch, folder)
            print(f"    in {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{len(pairs)} environments served by one wheel")


if __name__ == "__main__":
    main()
