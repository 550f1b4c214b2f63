"""The raw ops of variants (see csrc/schema.cpp), each with the shapes of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _load
from ._layer import Layer, LayerBackward
from ._ops import backward_shapes, dense, fake_of, forward_shapes, reduced_precision
from ._torch_private import recording
from ._variants import ACTIVATIONS, Activation, LayerTensors, Variant

# output, h_n, c_n, cell and gates, and what the norm of the gates is given
VariantForwarded = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
# gradients of the pre-activations, of h0, of c0, of every h_t with projection, of i from outside;
# with a layer norm, of the input's product; of parameters that the pass adds up
VariantBackward = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

# options and the tensors of a variant; results as of the ops of a plain layer in _ops.py
_forward: Callable[..., VariantForwarded] = torch.ops.lstm_kernels._variant_forward.default
_recorded_forward: Callable[..., VariantForwarded] = torch.ops.lstm_kernels.variant_forward.default
_backward: Callable[..., VariantBackward] = torch.ops.lstm_kernels._variant_backward.default
# The rows of grad_parameters: ParameterSum of csrc/variant.h.
OF_BIAS, OF_GAINS, OF_NORM_CELL, OF_PEEPHOLE = slice(4), slice(4, 12), slice(12, 14), slice(14, 17)
PARAMETER_SUMS = 17


class GivenTensors(NamedTuple):
    """The tensors of a variant, named and ordered as in csrc/schema.cpp."""

    peephole: Any
    norm_gates: Any
    norm_cell: Any
    input_gate: Any
    hidden_mask: Any
    gate_masks: Any
    candidate_mask: Any
    zoneout_cell: Any
    zoneout_hidden: Any


def computes_on(tensor: Tensor) -> bool:
    """Whether the ops are there for the device of a tensor."""
    return tensor.is_cpu or (tensor.is_cuda and _load.cuda_problem is None)


def variant_of(numbers: Sequence[float], given: GivenTensors) -> Variant:
    """The variant that has these `Variant.numbers` and tensors, as far as the ops know it."""
    coupled, clip, cell_clip, zoneout_cell, zoneout_hidden, carried, eps, *rest = numbers
    kinds = [list(ACTIVATIONS)[int(kind)] for kind in rest[::3]]
    layer_norm = cell_norm = None
    dropout_on = "hidden"
    if given.gate_masks is not None:
        dropout_on = "gates"
    if given.candidate_mask is not None:
        dropout_on = "candidate"
    if given.norm_gates is not None:
        layer_norm = "joint" if given.norm_gates.shape[1] == 1 else "separate"
    if given.norm_cell is not None:
        cell_norm = "carried" if carried else "output"
    return Variant(
        peephole=given.peephole is not None,
        coupled=[None, "input", "forget"][int(coupled)],
        clip=clip or None,
        cell_clip=cell_clip or None,
        activations=[
            Activation(*values) for values in zip(kinds, rest[1::3], rest[2::3], strict=True)
        ],
        layer_norm=layer_norm,
        cell_norm=cell_norm,
        norm_eps=eps,
        dropout_on=dropout_on,
        zoneout_cell=zoneout_cell,
        zoneout_hidden=zoneout_hidden,
        input_gate=given.input_gate is not None,
    )


def given_tensors(variant: Variant, tensors: LayerTensors) -> GivenTensors:
    """The tensors of a variant, as its ops take them."""
    peephole, norm_gates, norm_cell, input_gate, recurrent, cell_zoneout, hidden_zoneout, *_ = (
        tensors
    )
    on = variant.dropout_on
    return GivenTensors(
        peephole,
        norm_gates,
        norm_cell,
        input_gate,
        recurrent if on == "hidden" else None,
        recurrent if on == "gates" else None,
        recurrent if on == "candidate" else None,
        cell_zoneout,
        hidden_zoneout,
    )


def forward(
    layer: Layer,
    variant: Variant,
    tensors: LayerTensors,
    save_cell: bool,
    save_gates: bool,
    recorded: bool | None = None,
) -> VariantForwarded:
    """One layer: output, h_n, c_n, cell, gates, products. `recorded`: see `reduced_precision`."""
    layer = layer._replace(reset=dense(layer.reset))
    op = _recorded_forward if recording() else _forward
    of_variant = given_tensors(variant, tensors)
    reduced = reduced_precision(layer.input, recorded)
    return op(*layer, *of_variant, variant.numbers, save_cell, save_gates, reduced)


def of_op(layer: Layer, *arguments: Any) -> tuple[Layer, Variant, LayerTensors, bool, bool, bool]:
    """The arguments of `forward` from those of its op."""
    *tensors, numbers, save_cell, save_gates, reduced = arguments
    given = GivenTensors(*tensors)
    masks = (given.hidden_mask, given.gate_masks, given.candidate_mask)
    of_layer = LayerTensors(
        given.peephole,
        given.norm_gates,
        given.norm_cell,
        given.input_gate,
        next((mask for mask in masks if mask is not None), None),
        given.zoneout_cell,
        given.zoneout_hidden,
        None,
        None,
    )
    return layer, variant_of(numbers, given), of_layer, save_cell, save_gates, reduced


@fake_of("_variant_forward", Layer)
def _variant_forward_shapes(layer: Layer, *arguments: Any) -> VariantForwarded:
    *tensors, _, save_cell, save_gates, _ = arguments
    norm_gates = GivenTensors(*tensors).norm_gates
    output, h_n, c_n, cell, gates = forward_shapes(layer, save_cell, save_gates)
    products = gates.new_empty(0)
    if save_gates and norm_gates is not None:
        *rows, directions, four, width = gates.shape
        products = gates.new_empty((*rows, directions, norm_gates.shape[1], four * width))
    return output, h_n, c_n, cell, gates, products


def backward(
    call: LayerBackward,
    variant: Variant,
    tensors: LayerTensors,
    products: Tensor,
    reduced: bool,
) -> VariantBackward:
    """One layer: the gradients that VariantBackward lists."""
    *first, reset, cell, gates = call
    of_variant = given_tensors(variant, tensors)
    results = (cell, gates, products)
    return _backward(*first, dense(reset), *of_variant, variant.numbers, *results, reduced)


@fake_of("_variant_backward")
def _variant_backward_shapes(*arguments: Any) -> VariantBackward:
    fields = len(GivenTensors._fields)
    *rest, _, cell, gates, _, _ = arguments
    of_call, given = rest[:-fields], GivenTensors(*rest[-fields:])
    results = backward_shapes(LayerBackward._make([*of_call, cell, gates]))
    nothing = cell.new_empty(0)
    directions, width = gates.shape[-3], gates.shape[-1]
    separate = given.norm_gates is not None and given.norm_gates.shape[1] == 2
    parameters = (given.peephole, given.norm_gates, given.norm_cell)
    adds_up = any(value is not None for value in parameters)
    return (
        *results,
        nothing if given.input_gate is None else cell.new_empty(cell.shape),
        gates.new_empty(gates.shape) if separate else nothing.clone(),
        gates.new_empty((directions, PARAMETER_SUMS, width)) if adds_up else nothing.clone(),
    )
