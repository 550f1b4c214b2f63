"""What a run says of each client at its end: its version, and the ratio of the times.

A test file names the package that it runs as CLIENT. Its test takes `ratio` to time a piece of work
of the client with nn.LSTM and with ours. `--ratios FILE` measures longer, and writes what it found,
in place of what FILE says of the same work:

    make test-clients ARGS="--ratios benchmarks/results/clients/clients.json"
"""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import wheels

from benchmarks import results_folder
from benchmarks.machine import describe, version
from benchmarks.timing import alternate, compare

BRIEF, LONG = 0.5, 8.0  # seconds of measurement for each ratio
TORCHVISION = wheels.without_libraries()
RAN, RATIOS = pytest.StashKey[dict](), pytest.StashKey[list]()


def pytest_addoption(parser):
    parser.addoption("--ratios", type=Path, metavar="FILE", help="write the ratios of times here")


def pytest_configure(config):
    config.stash[RAN], config.stash[RATIOS] = {}, []
    if config.option.ratios is not None:
        try:
            results_folder.check(config.option.ratios)
        except results_folder.Refused as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(autouse=True)
def _client(request):
    """Notes the version; everything is computed on one thread, from the same seed."""
    package = getattr(request.module, "CLIENT", None)
    if package is not None:
        request.config.stash[RAN][package] = version(package)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ratio(request):
    """ratio(work, native, ours): their time over ours, by turns in one process."""

    def measure(work, native, ours):
        seconds = BRIEF if request.config.option.ratios is None else LONG
        times = alternate({"ours": ours, "native": native}, seconds)
        note(work, compare(times["ours"], times["native"]))

    def note(work, found, package=None):
        """A Ratio measured elsewhere, or None where only the version is of interest."""
        package = package or request.module.CLIENT
        number = version(package)
        request.config.stash[RAN][package] = number
        if found is not None:
            row = {"client": package, "version": number, "work": work, **asdict(found)}
            request.config.stash[RATIOS].append(row)

    measure.note = note
    return measure


def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.section("clients")
    for package, number in sorted(config.stash[RAN].items()):
        terminalreporter.line(f"{package} {number or '(has no package)'}")
    for row in config.stash[RATIOS]:
        spread = f"{row['low']:.2f} to {row['high']:.2f}"
        found = f"{row['median']:.2f} times as fast ({spread} between quartiles)"
        terminalreporter.line(f"{row['client']}, {row['work']}: {found}")
    file = config.option.ratios
    if file is not None:
        write(file, config.stash[RATIOS])


def write(file, rows):
    """Rows of another machine or revision do not stay in the file."""
    machine, kept = describe(), []
    if file.exists() and (before := json.loads(file.read_text()))["machine"] == machine:
        found = {(row["client"], row["work"]) for row in rows}
        kept = [row for row in before["rows"] if (row["client"], row["work"]) not in found]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine, "rows": kept + rows}, indent=1) + "\n")
