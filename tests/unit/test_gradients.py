"""Gradients of every order, of everything that is returned, for everything that goes in."""

import copy
import itertools

import pytest
import torch
from support import assert_equal, assert_same, tensors
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.utils.checkpoint import checkpoint

import lstm_kernels
from lstm_kernels import LSTM, LSTMCell, lstm, lstm_cell

CASES = [
    (kind, bidirectional, proj_size, bias)
    for kind, bidirectional, (proj_size, bias) in itertools.product(
        ["padded", "no states", "packed", "lengths", "reset"],
        [False, True],
        [(0, True), (2, False)],
    )
    if not (kind == "reset" and bidirectional)
]
RAGGED = {
    "lengths": {"lengths": torch.tensor([3, 0, 1])},
    "reset": {"reset": torch.tensor([[0, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)},
}


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def layer(kind, bidirectional, proj_size, bias):
    """A function of all its tensors that returns all its results, and those tensors."""
    directions, hidden_size, input_size = 1 + bidirectional, 3, 2
    module = LSTM(
        input_size, hidden_size, 1, bias, proj_size=proj_size, bidirectional=bidirectional
    )
    weights = [p.detach().double().requires_grad_() for p in module.parameters()]
    x = random(6, input_size) if kind == "packed" else random(3, 3, input_size)
    states = (
        ()
        if kind == "no states"
        else (random(directions, 3, proj_size or hidden_size), random(directions, 3, hidden_size))
    )

    def function(x, *rest):
        given = PackedSequence(x, torch.tensor([3, 2, 1])) if kind == "packed" else x
        return tuple(
            tensors(
                lstm(
                    given,
                    rest[:2] if states else None,
                    rest[len(states) :],
                    bidirectional=bidirectional,
                    return_gates=True,
                    **RAGGED.get(kind, {}),
                )
            )
        )

    return function, (x, *states, *weights)


@pytest.mark.parametrize(("kind", "bidirectional", "proj_size", "bias"), CASES)
def test_first_and_second_derivatives(kind, bidirectional, proj_size, bias):
    """Against finite differences along random directions: output, last states, states, gates."""
    torch.manual_seed(0)
    function, inputs = layer(kind, bidirectional, proj_size, bias)
    assert gradcheck(function, inputs, fast_mode=True)
    assert gradgradcheck(function, inputs, fast_mode=True)


def test_every_element_of_the_jacobian():
    torch.manual_seed(0)
    function, inputs = layer("padded", False, 0, True)
    assert gradcheck(function, inputs)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("kind", ["padded", "packed", "lengths", "reset"])
def test_forward_mode_and_forward_over_reverse(kind):
    torch.manual_seed(0)
    function, inputs = layer(kind, kind != "reset", 2, True)
    assert gradcheck(
        function, inputs, fast_mode=True, check_forward_ad=True, check_backward_ad=False
    )
    assert gradgradcheck(
        function,
        inputs,
        fast_mode=True,
        check_fwd_over_rev=True,
        check_rev_over_rev=False,
        check_undefined_grad=False,
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("bias", [True, False])
def test_derivatives_of_a_step(bias):
    torch.manual_seed(0)
    weights = [p.detach().double().requires_grad_() for p in LSTMCell(2, 3, bias).parameters()]
    inputs = (random(2, 2), random(2, 3), random(2, 3), *weights)

    def function(x, h, c, *weights):
        return lstm_cell(x, (h, c), *weights, return_gates=True)

    assert gradcheck(function, inputs, check_forward_ad=True)
    assert gradgradcheck(function, inputs, fast_mode=True, check_fwd_over_rev=True)


def test_third_derivatives():
    torch.manual_seed(0)
    function, inputs = layer("padded", False, 0, False)

    def slope(x, *rest):
        loss = sum(value.sin().sum() for value in function(x, *rest))
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x, create_graph=True)

    assert gradcheck(slope, inputs, fast_mode=True)


def test_a_second_backward_equals_the_first():
    """Nothing saved is written to."""
    module = LSTM(3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    loss = sum(value.sin().sum() for value in tensors(module(x, return_gates=True)))
    leaves = (x, *module.parameters())
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves, retain_graph=True)
    with_graph = torch.autograd.grad(loss, leaves, create_graph=True)
    assert_equal(second, first)
    # Sums of 10 rows and of 16 gates, which torch's products take in another order.
    assert_same(with_graph, first, rtol=16 * 2**-23, atol=16 * 2**-23)


@pytest.mark.parametrize("used", range(6))
def test_unused_results_have_no_gradient_to_pass(used):
    """A loss on one result alone; the others' gradients stay undefined."""
    theirs = nn.LSTM(3, 4, dtype=torch.float64)
    module = LSTM.from_native(theirs)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    results = tensors(module(x, return_gates=True))
    assert len(results) == 6
    actual = torch.autograd.grad(results[used].sum(), (x, *module.parameters()))
    assert actual[0].count_nonzero() > 0
    if used < 3:
        expected = torch.autograd.grad(tensors(theirs(x))[used].sum(), (x, *theirs.parameters()))
        assert_same(actual, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("frozen", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "weight_hr_l0"])
def test_only_what_needs_a_gradient_gets_one(frozen):
    module = LSTM(3, 4, proj_size=2, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = torch.autograd.grad(module(x)[0].sum(), list(module.parameters()))
    getattr(module, frozen).requires_grad_(False)
    module(x)[0].sum().backward()
    for (name, p), wanted in zip(module.named_parameters(), expected, strict=True):
        assert (p.grad is None) if name == frozen else torch.equal(p.grad, wanted)
    module.requires_grad_(False)
    assert not module(x)[0].requires_grad
    x.requires_grad_()
    assert_same(
        torch.autograd.grad(module(x)[0].sum(), x),
        torch.autograd.grad(module.to_native()(x)[0].sum(), x),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["padded", "packed", "lengths", "reset"])
@pytest.mark.parametrize("with_states", [False, True])
def test_the_ops_and_torch_compute_the_same_products(kind, dtype, with_states):
    """A backward pass that nobody differentiates may take the ops, any other one torch's."""
    torch.manual_seed(0)
    steps, batch, directions = 40, 5, 1 if kind == "reset" else 2
    module = LSTM(6, 7, bidirectional=directions == 2, dtype=dtype)
    x = torch.randn(steps, batch, 6, dtype=dtype, requires_grad=True)
    hx = tuple(torch.randn(2, directions, batch, 7, dtype=dtype)) if with_states else None
    lengths = torch.tensor([40, 31, 30, 2, 1])
    given = pack_padded_sequence(x, lengths) if kind == "packed" else x
    ragged = {"lengths": {"lengths": lengths}, "reset": {"reset": torch.rand(steps, batch) < 0.2}}
    output = module(given, hx, **ragged.get(kind, {}))[0]
    loss = (output.data if kind == "packed" else output).square().sum()
    leaves = [x, *module.parameters()]
    ops, plain = (
        torch.autograd.grad(loss, leaves, retain_graph=True, create_graph=differentiable)
        for differentiable in (False, True)
    )
    # Sums of 200 products in different orders; torch rounds 16-bit sums over the rows and those
    # with h0 one by one, the ops once.
    unit = torch.finfo(dtype).eps
    for one, other in zip(ops, plain, strict=True):
        largest = other.detach().abs().max().item()
        assert_same([one], [other.detach()], rtol=16 * unit, atol=16 * unit * largest)


@pytest.mark.parametrize("kind", ["padded", "packed", "lengths"])
@pytest.mark.parametrize(
    ("dtype", "by_ops"),
    [(torch.float32, True), (torch.float64, True), (torch.bfloat16, False), (torch.float16, True)],
)
def test_ops_compute_the_products_that_the_cpu_has_no_instructions_for(
    monkeypatch, dtype, by_ops, kind
):
    """Here on a CPU that can multiply bfloat16."""
    called = set()
    for name in ("weight_gradients", "input_gradient"):
        op = getattr(lstm_kernels._ops, name)
        monkeypatch.setattr(
            lstm_kernels._ops, name, lambda *a, op=op, name=name: called.add(name) or op(*a)
        )
    monkeypatch.setattr(lstm_kernels._weight_gradients, "_MULTIPLIED", [torch.bfloat16])
    x = torch.randn(5, 1, 3, dtype=dtype, requires_grad=True)
    ragged = {"lengths": torch.tensor([5])} if kind == "lengths" else {}
    given = pack_padded_sequence(x, torch.tensor([5])) if kind == "packed" else x
    output = LSTM(3, 4, dtype=dtype)(given, **ragged)[0]
    (output.data if kind == "packed" else output).sum().backward()
    assert called == ({"weight_gradients", "input_gradient"} if by_ops else set())


def test_nothing_is_saved_without_need():
    """No graph in no_grad, inference_mode, or where nothing requires a gradient."""
    module, x = LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        assert module(x)[0].grad_fn is None
    with torch.inference_mode():
        assert module(x)[0].is_inference()
        assert LSTMCell(3, 4)(x[0])[0].is_inference()
    assert module.requires_grad_(False)(x)[0].grad_fn is None


def test_gradient_penalty_as_in_wgan_gp():
    """Double backward through several layers equals nn.LSTM's."""
    theirs = nn.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
    results = []
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for module in (LSTM.from_native(theirs), theirs):
        leaf = x.clone().requires_grad_()
        output = module(leaf)[0].tanh().sum()
        (slope,) = torch.autograd.grad(output, leaf, create_graph=True)
        penalty = (slope.norm() - 1).square()
        results.append(torch.autograd.grad(penalty, (leaf, *module.parameters())[:-1]))
    assert_same(results[0], results[1], rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")  # its reminder
def test_checkpoint_hooks_and_anomaly_mode():
    module = LSTM(3, 4, 2, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    leaves = (x, *module.parameters())
    expected = torch.autograd.grad(module(x)[0].sin().sum(), leaves)

    again = checkpoint(lambda x: module(x)[0], x, use_reentrant=False)
    assert_equal(torch.autograd.grad(again.sin().sum(), leaves), expected)
    with torch.autograd.graph.save_on_cpu():
        saved = module(x)[0].sin().sum()
    assert_equal(torch.autograd.grad(saved, leaves), expected)
    with torch.autograd.detect_anomaly(check_nan=True):
        watched = module(x)[0].sin().sum()
        assert_equal(torch.autograd.grad(watched, leaves), expected)


def test_gradient_accumulation_and_scaling():
    module = LSTM(3, 4)
    twin = copy.deepcopy(module)
    x = torch.randn(5, 4, 3)
    for part in x.split(2, 1):
        module(part)[0].sum().backward()
    twin(x)[0].sum().backward()
    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
        assert one.grad.is_contiguous()
    biases = (module.bias_ih_l0.grad, module.bias_hh_l0.grad)
    assert biases[0].data_ptr() != biases[1].data_ptr()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_forward_mode_of_packed_rows_whatever_the_default_device():
    lstm = lstm_kernels.LSTM(3, 4, dtype=torch.float64)
    packed = pack_sequence([torch.randn(k, 3, dtype=torch.float64) for k in (3, 2)])
    found = []
    for device in ("cpu", "meta"):
        with forward_ad.dual_level(), torch.device(device):
            dual = forward_ad.make_dual(packed.data, packed.data.cos())
            output, _ = lstm(packed._replace(data=dual))
            found.append(forward_ad.unpack_dual(output.data).tangent)
    assert_equal(*found)
