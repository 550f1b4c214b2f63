"""LSTM.preactivations: what the sigmoid or tanh of each gate was taken of."""

import itertools

import pytest
import torch
from support import H, I, N, T, assert_same, gradients, rounding
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from lstm_kernels import LSTM, LSTMCell, Variant

OPTIONS = [
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "proj_size": 2, "bias": False},
]


def activated(z):
    """The gates of pre-activations (..., 4, H)."""
    i, f, g, o = z.unbind(-2)
    return torch.stack([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], -2)


def cases(lstm, dtype):
    """Input, states and options of calls: padded, unbatched, packed, ragged, with resets."""
    rows = lstm.num_layers * (1 + lstm.bidirectional)
    x = torch.randn(T, N, I, dtype=dtype)
    h, c = (torch.randn(rows, N, size, dtype=dtype) for size in (lstm.proj_size or H, H))
    lengths, reset = torch.tensor([2, 5, 0]), torch.rand(T, N) < 0.4
    given = x.transpose(0, 1) if lstm.batch_first else x
    yield given, (h, c), {}
    yield given, None, {}
    yield x[:, 0], (h[:, 0], c[:, 0]), {}
    yield given, (h, c), {"lengths": lengths}
    for ordered in (True, False):
        sizes = torch.tensor([5, 3, 1]) if ordered else torch.tensor([2, 5, 1])
        yield pack_padded_sequence(x, sizes, enforce_sorted=ordered), (h, c), {}
    if not lstm.bidirectional:
        reset = reset.mT if lstm.batch_first else reset
        yield given, (h, c), {"reset": reset.to(dtype)}
        yield given, (h, c), {"reset": reset, "reset_state": (-h, -c), "lengths": lengths}
        yield x[:, 0], None, {"reset": torch.rand(T) < 0.4}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_gates_are_their_activations(options, dtype):
    lstm = LSTM(I, H, dtype=dtype, **options)
    for x, hx, kwargs in cases(lstm, dtype):
        _, _, states = lstm(x, hx, return_gates=True, **kwargs)
        found = lstm.preactivations(x, states, hx, **kwargs)
        for z, gates in zip(found, states.gates, strict=True):
            if isinstance(gates, PackedSequence):
                assert torch.equal(z.batch_sizes, gates.batch_sizes)
                z, gates = z.data, gates.data
            assert z.shape == gates.shape
            within = (gates != 0).any(-1, keepdim=True)  # all are zero past the lengths
            assert not z[~within.expand_as(z)].any()
            expected = torch.where(within, activated(z), 0)
            assert_same(expected, gates, **rounding(dtype, steps=2))


def test_exact_where_gates_saturate_and_differentiable():
    """As a loop over the equations returns them: values of 100, and gradients through them."""
    lstm = LSTM(I, H, dtype=torch.float64)
    with torch.no_grad():
        lstm.bias_ih_l0 += 100 * torch.linspace(-1, 1, 4 * H).sign()
    x = torch.randn(T, N, I, dtype=torch.float64, requires_grad=True)
    weights = list(lstm.parameters())
    h, c = (torch.zeros(N, H, dtype=torch.float64) for _ in "hc")
    expected = []
    for x_t in x:
        expected.append(x_t @ weights[0].mT + weights[2] + h @ weights[1].mT + weights[3])
        i, f, g, o = expected[-1].chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    expected = torch.stack(expected).unflatten(-1, (4, H)).unsqueeze(2)
    _, _, states = lstm(x, return_states=True)
    (found,) = lstm.preactivations(x, states)
    assert found.abs().min() > 50
    assert_same(found, expected)
    assert_same(gradients(found, [x, *weights]), gradients(expected, [x, *weights]))


def test_dropout_between_layers_must_be_off():
    lstm = LSTM(I, H, 2, dropout=0.5)
    x = torch.randn(T, N, I)
    _, _, states = lstm(x, return_states=True)
    with pytest.raises(ValueError, match="dropout between layers must be off"):
        lstm.preactivations(x, states)
    lstm.eval()
    _, _, states = lstm(x, return_gates=True)
    assert_same(
        [activated(z) for z in lstm.preactivations(x, states)],
        list(itertools.chain(states.gates)),
    )


@pytest.mark.parametrize("bias", [True, False])
def test_a_step(bias):
    cell = LSTMCell(I, H, bias, dtype=torch.float64)
    x, h, c = (torch.randn(N, size, dtype=torch.float64) for size in (I, H, H))
    for given, hx in ((x, (h, c)), (x, None), (x[0], (h[0], c[0])), (x[0], None)):
        _, _, gates = cell(given, hx, return_gates=True)
        assert_same(activated(cell.preactivations(given, hx)), gates)


@pytest.mark.parametrize("module", [LSTM, LSTMCell])
def test_variants_are_refused(module):
    variant = module(I, H, variant=Variant(peephole=True))
    states = variant(torch.randn(T, N, I), return_states=True)[2] if module is LSTM else None
    given = (torch.randn(T, N, I), states) if module is LSTM else (torch.randn(N, I),)
    with pytest.raises(NotImplementedError, match="for modules without a variant"):
        variant.preactivations(*given)
