"""Builds the module that runs the CUDA sources on the CPU, once, and makes it importable."""

import sys

import build_module
import pytest


@pytest.fixture(scope="session", autouse=True)
def machine():
    """The module `cuda_on_cpu`."""
    sys.path.insert(0, str(build_module.build()))
    import cuda_on_cpu

    return cuda_on_cpu
