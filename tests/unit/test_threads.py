"""Threads: forks, many callers, more threads than cores, and nothing left running after a call."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import lstm_kernels

# Large enough for several threads: 40 steps, 32 sequences, 128 units.
T, N, H = 40, 32, 128


@pytest.fixture(autouse=True)
def _threads_as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make() -> tuple[lstm_kernels.LSTM, Tensor]:
    torch.manual_seed(0)
    return lstm_kernels.LSTM(H, H), torch.randn(T, N, H)


def step(lstm: lstm_kernels.LSTM, x: Tensor) -> list[Tensor]:
    """A forward and a backward pass: the output and all gradients."""
    lstm.zero_grad()
    output, _ = lstm(x)
    output.square().sum().backward()
    return [output.detach(), *(weight.grad.clone() for weight in lstm.parameters())]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 64])
def test_any_number_of_threads_gives_the_bits_of_one(threads: int) -> None:
    lstm, x = make()
    torch.set_num_threads(1)
    expected = step(lstm, x)
    torch.set_num_threads(threads)
    for _ in range(3):
        assert same(step(lstm, x), expected)


def in_child(work: Callable[[], None]) -> int:
    """Forks, works in the child, and returns its exit status; a child that hangs is killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -9


# NumPy compares the results: in a child of a process that has used them, torch's own OpenMP threads
# hang, with this library or without.
@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "torch.randn(500, 500) @ torch.randn(500, 500)"])
def test_a_child_forked_after_use_computes(before: str) -> None:
    code = f"""
import os, sys, torch
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_threads import in_child, make
torch.set_num_threads(2)
lstm, x = make()
{before}
with torch.no_grad():
    expected = lstm(x)[0].numpy()
def work():
    with torch.no_grad():
        for _ in range(3):
            assert (lstm(x)[0].numpy() == expected).all()
def nested():
    work()
    assert in_child(work) == 0
assert in_child(work) == 0, "child"
assert in_child(nested) == 0, "grandchild"
work()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def _predict(queue: object, lstm: lstm_kernels.LSTM, x: Tensor) -> None:
    with torch.no_grad():
        queue.put(lstm(x)[0].numpy().tobytes())  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method: str) -> None:
    torch.set_num_threads(2)
    lstm, x = make()
    with torch.no_grad():
        expected = lstm(x)[0].numpy().tobytes()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [
        context.Process(target=_predict, args=(queue, lstm, x), daemon=True) for _ in range(2)
    ]
    for child in children:
        child.start()
    assert [queue.get(timeout=120) for _ in children] == [expected] * 2
    for child in children:
        child.join()
        assert child.exitcode == 0


class _Embedded(Dataset):
    """A data set that runs an LSTM in its workers."""

    def __init__(self) -> None:
        self.lstm, self.x = make()
        self.lstm.requires_grad_(False)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return self.lstm(self.x + index)[0]


def test_data_loader_workers() -> None:
    torch.set_num_threads(2)
    data = _Embedded()
    expected = [data[index] for index in range(len(data))]
    for got, value in zip(DataLoader(data, None, num_workers=2), expected, strict=True):
        assert torch.equal(got, value)


def test_many_callers_at_once() -> None:
    torch.set_num_threads(2)
    lstm, x = make()
    copies = [lstm_kernels.LSTM(H, H) for _ in range(6)]
    for copy in copies:
        copy.load_state_dict(lstm.state_dict())
    expected = step(lstm, x)
    with ThreadPoolExecutor(6) as callers:
        for results in callers.map(lambda copy: [step(copy, x) for _ in range(4)], copies):
            assert all(same(result, expected) for result in results)


@pytest.mark.slow
def test_nothing_spins_after_a_call() -> None:
    """A millisecond after the last call, the process uses no processor time."""
    code = f"""
import resource, time, torch, lstm_kernels
torch.set_num_threads(2)
lstm, x = lstm_kernels.LSTM({H}, {H}).eval(), torch.randn({T}, {N}, {H})
with torch.no_grad():
    for _ in range(20):
        lstm(x)
time.sleep(0.001)
before = time.process_time()
time.sleep(0.2)
print(time.process_time() - before)
"""
    spent = [
        float(subprocess.run([sys.executable, "-c", code], check=True, stdout=-1).stdout)
        for _ in range(3)
    ]
    assert min(spent) < 0.001  # the sleeping itself; a spinning thread would use 0.2 s, or 0.005


def test_threads_that_are_held_up_are_not_waited_for() -> None:
    """With a busy process on every core, two threads take less than twice the time of one.

    A caller that waits for its helper in every step takes ten times as long, a tick for each. One
    tick can be as long as a call, so that the time of all calls is compared.
    """
    lstm, x = make()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    spin = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    try:
        with torch.no_grad():
            for _ in range(40):
                for threads, taken in seconds.items():
                    torch.set_num_threads(threads)
                    begin = time.perf_counter()
                    lstm(x)
                    taken.append(time.perf_counter() - begin)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert sum(seconds[2]) < 2 * sum(seconds[1])
