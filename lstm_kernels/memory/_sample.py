"""A uniform sample of the steps of a stream, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Sample:
    """Keeps at most `limit` rows of all that it is offered, each with the same chance.

    Every row draws a random key, and the rows with the smallest keys stay. Below the limit nothing
    is dropped and the order is kept. The draw is the same in every run.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"max_steps must be at least 1, got {limit}")
        self._limit = limit
        self._generator = torch.Generator().manual_seed(0)
        self._keys = torch.empty(0, dtype=torch.float64)
        self._columns: tuple[Tensor, ...] | None = None

    def offer(self, count: int, gather: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        """Offers `count` rows; `gather(index)` returns the columns of the rows that are wanted."""
        keys = torch.rand(count, generator=self._generator, dtype=torch.float64)
        full = len(self._keys) == self._limit
        index = (keys < self._keys.max()).nonzero()[:, 0] if full else torch.arange(count)
        if len(index) > self._limit:
            index = index[keys[index].topk(self._limit, largest=False).indices].sort().values
        columns = gather(index)
        keys = keys[index]
        if self._columns is not None:
            keys = torch.cat([self._keys, keys])
            columns = tuple(map(torch.cat, zip(self._columns, columns, strict=True)))
        if len(keys) > self._limit:
            stay = keys.topk(self._limit, largest=False).indices.sort().values
            keys, columns = keys[stay], tuple(c[stay.to(c.device)] for c in columns)
        self._keys, self._columns = keys, columns

    @property
    def empty(self) -> bool:
        """No row was offered."""
        return self._columns is None

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The rows that stayed, column by column."""
        assert self._columns is not None
        return self._columns
