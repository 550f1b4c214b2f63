"""What code written for torch.nn.LSTM relies on, apart from the numbers."""

import copy
import io
import itertools
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from support import (
    KINDS,
    Options,
    arguments,
    assert_equal,
    assert_same,
    call,
    native,
    ours,
    tensors,
)
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import lstm_kernels
from lstm_kernels import LSTM, LSTMCell

CONSTRUCTIONS = [
    ((3, 5), {}),
    ((3, 5, 2, False), {}),
    ((3, 5, 2, True, True, 0.5, True, 2), {}),
    ((3, 5), {"num_layers": 3, "bidirectional": True, "dtype": torch.float64}),
    ((3, 5, 2, True, False, 0.25, False, 0, "cpu", torch.bfloat16), {}),
    ((1, 1), {"proj_size": 0, "bias": False, "batch_first": True}),
]


@pytest.mark.parametrize(("args", "kwargs"), CONSTRUCTIONS)
def test_parameters_initial_values_and_repr_are_nn_lstms(args, kwargs):
    torch.manual_seed(3)
    theirs = nn.LSTM(*args, **kwargs)
    torch.manual_seed(3)
    mine = LSTM(*args, **kwargs)
    assert [name for name, _ in mine.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]
    assert_equal(mine.parameters(), theirs.parameters())
    assert repr(mine) == repr(theirs)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert [[w.shape for w in layer] for layer in mine.all_weights] == [
        [w.shape for w in layer] for layer in theirs.all_weights
    ]
    assert all(
        one is other for one, other in zip(mine._flat_weights, mine.parameters(), strict=True)
    )
    theirs.load_state_dict(mine.state_dict(), strict=True)
    mine.load_state_dict(theirs.state_dict(), strict=True)


@pytest.mark.parametrize(("args", "kwargs"), [((3, 5), {}), ((3, 5, False), {"dtype": torch.half})])
def test_cell_parameters_initial_values_and_repr_are_nn_lstm_cells(args, kwargs):
    torch.manual_seed(3)
    theirs = nn.LSTMCell(*args, **kwargs)
    torch.manual_seed(3)
    mine = LSTMCell(*args, **kwargs)
    assert_equal(mine.parameters(), theirs.parameters())
    assert repr(mine) == repr(theirs)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    mine.load_state_dict(theirs.state_dict(), strict=True)


@pytest.mark.parametrize(
    "args",
    [
        (0, 1),
        (1, 0),
        (2.5, 1),
        (1, "a"),
        (1, 2, 0),
        (1, 2, 1.5),
        (1, 2, 1, 1),
        (1, 2, 1, True, 1),
        (1, 2, 1, True, False, 2.0),
        (1, 2, 1, True, False, True),
        (1, 2, 1, True, False, -0.1),
        (1, 2, 1, True, False, "x"),
        (1, 2, 1, True, False, 0.0, False, 2),
        (1, 2, 1, True, False, 0.0, False, -1),
    ],
)
def test_constructor_refuses_what_nn_lstm_refuses_in_its_words(args):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        nn.LSTM(*args)
    with pytest.raises(theirs.type) as mine:
        LSTM(*args)
    assert str(mine.value) == str(theirs.value)


def test_dropout_with_one_layer_warns_as_nn_lstm_does():
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        LSTM(2, 3, dropout=0.5)


def test_isinstance():
    """RNNBase, as torch.compile wants it; not nn.LSTM, which is documented."""
    assert isinstance(LSTM(2, 3), nn.RNNBase)
    assert not isinstance(LSTM(2, 3), nn.LSTM)
    assert isinstance(LSTMCell(2, 3), nn.RNNCellBase)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_hx", [True, False])
@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("batch_first", [True, False])
def test_layouts_are_nn_lstms(kind, with_hx, proj_size, batch_first):
    """Shapes, strides, and everything a PackedSequence carries."""
    o = Options(3, 4, 2, True, batch_first, True, proj_size, kind, (2, 5, 4), with_hx)
    theirs = native(o)
    inputs = arguments(o)
    actual, expected = call(ours(theirs), o, *inputs), call(theirs, o, *inputs)
    if isinstance(expected[0], PackedSequence):
        assert isinstance(actual[0], PackedSequence)
        assert_same(actual[0][1:], expected[0][1:])
    for one, other in zip(tensors(actual), tensors(expected), strict=True):
        assert one.shape == other.shape
        assert one.stride() == other.stride()


