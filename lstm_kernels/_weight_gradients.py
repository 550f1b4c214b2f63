"""Gradients of a layer's weights and input: sums over all steps, as a few large matrix products.

On the CPU the ops compute them, at torch's speed or above with many rows, and faster with few.
There torch gathers, adds up biases and calls one product at a time. Plain torch computes them on
other devices, where the result is differentiated again, and for 16-bit types that the CPU can
multiply.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _ops, _torch_private
from ._layer import OUTPUT_GATE, Layer
from ._reference import Rows

# 16-bit types that this CPU has instructions to multiply matrices of, as torch names these.
_MULTIPLIED = [
    dtype
    for dtype, instructions in (
        (torch.bfloat16, ("avx512_bf16", "amx_bf16", "bf16")),
        (torch.float16, ("avx512_fp16", "amx_fp16", "fp16_arith")),
    )
    if any(torch.cpu.get_capabilities().get(name, False) for name in instructions)
]


def product(a: Tensor, b: Tensor, tf32: bool = False) -> Tensor:
    """a @ b, in float32 where that is the faster way to multiply 16-bit numbers, or in TF32."""
    if tf32:
        return _ops.tf32_product(a, b)
    if a.is_cpu and a.itemsize == 2 and a.dtype not in _MULTIPLIED:
        return (a.float() @ b.float()).to(a.dtype)
    return a @ b


def gradients(
    grad_z: Tensor,
    layer: Layer,
    output: Tensor,
    wanted: Sequence[bool],
    w_ih: Sequence[Tensor] | None,
    by_ops: bool,
    reduced_precision: bool = False,
    of_input: Tensor | None = None,
    gate_masks: Tensor | None = None,
) -> tuple[list[_ops.WeightGradients | None], Tensor | None]:
    """Gradients of one layer's weights and input, from those of its pre-activations.

    Args:
        grad_z: the gradient of the pre-activations, (T, N, D, 4, H), or packed (R, D, 4, H).
        output: as in csrc/schema.cpp.
        wanted: the directions whose weights' gradients are.
        w_ih: of every direction, where the input's gradient is wanted.
        by_ops: whether the ops may compute them, where they are the faster ones.
        reduced_precision: as in csrc/schema.cpp, where by_ops.
        of_input: the gradient of the input's product, where that is not grad_z.
        gate_masks: as in csrc/schema.cpp.

    Returns:
        For each direction the gradients of w_ih (4*H, I), of w_hh (4*H, P) and, alike, of b_ih and
        b_hh (4*H); and the gradient of the input.
    """
    by_ops_here = by_ops and grad_z.is_cpu and grad_z.dtype not in _MULTIPLIED
    within = _rows_within(layer.lengths, layer.input.shape[0])
    tf32 = by_ops and _ops.multiplies_in_tf32(grad_z, reduced_precision)

    def of_weights(d: int) -> _ops.WeightGradients:
        if by_ops_here and of_input is None:
            return _ops.weight_gradients(grad_z, layer, output, d, gate_masks, reduced_precision)
        if by_ops_here and of_input is not None:
            # The op makes both products of one gradient: the other one gets a single column.
            one_input = layer._replace(input=layer.input[..., :1])
            one_hidden, no_state = output[..., : grad_z.shape[-3]], layer._replace(h0=None)
            _, of_w_hh, of_bias = _ops.weight_gradients(grad_z, one_input, output, d, gate_masks)
            of_w_ih, _, _ = _ops.weight_gradients(of_input, no_state, one_hidden, d)
            return of_w_ih, of_w_hh, of_bias
        return _direction_in_torch(grad_z, layer, output, d, within, tf32, of_input, gate_masks)

    grad_input = None
    if w_ih is not None:
        z = grad_z if of_input is None else of_input
        grad_input = (
            _ops.input_gradient(z, w_ih, layer.lengths, reduced_precision)
            if by_ops_here
            else _input_in_torch(z, w_ih, within, tf32)
        )
    return [of_weights(d) if want else None for d, want in enumerate(wanted)], grad_input


def weight_gradients(
    grad_z: Tensor,
    layer: Layer,
    output: Tensor,
    direction: int,
    gate_masks: Tensor | None = None,
) -> _ops.WeightGradients:
    """The op of this name in plain torch, in full precision."""
    within = _rows_within(layer.lengths, layer.input.shape[0])
    z = _zero_past_ends(grad_z, layer.lengths)
    return _direction_in_torch(z, layer, output, direction, within, gate_masks=gate_masks)


def input_gradient(
    grad_z: Tensor, w_ih: Sequence[Tensor], lengths: Tensor | None, *_: bool
) -> Tensor:
    """The op of this name in plain torch, in full precision."""
    within = _rows_within(lengths, grad_z.shape[0])
    return _input_in_torch(_zero_past_ends(grad_z, lengths), w_ih, within)


def _zero_past_ends(grad_z: Tensor, lengths: Tensor | None) -> Tensor:
    """Rows past the ends are zero already; here they have no derivative, either."""
    if lengths is None:
        return grad_z
    past = torch.arange(grad_z.shape[0], device=grad_z.device)[:, None] >= lengths
    return grad_z.masked_fill(past[..., None, None, None], 0)


def _rows(z: Tensor, within: Tensor | None) -> Tensor:
    """The rows of (T, N, ...) or (R, ...) as (R, ...), without what `within` leaves out."""
    return z if within is None else z.index_select(0, within)


def _direction_in_torch(
    grad_z: Tensor,
    layer: Layer,
    output: Tensor,
    direction: int,
    within: Tensor | None,
    tf32: bool = False,
    of_input: Tensor | None = None,
    gate_masks: Tensor | None = None,
) -> _ops.WeightGradients:
    directions = grad_z.shape[-3]
    z = grad_z.select(-3, direction).flatten(-2)
    rows = _rows(z.flatten(0, -2), within)
    operands = [(layer.h0, output)]
    if gate_masks is not None:
        operands = [
            masked_operands(mask.flatten(2), layer, output, directions)
            for mask in gate_masks.unbind(-2)
        ]
    of_w_hh = [
        _recurrent_gradient(
            own,
            _rows(own.flatten(0, -2), within),
            hidden.unflatten(-1, (directions, -1)).select(-2, direction),
            None if h0 is None else h0[direction],
            direction == 1,
            *layer.ragged(),
            within,
            tf32,
        )
        for own, (h0, hidden) in zip(z.chunk(len(operands), -1), operands, strict=True)
    ]
    rows_of_input = rows
    if of_input is not None:
        rows_of_input = _rows(of_input.select(-3, direction).flatten(-2).flatten(0, -2), within)
    of_w_ih = _input_weight_gradient(rows_of_input, layer.input, layer.lengths, within, tf32)
    return of_w_ih, of_w_hh[0] if gate_masks is None else torch.cat(of_w_hh), rows.sum(0)


def _rows_within(lengths: Tensor | None, steps: int) -> Tensor | None:
    """Rows t * N + n of the steps before each end, so that products need no others.

    None without lengths, and where their number cannot be known: on a device, without waiting for
    it, in a traced graph, under vmap.
    """
    if (
        lengths is None
        or lengths.device.type != "cpu"
        or _torch_private.recording()
        or _torch_private.is_wrapped(lengths)
    ):
        return None
    rows: Tensor = (torch.arange(steps)[:, None] < lengths).flatten().nonzero().squeeze(1)
    return rows


def _input_in_torch(
    grad_z: Tensor, w_ih: Sequence[Tensor], within: Tensor | None, tf32: bool = False
) -> Tensor:
    rows = _rows(grad_z.flatten(-3).flatten(0, -2), within)
    products = product(rows, w_ih[0] if len(w_ih) == 1 else torch.cat(list(w_ih)), tf32)
    steps = grad_z.shape[:-3]  # (T, N), or (R) packed
    if within is not None:
        padded = products.new_zeros(steps[0] * steps[1], products.shape[1])
        products = padded.index_copy(0, within, products)
    return products.reshape(*steps, products.shape[1])


def _input_weight_gradient(
    rows: Tensor, x: Tensor, lengths: Tensor | None, within: Tensor | None, tf32: bool
) -> Tensor:
    """Gradient of w_ih, (4*H, I), from the rows (R, 4*H) and the input, (T, N, I) or (R, I)."""
    inputs = x.reshape(-1, x.shape[-1])
    if within is not None:
        inputs = inputs.index_select(0, within)
    elif lengths is not None:  # z is zero past the ends; the input may be anything, NaN included
        past = torch.arange(x.shape[0], device=x.device)[:, None] >= lengths
        inputs = inputs.masked_fill(past.flatten().unsqueeze(-1), 0)
    return product(rows.mT, inputs, tf32)


def masked_operands(
    mask: Tensor, layer: Layer, output: Tensor, directions: int
) -> tuple[Tensor | None, Tensor]:
    """h0 and the output as the recurrent product saw them: times a mask, (1 or T, N, D*P)."""
    h0, rows = layer.h0, Rows.of(layer)
    if mask.shape[0] == 1 and rows.packed is None:
        of_h0 = mask[0].unflatten(-1, (directions, -1)).transpose(0, 1)
        return None if h0 is None else h0 * of_h0, output * mask
    steps = mask.expand(rows.steps, *mask.shape[1:]).unflatten(-1, (directions, -1))
    # The state after a step meets the mask of the step that follows it in its direction.
    following = [steps[:, :, 0].roll(-1, 0), steps[:, :, -1].roll(1, 0)][:directions]
    hidden = output * rows.unpad(torch.cat(following, -1))
    if h0 is None:
        return None, hidden
    first = [steps[0, :, 0]]
    if directions == 2:
        last = torch.full((mask.shape[1],), rows.steps - 1, device=mask.device)
        if rows.active is not None:
            last = (rows.active.sum(0) - 1).clamp(min=0)
        first.append(steps[last, torch.arange(mask.shape[1], device=mask.device), 1])
    return h0 * torch.stack(first), hidden


def projection_gradient(
    grad_h: Tensor, gates: Tensor, cell: Tensor, by_ops: bool, reduced_precision: bool
) -> Tensor:
    """Gradient of w_hr, (P, H): h_t = W_hr (o * tanh(c_t)). Gates are (..., 4, H)."""
    unprojected = gates.select(-2, OUTPUT_GATE) * cell.tanh()
    tf32 = by_ops and _ops.multiplies_in_tf32(cell, reduced_precision)
    return product(grad_h.flatten(0, -2).mT, unprojected.flatten(0, -2), tf32)


def _recurrent_gradient(
    z: Tensor,
    rows: Tensor,
    h: Tensor,
    h0: Tensor | None,
    reverse: bool,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    within: Tensor | None,
    tf32: bool,
) -> Tensor:
    """Gradient of w_hh, (4*H, P): every row of z meets the hidden state that came before it.

    Args:
        z: the gradient of the pre-activations, (T, N, 4*H), or packed (R, 4*H).
        rows: those of z as (R, 4*H), without what `within` leaves out.
        h: the hidden state after each step, (T, N, P) or (R, P).
        h0: (N, P), or None for zeros.
        reverse: whether the direction runs from the last step to the first.
        within: the rows t * N + n within the lengths; None: all.
    """
    if batch_sizes is not None:
        batch = int(batch_sizes[0]) if h0 is None else h0.shape[0]  # no data where a graph asks
        first, later, before = _split_packed(z, h, reverse, batch_sizes, batch)
    else:
        first = _first_of_reverse(z, lengths) if reverse else z[0]
        resets = None if reset is None else reset[1:]
        if within is None:
            later, before = (z[:-1], h[1:]) if reverse else (z[1:], h[:-1])
        else:
            batch = z.shape[1]
            # Reversed, the h after a sequence's last step is there, and zero.
            chosen = within[within < z.shape[0] * batch - batch if reverse else within >= batch]
            later = rows[: len(chosen)] if reverse else rows[len(rows) - len(chosen) :]
            neighbours = chosen + batch if reverse else chosen - batch
            before = h.flatten(0, 1).index_select(0, neighbours)
            resets = None if reset is None else reset.flatten().index_select(0, chosen)
        if reset is not None and resets is not None:
            before = before.masked_fill(resets.unsqueeze(-1), 0)
            h0 = None if h0 is None else h0.masked_fill(reset[0].unsqueeze(-1), 0)
    of_later = product(later.flatten(0, -2).mT, before.flatten(0, -2), tf32)
    return of_later if h0 is None else of_later + product(first.mT, h0, tf32)


def _first_of_reverse(z: Tensor, lengths: Tensor | None) -> Tensor:
    """The rows at which the reverse direction starts, (N, 4*H)."""
    if lengths is None:
        return z[-1]
    last = (lengths - 1).clamp(min=0)  # an empty sequence has no gradient at any step
    return z.gather(0, last[None, :, None].expand(1, -1, z.shape[2])).squeeze(0)


def _split_packed(
    z: Tensor, h: Tensor, reverse: bool, batch_sizes: Tensor, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of z that start from h0, rows that do not, and the hidden state before the latter."""
    # All on the device of z, which is never waited for.
    offsets = _ops.pack_offsets(batch_sizes, _torch_private.unwrapped(z))
    sizes = offsets.diff()
    rows = torch.arange(z.shape[0], device=z.device)
    # Row r of a later step belongs to the same sequence as row r - batch_sizes[t - 1].
    later = rows[batch:]
    step = torch.searchsorted(offsets, later, right=True) - 1
    earlier = later - sizes.index_select(0, step - 1)
    if not reverse:
        return z[:batch], z[batch:], h.index_select(0, earlier)
    before = torch.zeros_like(h).index_copy(0, earlier, h[batch:])
    # Sequence n ends at the last step with more than n rows; batch_sizes never increase.
    sequences = rows[:batch]
    lengths = torch.searchsorted(-sizes, -(sequences + 1), right=True)
    last = offsets.index_select(0, lengths - 1) + sequences
    return z.index_select(0, last), z, before
