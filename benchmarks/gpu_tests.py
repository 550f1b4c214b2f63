"""Runs tests on a GPU; where one of them loses the device, the others run in another process.

    python -m benchmarks.gpu_tests [arguments of pytest ...]

After an error in a kernel, no test of that process can use the device any more. A kernel that
hangs takes its process along (tests/cuda/conftest.py). So pytest starts again, for the tests that
have not been started. Exits 1 where one has failed, or where there is none.

This file is also the plugin of pytest that does so.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

STARTED = "LSTM_KERNELS_TESTS_STARTED"  # variable: the file with the tests that have been started
ENDED = "(all have been run)"  # last line of that file, where pytest has come to its end


def note(line: str) -> None:
    """Adds a line that is there even if the process ends in the next moment."""
    with Path(os.environ[STARTED]).open("a") as file:
        file.write(f"{line}\n")


def device_answers() -> bool:
    """Whether another test can use the device."""
    if torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):
            torch.cuda.synchronize()
            return True
        return False
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    started = set(Path(os.environ[STARTED]).read_text().splitlines())
    items[:] = [item for item in items if item.nodeid not in started]


def pytest_runtest_logstart(nodeid: str) -> None:
    note(nodeid)


def pytest_runtest_logfinish(nodeid: str) -> None:
    if not device_answers():
        pytest.exit(f"{nodeid} has lost the device", returncode=pytest.ExitCode.INTERRUPTED)


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        note(ENDED)


def run(arguments: Sequence[str]) -> int:
    """The exit status: 0 where every test has passed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "started"
        file.touch()
        command = [sys.executable, "-m", "pytest", "-p", "benchmarks.gpu_tests", *arguments]
        before, failed = [""], False
        while True:
            status = subprocess.run(command, env={**os.environ, STARTED: str(file)}, check=False)
            started = file.read_text().splitlines()
            nothing_left = (
                before != [""] and status.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
            )
            failed |= status.returncode != 0 and not nothing_left
            if not started or started == before or started[-1] == ENDED:
                return int(failed)
            before = started
            print(
                f"\n{started[-1]} ended its process: the tests after it run in another", flush=True
            )


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
