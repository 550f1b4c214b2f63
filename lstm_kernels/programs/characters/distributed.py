"""One process or several: what changes under torchrun."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """This process among all that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that prints and draws."""
        return self.rank == 0

    def share(self, chunk: Tensor) -> Tensor:
        """The rows of a chunk (T, N) that this process trains on, on its device."""
        rows = chunk.shape[1] // self.size
        return chunk[:, self.rank * rows : (self.rank + 1) * rows].to(self.device)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over the processes where there are several."""
        return DistributedDataParallel(model) if self.size > 1 else model


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started, or trains alone where it started none."""
    size = world_size()
    if size == 1:
        yield World(0, 1, device)
        return
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), size, device)
    finally:
        distributed.destroy_process_group()
