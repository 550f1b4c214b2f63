"""The equations of every variant in plain torch, one step at a time.

Slow, and differentiable to any order by torch itself, on any device: the oracle of the tests, the
formula behind second derivatives and forward mode, and what computes the variants that have no
kernel. The order of a step is that of Variant's docstring.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._layer import DirectionWeights, Layer, by_direction
from ._reference import Rows, in_time, input_product, joined, recurrent_product, times
from ._variants import Activation, LayerTensors, Variant


def sequence_forward(
    layer: Layer, variant: Variant, tensors: LayerTensors
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One layer: output, h_n, c_n, cell and gates, as csrc/schema.cpp says."""
    dtype = layer.input.dtype
    if dtype.itemsize == 2:  # arithmetic in float32, as in the kernels
        layer, tensors = _to(layer, torch.float32), _to(tensors, torch.float32)
    rows = Rows.of(layer)
    x = rows.within(rows.pad(layer.input))
    directions = []
    for d, w in enumerate(by_direction(layer.weights, layer.bidirectional)):
        own = _of_direction(tensors, d, 1 + layer.bidirectional, variant)
        h = x.new_zeros(x.shape[1], w.w_hh.shape[1]) if layer.h0 is None else layer.h0[d]
        c = x.new_zeros(x.shape[1], w.w_hh.shape[0] // 4) if layer.c0 is None else layer.c0[d]
        from_input = input_part(x, w, variant, own)
        steps = []
        for t in times(rows.steps, d):
            at = _at_step(own, t)
            h_before, c_before = rows.only(t, h), rows.only(t, c)
            if layer.reset is not None:
                resets = layer.reset[t].unsqueeze(-1)
                h_before = torch.where(resets, 0 if at.reset_h is None else at.reset_h, h_before)
                c_before = torch.where(resets, 0 if at.reset_c is None else at.reset_c, c_before)
            h_after, c_after, gates = step(from_input[t], h_before, c_before, w, variant, at)
            h, c = rows.keep(t, h_after, h), rows.keep(t, c_after, c)
            steps.append([rows.only(t, seen) for seen in (h_after, c_after, gates.flatten(-2))])
        directions.append((h, c, *in_time(steps, d)))
    results = joined(rows, directions)
    return tuple(value.to(dtype) for value in results)  # type: ignore[return-value]


def input_part(x: Tensor, w: DirectionWeights, variant: Variant, own: LayerTensors) -> Tensor:
    """What the input, (T, N, I), has part in z: biases too, unless a joint norm comes first."""
    z = input_product(x, w)
    if variant.layer_norm == "joint":
        return z
    if variant.layer_norm == "separate":
        z = _normalised(z, own.norm_gates[0], variant)
    return z if w.b_ih is None or w.b_hh is None else z + (w.b_ih + w.b_hh)


def step(
    from_input: Tensor,
    h: Tensor,
    c: Tensor,
    w: DirectionWeights,
    variant: Variant,
    at: LayerTensors,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of one direction: h, c and gates (N, 4, H).

    Args:
        from_input: `input_part` of the step, (N, 4*H).
        at: what the variant adds, without the axes of steps and directions.
    """
    z = preactivations(from_input, h, w, variant, at)
    of_gates, of_candidate, of_cell = variant.each_activation
    p_i, p_f, p_o = (0, 0, 0) if at.peephole is None else at.peephole
    i_mask = at.recurrent if variant.dropout_on == "candidate" else None

    def activate(activation: Any, value: Tensor) -> Tensor:
        if variant.clip is not None:
            value = value.clamp(-variant.clip, variant.clip)
        return activated(activation, value)

    z_i, z_f, z_g, z_o = z.unflatten(-1, (4, -1)).unbind(-2)
    g = activate(of_candidate, z_g)
    if variant.input_gate:
        i = at.input_gate.expand_as(g)
    elif variant.coupled != "input":
        i = activate(of_gates, z_i + p_i * c)
    if variant.coupled != "forget":
        f = activate(of_gates, z_f + p_f * c)
    if variant.coupled == "input":
        i = 1 - f
    elif variant.coupled == "forget":
        f = 1 - i
    new = f * c + i * (g if i_mask is None else g * i_mask)
    if variant.cell_clip is not None:
        new = new.clamp(-variant.cell_clip, variant.cell_clip)
    seen = new
    if variant.cell_norm is not None:
        gain, bias = at.norm_cell
        seen = F.layer_norm(new, new.shape[-1:], gain, bias, variant.norm_eps)
        if variant.cell_norm == "carried":
            new = seen
    o = activate(of_gates, z_o + p_o * new)
    hidden = o * activated(of_cell, seen)
    if w.w_hr is not None:
        hidden = hidden @ w.w_hr.mT
    hidden = zoned_out(hidden, h, at.zoneout_hidden, variant.zoneout_hidden)
    new = zoned_out(new, c, at.zoneout_cell, variant.zoneout_cell)
    return hidden, new, torch.stack([i, f, g, o], -2)


def preactivations(
    from_input: Tensor, h: Tensor, w: DirectionWeights, variant: Variant, at: LayerTensors
) -> Tensor:
    """z, (N, 4*H), before peepholes."""
    if at.recurrent is None or variant.dropout_on == "candidate":
        recurrent = recurrent_product(h, w)
    elif variant.dropout_on == "hidden":
        recurrent = recurrent_product(h * at.recurrent, w)
    else:  # a mask for each gate
        of_gates = w.w_hh.unflatten(0, (4, -1))
        recurrent = torch.einsum("ngp,ghp->ngh", h.unsqueeze(-2) * at.recurrent, of_gates)
        recurrent = recurrent.flatten(-2)
    if variant.layer_norm == "joint":
        z = _normalised(from_input + recurrent, at.norm_gates[0], variant)
        return z if w.b_ih is None or w.b_hh is None else z + (w.b_ih + w.b_hh)
    if variant.layer_norm == "separate":
        recurrent = _normalised(recurrent, at.norm_gates[1], variant)
    return from_input + recurrent


def _normalised(z: Tensor, gain: Tensor, variant: Variant) -> Tensor:
    return F.layer_norm(z, z.shape[-1:], gain, None, variant.norm_eps)


def zoned_out(new: Tensor, old: Tensor, mask: Tensor | None, probability: float) -> Tensor:
    """A state after zoneout: by the mask, or where there is none its expectation."""
    if mask is None and probability == 0:
        return new
    keep = probability if mask is None else mask
    return keep * old + (1 - keep) * new


def activated(activation: Activation, z: Tensor) -> Tensor:
    """An activation, as ONNX defines it."""
    name, alpha, beta = activation
    if name == "sigmoid":
        return z.sigmoid()
    if name == "tanh":
        return z.tanh()
    if name == "relu":
        return z.relu()
    if name == "affine":
        return alpha * z + beta
    if name == "leakyrelu":
        return torch.where(z < 0, alpha * z, z)
    if name == "thresholdedrelu":
        return torch.where(z > alpha, z, 0)
    if name == "scaledtanh":
        return alpha * (beta * z).tanh()
    if name == "hardsigmoid":
        return (alpha * z + beta).clamp(0, 1)
    if name == "elu":
        return torch.where(z < 0, alpha * z.clamp(max=0).expm1(), z)
    if name == "softsign":
        return z / (1 + z.abs())
    return F.softplus(z)


def _of_direction(tensors: LayerTensors, d: int, directions: int, variant: Variant) -> LayerTensors:
    """What of a layer's tensors belongs to direction d, without their axis of directions."""

    def features(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.unflatten(-1, (directions, -1)).select(-2, d)

    def parameter(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[d]

    recurrent = tensors.recurrent
    if variant.dropout_on != "gates":
        recurrent = features(recurrent)
    elif recurrent is not None:
        recurrent = recurrent.select(-3, d)
    return LayerTensors(
        parameter(tensors.peephole),
        parameter(tensors.norm_gates),
        parameter(tensors.norm_cell),
        features(tensors.input_gate),
        recurrent,
        features(tensors.zoneout_cell),
        features(tensors.zoneout_hidden),
        tensors.reset_h,
        tensors.reset_c,
    )


def _at_step(of_direction: LayerTensors, t: int) -> LayerTensors:
    peephole, norm_gates, norm_cell, *by_step = of_direction
    return LayerTensors(
        peephole,
        norm_gates,
        norm_cell,
        *(None if value is None else value[t if value.shape[0] > 1 else 0] for value in by_step),
    )


def _to(values: Any, dtype: torch.dtype) -> Any:
    """A named tuple whose floating-point tensors have another dtype."""

    def converted(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(dtype) if value.is_floating_point() else value
        if isinstance(value, (list, tuple)):
            return [converted(one) for one in value]
        return value

    return type(values)(*(converted(value) for value in values))