def test_hx_may_be_a_list_or_a_keyword():
    lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
    h, c = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    expected = tensors(lstm(x, (h, c)))
    assert_equal(tensors(lstm(x, [h, c])), expected)
    assert_equal(tensors(lstm(input=x, hx=(h, c))), expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x[::2],
        lambda x: x[:, ::2],
        lambda x: x.flip(2)[..., ::2],
        lambda x: x.permute(2, 0, 1)[:, :, :3],
        lambda x: x[:1].expand(5, -1, -1),
        lambda x: x[:, :1].expand(-1, 7, -1),
        lambda x: x[..., :1].expand(-1, -1, 4),
        lambda x: x[..., :1],
        lambda x: x.transpose(0, 2)[..., :1],
        lambda x: x.as_strided((3, 2, 4), (1, 2, 1)),
        lambda x: torch._neg_view(x),
    ],
)
def test_any_strides_give_what_a_copy_gives(view):
    """Strided, expanded, overlapping and negated input and states, forward and backward."""
    x = torch.randn(6, 4, 8, dtype=torch.float64)
    given = view(x)
    lstm = LSTM(given.shape[-1], 5, 1, bidirectional=True, dtype=torch.float64)
    h, c = (torch.randn(given.shape[1], 5, 2, dtype=torch.float64).permute(2, 0, 1) for _ in "hc")
    leaf, copied = x.clone().requires_grad_(), given.clone().requires_grad_()
    actual = tensors(lstm(view(leaf), (h, c)))
    expected = tensors(lstm(copied, (h.contiguous(), c.contiguous())))
    assert_equal(actual, expected)
    with torch.no_grad():
        assert_equal(tensors(lstm(given, (h, c))), expected)
    torch.stack([value.sin().sum() for value in actual]).sum().backward()
    torch.stack([value.sin().sum() for value in expected]).sum().backward()
    reference = torch.zeros_like(x).requires_grad_()
    view(reference).backward(copied.grad)
    torch.testing.assert_close(leaf.grad, reference.grad)


@pytest.mark.parametrize("grad", [True, False])
def test_weights_of_any_strides(grad):
    """What functional_call puts in place of Parameters need not be contiguous."""
    for module, x in (
        (LSTM(3, 4, 2, proj_size=2), torch.zeros(5, 2, 3)),
        (LSTMCell(3, 4), torch.zeros(2, 3)),
    ):
        x = torch.randn_like(x)
        strided = {
            name: torch.stack([value, value], -1)[..., 0].detach()
            for name, value in module.named_parameters()
        }
        assert not any(value.is_contiguous() for value in strided.values())
        with torch.set_grad_enabled(grad):
            expected = tensors(module(x))
            actual = tensors(torch.func.functional_call(module, strided, (x,)))
            assert_equal(actual, expected)


def test_an_empty_batch_gives_empty_results_and_zero_gradients():
    lstm = LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    output, (h_n, c_n), states = lstm(torch.randn(5, 0, 3), return_gates=True)
    assert output.shape == (5, 0, 4)
    assert h_n.shape == (4, 0, 2)
    assert c_n.shape == (4, 0, 4)
    assert states.gates[1].shape == (5, 0, 2, 4, 4)
    output.sum().backward()
    assert all(p.grad.count_nonzero() == 0 for p in lstm.parameters())
    h, c = LSTMCell(3, 4)(torch.randn(0, 3))
    assert h.shape == c.shape == (0, 4)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("steps", [1, 4])
def test_results_share_no_memory(num_layers, steps):
    """Writing to one result changes no other, nor an argument."""
    lstm = LSTM(3, 4, num_layers)
    x, h, c = torch.randn(steps, 2, 3), torch.randn(num_layers, 2, 4), torch.randn(num_layers, 2, 4)
    with torch.no_grad():
        results = [x, h, c, *tensors(lstm(x, (h, c), return_gates=True))]
    for one, other in itertools.combinations(results, 2):
        assert one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.3, 1.0])
