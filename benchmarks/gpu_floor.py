"""The least time of a step of a persistent LSTM on a GPU: a model, and its inputs measured.

A step of `slices` blocks for each of `groups` parts of the batch takes the exchange between the
blocks, h of its part read from L2, and the larger of the products and the weights read from shared
memory, plus what is fixed. In no case does it take less than moving what it reads and writes
through device memory. gpu_floor.cu has the kernels that measure the rates.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import torch

from .cases import BYTES, Case

KINDS = {"tf32": 0, "float16": 3, "bfloat16": 2}  # DType of csrc/lstm.h
# The geometries of floor_tile, and how many times H columns they multiply.
GEOMETRIES = {"forward of 16 units": 1, "forward of 8 units": 1, "backward": 4}
REGISTER_BYTES, SHARED_BYTES = 128e3, 200e3  # for weights, of a multiprocessor
MOST_IN_CLUSTER = 16


@dataclass(frozen=True)
class Rates:
    """What a device does, per microsecond and, but for `device`, multiprocessor."""

    source: str
    multiprocessors: int
    grid: float  # microseconds of an exchange between blocks by a counter
    cluster: float  # ... within a cluster
    block: float  # ... within a block
    fixed: float  # microseconds of a step: cell update, barriers
    gather: float  # bytes from L2
    shared: float  # bytes from shared memory
    device: float  # bytes to and from device memory, of the whole device
    products: dict[str, float]  # floating-point operations of tensor cores, by dtype


PUBLISHED = Rates(
    source="published micro-benchmarks of the H200; cluster and 62% of peak assumed",
    multiprocessors=132,
    grid=1.05,
    cluster=0.55,
    block=0.25,
    fixed=0.15,
    gather=73e3,
    shared=253e3,
    device=3.9e6,
    products={
        "bfloat16": 989e6 * 0.62 / 132,
        "float16": 989e6 * 0.62 / 132,
        "tf32": 494e6 * 0.62 / 132,
    },
)


def floor_microseconds(case: Case, rates: Rates = PUBLISHED) -> float | None:
    """The least time of a forward step, or None where no persistent kernel is meant.

    Batches are cut in eights, the width of a tensor core instruction. Weights that fit neither
    registers nor shared memory are read from L2.
    """
    dtype = case.dtype
    if case.cell or case.packed or case.variant or case.layers > 1 or dtype not in rates.products:
        return None
    size = BYTES["float32" if dtype == "tf32" else dtype]
    weights = 4 * case.H * case.H * size
    least = float("inf")
    for rows in range(8, 8 * ceil(case.N / 8) + 1, 8):
        groups = ceil(case.N / rows) * case.directions
        for slices in range(1, min(rates.multiprocessors // groups, ceil(case.H / 4)) + 1):
            beyond = max(0.0, weights / slices - REGISTER_BYTES)
            from_shared = min(beyond, SHARED_BYTES)
            exchange = rates.cluster if slices <= MOST_IN_CLUSTER else rates.grid
            gather = (rows * case.H * size + beyond - from_shared) / rates.gather
            products = 8 * case.H * case.H * rows / slices / rates.products[dtype]
            step = (rates.block if slices == 1 else exchange) + rates.fixed + gather
            least = min(least, step + max(products, from_shared / rates.shared))
    return max(least, 10 * case.N * case.directions * case.H * size / rates.device)


class Kernels:
    """gpu_floor.cu, compiled."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))

    def call(self, name: str, *arguments: object) -> None:
        """Queues one of its kernels; tensors and arrays go by address.

        Raises:
            RuntimeError: CUDA does not take the launch.
        """
        values = [
            ctypes.c_int(a) if isinstance(a, int) else ctypes.c_void_p(address(a))
            for a in arguments
        ]
        status = getattr(self.library, f"floor_{name}")(*values, ctypes.c_void_p(stream()))
        if status:
            raise RuntimeError(f"floor_{name} failed with CUDA error {status}")


def address(memory: object) -> int:
    return memory.data_ptr() if isinstance(memory, torch.Tensor) else memory.ctypes.data  # type: ignore[attr-defined]


