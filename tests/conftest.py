"""Markers that a test has from where it is: in a folder that is built first, or without a GPU."""

import pytest
import torch

# Their tests run on a module that is compiled first; the others mark what they compile.
BUILT = {"kernels", "cuda_on_cpu"}


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name in BUILT:
            item.add_marker(pytest.mark.builds)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no NVIDIA GPU here"))