def test_dropout_is_bit_equal_under_one_seed(kind, dropout):
    """The same elements are dropped; the rest is float64 rounding."""
    o = Options(3, 4, 3, True, True, True, 0, kind, (2, 5, 4), True)
    theirs = native(o)
    theirs.dropout = dropout
    mine = ours(theirs)
    inputs = arguments(o)
    for training in (True, False):
        torch.manual_seed(11)
        expected = tensors(call(theirs.train(training), o, *inputs))
        state = torch.get_rng_state()
        torch.manual_seed(11)
        actual = tensors(call(mine.train(training), o, *inputs))
        assert_same(actual, expected, rtol=1e-12, atol=1e-14)
        assert torch.equal(torch.get_rng_state(), state)
    zeros = F.dropout(torch.ones(4), 1.0)
    assert zeros.count_nonzero() == 0


def test_gradients_also_in_eval_mode():
    lstm = LSTM(3, 4).eval()
    lstm(torch.randn(5, 2, 3))[0].sum().backward()
    assert all(p.grad.count_nonzero() > 0 for p in lstm.parameters())


class _Doubled(nn.Module):
    calls = 0

    def forward(self, weight):
        type(self).calls += 1
        return 2 * weight


def test_a_parametrization_is_evaluated_once_per_forward():
    theirs = nn.LSTM(3, 4, dtype=torch.float64)
    parametrize.register_parametrization(theirs, "weight_hh_l0", _Doubled())
    mine = LSTM.from_native(theirs)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    _Doubled.calls = 0
    actual = mine(x)
    assert _Doubled.calls == 1
    assert_same(tensors(actual), tensors(theirs(x)), rtol=1e-12, atol=1e-14)
    actual[0].sum().backward()
    assert mine.parametrizations.weight_hh_l0.original.grad is not None
    parametrize.remove_parametrizations(mine, "weight_hh_l0")
    assert type(mine) is LSTM
    assert_same(tensors(mine(x)), tensors(theirs(x)), rtol=1e-12, atol=1e-14)


def test_weight_norm_and_spectral_norm():
    lstm = LSTM(3, 4)
    nn.utils.parametrizations.weight_norm(lstm, "weight_ih_l0")
    nn.utils.parametrizations.spectral_norm(lstm, "weight_hh_l0")
    lstm(torch.randn(5, 2, 3))[0].sum().backward()
    assert all(p.grad is not None for p in lstm.parameters())
    lstm.eval()
    x = torch.randn(5, 2, 3)
    plain = nn.LSTM(3, 4)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            weight.copy_(getattr(lstm, name))
    assert_same(tensors(lstm(x)), tensors(plain(x)))


def test_pruning():
    theirs = nn.LSTM(3, 4)
    mine = ours(theirs)
    for lstm in (theirs, mine):
        torch.manual_seed(0)
        prune.l1_unstructured(lstm, "weight_hh_l0", 0.5)
        lstm.bias_ih_l0.grad = None
    x = torch.randn(5, 2, 3)
    assert_same(tensors(mine(x)), tensors(theirs(x)))
    mine(x)[0].sum().backward()
    assert mine.weight_hh_l0_orig.grad is not None
    prune.remove(mine, "weight_hh_l0")
    assert mine.weight_hh_l0.count_nonzero() == 32


def test_functional_call_and_tied_parameters():
    lstm, x = LSTM(4, 4, dtype=torch.float64), torch.randn(5, 2, 4, dtype=torch.float64)
    new = {name: torch.randn_like(p) for name, p in lstm.named_parameters()}
    other = LSTM(4, 4, dtype=torch.float64)
    other.load_state_dict(new)
    actual = torch.func.functional_call(lstm, new, (x,))
    assert_equal(tensors(actual), tensors(other(x)))

    lstm.weight_hh_l0 = lstm.weight_ih_l0
    lstm(x)[0].sum().backward()
    apart = LSTM(4, 4, dtype=torch.float64)
    apart.load_state_dict(lstm.state_dict())
    apart(x)[0].sum().backward()
    torch.testing.assert_close(
        lstm.weight_ih_l0.grad, apart.weight_ih_l0.grad + apart.weight_hh_l0.grad
    )


