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


ISAS = re.findall(r"^ISA\((\w+)", (HERE / "../../csrc/cpu/isas.def").read_text(), re.MULTILINE)


@pytest.fixture(params=[*ISAS, "wide"])
def isa(request, kernels):
    """Every instruction set that this CPU has; "wide" is the AVX-512 logic without AVX-512."""
    if request.param not in kernels.isas():
        pytest.skip(f"this CPU cannot run {request.param}")
    return request.param
