"""A watchdog over every test on a GPU."""

import faulthandler
import sys

import pytest

SECONDS = 60


@pytest.fixture(autouse=True)
def watchdog():
    """A kernel that hangs cannot be stopped: the process ends, and says where it was."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
