"""The raw ops of variants (see csrc/schema.cpp), each with the shapes of its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._layer import Layer, LayerBackward
from ._ops import Forwarded, backward_shapes, dense, fake_of, forward_shapes
from ._torch_private import recording
from ._variants import ACTIVATIONS, Activation, LayerTensors, Variant

# gradients of the pre-activations, of h0, of c0, of every h_t with projection, of i from outside
VariantBackward = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

# options and the tensors of a variant; results as of the ops of a plain layer in _ops.py
_forward: Callable[..., Forwarded] = torch.ops.lstm_kernels._variant_forward.default
_recorded_forward: Callable[..., Forwarded] = torch.ops.lstm_kernels.variant_forward.default
_backward: Callable[..., VariantBackward] = torch.ops.lstm_kernels._variant_backward.default
_KINDS = list(ACTIVATIONS)  # in the order of ActivationKind of csrc/cpu/kernels.h


def options(variant: Variant) -> list[float]:
    """What of a variant is a number, in the order of csrc/schema.cpp."""
    coupled = [None, "input", "forget"].index(variant.coupled)
    numbers = [
        float(coupled),
        variant.clip or 0.0,
        variant.cell_clip or 0.0,
        variant.zoneout_cell,
        variant.zoneout_hidden,
    ]
    for name, alpha, beta in variant.each_activation:
        numbers += [float(_KINDS.index(name)), alpha, beta]
    return numbers


def variant_of(numbers: Sequence[float], *, on_candidate: bool) -> Variant:
    """The variant that has these options, as far as the ops know it."""
    coupled, clip, cell_clip, zoneout_cell, zoneout_hidden, *rest = numbers
    kinds = [_KINDS[int(kind)] for kind in rest[::3]]
    return Variant(
        coupled=[None, "input", "forget"][int(coupled)],
        clip=clip or None,
        cell_clip=cell_clip or None,
        activations=[
            Activation(*values) for values in zip(kinds, rest[1::3], rest[2::3], strict=True)
        ],
        dropout_on="candidate" if on_candidate else "hidden",
        zoneout_cell=zoneout_cell,
        zoneout_hidden=zoneout_hidden,
    )


def given_tensors(variant: Variant, tensors: LayerTensors) -> tuple[Tensor | None, ...]:
    """The tensors of a variant, in the order of csrc/schema.cpp."""
    recurrent, on_candidate = tensors.recurrent, variant.dropout_on == "candidate"
    return (
        tensors.peephole,
        tensors.input_gate,
        None if on_candidate else recurrent,
        recurrent if on_candidate else None,
        tensors.zoneout_cell,
        tensors.zoneout_hidden,
    )


def forward(
    layer: Layer, variant: Variant, tensors: LayerTensors, save_cell: bool, save_gates: bool
) -> Forwarded:
    """One layer: output, h_n, c_n, cell and gates."""
    layer = layer._replace(reset=dense(layer.reset))
    op = _recorded_forward if recording() else _forward
    of_variant = given_tensors(variant, tensors)
    return op(*layer, *of_variant, options(variant), save_cell, save_gates)


def of_op(layer: Layer, *arguments: Any) -> tuple[Layer, Variant, LayerTensors, bool, bool]:
    """The arguments of `forward` from those of its op."""
    peephole, input_gate, hidden_mask, candidate_mask, zoneout_c, zoneout_h, *rest = arguments
    numbers, save_cell, save_gates = rest
    on_candidate = candidate_mask is not None
    recurrent = candidate_mask if on_candidate else hidden_mask
    of_steps = (input_gate, recurrent, zoneout_c, zoneout_h)
    tensors = LayerTensors(peephole, None, None, *of_steps, None, None)
    variant = dataclasses.replace(
        variant_of(numbers, on_candidate=on_candidate),
        peephole=peephole is not None,
        input_gate=input_gate is not None,
    )
    return layer, variant, tensors, save_cell, save_gates


@fake_of("_variant_forward", Layer)
def _variant_forward_shapes(layer: Layer, *arguments: Any) -> Forwarded:
    *_, save_cell, save_gates = arguments
    return forward_shapes(layer, save_cell, save_gates)


def backward(call: LayerBackward, variant: Variant, tensors: LayerTensors) -> VariantBackward:
    """One layer: gradients of the pre-activations, h0, c0, every h_t (with projection) and of i."""
    *first, reset, cell, gates = call
    of_variant = given_tensors(variant, tensors)
    return _backward(*first, dense(reset), *of_variant, options(variant), cell, gates)


@fake_of("_variant_backward")
def _variant_backward_shapes(*arguments: Any) -> VariantBackward:
    *of_call, _, input_gate, _, _, _, _, _, cell, gates = arguments
    results = backward_shapes(LayerBackward._make([*of_call, cell, gates]))
    return *results, cell.new_empty((0,) if input_gate is None else cell.shape)