def test_weights_set_between_calls_are_used():
    """A new Parameter; and a plain tensor in place of a deleted one, as DropConnect does."""
    lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
    before = lstm(x)[0]
    lstm.weight_hh_l0 = nn.Parameter(torch.randn(16, 4))
    native_copy = lstm.to_native()
    assert not torch.equal(lstm(x)[0], before)
    torch.testing.assert_close(lstm(x)[0], native_copy(x)[0])
    raw = lstm.weight_hh_l0
    del lstm.weight_hh_l0
    lstm.weight_hh_l0 = raw.detach() / 2
    with torch.no_grad():
        native_copy.weight_hh_l0 /= 2
    torch.testing.assert_close(lstm(x)[0], native_copy(x)[0])


def test_pickle_deepcopy_and_torch_save():
    lstm, x = LSTM(3, 4, 2, bidirectional=True), torch.randn(5, 2, 3)
    buffer = io.BytesIO()
    torch.save(lstm, buffer)
    buffer.seek(0)
    copies = [
        pickle.loads(pickle.dumps(lstm)),
        copy.deepcopy(lstm),
        torch.load(buffer, weights_only=False),
    ]
    expected = tensors(lstm(x))
    with torch.no_grad():
        for p in lstm.parameters():
            p.zero_()
    for again in copies:
        assert_equal(tensors(again(x)), expected)
        assert all(
            one is other for one, other in zip(again._flat_weights, again.parameters(), strict=True)
        )


def test_to_another_dtype_and_back():
    lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
    expected = lstm(x)[0]
    assert lstm.double()(x.double())[0].dtype is torch.float64
    torch.testing.assert_close(lstm.float()(x)[0], expected)
    assert lstm.to(torch.bfloat16)(x.bfloat16())[0].dtype is torch.bfloat16


def test_meta_device_and_to_empty():
    lstm = LSTM(3, 4, 2, device="meta")
    output, (h_n, _), states = lstm(torch.empty(5, 2, 3, device="meta"), return_gates=True)
    assert output.is_meta
    assert output.shape == (5, 2, 4)
    assert h_n.shape == (2, 2, 4)
    assert states.gates[0].shape == (5, 2, 1, 4, 4)
    real = lstm.to_empty(device="cpu")
    real.load_state_dict(LSTM(3, 4, 2).state_dict())
    assert real(torch.randn(5, 2, 3))[0].isfinite().all()
    with torch.device("meta"):
        assert LSTMCell(3, 4)(torch.empty(2, 3))[0].is_meta


def test_flatten_parameters_does_nothing():
    lstm = LSTM(3, 4)
    pointers = [p.data_ptr() for p in lstm.parameters()]
    lstm.flatten_parameters()
    assert [p.data_ptr() for p in lstm.parameters()] == pointers


def test_packed_sequences_keep_their_order():
    """States of unsorted sequences in the original order, equal to each sequence run alone."""
    lstm = LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
    sequences = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 7, 4, 7, 1)]
    h, c = torch.randn(4, 5, 4, dtype=torch.float64), torch.randn(4, 5, 4, dtype=torch.float64)
    packed = pack_sequence(sequences, enforce_sorted=False)
    output, (h_n, c_n) = lstm(packed, (h, c))
    assert torch.equal(output.batch_sizes, packed.batch_sizes)
    assert torch.equal(output.sorted_indices, packed.sorted_indices)
    assert torch.equal(output.unsorted_indices, packed.unsorted_indices)
    padded, _ = nn.utils.rnn.pad_packed_sequence(output)
    for n, sequence in enumerate(sequences):
        alone, (h_alone, c_alone) = lstm(sequence, (h[:, n], c[:, n]))
        torch.testing.assert_close(padded[: len(sequence), n], alone)
        torch.testing.assert_close(h_n[:, n], h_alone)
        torch.testing.assert_close(c_n[:, n], c_alone)