def stream() -> int | None:
    return torch.cuda.current_stream().cuda_stream if torch.cuda.is_available() else None


def multiprocessors() -> int:
    return int(torch.cuda.get_device_properties().multi_processor_count)


def slope(run: Callable[[int], object], few: int = 200, many: int = 2200) -> float:
    """Microseconds that a round adds: the least over five times, of both numbers of rounds."""

    def least(rounds: int) -> float:
        times = []
        for _ in range(6):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run(rounds)
            end.record()
            end.synchronize()
            times.append(1e3 * float(start.elapsed_time(end)))
        return min(times[1:])

    return (least(many) - least(few)) / (many - few)


def words(count: int, value: int = 0) -> torch.Tensor:
    return torch.full((count,), value, dtype=torch.int32, device="cuda")


def measure(library: Path) -> tuple[Rates, dict[str, object]]:
    """The rates of the current GPU, and everything that was measured, as JSON can hold it."""
    kernels = Kernels(library)
    blocks = multiprocessors()
    sums = words(blocks * 1024)

    def exchange(count: int) -> float:
        def run(rounds: int) -> None:
            kernels.call("exchange", count, rounds, words(32))

        return slope(run)

    def cluster(size: int) -> float | None:
        try:
            return slope(lambda rounds: kernels.call("clusters", size, 4, rounds, sums))
        except RuntimeError:  # before sm_90, or beyond what the device takes
            return None

    def gather(count: int) -> float:
        data = words(count // 4 + 4)
        return slope(lambda rounds: kernels.call("gather", blocks, rounds, data, count // 16, sums))

    def products(dtype: str) -> float:
        operands = words(12)
        each = slope(
            lambda rounds: kernels.call("products", KINDS[dtype], blocks, rounds, operands, sums),
            few=1000,
            many=21000,
        )
        # 8 warps, 8 instructions of 16 x 8 x 16 (TF32: 8) multiply-adds
        return 8 * 8 * 2 * 16 * 8 * (8 if dtype == "tf32" else 16) / each

    def tile(dtype: str, geometry: int, pairs: int, rows: int) -> float:
        stationary, moving = words(64 * pairs * 16), words(rows // 8 * pairs * 128)

        def run(rounds: int) -> None:
            kernels.call(
                "tile", KINDS[dtype], geometry, blocks, rounds, pairs, rows // 8, stationary,
                moving, sums,
            )  # fmt: skip

        return slope(run)

    sizes = (4096, 16384, 65536, 262144)
    exchanges = {count: exchange(count) for count in (1, 8, 16, 32, 64) if count < blocks}
    exchanges[blocks] = exchange(blocks)
    clusters = {size: cluster(size) for size in (2, 8, 16)}
    gathers = {size: gather(size) for size in sizes}
    rates = replace(
        PUBLISHED,
        source="measured; block, fixed, shared and device as published",
        multiprocessors=blocks,
        grid=exchanges[blocks],
        cluster=clusters[MOST_IN_CLUSTER] or exchanges[blocks],
        gather=(sizes[-1] - sizes[0]) / (gathers[sizes[-1]] - gathers[sizes[0]]),
        products={dtype: products(dtype) for dtype in KINDS},
    )
    tiles = {}
    for dtype, H in (("bfloat16", 512), ("bfloat16", 1024), ("tf32", 512)):
        pairs = ceil(H * BYTES["float32" if dtype == "tf32" else dtype] / 64)
        for geometry, (kernel, columns) in enumerate(GEOMETRIES.items()):
            for rows in (8, 32):
                name = f"H={H} {dtype}, {kernel}, {rows} rows"
                tiles[name] = tile(dtype, geometry, pairs * columns, rows)
    return rates, {
        "microseconds of an exchange, by blocks": exchanges,
        "microseconds of a cluster barrier, by blocks": clusters,
        "microseconds to read these bytes from L2, per multiprocessor": gathers,
        "operations per microsecond of mma.sync, per multiprocessor": rates.products,
        "microseconds of a product as the persistent kernels do it": tiles,
    }
