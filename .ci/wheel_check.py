"""Build the wheels of every platform, and run those that this machine can run.

The wheel of this machine's own platform is installed in a new virtual environment for each pair of
Python and torch, and check_installed.py runs there without a compiler on PATH. The wheel for the
other Linux runs under an emulator. Prints a table of what was built and run.

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

from absent_cuda import symbols, write_stand_ins

ROOT = Path(__file__).parent.parent.resolve()
FLOOR = "2.11.0"
USUAL = "2.13.0"
NEWEST = ""
# What torch imports on the CPU; --no-deps keeps its CUDA libraries away.
REQUIREMENTS = (
    *("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "numpy", "sympy"),
    *("typing-extensions", "nvidia-cuda-runtime"),
)
# What runs under an emulator, which is slow: each kind of call, gradients, 8-bit weights.
EMULATED_TESTS = (
    "test_drop_in.py::test_layouts_are_nn_lstms",
    "test_drop_in.py::test_weights_of_any_strides",
    "test_drop_in.py::test_autocast_computes_in_its_dtype_and_returns_it",
    "test_drop_in.py::test_no_warning_in_ordinary_use",
    "test_gradients.py::test_every_element_of_the_jacobian",
    "test_gradients.py::test_a_second_backward_equals_the_first",
    "test_gradients.py::test_the_ops_and_torch_compute_the_same_products",
    "test_inference.py::test_int8_is_what_its_equations_say",
    "test_inference.py::test_int8_is_near_the_lstm",
    "test_inference.py::test_int8_rows_do_not_see_each_other",
)
TEST_TOOLS = (
    *("hypothesis", "iniconfig", "packaging", "pluggy", "pygments", "pytest", "sortedcontainers"),
)


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
        env={"PATH": str(environment / "bin"), "LD_LIBRARY_PATH": str(absent)},
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


def build_here(folder: Path) -> Path:
    """The wheel as this machine's own compiler builds it, by a Python that has torch."""
    for stale in (ROOT / "build").glob("lib*"):
        shutil.rmtree(stale)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    # As `make test` has built: what is compiled stays.
    flags = {"CMAKE_ARGS": "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"}
    subprocess.run([*pip, *options], check=True, env={**os.environ, **flags})
    (wheel,) = folder.glob("*.whl")
    inspect_here(wheel)
    return wheel


def inspect_here(wheel: Path) -> None:
    """Stop unless that wheel claims and holds what every Python can use: see wheels.inspect."""
    machine = os.uname().machine
    if not wheel.name.endswith(f"-py3-none-linux_{machine}.whl"):
        sys.exit(f"{wheel.name}: the tag is not py3-none-linux_{machine}")
    expected = r"lstm_kernels/([\w/]+\.(py|typed)|lstm_kernels_(cpu|cuda)\.so)$"
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        strays = [
            name
            for name in archive.namelist()
            if not re.match(expected, name) and ".dist-info/" not in name
        ]
        if strays:
            sys.exit(f"{wheel.name} holds what it should not: {' '.join(strays)}")
        library = Path(archive.extract("lstm_kernels/lstm_kernels_cpu.so", folder))
        wanted = symbols(library, "--undefined-only")
    # Only torch's C shims are stable; a mangled name would tie the wheel to one release. Those of
    # the C++ library are the compiler's.
    tied = sorted(s for s in wanted if re.match(r"_?Py[A-Z_]|_ZNK?(2at|3c10|5torch)", s))
    if tied or not wanted:
        sys.exit(f"{wheel.name} is tied to one torch or Python by {' '.join(tied)}")


def run_native(wheel: Path, *, quick: bool) -> str:
    """Run the wheel of this machine in fresh environments; say in which."""
    pairs = [(sys.executable, torch) for torch in (FLOOR, NEWEST)]
    if not quick:
        pairs += [(sys.executable, USUAL)] + [(python, USUAL) for python in other_pythons()]
    with tempfile.TemporaryDirectory() as name:
        for python, torch in pairs:
            start = time.perf_counter()
            check(wheel, python, torch, Path(name))
            print(f"    in {time.perf_counter() - start:.0f} s", flush=True)
    return f"in {len(pairs)} environments"


def run_emulated(wheel: Path) -> str:
    """Run the wheel for 64-bit Arm, and chosen tests with it."""
    import arm64

    machine = arm64.Machine(ROOT / "build/arm64", FLOOR, REQUIREMENTS, TEST_TOOLS)
    with tempfile.TemporaryDirectory() as name:
        site = Path(name) / "site-packages"
        shutil.unpack_archive(wheel, site, "zip")
        machine.run([ROOT / ".ci/check_installed.py"], site, Path(name))
        tests = [ROOT / "tests/unit" / test for test in EMULATED_TESTS]
        pytest = ["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--durations=5"]
        machine.run([*pytest, *tests], site, Path(name))
    return f"under emulation, torch {FLOOR}, chosen tests"


def run_windows_kernels() -> str:
    """Run what torch has no part in: the kernels and their threads, under wine."""
    if not shutil.which("wine"):
        return "not run: no wine here"
    script: list[str | Path] = ["bash", ROOT / "tests/kernels/sanitize.sh", "windows"]
    subprocess.run(script, check=True, env={**os.environ, "PYTHON": sys.executable})
    return "the kernels alone, under wine"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one wheel, by this machine's compiler, with the oldest and newest torch",
    )
    if parser.parse_args().quick:
        with tempfile.TemporaryDirectory() as name:
            wheel = build_here(Path(name))
            print(f"{wheel.name} {run_native(wheel, quick=True)}")
        return
    import wheels  # with tools that --quick does without

    native = f"manylinux_2_28_{os.uname().machine}"
    rows = []
    for platform, (wheel, built) in wheels.build_all(list(wheels.PLATFORMS)).items():
        if platform == native:
            ran = run_native(wheel, quick=False)
        elif platform == "manylinux_2_28_aarch64":
            ran = run_emulated(wheel)
        elif platform == "win_amd64":
            ran = run_windows_kernels()
        else:
            ran = "not run"
        rows.append((platform, built, ran))
    print(f"\n{'platform':24} {'built':48} equal to nn.LSTM")
    for platform, built, ran in rows:
        print(f"{platform:24} {built:48} {ran}")


if __name__ == "__main__":
    main()
