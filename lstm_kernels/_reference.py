"""The LSTM equations in plain torch, one step at a time.

Slow, and differentiable to any order by torch itself: the oracle of the tests, and the formula
behind second derivatives and forward-mode derivatives. Each function takes and returns what the op
of the same name in csrc/schema.cpp does.

    i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o)     z = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
    g       = tanh(z_g)
    c_t     = f * c_{t-1} + i * g
    h_t     = o * tanh(c_t), or W_hr (o * tanh(c_t)) where the layer projects

(Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber & Cummins 2000; projection of Sak,
Senior & Beaufays 2014.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._layer import DirectionWeights, Layer, LayerBackward, by_direction, kind_of


class Rows:
    """Which sequences take part in which step, and how to get padded steps from the op's rows."""

    def __init__(
        self,
        steps: int,
        batch_sizes: Tensor | None,
        lengths: Tensor | None,
        *states: Tensor | None,
    ) -> None:
        """`steps` is T, or R of packed rows, whose N a graph can know from a state, (D, N, ...)."""
        self.steps = steps
        self.active: Tensor | None = None  # (T, N) bool, or None where every row always takes part
        self.packed: Tensor | None = None  # (R) position of each packed row in (T * N)
        if batch_sizes is not None:
            self.steps = batch_sizes.shape[0]
            known = [state.shape[1] for state in states if state is not None]
            batch = torch.arange(
                known[0] if known else int(batch_sizes[0]), device=batch_sizes.device
            )
            self.active = batch < batch_sizes[:, None]
            self.packed = torch.nonzero_static(self.active.flatten(), size=steps).squeeze(1)
        elif lengths is not None:
            self.active = torch.arange(steps, device=lengths.device)[:, None] < lengths

    @classmethod
    def of(cls, layer: Layer) -> Rows:
        """The rows of a layer, on its device: batch_sizes are on the CPU in any case."""
        rows = cls(layer.input.shape[0], layer.batch_sizes, layer.lengths, layer.h0, layer.c0)
        return rows.to(layer.input.device)

    def to(self, device: torch.device) -> Rows:
        if self.active is not None:
            self.active = self.active.to(device)
        if self.packed is not None:
            self.packed = self.packed.to(device)
        return self

    def pad(self, rows: Tensor) -> Tensor:
        """(R, ...) to (T, N, ...); what is padded already passes through."""
        if self.packed is None or self.active is None:
            return rows
        steps, batch = self.active.shape
        padded = rows.new_zeros(steps * batch, *rows.shape[1:])
        return padded.index_copy(0, self.packed, rows).view(steps, batch, *rows.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """(T, N, ...) to the op's own layout."""
        if self.packed is None:
            return padded
        return padded.flatten(0, 1).index_select(0, self.packed)

    def within(self, padded: Tensor) -> Tensor:
        """(T, N, ...) with zeros where a row takes no part.

        Whatever stands there, NaN included, then has no effect on any derivative: a derivative of
        where() alone still is zero times that of what it leaves out.
        """
        if self.active is None:
            return padded
        absent = ~self.active
        return padded.masked_fill(absent.view(*absent.shape, *[1] * (padded.dim() - 2)), 0)

    def keep(self, step: int, new: Tensor, old: Tensor) -> Tensor:
        """`new` for the rows that take part in the step, `old` for the others."""
        if self.active is None:
            return new
        return torch.where(self.active[step].unsqueeze(-1), new, old)

    def only(self, step: int, state: Tensor) -> Tensor:
        """`state` of the rows that take part in the step, zero for the others."""
        return self.keep(step, state, torch.zeros_like(state))


def _zero_rows(state: Tensor, rows: Tensor | None) -> Tensor:
    return state if rows is None else state.masked_fill(rows.unsqueeze(-1), 0)


def input_product(x: Tensor, w: DirectionWeights) -> Tensor:
    """What the input contributes to the arguments of the gates, (..., 4*H)."""
    return x @ w.w_ih.mT


def recurrent_product(h: Tensor, w: DirectionWeights) -> Tensor:
    """What the hidden state contributes to them, (..., 4*H): variants change each apart."""
    return h @ w.w_hh.mT


def preactivations(x: Tensor, h: Tensor, w: DirectionWeights) -> Tensor:
    """The arguments of the gates, (..., 4, H), of steps on x (..., I) from h (..., P)."""
    z = input_product(x, w) + recurrent_product(h, w)
    if w.b_ih is not None and w.b_hh is not None:
        z = z + w.b_ih + w.b_hh
    by_gate: Tensor = z.unflatten(-1, (4, -1))
    return by_gate


def states_before(states: Tensor, first: Tensor, reverse: bool, active: Tensor | None) -> Tensor:
    """The state before each step of a direction, (T, N, ...), from that after each.

    Args:
        first: the state before a sequence's first step, (N, ...).
        active: (T, N) bool, which rows take part in which step; None: all.
    """
    if not reverse:
        return torch.cat([first.unsqueeze(0), states[:-1]])
    before = torch.cat([states[1:], first.unsqueeze(0)])
    if active is None:
        return before
    # A sequence's first step is its last one in time.
    starts = active & ~torch.cat([active[1:], torch.zeros_like(active[:1])])
    return torch.where(starts.unsqueeze(-1), first, before)


def _gates(x: Tensor, h: Tensor, w: DirectionWeights) -> Tensor:
    """Activated i, f, g, o of one step, (N, 4, H)."""
    i, f, g, o = preactivations(x, h, w).unbind(-2)
    return torch.stack([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], -2)


def advance(gates: Tensor, c: Tensor, w_hr: Tensor | None) -> tuple[Tensor, Tensor]:
    """The states after a step, from its gates and the cell state before it."""
    i, f, g, o = gates.unbind(-2)
    c = f * c + i * g
    h = o * c.tanh()
    return (h if w_hr is None else h @ w_hr.mT), c


def retreat(
    grad_h: Tensor,
    grad_c: Tensor,
    grad_gates: Tensor | None,
    gates: Tensor,
    c: Tensor,
    c_before: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of a step's pre-activations (N, 4, H) and of the cell state before it.

    `grad_h` is that of o * tanh(c), before any projection.
    """
    i, f, g, o = gates.unbind(-2)
    tanh_c = c.tanh()
    grad_c = grad_c + grad_h * o * (1 - tanh_c * tanh_c)
    grads = torch.stack([grad_c * g, grad_c * c_before, grad_c * i, grad_h * tanh_c], -2)
    if grad_gates is not None:
        grads = grads + grad_gates
    slopes = torch.stack([i * (1 - i), f * (1 - f), 1 - g * g, o * (1 - o)], -2)
    return grads * slopes, grad_c * f


def sequence_forward(layer: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One layer: output, h_n, c_n, cell and gates."""
    rows = Rows.of(layer)
    x = rows.within(rows.pad(layer.input))
    directions = []
    for d, w in enumerate(by_direction(layer.weights, layer.bidirectional)):
        hidden_size, h_size = w.w_hh.shape[0] // 4, w.w_hh.shape[1]
        h = x.new_zeros(x.shape[1], h_size) if layer.h0 is None else layer.h0[d]
        c = x.new_zeros(x.shape[1], hidden_size) if layer.c0 is None else layer.c0[d]
        steps = []
        for t in times(rows.steps, d):
            resets = None if layer.reset is None else layer.reset[t]
            h_before = _zero_rows(rows.only(t, h), resets)
            c_before = _zero_rows(rows.only(t, c), resets)
            gates = _gates(x[t], h_before, w)
            h_after, c_after = advance(gates, c_before, w.w_hr)
            h, c = rows.keep(t, h_after, h), rows.keep(t, c_after, c)
            steps.append([rows.only(t, seen) for seen in (h_after, c_after, gates.flatten(-2))])
        directions.append((h, c, *in_time(steps, d)))
    return joined(rows, directions)


def joined(
    rows: Rows, directions: Sequence[tuple[Tensor, ...]]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A layer's output, h_n, c_n, cell and gates, from h_n, c_n and every h, c and gates (4*H)."""
    h_n, c_n, outputs, cells, gates = zip(*directions, strict=True)
    return (
        rows.unpad(torch.cat(outputs, -1)),
        torch.stack(h_n),
        torch.stack(c_n),
        rows.unpad(torch.cat(cells, -1)),
        rows.unpad(torch.stack([of.unflatten(-1, (4, -1)) for of in gates], -3)),
    )


def times(steps: int, direction: int) -> list[int]:
    """The times of a direction, in the order in which it meets them."""
    return list(range(steps)) if direction == 0 else list(reversed(range(steps)))


def in_time(steps: Sequence[Sequence[Tensor]], direction: int) -> list[Tensor]:
    """Each result of the steps of a direction, stacked by time."""
    ordered = steps if direction == 0 else steps[::-1]
    return [torch.stack(values) for values in zip(*ordered, strict=True)]


def sequence_backward(call: LayerBackward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One layer: gradients of the pre-activations, h0, c0 and (with projection) of every h_t."""
    states = (call.c0, call.grad_h_n, call.grad_c_n)
    rows = Rows(call.cell.shape[0], *call.ragged()[:2], *states).to(call.cell.device)
    padded = call._replace(
        **{
            name: None if value is None else rows.within(rows.pad(value))
            for name, value in (
                ("grad_output", call.grad_output),
                ("grad_cell", call.grad_cell),
                ("grad_gates", call.grad_gates),
                ("cell", call.cell),
                ("gates", call.gates),
            )
        }
    )
    directions = [
        _direction_backward(padded, rows, d, w)
        for d, w in enumerate(by_direction(call.weights, call.bidirectional))
    ]
    grads_z, grads_h0, grads_c0, grads_hidden = zip(*directions, strict=True)
    projects = kind_of(call.weights, len(directions)).projects
    return (
        rows.unpad(torch.stack(grads_z, -3)),
        torch.stack(grads_h0),
        torch.stack(grads_c0),
        rows.unpad(torch.cat(grads_hidden, -1)) if projects else call.cell.new_empty(0),
    )


def _direction_backward(
    call: LayerBackward, rows: Rows, d: int, w: DirectionWeights
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """sequence_backward of one direction: padded (T, N, ...) in and out."""

    def of_direction(values: Tensor | None) -> Tensor | None:
        """(T, N, D * ...) of every direction to (T, N, ...) of this one."""
        return (
            None if values is None else values.unflatten(-1, (1 + call.bidirectional, -1))[:, :, d]
        )

    grad_output, grad_cell = of_direction(call.grad_output), of_direction(call.grad_cell)
    cell = of_direction(call.cell)
    assert cell is not None
    batch, hidden_size = cell.shape[1:]
    grad_h = cell.new_zeros(batch, w.w_hh.shape[1]) if call.grad_h_n is None else call.grad_h_n[d]
    grad_c = cell.new_zeros(batch, hidden_size) if call.grad_c_n is None else call.grad_c_n[d]
    start = cell.new_zeros(batch, hidden_size) if call.c0 is None else call.c0[d]
    order = times(rows.steps, d)
    steps: list[tuple[Tensor, Tensor]] = []
    for before, t in reversed(list(zip([None, *order], order, strict=False))):
        resets = None if call.reset is None else call.reset[t]
        c_before = start if before is None else rows.keep(before, cell[before], start)
        grad_h_t = grad_h if grad_output is None else grad_h + grad_output[t]
        grad_c_t = grad_c if grad_cell is None else grad_c + grad_cell[t]
        grad_h_t, grad_c_t = rows.only(t, grad_h_t), rows.only(t, grad_c_t)
        gate_grads, grad_c_before = retreat(
            grad_h_t if w.w_hr is None else grad_h_t @ w.w_hr,
            grad_c_t,
            None if call.grad_gates is None else call.grad_gates[t, :, d],
            call.gates[t, :, d],
            cell[t],
            _zero_rows(rows.only(t, c_before), resets),
        )
        grad_h_before = gate_grads.flatten(-2) @ w.w_hh
        grad_h = rows.keep(t, _zero_rows(grad_h_before, resets), grad_h)
        grad_c = rows.keep(t, _zero_rows(grad_c_before, resets), grad_c)
        steps.append((rows.only(t, gate_grads.flatten(-2)), grad_h_t))
    grad_z, grad_hidden = in_time(steps, 1 - d)
    return grad_z.unflatten(-1, (4, -1)), grad_h, grad_c, grad_hidden


def cell_forward(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: h, c and gates."""
    gates = _gates(input, h0, DirectionWeights(w_ih, w_hh, b_ih, b_hh, None))
    return *advance(gates, c0, None), gates


def cell_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    grad_gates: Tensor | None,
    c0: Tensor,
    gates: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step: gradients of the pre-activations (N, 4, H) and of c0."""
    c = advance(gates, c0, None)[1]
    grad_h = torch.zeros_like(c) if grad_h is None else grad_h
    grad_c = torch.zeros_like(c) if grad_c is None else grad_c
    return retreat(grad_h, grad_c, grad_gates, gates, c, c0)
