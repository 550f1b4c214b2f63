"""A layer of a variant, differentiable: which implementation computes it.

The ops compute what `has_kernel` says. The equations in plain torch compute the rest: on
every device, under every transform, and derivatives of derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import (
    _autograd,
    _batching,
    _episodes,
    _ops,
    _torch_private,
    _variant_ops,
    _variants_reference,
)
from ._layer import OUTPUT_GATE, Layer, LayerBackward, by_direction
from ._reference import Rows, states_before
from ._variant_ops import OF_BIAS, OF_GAINS, OF_NORM_CELL, OF_PEEPHOLE
from ._variants import BoundVariant, Call, LayerTensors, Variant
from ._weight_gradients import gradients, masked_operands, product

Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
_LAYER_TENSORS = len(LayerTensors._fields)


def layer(
    bound: BoundVariant,
    index: int,
    call: Call,
    given: Layer,
    save_cell: bool,
    save_gates: bool,
    *,
    training: bool,
    recompute: bool,
) -> Results:
    """Layer `index` of a call: output, h_n, c_n, cell and gates, the last two if they are saved.

    recompute: where they are not, keep nothing else for the backward pass either.
    """
    tensors = bound.of_layer(index, given.input, call, training)
    arguments = (given, bound.variant, tensors, save_cell, save_gates)
    keep_all = save_cell or not recompute or not _wanted(given, tensors)
    if keep_all or _torch_private.transforms_active():
        return sequence(*arguments)
    # Masks are drawn already: the second run is the same without the generator's state.
    results: Any = checkpoint(sequence, *arguments, use_reentrant=False, preserve_rng_state=False)
    return results  # type: ignore[no-any-return]


def cell(
    bound: BoundVariant,
    training: bool,
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: h, c and gates. It is a sequence of length one."""
    h_size = w_hh.shape[1]
    call = Call(1, input.shape[0], h_size, h_size, 1, 1)
    bound.check(input, call, None)
    weights = [weight for weight in (w_ih, w_hh, b_ih, b_hh) if weight is not None]
    weights = bound.drop_weights(0, weights, 1, training)
    x, h, c = (value.unsqueeze(0) for value in (input, h0, c0))
    given = Layer(x, h, c, weights, b_ih is not None, False)
    h_n, _, c_n, _, gates = layer(
        bound, 0, call, given, False, True, training=training, recompute=False
    )
    return h_n.squeeze(0), c_n.squeeze(0), gates.squeeze(0).squeeze(1)


def sequence(
    given: Layer, variant: Variant, tensors: LayerTensors, save_cell: bool, save_gates: bool
) -> Results:
    """A layer of a variant: output, h_n, c_n, cell and gates; at least those that are saved."""
    wanted = _wanted(given, tensors)
    if tensors.reset_h is not None and not _torch_private.recording():
        results = _by_episodes(given, variant, tensors, save_cell, save_gates, wanted)
        if results is not None:
            return results
    if not has_kernel(given, variant, tensors, wanted):
        return _variants_reference.sequence_forward(given, variant, tensors)
    if _torch_private.recording() or not wanted:
        return _variant_ops.forward(given, variant, tensors, save_cell, save_gates)[:5]
    return differentiable(given, variant, tensors)


def _by_episodes(
    given: Layer,
    variant: Variant,
    tensors: LayerTensors,
    save_cell: bool,
    save_gates: bool,
    wanted: bool,
) -> Results | None:
    """A layer with states to reset to, or None where that has no kernel."""
    without = tensors._replace(reset_h=None, reset_c=None)
    if not has_kernel(given, variant, without, wanted):
        return None

    def run(episodes: Layer, own: LayerTensors) -> Results:
        return sequence(episodes, variant, own, save_cell, save_gates)

    results: Any = _episodes.variant_layer(run, given, tensors)
    return results  # type: ignore[no-any-return]


def differentiable(
    given: Layer,
    variant: Variant,
    tensors: LayerTensors,
    reduced_precision: bool | None = None,
) -> Results:
    """A layer of a variant, differentiable where it is not recorded into a graph, too.

    reduced_precision is as in _autograd.py.
    """
    if not has_kernel(given, variant, tensors, True):
        return _variants_reference.sequence_forward(given, variant, tensors)
    arguments = (reduced_precision, variant, *tensors, *given.flat())
    results = _autograd.apply(_VariantSequence, *arguments)
    output, h_n, c_n, cell, gates, _ = results
    return output, h_n, c_n, cell, gates


