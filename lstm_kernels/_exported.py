"""The ops that an exported program holds.

torch.export keeps ops and drops the autograd Functions around them, so that a program that is
trained further would leave the weights of a raw op without gradients, silently. These ops are
composite: torch.export keeps them too, Python runs them with their gradients, and decomposition, as
for AOTInductor and ONNX, leaves the raw ops.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _autograd, _ops
from ._layer import Layer

_library = torch.library.Library("lstm_kernels", "FRAGMENT")
_library.define(
    "_exported_sequence(Tensor input, Tensor? h0, Tensor? c0, Tensor[] weights, bool has_biases, "
    "bool bidirectional, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, bool save_cell, "
    "bool save_gates) -> (Tensor output, Tensor h_n, Tensor c_n, Tensor cell, Tensor gates)"
)
_library.define(
    "_exported_cell(Tensor input, Tensor h0, Tensor c0, Tensor w_ih, Tensor w_hh, Tensor? b_ih, "
    "Tensor? b_hh, bool save_gates) -> (Tensor h, Tensor c, Tensor gates)"
)


def _sequence(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: list[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    save_cell: bool,
    save_gates: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    layer = Layer(input, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, reset)
    if _autograd.wanted(input, h0, c0, *weights):
        return _autograd.sequence(layer)
    return _ops.sequence_forward(*layer, save_cell, save_gates)


def _cell(
    input: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    save_gates: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = (input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    if _autograd.wanted(*tensors):
        return _autograd.cell(*tensors)
    return _ops.cell_forward(*tensors, save_gates)


_library.impl("_exported_sequence", _sequence, "CompositeImplicitAutograd")
_library.impl("_exported_cell", _cell, "CompositeImplicitAutograd")

sequence = torch.ops.lstm_kernels._exported_sequence.default
cell = torch.ops.lstm_kernels._exported_cell.default