def test_from_native_and_to_native_share_no_memory_and_keep_everything():
    theirs = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5, bidirectional=True).eval()
    theirs.weight_hh_l0.requires_grad_(False)
    theirs.register_forward_hook(lambda *_: None)
    mine = LSTM.from_native(theirs)
    back = mine.to_native()
    assert type(mine) is LSTM
    assert type(back) is nn.LSTM
    assert repr(back) == repr(theirs) == repr(mine)
    for module in (mine, back):
        assert not module.training
        assert not module.weight_hh_l0.requires_grad
        assert module.weight_ih_l0.requires_grad
        assert len(module._forward_hooks) == 1
        assert_equal(module.parameters(), theirs.parameters())
        for one, other in zip(module.parameters(), theirs.parameters(), strict=True):
            assert one.data_ptr() != other.data_ptr()
    assert back.weight_hh_l0.data_ptr() != mine.weight_hh_l0.data_ptr()
    assert "forget_bias" not in vars(LSTM(3, 4, forget_bias=1.0).to_native())
    cell = nn.LSTMCell(3, 4)
    assert type(LSTMCell.from_native(cell).to_native()) is nn.LSTMCell
    for wrong in (nn.GRU(3, 4), nn.LSTMCell(3, 4), LSTM(3, 4)):
        with pytest.raises(TypeError, match=r"expected a torch\.nn\.modules\.rnn\.LSTM, got"):
            LSTM.from_native(wrong)


