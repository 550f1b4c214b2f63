"""A case made real, for all contenders.

A contender that a case is beyond, or whose package is not there, raises `Unavailable` with the
reason.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from .cases import Case

Call = Callable[[], object]


class Unavailable(Exception):
    """This contender cannot compute this case; the message says why."""


def installed(name: str) -> Any:
    """The module of an optional package.

    Raises:
        Unavailable: the package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed") from None


@contextmanager
def reduced_precision() -> Iterator[None]:
    """torch's switch allows products of float32 to round to bfloat16."""
    rnn = torch.backends.mkldnn.rnn  # type: ignore[attr-defined]
    precision, rnn.fp32_precision = rnn.fp32_precision, "bf16"
    try:
        yield
    finally:
        rnn.fp32_precision = precision


@dataclass
class Workload:
    """A case made real: weights, and inputs that take gradients where the case is of training.

    padded: (T, N, I). input: the same, or, in a packed case, packed without what is past the ends.
    """

    case: Case
    threads: int
    native: nn.LSTM = field(init=False)
    padded: Tensor = field(init=False)
    input: Tensor | PackedSequence = field(init=False)

    def __post_init__(self) -> None:
        case = self.case
        torch.manual_seed(0)
        self.native = nn.LSTM(
            case.input_size,
            case.H,
            case.layers,
            bidirectional=case.bidirectional,
            proj_size=case.proj_size,
            dtype=getattr(torch, case.dtype),
        )
        data = torch.randn(case.T, case.N, case.input_size, dtype=getattr(torch, case.dtype))
        data.requires_grad_(case.training)
        self.padded = self.input = data
        if case.packed:
            packed = pack_padded_sequence(data, torch.tensor(case.lengths))
            # Packing is not what is measured, so the graph leaves it out, too.
            rows = packed.data.detach().requires_grad_(case.training)
            self.input = PackedSequence(rows, packed.batch_sizes)
