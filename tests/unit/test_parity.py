"""Results and gradients are those of torch.nn.LSTM and torch.nn.LSTMCell."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    FLOATING,
    arguments,
    assert_equal,
    assert_same,
    call,
    native,
    options,
    ours,
    rounding,
    tensors,
    with_gradients,
)
from torch import nn

import lstm_kernels

# Sums are grouped differently from nn.LSTM's; the rest is float64 rounding.
TIGHT = {"rtol": 1e-10, "atol": 1e-11}


@settings(max_examples=120, deadline=None)
@given(o=options(), seed=st.integers(0, 2**31))
def test_outputs_and_all_gradients_equal_nn_lstm(o, seed):
    """The cross product of options in float64, for input, states and every parameter."""
    torch.manual_seed(seed)
    theirs = native(o)
    mine = ours(theirs)
    inputs = arguments(o)
    expected, expected_grads = with_gradients(
        lambda *xs: call(theirs, o, *xs), inputs, theirs.parameters()
    )
    actual, grads = with_gradients(lambda *xs: call(mine, o, *xs), inputs, mine.parameters())
    assert_same(actual, expected, **TIGHT)
    assert_same(grads, expected_grads, **TIGHT)
    with torch.no_grad():
        assert_equal(tensors(call(mine, o, *inputs)), actual)


@pytest.mark.parametrize("dtype", FLOATING)
@settings(max_examples=25, deadline=None)
@given(o=options(), seed=st.integers(0, 2**31))
def test_every_dtype_is_the_float64_result_rounded(o, seed, dtype):
    """Outputs in each dtype against nn.LSTM in float64 with the same, rounded, numbers."""
    torch.manual_seed(seed)
    narrow = native(o, dtype)
    wide = copy.deepcopy(narrow).double()
    inputs = arguments(o, dtype)
    actual = tensors(call(ours(narrow), o, *inputs))
    expected = tensors(call(wide, o, *(value.double() for value in inputs)))
    assert all(value.dtype is dtype for value in actual)
    depth = o.steps * o.num_layers
    assert_same((value.double() for value in actual), expected, **rounding(dtype, depth))


@pytest.mark.parametrize("dtype", FLOATING)
@settings(max_examples=15, deadline=None)
@given(o=options(), seed=st.integers(0, 2**31))
def test_gradients_in_every_dtype_are_close_to_float64(o, seed, dtype):
    """Gradients are sums over steps and sequences: the tolerance grows with their number."""
    torch.manual_seed(seed)
    narrow = native(o, dtype)
    wide = copy.deepcopy(narrow).double()
    mine = ours(narrow)
    inputs = arguments(o, dtype)
    _, actual = with_gradients(lambda *xs: call(mine, o, *xs), inputs, mine.parameters())
    _, expected = with_gradients(
        lambda *xs: call(wide, o, *xs), (value.double() for value in inputs), wide.parameters()
    )
    unit = torch.finfo(dtype).eps
    for mine_grad, wide_grad in zip(actual, expected, strict=True):
        if wide_grad is not None:
            size = wide_grad.norm() + len(o.lengths) ** 0.5
            error = (mine_grad.double() - wide_grad).norm()
            assert error <= 8 * unit * o.steps * o.num_layers * size


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 6),
    input_size=st.integers(1, 7),
    hidden_size=st.integers(1, 9),
    bias=st.booleans(),
    batched=st.booleans(),
    with_hx=st.booleans(),
)
def test_cell_equals_nn_lstm_cell(batch, input_size, hidden_size, bias, batched, with_hx):
    theirs = nn.LSTMCell(input_size, hidden_size, bias, dtype=torch.float64)
    mine = lstm_kernels.LSTMCell.from_native(theirs)
    rows = (batch,) if batched else ()
    inputs = [
        torch.randn(*rows, size, dtype=torch.float64)
        for size in (input_size, hidden_size, hidden_size)
    ]

    def run(module):
        return lambda x, h, c: module(x, (h, c) if with_hx else None)

    expected, expected_grads = with_gradients(run(theirs), inputs, theirs.parameters())
    actual, grads = with_gradients(run(mine), inputs, mine.parameters())
    assert_same(actual, expected, **TIGHT)
    assert_same(grads, expected_grads, **TIGHT)
    with torch.no_grad():
        assert_equal(tensors(run(mine)(*inputs)), actual)


@pytest.mark.parametrize("dtype", FLOATING)
def test_cell_in_every_dtype(dtype):
    cell = lstm_kernels.LSTMCell(5, 7, dtype=dtype)
    wide = cell.to_native().double()
    x, h, c = torch.randn(3, 5).to(dtype), torch.randn(3, 7).to(dtype), torch.randn(3, 7).to(dtype)
    actual = cell(x, (h, c))
    expected = wide(x.double(), (h.double(), c.double()))
    assert_same((value.double() for value in actual), expected, **rounding(dtype, 1))


def test_a_large_layer_equals_nn_lstm():
    """Sizes at which the kernels pack weights, block over units and use every thread."""
    torch.manual_seed(0)
    theirs = nn.LSTM(67, 130, 2, bidirectional=True, dtype=torch.float64)
    mine = ours(theirs)
    x = torch.randn(40, 33, 67, dtype=torch.float64)
    expected, expected_grads = with_gradients(theirs, [x], theirs.parameters())
    actual, grads = with_gradients(mine, [x], mine.parameters())
    assert_same(actual, expected, rtol=1e-9, atol=1e-10)
    assert_same(grads, expected_grads, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_propagate_as_in_nn_lstm(value):
    theirs = nn.LSTM(4, 8, bidirectional=True)
    x = torch.randn(6, 3, 4)
    x[2, 1, 0] = value
    assert_same(tensors(ours(theirs)(x)), tensors(theirs(x)), equal_nan=True)
