"""The kernels that measure what a GPU does, run on the CPU, do all of what they are timed for."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import to_storage

from benchmarks import gpu_floor
from benchmarks.gpu_floor import KINDS, Kernels

THREADS = 256


@pytest.fixture
def kernels(machine):
    machine.set_seed(2)
    return Kernels(Path(machine.__file__))


def ones(count, dtype):
    return to_storage(np.ones(count), "float32" if dtype == "tf32" else dtype)


@pytest.mark.parametrize("blocks", [1, 5])
def test_every_block_arrives_in_every_round(kernels, blocks):
    counter = np.zeros(1, np.uint32)
    kernels.call("exchange", blocks, 7, counter)
    assert counter[0] == 7 * blocks


def test_every_word_is_read_in_every_round(kernels):
    data = np.arange(4 * 600, dtype=np.uint32)
    sums = np.zeros(2 * THREADS, np.uint32)
    kernels.call("gather", 2, 3, data, 600, sums)
    assert (sums.reshape(2, -1).sum(1) == 3 * data.sum()).all()


@pytest.mark.parametrize("dtype", KINDS)
def test_every_product_is_taken(kernels, dtype):
    k = 8 if dtype == "tf32" else 16
    sums = np.zeros(THREADS, np.float32)
    kernels.call("products", KINDS[dtype], 1, 3, ones(48, dtype), sums)
    # 3 rounds of 8 products over k, of which a thread has 4 elements in each of 4 chains
    assert (sums == 3 * 2 * k * 4 * 4).all()


# The last number of pairs is more than registers hold.
@pytest.mark.parametrize(
    ("geometry", "rows", "pairs"),
    [(0, 64, 1), (0, 64, 8), (0, 64, 45), (1, 32, 8), (1, 32, 70), (2, 16, 8), (2, 16, 130)],
)
@pytest.mark.parametrize("dtype", KINDS)
def test_a_tile_is_multiplied_whole(kernels, dtype, geometry, rows, pairs):
    columns = 16 if dtype == "tf32" else 32  # of a pair
    stationary, moving = (ones(n * pairs * columns, dtype) for n in (rows, 16))
    sums = np.full((1, 8, rows), np.nan, np.float32)
    kernels.call("tile", KINDS[dtype], geometry, 1, 2, pairs, 2, stationary, moving, sums)
    # of the pairs, which are dealt to eight warps, the first warp's
    assert (sums == -(-pairs // 8) * columns).all()


def test_everything_is_measured_on_arrays_that_fit(kernels, monkeypatch):
    """As on a GPU, but for the clock, which here tells the number of the measurement."""
    clock = itertools.count(1)

    def words(count, value=0):
        return torch.full((count,), value, dtype=torch.int32)

    def one_round(run, few=0, many=0):
        run(1)
        return float(next(clock))

    monkeypatch.setattr(gpu_floor, "words", words)
    monkeypatch.setattr(gpu_floor, "slope", one_round)
    monkeypatch.setattr(gpu_floor, "multiprocessors", lambda: 9)
    rates, found = gpu_floor.measure(Path(kernels.library._name))
    # exchanges among 1, 8 and 9 blocks; no clusters; 4 sizes read; 3 kinds of products
    assert (rates.multiprocessors, rates.grid, rates.cluster) == (9, 3, 3)
    assert found["microseconds of an exchange, by blocks"] == {1: 1, 8: 2, 9: 3}
    assert set(found["microseconds of a cluster barrier, by blocks"].values()) == {None}
    assert rates.gather == (262144 - 4096) / (7 - 4)
    each = 8 * 8 * 2 * 16 * 8
    assert rates.products == {
        "tf32": each * 8 / 8,
        "float16": each * 16 / 9,
        "bfloat16": each * 1.6,
    }
    assert len(found["microseconds of a product as the persistent kernels do it"]) == 18


def test_what_cannot_be_launched_is_an_error(kernels):
    with pytest.raises(RuntimeError, match="floor_products failed with CUDA error 1"):
        kernels.call("products", 1, 1, 1, ones(48, "bfloat16"), np.zeros(THREADS, np.float32))
