"""Builds the module that binds the kernels to NumPy, once per session.

KERNEL_TESTS_MODULE names a folder with a module built already, say one with sanitizers.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "kernel_tests"


def build():
    """Configures and builds tests/kernels with CMake; returns the folder of the module."""
    configure = ["cmake", "-S", HERE, "-B", BUILD, f"-DPython_EXECUTABLE={sys.executable}"]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    for command in (configure, ["cmake", "--build", BUILD, "--parallel"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            pytest.fail(f"{command} failed:\n{done.stdout}", pytrace=False)
    return BUILD


@pytest.fixture(scope="session")
def kernels():
    """The module `kernel_tests`: see binding.cpp."""
    folder = os.environ.get("KERNEL_TESTS_MODULE") or build()
    sys.path.insert(0, str(folder))
    return importlib.import_module("kernel_tests")


NAMES = re.findall(r"^ISA\((\w+)", (HERE / "../../csrc/cpu/isas.def").read_text(), re.MULTILINE)
ISAS = list(dict.fromkeys(NAMES))


# Those that round factors of float32 where they may: on others "rounded" is float32 itself.
ROUNDING = {"avx512_bf16", "amx", "neon_bf16", "wide", "software_amx"}


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if not _repeats_another(item)]


def _repeats_another(item):
    given = item.callspec.params if hasattr(item, "callspec") else {}
    isa, dtype = given.get("isa"), given.get("dtype")
    if isa == "software_amx" and ("variant" in given or dtype in ("float32", "float64", "float16")):
        return True  # it leaves these to "wide"
    return dtype == "rounded" and isa not in ROUNDING


@pytest.fixture(params=[*ISAS, "wide", "software_amx"])
def isa(request, kernels):
    """Every instruction set that this CPU has, and the logic of AVX-512 and AMX without them."""
    if request.param not in kernels.isas():
        pytest.skip(f"this CPU cannot run {request.param}")
    return request.param
