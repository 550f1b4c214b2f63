"""Contenders for sequences of unequal lengths, for episodes, and for less memory."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import lstm_kernels

from .contenders import native_cell, run, run_module
from .workload import Call, Workload

RESET_SHARE = 0.05  # of all steps: episodes of 20 steps on average


def ours_with_lengths(workload: Workload) -> Call:
    module = lstm_kernels.LSTM.from_native(workload.native)
    lengths = torch.tensor(workload.case.lengths)
    forward = lambda: module(workload.padded, lengths=lengths)[0]  # noqa: E731
    return run(workload, forward, list(module.parameters()), padded=True)


def native_packing(workload: Workload) -> Call:
    """Prepacked the padded input and pads the packed output, as code around nn.LSTM does."""
    lengths = torch.tensor(workload.case.lengths)

    def forward() -> Tensor:
        output, _ = workload.native(pack_padded_sequence(workload.padded, lengths))
        return pad_packed_sequence(output)[0]

    return run(workload, forward, list(workload.native.parameters()), padded=True)


def resets(workload: Workload) -> Tensor:
    """Where episodes begin, (T, N) bool."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(workload.case.T, workload.case.N, generator=generator) < RESET_SHARE


def ours_with_resets(workload: Workload) -> Call:
    module = lstm_kernels.LSTM.from_native(workload.native)
    reset = resets(workload)
    forward = lambda: module(workload.padded, reset=reset)[0]  # noqa: E731
    return run(workload, forward, list(module.parameters()))


def native_splitting(workload: Workload) -> Call:
    """Makes every episode a separate sequence, padded to the longest."""
    starts = resets(workload)
    starts[0] = True

    def forward() -> Tensor:
        sizes = []
        for column in starts.unbind(1):
            begins = column.nonzero().flatten().tolist()
            sizes.append([b - a for a, b in pairwise([*begins, workload.case.T])])
        columns = zip(workload.padded.unbind(1), sizes, strict=True)
        pieces = [piece for column, size in columns for piece in column.split(size)]
        output, _ = workload.native(pad_sequence(pieces))
        rows = [
            column[: len(piece)] for column, piece in zip(output.unbind(1), pieces, strict=True)
        ]
        whole: Tensor = torch.cat(rows).unflatten(0, (workload.case.N, workload.case.T))
        return whole.transpose(0, 1)

    return run(workload, forward, list(workload.native.parameters()))


def cell_loop_with_resets(workload: Workload) -> Call:
    """A loop over nn.LSTMCell that multiplies both states by zero where an episode begins."""
    cell = native_cell(workload)
    keep = (~resets(workload)).to(workload.padded.dtype)[:, :, None]

    def forward() -> Tensor:
        h = c = workload.padded.new_zeros(workload.case.N, workload.case.H)
        hidden = []
        for x, kept in zip(workload.padded.unbind(), keep.unbind(), strict=True):
            h, c = cell(x, (h * kept, c * kept))
            hidden.append(h)
        return torch.stack(hidden)

    return run(workload, forward, list(cell.parameters()))


def ours_recomputing(workload: Workload) -> Call:
    module = lstm_kernels.LSTM.from_native(workload.native)
    module.recompute = True
    return run_module(workload, module)
