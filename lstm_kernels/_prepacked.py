"""Weights that a module keeps laid out for inference.

The op compares the contents of the weights with those it packed, on every call (see
csrc/schema.cpp): whatever changed a weight, and however, the next call computes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from . import _checks, _ops, _torch_private
from ._layer import kind_of

_NARROW = (torch.bfloat16, torch.float16)


class Prepacked:
    """The prepacked weights of every layer, and in which dtype they are held.

    They are never written to, only replaced by newer ones: threads may share them. They are good
    for one process, and for one module's weights: copies and pickles of it leave them out.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        num_layers: int,
        bidirectional: bool,
        weight_dtype: torch.dtype | None,
    ) -> None:
        """Raises what LSTM.prepack does."""
        dtype = weights[0].dtype
        if weight_dtype is not None and not isinstance(weight_dtype, torch.dtype):
            raise TypeError(
                f"weight_dtype must be a torch.dtype or None, got {type(weight_dtype).__name__}"
            )
        if any(weight.is_cuda for weight in weights):
            raise NotImplementedError(
                "prepack is for the CPU: the CUDA kernels keep weights in registers and shared "
                "memory, and have nothing to pack"
            )
        if not all(map(_is_plain, weights)):
            raise NotImplementedError("prepack is for plain tensors on the CPU")
        allowed = [narrow for narrow in _NARROW if dtype in (torch.float32, narrow)]
        if weight_dtype is not None and weight_dtype not in allowed:
            raise ValueError(
                f"weight_dtype must be {' or '.join(map(str, [None, *allowed]))} for weights of "
                f"{dtype}, got {weight_dtype}"
            )
        self.weight_dtype = None if weight_dtype is dtype else weight_dtype
        directions = 2 if bidirectional else 1
        _checks.weights_count(weights, num_layers, directions)
        kind = kind_of(weights, num_layers * directions)
        of_layer = directions * kind.each
        kinds = (kind.has_biases, bidirectional, self.weight_dtype)
        with torch.no_grad():
            self._layers = [
                _ops.prepack_weights(weights[start : start + of_layer], *kinds)
                for start in range(0, len(weights), of_layer)
            ]

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """In a copy of a parametrized module, which torch copies attribute by attribute."""

    def serve(self, weights: Sequence[Tensor], autocast: torch.dtype | None) -> bool:
        """Whether a call without gradients on these weights can use them.

        False if the weights' dtype, device or class changed since prepack(), or under autocast,
        tracing or a dispatch mode.
        """
        dtype = weights[0].dtype
        return (
            (autocast is None or autocast is dtype)
            and (self.weight_dtype is None or dtype is torch.float32)
            and not torch.compiler.is_compiling()
            and not _torch_private.tracing()
            and not _torch_private.count_dispatch_modes()
            and all(map(_is_plain, weights))
        )

    def forward(self, layer: int, *arguments: Any) -> _ops.Forwarded:
        """`_ops.eager_sequence_forward` of a layer, on its prepacked weights."""
        *results, renewed = _ops.prepacked_forward(self._layers[layer], *arguments)
        if renewed.numel():
            self._layers[layer] = renewed
        return tuple(results)  # type: ignore[return-value]


def _is_plain(weight: Tensor) -> bool:
    return weight.is_cpu and type(weight) in (Tensor, Parameter)