def has_kernel(given: Layer, variant: Variant, tensors: LayerTensors, wanted: bool) -> bool:
    """Whether the ops compute this call, with its gradient where that is `wanted`."""
    if (
        not _variant_ops.computes_on(given.input)
        or _torch_private.transforms_active()
        or _torch_private.forward_mode_active()
        or tensors.reset_h is not None
    ):
        return False
    if not wanted:
        return True
    masks = (tensors.recurrent, tensors.zoneout_cell, tensors.zoneout_hidden)
    if any(mask is not None and mask.requires_grad for mask in masks):
        return False
    # The backward op takes slopes from values: from each value only one can follow.
    names = [activation.name for activation in variant.each_activation]
    if any(
        alpha <= 0 and name in ("leakyrelu", "elu", "scaledtanh")
        for name, alpha, _ in variant.each_activation
    ):
        return False
    bounded = variant.clip is not None or variant.cell_clip is not None or "hardsigmoid" in names
    return not (bounded and given.input.itemsize == 2)  # rounding moves values onto bounds


def _wanted(given: Layer, tensors: LayerTensors) -> bool:
    return _autograd.wanted(given.input, given.h0, given.c0, *given.weights, *tensors)


class _VariantSequence(torch.autograd.Function):
    """One layer of a variant.

    Its arguments are reduced_precision, the variant, LayerTensors, and Layer.flat.
    """

    @staticmethod
    def forward(
        reduced_precision: bool | None, variant: Variant, *arguments: Any
    ) -> _variant_ops.VariantForwarded:
        tensors, layer = _split(arguments)
        return _variant_ops.forward(layer, variant, tensors, True, True, reduced_precision)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, outputs: Any) -> None:
        ctx.reduced_precision, ctx.variant, *arguments = inputs
        tensors, layer = _split(arguments)
        output, _, _, cell, gates, products = outputs
        has_biases, bidirectional, *of_layer = layer.flat()
        ctx.kind = has_biases, bidirectional
        ctx.mark_non_differentiable(products)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output, cell, gates, products, *tensors, *of_layer)

    @staticmethod
    @_batching.of_batched_gradients
    def backward(ctx: Any, *of_results: Tensor | None) -> Any:
        *grads, _ = of_results
        output, cell, gates, products, *saved = ctx.saved_tensors
        tensors = LayerTensors(*saved[:_LAYER_TENSORS])
        layer = Layer.of((*ctx.kind, *saved[_LAYER_TENSORS:]))
        if _autograd.differentiated():
            return None, None, *_pullback(ctx.variant, tensors, layer, grads)
        need_tensors, needs = _split(ctx.needs_input_grad[2:])
        reduced = _ops.reduced_precision(cell, ctx.reduced_precision)
        with _autograd.full_precision(cell):
            of_tensors, of_layer = _gradients(
                ctx.variant, tensors, layer, grads, output, cell, gates, products, needs, reduced
            )
        of_tensors = LayerTensors(
            *(value if need else None for value, need in zip(of_tensors, need_tensors, strict=True))
        )
        return None, None, *of_tensors, *of_layer.flat()


def _split(arguments: Sequence[Any]) -> tuple[LayerTensors, Layer]:
    """The variant's tensors and the layer of a Function's arguments."""
    tensors = LayerTensors(*arguments[:_LAYER_TENSORS])
    return tensors, Layer.of(arguments[_LAYER_TENSORS:])


