"""torch.fx records our modules and functions as it does torch.nn's: one node, not looked into."""

import copy
import pickle

import pytest
import torch
from support import H, I, N, T, assert_equal
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import lstm_kernels
from lstm_kernels import LSTM, LSTMCell, Masks, Variant

X = torch.randn(T, N, I)


class Reader(nn.Module):
    """Sequence, states and gates, a step, and what happens to their results."""

    def __init__(self, **options):
        super().__init__()
        self.lstm = LSTM(I, H, 2, **options)
        self.cell = LSTMCell(H, H)
        self.head = nn.Linear(H, 2)

    def forward(self, x, lengths, reset):
        output, (h_n, c_n), states = self.lstm(x, lengths=lengths, reset=reset, return_gates=True)
        h, c, gates = self.cell(output[0], (h_n[0], c_n[0]), return_gates=True)
        h, c = self.cell(h, (h, c))
        return self.head(h), c, gates, states.cell[0], states.gates[1]


def arguments():
    return X, torch.tensor([5, 2, 0]), torch.rand(T, N) < 0.3


def test_modules_are_leaves():
    model = Reader()
    traced = torch.fx.symbolic_trace(model)
    names = [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]
    assert names == ["lstm", "cell", "cell", "head"]
    given = arguments()
    assert_equal(traced(*given), model(*given))
    loss, expected = (m(*given)[0].sum() for m in (traced, model))
    assert_equal(
        torch.autograd.grad(loss, list(traced.parameters())[:4]),
        torch.autograd.grad(expected, list(model.parameters())[:4]),
    )


def test_a_traced_model_still_knows_training_from_inference():
    model = nn.Sequential(LSTM(I, H, 2, dropout=0.5))
    traced = torch.fx.symbolic_trace(model)
    assert not torch.equal(traced(X)[0], traced(X)[0])
    assert_equal(traced.eval()(X), model.eval()(X))


def test_a_traced_model_is_copied_and_pickled():
    model = Reader()
    traced = torch.fx.symbolic_trace(model)
    given = arguments()
    for again in (copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert_equal(again(*given), model(*given))


@pytest.mark.parametrize("module", [LSTM(I, H), LSTM(I, H, 2, bidirectional=True)], ids=str)
def test_a_module_traced_itself_is_one_call_of_the_function(module):
    """nn.LSTM cannot be."""
    traced = torch.fx.symbolic_trace(module)
    assert [n.target for n in traced.graph.nodes if n.op == "call_function"] == [lstm_kernels.lstm]
    assert_equal(traced(X), module(X))


def test_a_cell_traced_itself_is_one_call_of_the_function():
    cell = LSTMCell(I, H)
    traced = torch.fx.symbolic_trace(cell)
    calls = [n.target for n in traced.graph.nodes if n.op == "call_function"]
    assert calls == [lstm_kernels.lstm_cell]
    assert_equal(traced(X[0]), cell(X[0]))


def test_functions_are_leaves():
    weights = list(LSTM(I, H).parameters())

    def function(x, h, c, *weights):
        output, (h, c) = lstm_kernels.lstm(x, (h[None], c[None]), weights)
        return output, lstm_kernels.lstm_cell(x[0], (h[0], c[0]), *weights)

    traced = torch.fx.symbolic_trace(lambda x, h, c, a, b, d, e: function(x, h, c, a, b, d, e))
    given = (X, torch.randn(N, H), torch.randn(N, H), *weights)
    assert_equal(traced(*given), function(*given))


def test_a_step_from_a_constant_input():
    """What a decoder starts with is a parameter, while the states come from the encoder."""

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.randn(N, I))
            self.cell = LSTMCell(I, H)

        def forward(self, h, c):
            return self.cell(self.start, (h, c))

    model = Decoder()
    given = (torch.randn(N, H), torch.randn(N, H))
    assert_equal(torch.fx.symbolic_trace(model)(*given), model(*given))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantization_leaves_them_float():
    """prepare_fx and convert_fx quantize the rest of the model around them."""

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = LSTM(I, H)
            self.head = nn.Linear(H, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0])

    model = Tagger().eval()
    prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (X,))
    prepared(X)
    quantized = convert_fx(prepared)
    assert type(quantized.lstm) is LSTM
    assert type(quantized.head) is not nn.Linear
    scale = model(X).abs().max()  # 8 bits of inputs, weights and results: each off by under 1%
    torch.testing.assert_close(quantized(X), model(X), rtol=0, atol=0.03 * scale.item())


class Gated(nn.Module):
    """What only variants take, recorded with the call."""

    def __init__(self):
        super().__init__()
        self.lstm = LSTM(I, H, variant=Variant(input_gate=True, zoneout_cell=0.5))
        self.cell = LSTMCell(H, H, variant=Variant(input_gate=True, zoneout_cell=0.5))

    def forward(self, x, gate, zones):
        output, _ = self.lstm(x, masks=[Masks(zoneout_cell=zones)], input_gate=gate)
        return self.cell(output[0], masks=Masks(zoneout_cell=zones), input_gate=gate)


def test_a_variants_masks_and_input_gate_are_recorded():
    model = Gated()
    given = (X, torch.rand(N, H), (torch.rand(N, H) < 0.5).float())
    assert_equal(torch.fx.symbolic_trace(model)(*given), model(*given))
