"""What a caller may change in place between a call and backward(): what nn.LSTM allows."""

import pytest
import torch
from support import FLOATING, H, I, N, T, assert_same, rounding
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from lstm_kernels import LSTM, LSTMCell, lstm_cell


def results(module, kind, x):
    """Output, h_n and c_n as tensors."""
    given = x[:, 0] if kind == "unbatched" else x
    if kind == "packed":
        given = pack_padded_sequence(x, torch.tensor([5, 3, 2]))
    output, states = module(given)
    return [output.data if isinstance(output, PackedSequence) else output, *states]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("kind", ["batched", "unbatched", "packed"])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2}, {"bidirectional": True}, {"proj_size": 2}, {"bias": False}],
    ids=str,
)
@pytest.mark.parametrize("recompute", [False, True])
def test_results_of_a_sequence(options, kind, dtype, recompute):
    """Where native allows a change, so do we. Where we allow one, gradients are right.

    What native refuses depends on the CPU: with AMX, oneDNN computes its layers of bfloat16.
    """
    native = nn.LSTM(I, H, dtype=dtype, **options)
    lstm = LSTM.from_native(native)
    lstm.recompute = recompute
    x = torch.randn(T, N, I, dtype=dtype)

    def gradients(module, values):
        loss = sum(value.sin().sum() for value in values)
        return torch.autograd.grad(loss, list(module.parameters()))

    for which in range(3):
        expected = results(native, kind, x)
        expected[which] = (expected[which] * 0.5).relu()
        expected = gradients(native, expected)
        found = []
        for module in (lstm, native):
            values = results(module, kind, x)
            values[which].mul_(0.5).relu_()
            try:
                found.append(gradients(module, values))
            except RuntimeError:  # modified by an inplace operation
                found.append(None)
        actual, of_native = found
        if actual is not None:
            # Gradients are sums over T * N rows.
            assert_same(actual, expected, **rounding(dtype, T * N))
        else:
            assert of_native is None


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("batched", [True, False])
def test_states_of_a_step(dtype, batched):
    """Reinforcement learning zeroes the rows of episodes that are over."""
    native = nn.LSTMCell(I, H, dtype=dtype)
    cell = LSTMCell.from_native(native)
    inputs = torch.randn(T, N, I, dtype=dtype)
    done = torch.tensor([True, False, True])
    found = []
    for module in (cell, native):
        state, total = None, 0.0
        for x in inputs if batched else inputs[:, 0]:
            h, c = module(x, state)
            total = total + h.sum() + c.sum()
            if batched:
                h[done], c[done] = 0, 0
            else:
                h[2:], c[2:] = 0, 0
            state = (h, c)
        found.append(torch.autograd.grad(total, list(module.parameters())))
    assert_same(*found, **rounding(dtype, T * N))


def test_second_derivatives_of_a_changed_step():
    cell = LSTMCell(I, H, dtype=torch.float64)
    x, h, c = (torch.randn(N, size, dtype=torch.float64, requires_grad=True) for size in (I, H, H))
    weights = [weight.detach().clone().requires_grad_() for weight in cell.parameters()]

    def function(x, h, c, *weights):
        h, c = lstm_cell(x, (h, c), *weights)
        h[1], c[0] = 0, 0
        return h, c.relu_()

    assert torch.autograd.gradcheck(function, (x, h, c, *weights))
    assert torch.autograd.gradgradcheck(function, (x, h, c, *weights))


@pytest.mark.parametrize(
    ("backend", "options"),
    [("eager", {"bidirectional": True}), ("aot_eager", {"bidirectional": True})],
    ids=str,
)
def test_under_compilers(options, backend):
    """As in eager mode, or better: a graph may keep what a change overwrites."""
    lstm = LSTM(I, H, **options)
    cell = LSTMCell(I, H)
    x = torch.randn(T, N, I)

    def function(x, relu):
        y, _ = lstm(x)
        h, c = cell(x[0])
        c[0] = 0
        return relu(y).sum() + h.sum() + c.sum()

    parameters = [*lstm.parameters(), *cell.parameters()]
    expected = torch.autograd.grad(function(x, torch.relu), parameters)
    torch.compiler.reset()
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    assert_same(torch.autograd.grad(compiled(x, torch.relu_), parameters), expected)


def test_copies_are_made_only_where_they_are_needed():
    """The output is the tensor that the backward pass keeps where nn.LSTM refuses to change it."""
    x = torch.randn(T, N, I)
    for options, copied in (({}, False), ({"bidirectional": True}, True), ({"proj_size": 2}, True)):
        for dtype, narrow in ((torch.float32, copied), (torch.float64, True)):
            output = LSTM(I, H, dtype=dtype, **options)(x.to(dtype))[0]
            assert (type(output.grad_fn).__name__ == "CloneBackward0") == narrow
    with torch.no_grad():
        assert LSTM(I, H, proj_size=2)(x)[0].grad_fn is None
