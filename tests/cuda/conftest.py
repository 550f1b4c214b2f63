"""A watchdog over every test on a GPU, and warnings of torch that say nothing of this library."""

import faulthandler
import sys

import pytest

SECONDS = 60
WARNINGS = (
    "RNN module weights are not part of single contiguous chunk",  # nn.LSTM in bfloat16, every call
    "The AccumulateGrad node's stream does not match",  # torch's own make_graphed_callables
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda"):
            for message in WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))


@pytest.fixture(autouse=True)
def watchdog():
    """A kernel that hangs cannot be stopped: the process ends, and says where it was."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