@pytest.mark.parametrize("weight_norm", [parametrizations.weight_norm, utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_from_native_after_a_training_step_with_computed_weights(weight_norm):
    """What a parametrization or a hook has computed cannot be copied, and is in the module."""
    x = torch.randn(5, 2, 3)
    for theirs, cls, name, given in (
        (nn.LSTM(3, 4, 2), LSTM, "weight_hh_l1", x),
        (nn.LSTMCell(3, 4), LSTMCell, "weight_hh", x[0]),
    ):
        weight_norm(theirs, name)
        theirs(given)[0].sum().backward()
        mine = cls.from_native(theirs)
        back = mine.to_native()
        for module in (mine, back):
            assert_same(module(given), theirs(given))
            loss, expected = (m(given)[0].square().sum() for m in (module, theirs))
            assert_same(
                torch.autograd.grad(loss, list(module.parameters())),
                torch.autograd.grad(expected, list(theirs.parameters())),
            )
        mine(given)[0].sum().backward()
        assert_same(mine.to_native()(given), theirs(given))
        with torch.no_grad():  # the copies have weights apart from the original's
            next(mine.parameters()).add_(1)
        assert not torch.equal(mine(given)[0], theirs(given)[0])


@pytest.mark.parametrize("module", [LSTM(3, 4), LSTMCell(3, 4)], ids=str)
def test_torch_jit_script_names_what_to_do(module):
    for model in (module, nn.Sequential(module)):
        with pytest.raises(NotImplementedError, match=r"cannot compile .* script .* to_native\(\)"):
            torch.jit.script(model)


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(3, 4, batch_first=True)
        self.shared = self.encoder
        self.rest = nn.ModuleList([nn.LSTMCell(4, 5), nn.Linear(5, 2), nn.GRU(2, 2)])

    def forward(self, x):
        output, _ = self.encoder(x)
        h, _ = self.rest[0](output[:, -1])
        return self.rest[1](h)


class _Own(nn.LSTM):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


def test_replace_lstm_keeps_parameters_so_that_the_optimizer_goes_on():
    torch.manual_seed(0)
    model = _Model()
    parametrize.register_parametrization(model.encoder, "weight_hh_l0", _Doubled())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    twin = copy.deepcopy(model)
    twin_optimizer = torch.optim.Adam(twin.parameters(), lr=0.1)
    before = list(model.parameters())
    x = torch.randn(2, 5, 3)

    def step(one, opt):
        opt.zero_grad()
        one(x).square().sum().backward()
        opt.step()

    step(model, optimizer)
    step(twin, twin_optimizer)
    assert lstm_kernels.replace_lstm(model) is model
    assert isinstance(model.encoder, LSTM)
    assert model.shared is model.encoder
    assert type(model.rest[0]) is LSTMCell
    assert type(model.rest[2]) is nn.GRU
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    for _ in range(3):
        step(model, optimizer)
        step(twin, twin_optimizer)
    assert_same(model.parameters(), twin.parameters(), rtol=1e-4, atol=1e-5)  # Adam divides noise


def test_replace_lstm_of_an_lstm_and_of_subclasses():
    root, own = nn.LSTM(2, 3), nn.Sequential(_Own(2, 3))
    assert lstm_kernels.replace_lstm(root) is root
    assert type(root) is LSTM
    assert type(lstm_kernels.replace_lstm(own)[0]) is _Own
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        lstm_kernels.replace_lstm(3)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_forget_bias(bidirectional):
    torch.manual_seed(0)
    lstm = LSTM(3, 4, 2, bidirectional=bidirectional, forget_bias=1.0)
    torch.manual_seed(0)
    plain = nn.LSTM(3, 4, 2, bidirectional=bidirectional)
    for name, weight in lstm.named_parameters():
        if name.startswith("bias"):
            forget = 1.0 if "bias_ih" in name else 0.0
            assert torch.equal(weight[4:8], torch.full((4,), forget))
            weight = torch.cat([weight[:4], weight[8:]])
            expected = getattr(plain, name)
            assert torch.equal(weight, torch.cat([expected[:4], expected[8:]]))
        else:
            assert torch.equal(weight, getattr(plain, name))
    assert "forget_bias=1.0" in repr(lstm)
    lstm.reset_parameters()
    assert (lstm.bias_ih_l1[4:8] == 1).all()
    cell = LSTMCell(3, 4, forget_bias=2.0)
    assert (cell.bias_ih[4:8] + cell.bias_hh[4:8] == 2).all()
    for cls in (LSTM, LSTMCell):
        with pytest.raises(ValueError, match="forget_bias needs bias=True"):
            cls(3, 4, bias=False, forget_bias=1.0)


def test_autocast_computes_in_its_dtype_and_returns_it():
    """Everything in the autocast dtype, as nn.LSTM's fused path does; float64 stays.

    The states of a cell on the CPU keep their dtype, as in nn.LSTMCell.
    """
    lstm, cell, x = LSTM(8, 16), LSTMCell(8, 16), torch.randn(5, 2, 8)
    h, c = torch.randn(1, 2, 16), torch.randn(1, 2, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        results = [
            *tensors(lstm(x, return_gates=True)),
            *tensors(lstm(x.bfloat16(), (h, c))),
            *cell(x[0], (h[0], c[0])),
        ]
        wide = lstm_kernels.LSTM(8, 16, dtype=torch.float64)(x.double())[0]
        (lstm(x)[0].float().sum() + cell(x[0])[0].float().sum()).backward()
    assert all(value.dtype is torch.bfloat16 for value in results)
    assert wide.dtype is torch.float64
    for module in (lstm, cell):
        assert all(p.grad.dtype is torch.float32 for p in module.parameters())
    torch.testing.assert_close(results[0].float(), lstm(x)[0], rtol=0.02, atol=0.02)


def test_backward_under_autocast_keeps_the_precision_of_the_forward_pass():
    lstm, x = LSTM(8, 16), torch.randn(5, 2, 8)
    expected = torch.autograd.grad(lstm(x)[0].sum(), lstm.parameters())
    output = lstm(x)[0].sum()
    with torch.autocast("cpu", torch.bfloat16):
        actual = torch.autograd.grad(output, lstm.parameters())
    assert_equal(actual, expected)


def test_show_config_prints_what_a_bug_report_needs(capsys):
    lstm_kernels.show_config()
    text = capsys.readouterr().out
    for fact in (lstm_kernels.__version__, torch.__version__, "CPU kernels: ", "threads: ", "CUDA"):
        assert fact in text


def test_data_parallel_replica_and_share_memory():
    lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
    replica = lstm._replicate_for_data_parallel()
    replica._parameters = dict(lstm._parameters)
    assert_equal(tensors(replica(x)), tensors(lstm(x)))
    assert_equal(tensors(lstm.share_memory()(x)), tensors(replica(x)))


def test_no_warning_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lstm = LSTM(3, 4, 2, batch_first=True, bidirectional=True)
        packed = pack_padded_sequence(torch.randn(2, 5, 3), [5, 3], batch_first=True)
        lstm(packed, return_gates=True)[0].data.sum().backward()
