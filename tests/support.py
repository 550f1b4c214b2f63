"""What the tests share: LSTMs and their inputs, drawn or given, and how results compare."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_kernels

FLOATING = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
T, N, I, H = 5, 3, 4, 6  # where a test needs just some sizes
KINDS = ["batched", "unbatched", "packed", "packed sorted"]


@dataclass(frozen=True)
class Options:
    """An LSTM and the kind of input it gets."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    proj_size: int
    kind: str
    lengths: tuple[int, ...]  # one per sequence
    with_hx: bool

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def steps(self) -> int:
        return max(self.lengths)

    @property
    def h_size(self) -> int:
        return self.proj_size or self.hidden_size


@st.composite
def options(draw: st.DrawFn, kinds: Iterable[str] = KINDS) -> Options:
    """Any combination of options; sizes small, 1 and odd ones included."""
    hidden_size = draw(st.integers(1, 9))
    return Options(
        input_size=draw(st.integers(1, 7)),
        hidden_size=hidden_size,
        num_layers=draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        proj_size=draw(st.integers(0, hidden_size - 1)),
        kind=draw(st.sampled_from(list(kinds))),
        lengths=tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))),
        with_hx=draw(st.booleans()),
    )


def native(o: Options, dtype: torch.dtype = torch.float64) -> nn.LSTM:
    return nn.LSTM(
        o.input_size,
        o.hidden_size,
        o.num_layers,
        o.bias,
        o.batch_first,
        0.0,
        o.bidirectional,
        o.proj_size,
        dtype=dtype,
    )


def arguments(o: Options, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Random input, h_0 and c_0 of the kind the options ask for."""
    batch = () if o.kind == "unbatched" else (len(o.lengths),)
    shape = (o.steps, *batch, o.input_size)
    if o.batch_first and batch:
        shape = (*batch, o.steps, o.input_size)
    rows = (o.num_layers * o.directions, *batch)
    sizes = (shape, (*rows, o.h_size), (*rows, o.hidden_size))
    return tuple(torch.randn(size, dtype=dtype) for size in sizes)


def call(module: Any, o: Options, x: Tensor, h: Tensor, c: Tensor, **kwargs: Any) -> Any:
    """Call an LSTM on the kind of input the options ask for."""
    given: Any = x
    if o.kind.startswith("packed"):
        lengths = torch.tensor(o.lengths)
        if o.kind == "packed sorted":
            lengths = lengths.sort(descending=True).values
        given = pack_padded_sequence(x, lengths, o.batch_first, o.kind == "packed sorted")
    return module(given, (h, c) if o.with_hx else None, **kwargs)


def leaves(result: Any) -> Iterator[Tensor | None]:
    """All tensors of a nested result, in order, and a None for each that is absent."""
    if result is None or isinstance(result, Tensor):
        yield result
    else:
        for part in result:
            yield from leaves(part)


def tensors(result: Any) -> list[Tensor]:
    """The tensors of values in a nested result, in order: of a PackedSequence its data only."""
    if isinstance(result, PackedSequence):
        return [result.data]
    if result is None or isinstance(result, Tensor):
        return [] if result is None else [result]
    return [tensor for part in result for tensor in tensors(part)]


def weigh(result: Any) -> Tensor:
    """A loss that every element of every tensor moves differently; it can be transformed."""
    total = torch.zeros(())
    for k, value in enumerate(tensors(result)):
        weights = torch.linspace(0, 3, value.numel(), dtype=value.dtype).cos() + 0.1 * k
        total = total + (weights.view_as(value) * value).sum()
    return total


def gradients(result: Any, inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of weigh(result)."""
    return torch.autograd.grad(weigh(result), list(inputs))


def with_gradients(
    run: Callable[..., Any], inputs: Iterable[Tensor], parameters: Iterable[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Results of `run(*inputs)`, and gradients of weigh(results) for inputs and parameters."""
    given = [value.detach().clone().requires_grad_() for value in inputs]
    results = tensors(run(*given))
    found = torch.autograd.grad(weigh(results), [*given, *parameters], allow_unused=True)
    return results, list(found)


def assert_same(actual: Any, expected: Any, **tolerance: Any) -> None:
    """The same nested tensors (or None) one by one, within the tolerance."""
    for one, other in zip(leaves(actual), leaves(expected), strict=True):
        if one is None or other is None:
            assert one is other
        else:
            torch.testing.assert_close(one, other, **tolerance)


def assert_equal(actual: Any, expected: Any) -> None:
    """The same nested tensors (or None) one by one, exactly."""
    assert_same(actual, expected, rtol=0, atol=0)


def rounding(dtype: torch.dtype, steps: int, width: int = 16) -> dict[str, float]:
    """A tolerance from the precision of the dtype.

    Each step adds a sum of `width` rounded products, and its error passes on to the later steps:
    a few units in the last place for each step, of values that are at most about one.
    """
    unit = torch.finfo(dtype).eps
    return {"rtol": 4 * unit * steps, "atol": unit * steps * width**0.5}


@contextlib.contextmanager
def precision_of_rnns(value: str) -> Iterator[None]:
    """What torch's switch for float32 in RNNs on the CPU says; monkeypatch cannot put it back."""
    switch: Any = torch.backends.mkldnn.rnn  # type: ignore[attr-defined]
    before = switch.fp32_precision
    switch.fp32_precision = value
    try:
        yield
    finally:
        switch.fp32_precision = before


def ours(module: nn.LSTM) -> lstm_kernels.LSTM:
    return lstm_kernels.LSTM.from_native(module)


def twins(
    input_size: int = I, hidden_size: int = H, **options: Any
) -> tuple[lstm_kernels.LSTM, nn.LSTM]:
    """One of our LSTMs and an nn.LSTM with the same weights."""
    torch.manual_seed(0)
    lstm = lstm_kernels.LSTM(input_size, hidden_size, **options)
    return lstm, lstm.to_native()


def twins_and_inputs(
    steps: int, batch: int, dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[lstm_kernels.LSTM, nn.LSTM, list[Tensor]]:
    """Twins, and leaves for both to compute on: x in their layout, h_0 and c_0."""
    lstm, native = twins(dtype=dtype, **options)
    shape = (batch, steps, I) if lstm.batch_first else (steps, batch, I)
    rows = lstm.num_layers * (1 + lstm.bidirectional)
    sizes = (shape, (rows, batch, lstm.proj_size or H), (rows, batch, H))
    return lstm, native, [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]
