"""torch.compile: one graph, forward and backward, for every length and batch size."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import lstm_kernels

from .parity import H, I, N, T, assert_all_close, gradients, twins

# torch.compile always compiles a size of 1 apart, so also T = 2, whose first step is one before it.
SHAPES = [(5, 3), (12, 4), (3, 9)]


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _assert_compiles(call, parameters, backend="aot_eager", shapes=SHAPES):
    """`call(x)` compiles to one graph, with the first shape, and gives what it gives uncompiled."""
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    compilations = []
    for steps, batch in shapes:
        x = torch.randn(steps, batch, I, requires_grad=True)
        inputs = (x, *parameters)
        expected, actual = call(x), compiled(x)
        assert_all_close(actual, expected)
        assert_all_close(gradients(actual, inputs), gradients(expected, inputs))
        compilations.append(counter.frame_count)
    assert len(set(compilations)) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True},
    ],
    ids=str,
)
def test_forward_and_backward_are_one_graph(options):
    lstm, _ = twins(**options)
    _assert_compiles(lstm, list(lstm.parameters()))


def test_states_and_gates_are_part_of_the_graph():
    lstm, _ = twins(num_layers=2)
    _assert_compiles(lambda x: lstm(x, return_gates=True), list(lstm.parameters()))


def test_given_states_may_be_one_tensor():
    """The usual `zeros = ...; lstm(x, (zeros, zeros))`."""
    lstm, _ = twins()

    def call(x):
        zeros = x.new_zeros(1, x.shape[1], H)
        return lstm(x, (zeros, zeros))

    _assert_compiles(call, list(lstm.parameters()))


def test_inductor_compiles_forward_and_backward():
    lstm, _ = twins(num_layers=2, bidirectional=True)
    cell = lstm_kernels.LSTMCell(2 * H, H)

    def call(x):
        output, states, every = lstm(x.tanh(), return_gates=True)
        return output, states, every, cell(output[-1])

    parameters = [*lstm.parameters(), *cell.parameters()]
    _assert_compiles(call, parameters, "inductor", SHAPES[:2])
