"""LSTM and LSTMCell as functions: arguments are checked here, once, before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import _autograd, _checks, _exported, ops
from ._packs import Packs
from ._states import LSTMStates


def lstm(
    input: Tensor | PackedSequence,
    hx: Sequence[Tensor] | None,
    weights: Sequence[Tensor],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    training: bool = False,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    return_states: bool = False,
    return_gates: bool = False,
    recompute: bool = False,
    _packs: Packs | None = None,
) -> Any:
    """A stack of LSTM layers over a sequence (equations: see lstm_kernels.LSTM).

    Args:
        input: (T, N, I), unbatched (T, I), (N, T, I) with batch_first, or a PackedSequence;
            float32, float64, bfloat16 or float16.
        hx: `(h_0, c_0)`, (L * D, N, H_out) and (L * D, N, H), without N for unbatched input, in the
            original order of the sequences for packed input; zeros if None.
        weights: for each layer and direction, as in `torch.nn.LSTM._flat_weights`: w_ih (4*H, I),
            w_hh (4*H, H_out), then b_ih (4*H) and b_hh (4*H) if there are biases, then w_hr
            (H_out, H) if the layers project. Their number says which.
        num_layers, bidirectional, batch_first: as in torch.nn.LSTM.
        dropout: probability with which elements are zeroed between layers when `training`.
        lengths: (N,) integers: sequence n of the padded input ends after lengths[n] steps. Outputs
            and states are zero past each end; h_n and c_n are those of each last step.
        reset: (T, N) bool, (N, T) with batch_first: both states are zeroed before that step.
        return_states: also return the states of every step.
        return_gates: also return the gates of every step; implies return_states.
        recompute: keep nothing for the backward pass but the arguments of each layer, and run its
            forward pass again there. Same gradients, bit for bit. Without effect where the states
            are returned, which then are there anyway.

    Returns:
        `(output, (h_n, c_n))`, or `(output, (h_n, c_n), states)` with `states` an LSTMStates.

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTM does, in its words.
        NotImplementedError: a dtype or device that has no kernel.
    """
    directions = 2 if bidirectional else 1
    packed = input if isinstance(input, PackedSequence) else None
    batch_sizes = sorted_indices = unsorted_indices = None
    if isinstance(input, PackedSequence):
        x, batch_sizes, sorted_indices, unsorted_indices = input
    else:
        x = input
        if x.dim() not in (2, 3):
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {x.dim()}D instead")
    count = _checks.weights_per_direction(weights, num_layers, directions)
    if packed is not None and (lengths is not None or reset is not None):
        raise ValueError("lengths and reset describe padded input, not a PackedSequence")
    if lengths is not None:
        _checks.is_tensor(lengths, "lengths")
    if reset is not None:
        _checks.is_tensor(reset, "reset")
    batched = packed is not None or x.dim() == 3
    h0, c0 = _checks.pair(hx, "lstm")
    if h0 is not None and c0 is not None:
        _checks.state_dims(h0, c0, batched)
    if not batched:
        x = x.unsqueeze(1)
        h0, c0, lengths, reset = (
            None if value is None else value.unsqueeze(axis)
            for value, axis in ((h0, 1), (c0, 1), (lengths, 0), (reset, -1))
        )
    elif batch_first and packed is None:
        x = x.transpose(0, 1)
        reset = reset.mT if reset is not None and reset.dim() == 2 else reset

    autocast = _checks.autocast_dtype(x)
    _checks.input_is_usable(x, weights[0], 3 if packed is None else 2, autocast)
    _checks.weights_fit(x, weights, count, directions, autocast)
    batch = x.shape[1] if packed is None else _checks.packed_batch(packed)
    if x.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if h0 is not None and c0 is not None:
        layers = num_layers * directions
        _checks.state_fits(h0, (layers, batch, weights[1].shape[1]), 0, x, autocast)
        _checks.state_fits(c0, (layers, batch, weights[0].shape[0] // 4), 1, x, autocast)
        if sorted_indices is not None:
            h0, c0 = h0.index_select(1, sorted_indices), c0.index_select(1, sorted_indices)
    if lengths is not None:
        lengths = _checks.lengths_fit(lengths, x)
    if reset is not None:
        if bidirectional:
            raise ValueError("reset has no meaning for a bidirectional LSTM")
        _checks.reset_fits(reset, x)
    if _packs is not None and not _packs.serve(weights, autocast):
        _packs = None
    if autocast is not None:
        x, h0, c0, *weights = _autocast((x, h0, c0, *weights), autocast)

    return_states = return_states or return_gates
    keep_graph = _autograd.wanted(x, h0, c0, *weights)
    has_biases = count >= 4
    finals_h, finals_c = [], []
    hidden, cells, all_gates = [], [], []
    for layer in range(num_layers):
        if layer > 0 and training and dropout > 0:
            x = F.dropout(x, dropout, True)
        h, c = h0, c0
        layer_weights = weights
        if num_layers > 1:
            layer_weights = weights[layer * directions * count : (layer + 1) * directions * count]
            if h0 is not None and c0 is not None:
                h = h0[layer * directions : (layer + 1) * directions]
                c = c0[layer * directions : (layer + 1) * directions]
        arguments = (
            x,
            h,
            c,
            layer_weights,
            has_biases,
            bidirectional,
            batch_sizes,
            lengths,
            reset,
            return_states,
            return_gates,
        )
        if keep_graph and torch.compiler.is_exporting():
            x, h_n, c_n, cell, gates = _exported.sequence(*arguments)
        elif keep_graph and recompute and not return_states:
            x, h_n, c_n = _autograd.recomputed_sequence(
                x, h, c, batch_sizes, lengths, reset, has_biases, bidirectional, *layer_weights
            )
        elif keep_graph:
            x, h_n, c_n, cell, gates = _autograd.sequence(
                x, h, c, batch_sizes, lengths, reset, has_biases, bidirectional, *layer_weights
            )
        elif _packs is None:
            x, h_n, c_n, cell, gates = ops.sequence_forward(*arguments)
        else:
            x, h_n, c_n, cell, gates = _packs.forward(layer, *arguments)
        finals_h.append(h_n)
        finals_c.append(c_n)
        if return_states:
            hidden.append(x)
            cells.append(cell)
            all_gates.append(gates)

    h_n = finals_h[0] if num_layers == 1 else torch.cat(finals_h)
    c_n = finals_c[0] if num_layers == 1 else torch.cat(finals_c)
    if unsorted_indices is not None:
        h_n, c_n = h_n.index_select(1, unsorted_indices), c_n.index_select(1, unsorted_indices)
    if not batched:
        h_n, c_n = h_n.squeeze(1), c_n.squeeze(1)

    def as_given(rows: Tensor) -> Any:
        """Rows of the ops in the layout of the input."""
        if packed is not None:
            return PackedSequence(rows, batch_sizes, sorted_indices, unsorted_indices)
        if not batched:
            return rows.squeeze(1)
        return rows.transpose(0, 1) if batch_first else rows

    if not return_states:
        return as_given(x), (h_n, c_n)
    hidden[-1] = x.clone()  # the output is the caller's to write to
    states = LSTMStates(
        tuple(map(as_given, hidden)),
        tuple(map(as_given, cells)),
        tuple(map(as_given, all_gates)) if return_gates else None,
    )
    return as_given(x), (h_n, c_n), states


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor] | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    return_gates: bool = False,
) -> Any:
    """One LSTM step (Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000).

    Args:
        input: (N, I), or unbatched (I,); float32, float64, bfloat16 or float16.
        hx: `(h, c)`, each (N, H) or (H,); zeros if None.
        w_ih: (4*H, I), gates stacked in the order i, f, g, o.
        w_hh: (4*H, H).
        b_ih, b_hh: (4*H,), both or neither.
        return_gates: also return the activated gates, (N, 4, H) or (4, H).

    Returns:
        `(h, c)`, or `(h, c, gates)`.

    Raises:
        ValueError, RuntimeError, TypeError: as torch.nn.LSTMCell does, in its words.
        NotImplementedError: a dtype or device that has no kernel.
    """
    if input.dim() not in (1, 2):
        raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {input.dim()}D instead")
    h0, c0 = _checks.pair(hx, "lstm_cell")
    if h0 is not None and c0 is not None:
        for k, state in enumerate((h0, c0)):
            if state.dim() not in (1, 2):
                raise ValueError(
                    f"LSTMCell: Expected hx[{k}] to be 1D or 2D, got {state.dim()}D instead"
                )
    batched = input.dim() == 2
    if not batched:
        input = input.unsqueeze(0)
        if h0 is not None and c0 is not None:
            h0, c0 = h0.unsqueeze(0), c0.unsqueeze(0)
    autocast = _checks.autocast_dtype(input)
    _checks.cell_fits(input, h0, c0, w_ih, w_hh, b_ih, b_hh, autocast)
    if autocast is not None:
        if input.device.type == "cpu":  # as in nn.LSTMCell there: the states keep their dtype
            autocast = input.dtype if c0 is None else c0.dtype
        input, h0, c0, w_ih, w_hh, b_ih, b_hh = _autocast(
            (input, h0, c0, w_ih, w_hh, b_ih, b_hh), autocast
        )
    if h0 is None or c0 is None:
        h0 = c0 = input.new_zeros(input.shape[0], w_hh.shape[1])
    keep_graph = _autograd.wanted(input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    if keep_graph and torch.compiler.is_exporting():
        h, c, gates = _exported.cell(input, h0, c0, w_ih, w_hh, b_ih, b_hh, return_gates)
    elif keep_graph:
        h, c, gates = _autograd.cell(input, h0, c0, w_ih, w_hh, b_ih, b_hh)
    else:
        h, c, gates = ops.cell_forward(input, h0, c0, w_ih, w_hh, b_ih, b_hh, return_gates)
    if not batched:
        h, c = h.squeeze(0), c.squeeze(0)
        gates = gates.squeeze(0) if return_gates else gates
    return (h, c, gates) if return_gates else (h, c)


def _autocast(values: Sequence[Tensor | None], dtype: torch.dtype) -> list[Any]:
    return [None if value is None else value.to(dtype) for value in values]