def _pullback(
    variant: Variant, tensors: LayerTensors, layer: Layer, grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """All gradients, from the equations in plain torch, which can be differentiated again."""
    floating = [*tensors, layer.input, layer.h0, layer.c0, *layer.weights]

    def equations(*values: Any) -> Results:
        own = LayerTensors(*values[:_LAYER_TENSORS])
        input, h0, c0, *weights = values[_LAYER_TENSORS:]
        given = layer._replace(input=input, h0=h0, c0=c0, weights=weights)
        return _variants_reference.sequence_forward(given, variant, own)

    found = _autograd.pullback(equations, floating, grads)
    of_tensors, (input, h0, c0, *weights) = found[:_LAYER_TENSORS], found[_LAYER_TENSORS:]
    return [*of_tensors, *Layer(input, h0, c0, weights, None, None).flat()]


def _gradients(
    variant: Variant,
    tensors: LayerTensors,
    layer: Layer,
    grads: Sequence[Any],
    output: Tensor,
    cell: Tensor,
    gates: Tensor,
    products: Tensor,
    needs: Layer,
    reduced_precision: bool,
) -> tuple[LayerTensors, Layer]:
    """Gradients of a layer's arguments from those of its results, None where none is needed."""
    call = LayerBackward.of_layer(layer, grads, cell, gates)
    found = _variant_ops.backward(call, variant, tensors, products, reduced_precision)
    grad_z, grad_h0, grad_c0, grad_hidden, grad_gate, grad_input_product, parameters = found
    norms = variant.layer_norm is not None or variant.cell_norm is not None
    directions = by_direction(layer.weights, layer.bidirectional)
    needed = by_direction(needs.weights, layer.bidirectional)
    h0, hidden, gate_masks = layer.h0, output, None
    if tensors.recurrent is not None and variant.dropout_on == "hidden":
        h0, hidden = masked_operands(tensors.recurrent, layer, output, len(directions))
    elif variant.dropout_on == "gates":
        gate_masks = tensors.recurrent
    of_products, grad_input = gradients(
        grad_z,
        layer._replace(h0=h0),
        hidden,
        [any((need.w_ih, need.w_hh, need.b_ih, need.b_hh)) for need in needed],
        [w.w_ih for w in directions] if needs.input else None,
        by_ops=True,
        reduced_precision=reduced_precision and not cell.is_cpu,  # there variants ignore it
        of_input=grad_input_product if variant.layer_norm == "separate" else None,
        gate_masks=gate_masks,
    )
    projects = any(need.w_hr for need in needed)
    steps = _CellSteps(variant, tensors, layer, cell, gates) if projects else None
    of_weights: list[Tensor | None] = []
    for d, (w, need) in enumerate(zip(directions, needed, strict=True)):
        of_w_hr = None
        if need.w_hr and steps is not None:
            of_h = grad_hidden.unflatten(-1, (len(directions), -1)).select(-2, d)
            of_h = steps.rows.pad(of_h).flatten(0, 1)
            of_w_hr = product(of_h.mT, steps.unprojected(d).flatten(0, 1).to(of_h.dtype))
        of_w_ih, of_w_hh, of_bias = of_products[d] or (None, None, None)
        if norms:
            of_bias = parameters[d, OF_BIAS].flatten()
        of_weights += _autograd.of_needed(w, need, (of_w_ih, of_w_hh, of_bias), of_w_hr)
    of_peephole = of_norm_gates = of_norm_cell = None
    if tensors.peephole is not None:
        of_peephole = parameters[:, OF_PEEPHOLE]
    if tensors.norm_gates is not None:
        of_both = parameters[:, OF_GAINS].unflatten(1, (2, 4)).flatten(-2)
        of_norm_gates = of_both[:, -tensors.norm_gates.shape[1] :]
    if tensors.norm_cell is not None:
        of_norm_cell = parameters[:, OF_NORM_CELL]
    of_gate = None
    if tensors.input_gate is not None:
        of_gate = Rows.of(layer).pad(grad_gate)
        if tensors.input_gate.shape[0] == 1:
            of_gate = of_gate.sum(0, keepdim=True)
    of_parameters = (of_peephole, of_norm_gates, of_norm_cell)
    of_tensors = LayerTensors(*of_parameters, of_gate, None, None, None, None, None)
    return of_tensors, Layer(
        input=grad_input,
        h0=grad_h0 if needs.h0 else None,
        c0=grad_c0 if needs.c0 else None,
        weights=of_weights,
        has_biases=None,
        bidirectional=None,
    )


class _CellSteps:
    """The cell states of all steps, padded, as the gradient of w_hr needs them."""

    def __init__(
        self,
        variant: Variant,
        tensors: LayerTensors,
        layer: Layer,
        cell: Tensor,
        gates: Tensor,
    ) -> None:
        self.variant, self.tensors, self.layer = variant, tensors, layer
        self.rows = Rows.of(layer)
        # In float32 where they are narrower: these are long sums of rounded products.
        wide = torch.promote_types(cell.dtype, torch.float32)
        self.cell, self.gates = (self.rows.pad(value).to(wide) for value in (cell, gates))
        self.directions = 1 + layer.bidirectional

    def of(self, value: Tensor, d: int) -> Tensor:
        """The features of direction d."""
        own: Tensor = value.unflatten(-1, (self.directions, -1)).select(-2, d)
        return own

    def before(self, d: int) -> Tensor:
        """The cell state before each step, (T, N, H)."""
        cell, layer = self.of(self.cell, d), self.layer
        start = torch.zeros_like(cell[0]) if layer.c0 is None else layer.c0[d].to(cell.dtype)
        before = states_before(cell, start, d == 1, self.rows.active)
        if layer.reset is not None:
            before = before.masked_fill(layer.reset.unsqueeze(-1), 0)
        return before

    def updated(self, d: int) -> Tensor:
        """c~ of each step, before its norm and zoneout."""
        variant = self.variant
        zones_out = self.tensors.zoneout_cell is not None or variant.zoneout_cell > 0
        if not zones_out and variant.cell_norm != "carried":
            return self.of(self.cell, d)
        i, f, g, _ = self.gates.select(-3, d).unbind(-2)
        if self.tensors.recurrent is not None and variant.dropout_on == "candidate":
            g = g * self.of(self.tensors.recurrent, d)
        updated = f * self.before(d) + i * g
        bound = variant.cell_clip
        return updated if bound is None else updated.clamp(-bound, bound)

    def unprojected(self, d: int) -> Tensor:
        """o * a_cell(c~), with the norm of c~."""
        seen = self.updated(d)
        if self.tensors.norm_cell is not None:
            gain, bias = self.tensors.norm_cell[d].to(seen.dtype)
            seen = F.layer_norm(seen, seen.shape[-1:], gain, bias, self.variant.norm_eps)
        squashed = _variants_reference.activated(self.variant.each_activation[2], seen)
        return self.gates.select(-3, d).select(-2, OUTPUT_GATE) * squashed
