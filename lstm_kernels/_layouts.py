"""How a caller lays out a sequence: the way to what the kernels take, and back.

A layout brings the arguments of a call to (T, N, ...) and its states to (L * D, N, ...). It brings
the results back to the caller's layout. Packed rows stay as they are, and what is absent stays
absent.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import _checks
from ._variants import BoundVariant

MaybeTensor = Tensor | None


class Layout:
    """(T, N, ...), as the kernels take it.

    packed, batch_sizes: of a PackedSequence.
    order: (N,), in which the kernels take the sequences, where it is not the caller's.
    """

    packed: PackedSequence | None = None
    batch_sizes: MaybeTensor = None
    order: MaybeTensor = None

    def given(self, input: Any, h0: MaybeTensor, c0: MaybeTensor) -> tuple[Tensor, Any, Any]:
        """The input and the initial states, whose sequences stay in the caller's order."""
        return input, h0, c0

    def ragged(self, lengths: MaybeTensor, reset: MaybeTensor) -> tuple[Any, Any]:
        return lengths, reset

    def variant(self, bound: BoundVariant) -> BoundVariant:
        """The masks and the input gate of a variant."""
        return bound

    def back(self, steps: Tensor) -> Any:
        """What has a value for each step, as the caller's input has."""
        return steps

    def results(self, output: Tensor, h_n: Tensor, c_n: Tensor) -> Any:
        """What torch.nn.LSTM returns."""
        return output, (h_n, c_n)


class _BatchFirst(Layout):
    """(N, T, ...)."""

    def given(self, input: Tensor, h0: MaybeTensor, c0: MaybeTensor) -> tuple[Tensor, Any, Any]:
        if input.is_nested:  # which cannot be transposed
            _checks.dense(input)
        return input.transpose(0, 1), h0, c0

    def ragged(self, lengths: MaybeTensor, reset: MaybeTensor) -> tuple[Any, Any]:
        return lengths, reset.mT if reset is not None and reset.dim() == 2 else reset

    def variant(self, bound: BoundVariant) -> BoundVariant:
        return bound.batch_first()

    def back(self, steps: Tensor) -> Tensor:
        return steps.transpose(0, 1)

    def results(self, output: Tensor, h_n: Tensor, c_n: Tensor) -> Any:
        return output.transpose(0, 1), (h_n, c_n)


class _Unbatched(Layout):
    """(T, ...), with states (L * D, ...)."""

    def given(self, input: Tensor, h0: MaybeTensor, c0: MaybeTensor) -> tuple[Tensor, Any, Any]:
        _checks.state_dims(h0, c0, 2)
        return input.unsqueeze(1), _unsqueezed(h0, 1), _unsqueezed(c0, 1)

    def ragged(self, lengths: MaybeTensor, reset: MaybeTensor) -> tuple[Any, Any]:
        return _unsqueezed(lengths, 0), _unsqueezed(reset, -1)

    def variant(self, bound: BoundVariant) -> BoundVariant:
        return bound.unbatched()

    def back(self, steps: Tensor) -> Tensor:
        return steps.squeeze(1)

    def results(self, output: Tensor, h_n: Tensor, c_n: Tensor) -> Any:
        return output.squeeze(1), (h_n.squeeze(1), c_n.squeeze(1))


class _Packed(Layout):
    """The rows of a PackedSequence, (R, ...), whose sequences are sorted by length."""

    packed: PackedSequence

    def __init__(self, packed: PackedSequence) -> None:
        self.packed = packed
        _, self.batch_sizes, self.order, self.order_back = packed

    def given(
        self, input: PackedSequence, h0: MaybeTensor, c0: MaybeTensor
    ) -> tuple[Tensor, Any, Any]:
        return input.data, h0, c0

    def back(self, steps: Tensor) -> PackedSequence:
        return PackedSequence(steps, *self.packed[1:])

    def results(self, output: Tensor, h_n: Tensor, c_n: Tensor) -> Any:
        if self.order_back is not None:
            h_n, c_n = h_n.index_select(1, self.order_back), c_n.index_select(1, self.order_back)
        return self.back(output), (h_n, c_n)


def _unsqueezed(value: MaybeTensor, axis: int) -> MaybeTensor:
    return None if value is None else value.unsqueeze(axis)


_TIME_FIRST, _BATCH_FIRST, _UNBATCHED = Layout(), _BatchFirst(), _Unbatched()


def layout_of(input: Tensor | PackedSequence, batch_first: bool) -> Layout:
    """The layout of an input.

    Raises:
        ValueError: a tensor that has neither two nor three dimensions.
    """
    if isinstance(input, PackedSequence):
        return _Packed(input)
    dims = input.dim()
    if dims == 3:
        return _BATCH_FIRST if batch_first else _TIME_FIRST
    if dims == 2:
        return _UNBATCHED
    raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {dims}D instead")
