"""Both memories and the gates of every step."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    KINDS,
    Options,
    arguments,
    assert_equal,
    assert_same,
    call,
    native,
    options,
    ours,
    tensors,
)
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lstm_kernels import LSTM, LSTMCell, LSTMStates, lstm

TIGHT = {"rtol": 1e-10, "atol": 1e-11}


def time_major(value, o):
    """Any layout as (T, N, ...), padded with zeros."""
    if isinstance(value, PackedSequence):
        return pad_packed_sequence(value)[0]
    if o.kind == "unbatched":
        return value.unsqueeze(1)
    return value.transpose(0, 1) if o.batch_first else value


def by_cells(lstm, o, x, h0, c0, lengths):
    """The states of every layer and step, from LSTMCell alone: one direction, one sequence."""
    for layer in range(o.num_layers):
        hidden, cells, gates = [], [], []
        for d in range(o.directions):
            suffix = f"_l{layer}" + "_reverse" * d
            cell = LSTMCell(x.shape[-1], o.hidden_size, o.bias, dtype=x.dtype)
            for name in dict(cell.named_parameters()):
                setattr(cell, name, getattr(lstm, name + suffix))
            k = layer * o.directions + d
            rows = [
                torch.zeros(*x.shape[:2], size, dtype=x.dtype)
                for size in (o.hidden_size, o.hidden_size, 4 * o.hidden_size)
            ]
            for n, length in enumerate(lengths):
                h, c = h0[k, n], c0[k, n]
                for t in range(length) if d == 0 else reversed(range(length)):
                    h, c, g = cell(x[t, n], (h, c), return_gates=True)
                    for row, value in zip(rows, (h, c, g.flatten()), strict=True):
                        row[t, n] = value
            hidden.append(rows[0])
            cells.append(rows[1])
            gates.append(rows[2].unflatten(-1, (4, -1)))
        x = torch.cat(hidden, -1)
        yield x, torch.cat(cells, -1), torch.stack(gates, 2)


@settings(max_examples=40, deadline=None)
@given(o=options(), seed=st.integers(0, 2**31))
def test_states_are_those_of_the_cells(o, seed):
    """Every h_t, c_t and gate equals that of LSTMCell stepped by hand, in every layout."""
    torch.manual_seed(seed)
    o = Options(**{**vars(o), "proj_size": 0, "with_hx": True})
    module = ours(native(o))
    x, h, c = arguments(o)
    with torch.no_grad():
        output, _, states = call(module, o, x, h, c, return_gates=True)
        lengths = o.lengths
        if o.kind in ("batched", "unbatched"):
            lengths = (o.steps,) * (1 if o.kind == "unbatched" else len(lengths))
        elif o.kind == "packed sorted":
            lengths = sorted(lengths, reverse=True)
        expected = by_cells(
            module,
            o,
            x.transpose(0, 1)
            if o.batch_first and x.dim() == 3
            else x.view(o.steps, -1, x.shape[-1]),
            h.view(h.shape[0], -1, h.shape[-1]),
            c.view(c.shape[0], -1, c.shape[-1]),
            lengths,
        )
        assert isinstance(states, LSTMStates)
        for actual, wanted in zip(zip(*states, strict=True), expected, strict=True):
            assert_same((time_major(value, o) for value in actual), wanted, **TIGHT)
    assert_equal(tensors(states.hidden[-1]), tensors(output))


@pytest.mark.parametrize(
    ("kind", "batch_first", "proj_size", "bidirectional"),
    [*itertools.product(KINDS, [False, True], [0, 2], [False, True])],
)
def test_every_cell_state_is_what_nn_lstm_ends_with(kind, batch_first, proj_size, bidirectional):
    """The last states of the direction are h_n and c_n of nn.LSTM; shapes as documented."""
    o = Options(3, 4, 2, True, batch_first, bidirectional, proj_size, kind, (2, 5, 4), True)
    theirs = native(o)
    inputs = arguments(o)
    _, (h_n, c_n), states = call(ours(theirs), o, *inputs, return_gates=True)
    _, (h_theirs, c_theirs) = call(theirs, o, *inputs)
    assert_same((h_n, c_n), (h_theirs, c_theirs), **TIGHT)
    lengths = {
        "packed": torch.tensor(o.lengths),
        "packed sorted": torch.tensor(sorted(o.lengths, reverse=True)),
    }.get(kind, torch.tensor([5] * (1 if kind == "unbatched" else 3)))
    rows = torch.arange(len(lengths))
    steps, directions = 5, o.directions
    for layer in range(2):
        hidden, cell, gates = (time_major(part[layer], o) for part in states)
        assert hidden.shape == (steps, len(lengths), directions * o.h_size)
        assert cell.shape == (steps, len(lengths), directions * 4)
        assert gates.shape == (steps, len(lengths), directions, 4, 4)
        for d in range(directions):
            last = (lengths - 1, rows) if d == 0 else (0, rows)
            k = layer * directions + d
            of_h = slice(d * o.h_size, (d + 1) * o.h_size)
            wanted = (h_theirs[k].view(len(lengths), -1), c_theirs[k].view(len(lengths), -1))
            found = (hidden[last][:, of_h], cell[last][:, 4 * d : 4 * d + 4])
            assert_same(found, wanted, **TIGHT)


def test_each_step_equals_a_shorter_nn_lstm():
    """states.cell[t] equals the c_n that nn.LSTM returns for the first t + 1 steps."""
    o = Options(3, 6, 2, True, False, False, 0, "batched", (9, 9), False)
    theirs = native(o)
    x = arguments(o)[0]
    _, _, states = ours(theirs)(x, return_states=True)
    for t in range(9):
        _, (h_n, c_n) = theirs(x[: t + 1])
        for layer in range(2):
            pair = (states.hidden[layer][t], states.cell[layer][t])
            assert_same(pair, (h_n[layer], c_n[layer]), **TIGHT)


def test_the_equations_hold_between_states_and_gates():
    module = LSTM(3, 4, dtype=torch.float64)
    c0 = torch.randn(1, 2, 4, dtype=torch.float64)
    _, _, states = module(
        torch.randn(6, 2, 3, dtype=torch.float64), (c0.tanh(), c0), return_gates=True
    )
    i, f, g, o = states.gates[0][:, :, 0].unbind(2)
    before = torch.cat([c0, states.cell[0][:-1]])
    torch.testing.assert_close(states.cell[0], f * before + i * g)
    torch.testing.assert_close(states.hidden[0], o * states.cell[0].tanh())


def test_states_are_taken_before_dropout():
    torch.manual_seed(0)
    module = LSTM(3, 4, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    first = LSTM(3, 4)
    first.load_state_dict({k: v for k, v in module.state_dict().items() if "l0" in k})
    torch.testing.assert_close(module(x, return_states=True)[2].hidden[0], first(x)[0])


def test_what_is_returned():
    module, x = LSTM(3, 4), torch.randn(5, 2, 3)
    assert len(module(x)) == 2
    output, (h_n, c_n), states = module(x, return_states=True)
    assert states.gates is None
    assert states._fields == ("hidden", "cell", "gates")
    assert len(module(x, return_gates=True)) == 3
    weights = list(module.parameters())
    assert_equal(tensors(lstm(x, None, weights)), (output, h_n, c_n))
    with torch.no_grad():
        for kwargs in ({}, {"return_states": True}, {"return_gates": True}):
            again = module(x, **kwargs)
            assert_equal(tensors(again)[:3], (output, h_n, c_n))
            if kwargs:
                assert_equal(again[2].cell, states.cell)


def test_cell_returns_its_gates():
    cell = LSTMCell(3, 4, dtype=torch.float64)
    x, h, c = (torch.randn(2, size, dtype=torch.float64) for size in (3, 4, 4))
    h1, c1, gates = cell(x, (h, c), return_gates=True)
    assert_equal((h1, c1), cell(x, (h, c)))
    i, f, g, o = gates.unbind(1)
    torch.testing.assert_close(c1, f * c + i * g)
    torch.testing.assert_close(h1, o * c1.tanh())
    assert cell(x[0], return_gates=True)[2].shape == (4, 4)


def test_a_result_written_to_makes_backward_raise_not_lie():
    """Saved results are the caller's too: autograd notices the write."""
    module = LSTM(3, 4)
    output, _, states = module(torch.randn(5, 2, 3), return_states=True)
    states.cell[0].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    output, _, states = module(torch.randn(5, 2, 3), return_states=True)
    states.hidden[-1].zero_()  # a copy of the output: free to write to
    output.sum().backward()
