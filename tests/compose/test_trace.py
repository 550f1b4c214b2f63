"""torch.jit.trace: what it records goes on with other sizes, is saved, loaded and trained."""

import io

import pytest
import torch
from support import H, I, assert_equal, assert_same, gradients
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from lstm_kernels import LSTM, LSTMCell

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def again(traced):
    """A traced module after a way through a file."""
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file)


def assert_traced(module, given, others):
    """The trace of `module(*given)` computes what the module does, of `given` and of others."""
    traced = torch.jit.trace(module, given)
    for one in (traced, again(traced)):
        assert [name for name, _ in one.named_parameters()] == [
            name for name, _ in module.named_parameters()
        ]
        for inputs in (given, *others):
            leaves = [x.detach().clone() for x in inputs]
            for x in leaves:
                if x.is_floating_point():
                    x.requires_grad_()
            floating = [x for x in leaves if x.requires_grad]
            actual, expected = one(*leaves), module(*leaves)
            assert_equal(actual, expected)
            assert_equal(
                gradients(actual, [*floating, *one.parameters()]),
                gradients(expected, [*floating, *module.parameters()]),
            )
            with torch.no_grad():
                assert_equal(one(*leaves), module(*leaves))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"proj_size": 2, "bias": False},
        {"recompute": True},
    ],
    ids=str,
)
def test_a_module(options, dtype):
    module = LSTM(I, H, dtype=dtype, **options)

    def x(*batch):
        return torch.randn(*batch, I, dtype=dtype)

    assert_traced(module, (x(5, 2),), [(x(7, 2),), (x(5, 3),), (x(1, 1),)])
    assert_traced(module, (x(5),), [(x(2),)])


class Everything(nn.Module):
    """Initial states, lengths or resets; states and gates of every step."""

    def __init__(self, ragged):
        super().__init__()
        self.lstm = LSTM(I, H, 2, dtype=torch.float64)
        self.ragged = ragged

    def forward(self, x, h, c, ragged):
        return self.lstm(x, (h, c), return_gates=True, **{self.ragged: ragged})


@pytest.mark.parametrize("ragged", ["lengths", "reset"])
def test_states_gates_lengths_and_resets(ragged):
    def given(steps, batch):
        sizes = ((steps, batch, I), (2, batch, H), (2, batch, H))
        values = [torch.randn(size, dtype=torch.float64) for size in sizes]
        if ragged == "lengths":
            return (*values, torch.randint(0, steps + 1, (batch,)))
        return (*values, torch.randint(0, 2, (steps, batch)).double())

    module = Everything(ragged)
    for inputs in (given(5, 2), given(4, 3)):
        traced = torch.jit.trace(module, given(3, 4))
        actual, expected = traced(*inputs), module(*inputs)
        assert_equal(actual, expected)
        assert_equal(
            gradients(actual, traced.parameters()), gradients(expected, module.parameters())
        )


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = LSTM(I, H, bidirectional=True)

    def forward(self, data, batch_sizes):
        output, states = self.lstm(PackedSequence(data, batch_sizes))
        return output.data, states


def test_packed_sequences():
    module = Packed()
    one, other = (
        tuple(pack_padded_sequence(torch.randn(5, 3, I), lengths)[:2])
        for lengths in (torch.tensor([5, 3, 1]), torch.tensor([4, 4, 4]))
    )
    assert_traced(module, one, [other])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_step(bias, dtype):
    module = LSTMCell(I, H, bias, dtype=dtype)

    def x(*batch):
        return torch.randn(*batch, I, dtype=dtype)

    assert_traced(module, (x(2),), [(x(3),), (x(1),)])
    assert_traced(module, (x(),), [(x(),)])


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = LSTMCell(I, H)

    def forward(self, x, h, c):
        for x_t in x.unbind(0):
            h, c, gates = self.cell(x_t, (h, c), return_gates=True)
            c[0] = 0
        return h, c, gates


def test_steps_in_a_loop_with_states_changed_in_place():
    def given(batch):
        return (torch.randn(3, batch, I), torch.randn(batch, H), torch.randn(batch, H))

    assert_traced(Decoder(), given(2), [given(4)])


def test_a_trace_is_trained():
    """Plain gradient descent on the trace and on the module ends at the same weights."""
    module, twin = LSTM(I, H, 2), LSTM(I, H, 2)
    twin.load_state_dict(module.state_dict())
    traced = torch.jit.trace(twin, (torch.randn(5, 2, I),))
    for _ in range(3):
        x = torch.randn(4, 3, I)
        for one in (module, traced):
            one.zero_grad()
            one(x)[0].square().sum().backward()
            with torch.no_grad():
                for parameter in one.parameters():
                    parameter -= 0.1 * parameter.grad
    assert_same(list(traced.parameters()), list(module.parameters()))


def test_what_does_not_fit_is_said_as_ever():
    with pytest.raises(RuntimeError, match=r"input.size\(-1\) must be equal to input_size"):
        torch.jit.trace(LSTM(I, H), (torch.randn(5, 2, I + 1),))
    with pytest.raises(RuntimeError, match="input has inconsistent input_size"):
        torch.jit.trace(LSTMCell(I, H), (torch.randn(2, I + 1),))
