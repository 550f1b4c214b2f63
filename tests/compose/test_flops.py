"""FlopCounterMode counts what the layer multiplies: 2 * T * N * 4 * H * (I + H) and projections."""

from functools import partial

import pytest
import torch
from support import FLOATING, H, I, N, T
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

from lstm_kernels import LSTM, LSTMCell, Variant
from lstm_kernels._weight_gradients import _MULTIPLIED


def count(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def of_layers(rows, num_layers=1, bidirectional=False, proj_size=0):
    """Each direction multiplies each row by its matrices."""
    directions, output = 1 + bidirectional, proj_size or H
    total = 0
    for layer in range(num_layers):
        width = I if layer == 0 else directions * output
        total += 2 * rows * directions * (4 * H * (width + output) + proj_size * H)
    return total


each_option = pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2, "num_layers": 2}],
    ids=str,
)


@each_option
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_a_sequence(options, dtype):
    module = LSTM(I, H, dtype=dtype, **options)
    x = torch.randn(T, N, I, dtype=dtype, requires_grad=True)
    hx = tuple(
        torch.randn(module.num_layers * (1 + module.bidirectional), N, size, dtype=dtype)
        for size in (module.proj_size or H, H)
    )
    expected = of_layers(T * N, **options)
    with torch.no_grad():
        assert count(lambda: module(x, hx)) == expected
        assert count(lambda: module(x, hx, return_gates=True)) == expected
        assert count(lambda: module.prepack()(x, hx)) == expected
    assert count(lambda: module(x, hx)) == expected
    if dtype not in _MULTIPLIED:  # there plain torch multiplies, and leaves out rows that are zero
        output = module(x, hx)[0].sum()
        assert count(output.backward) == 2 * expected


def test_packed_rows_and_lengths():
    module = LSTM(I, H)
    x, lengths = torch.randn(T, N, I), torch.tensor([5, 3, 1])
    packed = pack_padded_sequence(x, lengths)
    assert count(lambda: module(packed)) == of_layers(9)
    assert count(lambda: module(x, lengths=lengths)) == of_layers(T * N)


@each_option
def test_no_device_needed(options):
    """On the meta device, as nn.LSTM there; that runs its equations, one product at a time."""
    with torch.device("meta"):
        x = torch.empty(T, N, I)
        found = [count(partial(cls(I, H, **options), x)) for cls in (LSTM, nn.LSTM)]
    assert found == [of_layers(T * N, **options)] * 2


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_step_as_nn_lstm_cell(dtype, device):
    found = []
    for cls in (LSTMCell, nn.LSTMCell):
        cell = cls(I, H, dtype=dtype, device=device)
        x = torch.zeros(N, I, dtype=dtype, device=device, requires_grad=True)
        hx = tuple(torch.zeros(N, H, dtype=dtype, device=device, requires_grad=True) for _ in "hc")
        loss = sum(state.sum() for state in cell(x, hx))
        found.append((count(partial(cell, x, hx)), count(loss.backward)))
    forward = 2 * N * 4 * H * (I + H)
    assert found == [(forward, 2 * forward)] * 2


def test_under_a_compiler():
    module, cell = LSTM(I, H, 2), LSTMCell(H, H)
    x = torch.randn(T, N, I, requires_grad=True)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: cell(module(x)[0][-1])[0], backend="aot_eager")
    forward = of_layers(T * N, 2) + 2 * N * 4 * H * 2 * H
    loss = compiled(x).sum()
    assert count(lambda: compiled(x)) == forward
    # The state before the step is zero, and nothing wants its gradient.
    assert count(loss.backward) == 2 * forward - 2 * N * 4 * H * H


def test_a_variant():
    """Its products are those of the plain layer, and no more are counted."""
    module = LSTM(I, H, bidirectional=True, variant=Variant(peephole=True, zoneout_cell=0.1))
    x = torch.randn(T, N, I, requires_grad=True)
    expected = of_layers(T * N, bidirectional=True)
    with torch.no_grad():
        assert count(lambda: module(x)) == expected
    assert count(lambda: module(x)) == expected
    output = module(x)[0].sum()
    assert count(output.backward) == 2 * expected
