"""lengths=: padded sequences of different lengths, computed as if each were alone."""

import pytest
import torch
from support import H, I, T, assert_same, gradients, tensors, twins_and_inputs, weigh
from torch.func import functional_call, grad, hessian, jvp
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves, tree_map

import lstm_kernels

LENGTHS = [3, 5, 1, 5, 2]
N = len(LENGTHS)

each_option = pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True, "batch_first": True},
        {"num_layers": 3, "bidirectional": True},
        {"proj_size": 2, "num_layers": 2, "bidirectional": True},
        {"bias": False, "proj_size": 2},
    ],
    ids=str,
)


def _case(dtype=torch.float64, **options):
    """Both modules, an input with rubbish past each end, initial states, lengths."""
    lstm, native, inputs = twins_and_inputs(T, N, dtype, **options)
    x = inputs[0].detach()
    for row, length in zip(x if lstm.batch_first else x.unbind(1), LENGTHS, strict=True):
        row[length:] = float("nan")
    return lstm, native, inputs, torch.tensor(LENGTHS)


def _packed(module, x, states, **options):
    """The same by way of a PackedSequence; every result padded again."""
    first = module.batch_first
    packed = pack_padded_sequence(x, LENGTHS, batch_first=first, enforce_sorted=False)
    output, states, *every = module(packed, states, **options)

    def pad(rows):
        return pad_packed_sequence(rows, batch_first=first)[0]

    return (
        pad(output),
        states,
        [[pad(rows) for rows in part] for part in (every[0] if every else [])],
    )


@each_option
def test_equals_the_packed_path_of_nn_lstm(options):
    lstm, native, (x, h0, c0), lengths = _case(**options)
    actual = lstm(x, (h0, c0), lengths=lengths)
    expected = _packed(native, x, (h0, c0))
    assert_same(actual, expected)
    assert_same(
        torch.autograd.grad(weigh(actual), [x, h0, c0, *lstm.parameters()]),
        torch.autograd.grad(weigh(expected), [x, h0, c0, *native.parameters()]),
    )


# Both paths do the same arithmetic on the same rows, in another order for sums over rows.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, {"rtol": 1e-5, "atol": 1e-6}),
        (torch.float64, {}),
        (torch.bfloat16, {"rtol": 2**-6, "atol": 2**-6}),
        (torch.float16, {"rtol": 2**-9, "atol": 2**-9}),
    ],
    ids=str,
)
@each_option
def test_states_and_gates_equal_the_packed_path(options, dtype, tolerance):
    lstm, _, (x, h0, c0), lengths = _case(dtype, **options)
    actual = lstm(x, (h0, c0), lengths=lengths, return_gates=True)
    expected = _packed(lstm, x, (h0, c0), return_gates=True)
    assert_same(actual, expected, **tolerance)
    inputs = [x, h0, c0, *lstm.parameters()]
    assert_same(gradients(actual, inputs), gradients(expected, inputs), **tolerance)


def test_everything_past_the_ends_is_zero():
    lstm, _, (x, _, _), lengths = _case(num_layers=2, bidirectional=True)
    output, _, states = lstm(x, lengths=lengths, return_gates=True)
    past = torch.arange(T)[:, None] >= lengths
    for tensor in (output, *tensors(states)):
        assert not tensor[past].any()
    (grad,) = gradients(output, [x])
    assert not grad[past].any()


def test_an_empty_sequence_keeps_its_states():
    lstm, _, (x, h0, c0), lengths = _case(bidirectional=True, num_layers=2)
    empty = lengths.clone()
    empty[[0, 4]] = 0
    output, (h_n, c_n) = lstm(x.detach().nan_to_num(), (h0, c0), lengths=empty)
    assert not output[:, [0, 4]].any()
    assert torch.equal(h_n[:, [0, 4]], h0[:, [0, 4]])
    assert torch.equal(c_n[:, [0, 4]], c0[:, [0, 4]])
    rest = [1, 2, 3]
    assert_close(
        output[:, rest], lstm(x[:, rest], (h0[:, rest], c0[:, rest]), lengths=lengths[rest])[0]
    )
    grads = torch.autograd.grad((h_n[:, 0] * 3).sum() + (c_n[:, 4] * 5).sum(), [h0, c0])
    assert torch.equal(grads[0][:, 0], torch.full_like(h0[:, 0], 3))
    assert torch.equal(grads[1][:, 4], torch.full_like(c0[:, 4], 5))


def test_all_empty_and_no_sequences():
    lstm, _, _, _ = _case()
    x = torch.randn(T, 2, I, dtype=torch.float64, requires_grad=True)
    output, states = lstm(x, lengths=torch.zeros(2, dtype=torch.int64))
    assert not any(tensor.any() for tensor in tensors((output, states)))
    assert not any(g.any() for g in gradients(output, [x, *lstm.parameters()]))
    output, _ = lstm(x[:, :0], lengths=torch.zeros(0, dtype=torch.int64))
    assert output.shape == (T, 0, H)


@pytest.mark.parametrize("length", [0, 100])
def test_many_steps_past_every_end(length):
    """More steps past the ends than the kernels take together; reverse directions begin there."""
    lstm = lstm_kernels.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    x = torch.randn(200, 97, 3, dtype=torch.float64)
    output, (h_n, c_n) = lstm(x, lengths=torch.full((97,), length))
    assert (output[length:] == 0).all()
    if length:
        assert_same((output[:length], (h_n, c_n)), lstm(x[:length]))
    else:
        assert (h_n == 0).all()
        assert (c_n == 0).all()


def test_full_lengths_change_nothing():
    lstm, _, _, _ = _case(bidirectional=True, num_layers=2)
    x = torch.randn(T, N, I, dtype=torch.float64)
    assert_same(lstm(x, lengths=torch.full((N,), T, dtype=torch.int32)), lstm(x))


