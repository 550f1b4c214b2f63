"""Gradients for the ops of graphs.

torch.export, torch.compile, make_fx and torch.jit.trace record ops, and drop the autograd Functions
around them. A graph runs later: where a gradient is wanted that was not when it was recorded, or
under a transform of torch.func. So the ops that it holds have their gradients themselves: each runs
the differentiable function of _autograd.py where a derivative may be asked for, and its kernel
elsewhere. An eager call has ops without gradients, because torch would enter Python for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _autograd, _ops, _variant_autograd, _variant_ops, _weight_gradients
from ._layer import Layer, LayerBackward, gathering
from ._torch_private import below_autograd

_library = torch.library.Library("lstm_kernels", "IMPL")


def _with_gradients(name: str, differentiable: Callable[..., Any]) -> None:
    """Give an op the gradients of a function that takes its arguments and returns its results."""
    op = getattr(torch.ops.lstm_kernels, name).default

    def run(keyset: Any, *arguments: Any) -> Any:
        if _autograd.wanted(*_tensors(arguments)):
            return differentiable(*arguments)
        return below_autograd(op, keyset, *arguments)

    _library.impl(name, run, "Autograd", with_keyset=True)
    # The transforms of torch.func take the op apart here, before they reach "Autograd".
    _library.impl(name, differentiable, "FuncTorchDynamicLayerFrontMode")


def _tensors(arguments: tuple[Any, ...]) -> list[Tensor]:
    lists = [value if isinstance(value, list) else [value] for value in arguments]
    return [value for values in lists for value in values if isinstance(value, Tensor)]


def _sequence_forward(
    layer: Layer,
    save_cell: bool = False,
    save_gates: bool = False,
    reduced_precision: bool = False,
    recompute: bool = False,
) -> _ops.Forwarded:
    nothing = layer.input.new_empty(0)
    if recompute and not save_cell and not save_gates:
        results = _autograd.recomputed_sequence(layer, reduced_precision)
        return *results, nothing, nothing.clone()
    output, h_n, c_n, cell, gates = _autograd.sequence(layer, reduced_precision)
    kept_gates = gates if save_gates else nothing.clone()
    return output, h_n, c_n, cell if save_cell else nothing, kept_gates


def _sequence_backward(call: LayerBackward, reduced_precision: bool = False) -> _ops.Backward:
    return _autograd.sequence_backward(call, reduced_precision)


def _weight_gradients_of(
    grad_z: Tensor,
    input: Tensor,
    h0: Tensor | None,
    output: Tensor,
    direction: int,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    gate_masks: Tensor | None = None,
    reduced_precision: bool = False,
) -> _ops.WeightGradients:
    layer = Layer(input, h0, None, [], False, False, batch_sizes, lengths, reset)
    return _weight_gradients.weight_gradients(grad_z, layer, output, direction, gate_masks)


def _cell_forward(*arguments: Any) -> _ops.Stepped:
    *tensors, save_gates = arguments
    h, c, gates = _autograd.cell(*tensors)
    return h, c, gates if save_gates else gates.new_empty(0)


def _variant_forward(layer: Layer, *arguments: Any) -> _variant_ops.VariantForwarded:
    _, variant, tensors, save_cell, save_gates, reduced = _variant_ops.of_op(layer, *arguments)
    results = _variant_autograd.differentiable(layer, variant, tensors, reduced)
    output, h_n, c_n, cell, gates = results
    nothing = layer.input.new_empty(0)
    kept_gates = gates if save_gates else nothing.clone()
    # Nobody asks a recorded graph for what the norm is given: the backward pass is in the op.
    return output, h_n, c_n, cell if save_cell else nothing, kept_gates, nothing.clone()


_with_gradients("variant_forward", gathering(Layer, _variant_forward))
_with_gradients("sequence_forward", gathering(Layer, _sequence_forward))
_with_gradients("sequence_backward", gathering(LayerBackward, _sequence_backward))
_with_gradients("weight_gradients", _weight_gradients_of)
_with_gradients("input_gradient", _weight_gradients.input_gradient)
_with_gradients("cell_forward", _cell_forward)
_with_gradients("cell_backward", _autograd.cell_backward)
