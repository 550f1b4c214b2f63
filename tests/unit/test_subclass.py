"""lstm_kernels.nn: the modules as subclasses of torch.nn's, with the whole contract."""

import copy
import io
import pickle

import pytest
import torch
from support import H, I, N, T, assert_equal, assert_same
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_sequence

import lstm_kernels
from lstm_kernels import replace_lstm

X = torch.randn(T, N, I)


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"proj_size": 2}],
    ids=str,
)
def test_an_lstm_is_one_and_computes_as_ours(options):
    torch.manual_seed(0)
    both = lstm_kernels.nn.LSTM(I, H, **options)
    torch.manual_seed(0)
    ours = lstm_kernels.LSTM(I, H, **options)
    assert isinstance(both, nn.LSTM)
    assert isinstance(both, lstm_kernels.LSTM)
    assert repr(both) == repr(ours)
    assert_equal(both.state_dict().values(), ours.state_dict().values())
    assert_equal(both(X, return_gates=True), ours(X, return_gates=True))
    packed = pack_sequence([X[:, 0], X[:2, 1]])
    assert_equal(both(packed), ours(packed))
    x = X.clone().requires_grad_()
    assert_equal(
        torch.autograd.grad(both(x)[0].sum(), [x, *both.parameters()]),
        torch.autograd.grad(ours(x)[0].sum(), [x, *ours.parameters()]),
    )
    with torch.no_grad():
        assert_equal(both.prepack()(X), ours.prepack()(X))


def test_a_cell_is_one_and_computes_as_ours():
    torch.manual_seed(0)
    both = lstm_kernels.nn.LSTMCell(I, H, forget_bias=1.0)
    torch.manual_seed(0)
    ours = lstm_kernels.LSTMCell(I, H, forget_bias=1.0)
    assert isinstance(both, nn.LSTMCell)
    assert isinstance(both, lstm_kernels.LSTMCell)
    assert repr(both) == repr(ours)
    assert_equal(both(X[0], return_gates=True), ours(X[0], return_gates=True))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(I, H, 2)
        self.cell = nn.LSTMCell(H, H)

    def forward(self, x):
        output, (h, c) = self.lstm(x)
        return self.cell(output[-1], (h[0], c[0]))


def test_replace_lstm_with_subclasses():
    model = Model()
    parametrize.register_parametrization(model.lstm, "weight_hh_l0", nn.Softsign())
    parameters, expected = list(model.parameters()), model(X)
    assert replace_lstm(model, subclass=True) is model
    assert isinstance(model.lstm, lstm_kernels.nn.LSTM)
    assert type(model.cell) is lstm_kernels.nn.LSTMCell
    for one, other in zip(model.parameters(), parameters, strict=True):
        assert one is other
    assert_same(model(X), expected)


@pytest.mark.parametrize("parametrized", [False, True])
def test_conversions_and_copies(parametrized):
    native = nn.LSTM(I, H, 2)
    if parametrized:
        parametrize.register_parametrization(native, "weight_hh_l0", nn.Softsign())
    both = lstm_kernels.nn.LSTM.from_native(native)
    assert isinstance(both, lstm_kernels.nn.LSTM)
    back = both.to_native()
    assert parametrize.type_before_parametrizations(back) is nn.LSTM
    for module in (both, back, copy.deepcopy(both)):
        assert_same(module(X), native(X))
    if not parametrized:
        assert_equal(pickle.loads(pickle.dumps(both))(X), both(X))
        file = io.BytesIO()
        torch.save(both, file)
        file.seek(0)
        with torch.serialization.safe_globals([lstm_kernels.nn.LSTM, set]):
            assert_equal(torch.load(file)(X), both(X))
    cell = nn.LSTMCell(I, H)
    ours = lstm_kernels.nn.LSTMCell.from_native(cell)
    assert type(ours) is lstm_kernels.nn.LSTMCell
    assert type(ours.to_native()) is nn.LSTMCell


def test_torch_compile_needs_allow_rnn():
    """Without it, the graph breaks at every nn.LSTM, and the result is right all the same."""
    both = lstm_kernels.nn.LSTM(I, H)
    torch.compiler.reset()
    assert_equal(torch.compile(both, backend="eager")(X), both(X))
    torch.compiler.reset()
    with torch._dynamo.config.patch(allow_rnn=False), pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(lambda x: both(x), backend="eager", fullgraph=True)(X)
    torch.compiler.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(lambda x: both(x), backend="aot_eager", fullgraph=True)
        assert_equal(compiled(X), both(X))


def test_a_class_that_copies_our_methods():
    """Libraries that take nn.LSTM apart, with the subclass under that name."""

    class Base(nn.RNNBase):
        def __init__(self, *arguments):
            super().__init__("LSTM", *arguments)

    for name in vars(lstm_kernels.nn.LSTM):
        if name not in ("__init__", "__dict__", "__weakref__"):
            setattr(Base, name, getattr(lstm_kernels.nn.LSTM, name))
    base = Base(I, H)
    assert [name for name, _ in base.named_parameters()] == [
        name for name, _ in nn.LSTM(I, H).named_parameters()
    ]


@pytest.mark.parametrize("cls", [lstm_kernels.LSTM, lstm_kernels.nn.LSTM])
def test_other_weights_in_flat_weights_are_refused(cls):
    lstm = cls(I, H)
    with pytest.raises(ValueError, match="expected the module's own weight_ih_l0, got another"):
        lstm._flat_weights = [weight.detach().clone() for weight in lstm.parameters()]
    lstm._flat_weights = list(lstm.parameters())  # as torch itself does
    lstm.to(torch.float64).double()
    parametrize.register_parametrization(lstm, "weight_hh_l0", nn.Softsign())
    lstm.to(torch.float32)
    assert lstm(X)[0].shape == (T, N, H)