def test_unbatched_takes_one_length():
    lstm, _, _, _ = _case(bidirectional=True)
    x = torch.randn(T, I, dtype=torch.float64)
    output, states = lstm(x, lengths=torch.tensor(3))
    expected, expected_states = lstm(x[:3])
    assert_close(output[:3], expected)
    assert not output[3:].any()
    assert_same(states, expected_states)


def test_second_derivatives():
    lstm, native, (x, h0, c0), lengths = _case(bidirectional=True)
    found = []
    for module, results in (
        (lstm, lstm(x, (h0, c0), lengths=lengths)),
        (native, _packed(native, x, (h0, c0))),
    ):
        inputs = [h0, c0, *module.parameters()]
        slopes = torch.autograd.grad(weigh(results), inputs, create_graph=True)
        found.append(gradients([slope.sin() for slope in slopes], inputs))
    assert_same(*found)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.tensor([3.0] * N), TypeError, "lengths must be an int64 or int32 tensor"),
        (torch.tensor([True] * N), TypeError, "lengths must be an int64 or int32 tensor"),
        (torch.tensor([3] * (N - 1)), RuntimeError, r"Expected lengths of size \[5\], got \[4\]"),
        (torch.tensor([[3] * N]), RuntimeError, r"Expected lengths of size \[5\], got \[1, 5\]"),
        (torch.tensor(3), RuntimeError, r"Expected lengths of size \[5\], got \[\]"),
        (
            torch.tensor([3, 3, 3, 3, -1]),
            ValueError,
            "between 0 and the number of steps, 5; got -1",
        ),
        (
            torch.tensor([3, 3, 3, 3, 6]),
            ValueError,
            "between 0 and the number of steps, 5; got 3 to",
        ),
        (torch.tensor([3] * N, device="meta"), RuntimeError, "not at the same device"),
        ([3] * N, TypeError, "lengths must be a Tensor, got list"),
    ],
)
def test_bad_lengths_raise_before_any_work(lengths, error, message):
    lstm, _, _, _ = _case()
    with pytest.raises(error, match=message):
        lstm(torch.randn(T, N, I, dtype=torch.float64), lengths=lengths)


def test_lengths_beside_a_packed_sequence_raise():
    lstm, _, _, lengths = _case()
    packed = pack_padded_sequence(
        torch.randn(T, N, I, dtype=torch.float64), LENGTHS, enforce_sorted=False
    )
    with pytest.raises(ValueError, match="not a PackedSequence"):
        lstm(packed, lengths=lengths)


def test_lengths_on_meta_tensors():
    lstm = lstm_kernels.LSTM(I, H, device="meta")
    x = torch.empty(T, N, I, device="meta")
    assert lstm(x, lengths=torch.empty(N, dtype=torch.int64, device="meta"))[0].shape == (T, N, H)


SECOND_ORDER = {
    "reverse over reverse": lambda f, p: grad(lambda q: _squares(grad(f)(q)))(p),
    "forward over reverse": lambda f, p: jvp(grad(f), (p,), (tree_map(torch.ones_like, p),))[1],
    "reverse over forward": lambda f, p: grad(
        lambda q: jvp(f, (q,), (tree_map(torch.ones_like, q),))[1]
    )(p),
    "forward over forward": lambda f, p: {
        "": jvp(
            lambda q: jvp(f, (q,), (tree_map(torch.ones_like, q),))[1],
            (p,),
            (tree_map(torch.ones_like, p),),
        )[1]
    },
    "hessian": lambda f, p: hessian(lambda w: f({**p, "weight_hh_l0": w}))(p["weight_hh_l0"]),
}


def _squares(tree):
    return sum(value.square().sum() for value in tree.values())


@pytest.mark.parametrize("second", SECOND_ORDER.values(), ids=SECOND_ORDER)
@pytest.mark.parametrize("rubbish", [float("nan"), float("inf")])
@each_option
def test_second_derivatives_do_not_see_the_padding(options, rubbish, second):
    lstm, _, (x, h0, c0), lengths = _case(**{**options, "num_layers": 1})
    clean = x.detach().nan_to_num(nan=0.5)
    foul = x.detach().nan_to_num(nan=rubbish)
    parameters = {name: value.detach() for name, value in lstm.named_parameters()}

    def derivative(x):
        def loss(p):
            output, states = functional_call(lstm, p, (x, (h0, c0)), {"lengths": lengths})
            return weigh((output, states))

        return second(loss, parameters)

    assert_same(tree_leaves(derivative(foul)), tree_leaves(derivative(clean)))


def test_a_second_derivative_written_out():
    """One unit, one step and one step of padding; numbers from float64 finite differences."""
    lstm = lstm_kernels.LSTM(1, 1).double()
    x = torch.tensor([[[0.5]], [[float("nan")]]], dtype=torch.float64)
    parameters = {name: torch.full_like(p, 0.5) for name, p in lstm.named_parameters()}

    def loss(p):
        return functional_call(lstm, p, (x,), {"lengths": torch.tensor([1])})[0].sum()

    _, found = jvp(grad(loss), (parameters,), (tree_map(torch.ones_like, parameters),))
    of_x = [-0.0401939749, 0, -0.2359419807, -0.0167852590]
    of_bias = [-0.0803879497, 0, -0.4718839614, -0.0335705180]
    for name, expected in (
        ("weight_ih_l0", of_x),
        ("weight_hh_l0", [0] * 4),
        ("bias_ih_l0", of_bias),
        ("bias_hh_l0", of_bias),
    ):
        wanted = torch.tensor(expected, dtype=torch.float64).view_as(found[name])
        assert_close(found[name], wanted, rtol=0, atol=1e-10)
