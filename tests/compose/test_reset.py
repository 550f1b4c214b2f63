"""reset=: both memories are zeroed before chosen steps, as at the start of an episode."""

import pytest
import torch
from support import H, I, assert_equal, assert_same, gradients, twins, twins_and_inputs, weigh
from torch.nn.utils.rnn import pack_sequence
from torch.testing import assert_close

T, N = 7, 4

each_option = pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2},
        {"num_layers": 2, "proj_size": 2, "batch_first": True},
        {"bias": False},
    ],
    ids=str,
)


def _case(dtype=torch.float64, **options):
    """Both modules, their input and initial states, and before which steps these are zeroed."""
    lstm, native, inputs = twins_and_inputs(T, N, dtype, **options)
    reset = torch.rand(T, N) < 0.3
    reset[0] = torch.tensor([True, False, True, False])
    reset[:, 3] = False
    return lstm, native, inputs, reset.mT if lstm.batch_first else reset


def _loop(module, x, states, reset, **options):
    """What RL libraries do: one call per step, with the states multiplied by 1 - start."""
    axis = 1 if module.batch_first else 0
    outputs, every = [], []
    for x_t, reset_t in zip(x.split(1, axis), reset.unbind(axis), strict=True):
        states = tuple(s.masked_fill(reset_t[:, None], 0) for s in states)
        output, states, *rest = module(x_t, states, **options)
        outputs.append(output)
        every += rest
    joined = [
        [torch.cat(steps, axis) for steps in zip(*part, strict=True)]
        for part in zip(*every, strict=True)
    ]
    return torch.cat(outputs, axis), states, joined


@each_option
def test_equals_a_loop_over_nn_lstm(options):
    lstm, native, (x, h0, c0), reset = _case(**options)
    actual = lstm(x, (h0, c0), reset=reset)
    expected = _loop(native, x, (h0, c0), reset)
    assert_same(actual, expected)
    assert_same(
        torch.autograd.grad(weigh(actual), [x, h0, c0, *lstm.parameters()]),
        torch.autograd.grad(weigh(expected), [x, h0, c0, *native.parameters()]),
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, {"rtol": 1e-5, "atol": 1e-5}),  # gradients sum T * N terms of about 1
        (torch.float64, {}),
        (torch.bfloat16, {"rtol": 2**-5, "atol": 2**-4}),  # the loop rounds c_t after each step
        (torch.float16, {"rtol": 2**-8, "atol": 2**-7}),
    ],
    ids=str,
)
@each_option
def test_states_and_gates_equal_the_loop(options, dtype, tolerance):
    lstm, _, (x, h0, c0), reset = _case(dtype, **options)
    actual = lstm(x, (h0, c0), reset=reset, return_gates=True)
    expected = _loop(lstm, x, (h0, c0), reset, return_gates=True)
    assert_same(actual, expected, **tolerance)
    inputs = [x, h0, c0, *lstm.parameters()]
    assert_same(gradients(actual, inputs), gradients(expected, inputs), **tolerance)


def test_no_gradient_crosses_a_reset():
    lstm, _, (x, h0, c0), _ = _case(num_layers=2)
    reset = torch.zeros(T, N, dtype=torch.bool)
    reset[3, 1] = True
    output, _ = lstm(x, (h0, c0), reset=reset)
    grads = torch.autograd.grad(output[3:].sum(), [x, h0, c0])
    assert not grads[0][:3, 1].any()
    assert grads[0][:3, [0, 2, 3]].all()
    for grad in grads[1:]:
        assert not grad[:, 1].any()
        assert grad[:, [0, 2, 3]].all()


def test_an_infinite_state_does_not_cross_a_reset():
    """Zeroed, not multiplied by zero: 0 * inf would be NaN, in the results and the gradients."""
    lstm, _, (x, h0, _), _ = _case()
    reset = torch.zeros(T, N, dtype=torch.bool)
    reset[0, 2] = True
    c0 = torch.zeros(1, N, H, dtype=torch.float64)
    c0[:, 2] = float("inf")
    output, _ = lstm(x, (h0, c0.requires_grad_()), reset=reset)
    assert output.isfinite().all()
    assert all(grad.isfinite().all() for grad in gradients(output, [x, h0, c0]))


def test_no_reset_changes_nothing():
    lstm, _, (x, h0, c0), _ = _case(num_layers=2)
    reset = torch.zeros(T, N, dtype=torch.bool)
    assert_equal(lstm(x, (h0, c0), reset=reset), lstm(x, (h0, c0)))


def test_resets_and_lengths_together():
    lstm, _, (x, h0, c0), reset = _case()
    lengths = torch.tensor([7, 4, 0, 3])
    output, (h_n, c_n) = lstm(x, (h0, c0), reset=reset, lengths=lengths)
    for n, length in enumerate(lengths):
        alone = slice(n, n + 1)
        if length == 0:
            assert torch.equal(h_n[:, alone], h0[:, alone])
            assert torch.equal(c_n[:, alone], c0[:, alone])
            continue
        expected, states = lstm(
            x[:length, alone], (h0[:, alone], c0[:, alone]), reset=reset[:length, alone]
        )
        assert_close(output[:length, alone], expected)
        assert not output[length:, alone].any()
        assert_same((h_n[:, alone], c_n[:, alone]), states)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8],
    ids=str,
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_flags_may_be_numbers(dtype, batch_first):
    """Reinforcement learning keeps its dones in the dtype of its rewards."""
    lstm, _, (x, h0, c0), reset = _case(batch_first=batch_first)
    expected = lstm(x, (h0, c0), reset=reset)
    assert_equal(lstm(x, (h0, c0), reset=reset.to(dtype)), expected)


def test_a_graph_checks_flags_when_it_runs():
    lstm, _, (x, _, _), reset = _case()
    torch.compiler.reset()
    compiled = torch.compile(lstm, backend="eager", fullgraph=True)
    assert_equal(compiled(x, reset=reset.float()), lstm(x, reset=reset))
    with pytest.raises(RuntimeError, match="reset must be a bool tensor, or hold nothing but 0"):
        compiled(x, reset=torch.full((T, N), 0.5))


def test_unbatched_takes_one_flag_per_step():
    lstm, _, (x, _, _), reset = _case()
    output, _ = lstm(x[:, 0], reset=reset[:, 0])
    assert_close(output, lstm(x[:, :1], reset=reset[:, :1])[0][:, 0])


def test_second_derivatives():
    lstm, native, (x, h0, c0), reset = _case()
    found = []
    for module, results in (
        (lstm, lstm(x, (h0, c0), reset=reset)),
        (native, _loop(native, x, (h0, c0), reset)),
    ):
        inputs = [x, h0, c0, *module.parameters()]
        slopes = torch.autograd.grad(weigh(results), inputs, create_graph=True)
        found.append(gradients([slope.sin() for slope in slopes], inputs))
    assert_same(*found)


@pytest.mark.parametrize(
    ("reset", "error", "message"),
    [
        (torch.full((T, N), 2.0), ValueError, "hold nothing but 0 and 1; got 2.0"),
        (torch.full((T, N), -1), ValueError, "hold nothing but 0 and 1; got -1"),
        (torch.zeros(N, T, dtype=torch.bool), RuntimeError, r"got \[4, 7\]"),
        (torch.zeros(T, dtype=torch.bool), RuntimeError, r"got \[7\]"),
        (
            torch.zeros(T, N, dtype=torch.bool, device="meta"),
            RuntimeError,
            "not at the same device",
        ),
        ([[False] * N] * T, TypeError, "reset must be a Tensor, got list"),
    ],
)
def test_bad_resets_raise_before_any_work(reset, error, message):
    lstm, _, (x, _, _), _ = _case()
    with pytest.raises(error, match=message):
        lstm(x, reset=reset)


def test_batch_first_wants_batch_first_resets():
    lstm, _, (x, _, _), reset = _case(batch_first=True)
    lstm(x, reset=reset)
    with pytest.raises(RuntimeError, match="Expected reset"):
        lstm(x, reset=reset.mT)


def test_reset_has_no_meaning_for_both_directions():
    lstm, _ = twins(bidirectional=True)
    with pytest.raises(ValueError, match="bidirectional"):
        lstm(torch.randn(T, N, I), reset=torch.zeros(T, N, dtype=torch.bool))


def test_reset_beside_a_packed_sequence_raises():
    lstm, _ = twins()
    with pytest.raises(ValueError, match="not a PackedSequence"):
        lstm(pack_sequence([torch.randn(T, I)]), reset=torch.zeros(T, 1, dtype=torch.bool))


# ---- reset_state ---------------------------------------------------------------------------------


def _loop_from(module, x, states, reset, reset_state):
    """One call per step, from the given states where a reset is."""
    axis = 1 if module.batch_first else 0
    outputs = []
    for x_t, reset_t in zip(x.split(1, axis), reset.unbind(axis), strict=True):
        states = tuple(
            torch.where(reset_t[:, None], given, state)
            for given, state in zip(reset_state, states, strict=True)
        )
        output, states = module(x_t, states)
        outputs.append(output)
    return torch.cat(outputs, axis), states


def _given_states(h0, c0):
    return tuple(torch.randn_like(state).requires_grad_() for state in (h0, c0))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@each_option
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, {"rtol": 1e-5, "atol": 1e-5}),  # as above
        (torch.float64, {}),
        (torch.bfloat16, {"rtol": 2**-4, "atol": 2**-3}),  # sums over steps, each rounded
    ],
    ids=str,
)
def test_reset_state_equals_a_loop_over_nn_lstm(options, dtype, tolerance):
    lstm, native, (x, h0, c0), reset = _case(dtype, **options)
    reset_state = _given_states(h0, c0)
    inputs = [x, h0, c0, *reset_state]
    actual = lstm(x, (h0, c0), reset=reset, reset_state=reset_state)
    expected = _loop_from(native, x, (h0, c0), reset, reset_state)
    assert_same(actual, expected, **tolerance)
    assert_same(
        torch.autograd.grad(weigh(actual), [*inputs, *lstm.parameters()]),
        torch.autograd.grad(weigh(expected), [*inputs, *native.parameters()]),
        **tolerance,
    )


@each_option
def test_reset_state_of_zeros_is_a_reset(options):
    """States, gates and what lengths leave out included; from zeros where no state is given."""
    lstm, _, (x, h0, c0), reset = _case(**options)
    zeros = (torch.zeros_like(h0), torch.zeros_like(c0))
    for kwargs in ({}, {"lengths": torch.tensor([7, 4, 0, 3])}, {"lengths": torch.zeros(N).long()}):
        for hx in ((h0, c0), None):
            both = [
                lstm(x, hx, reset=reset.double(), return_gates=True, **kwargs, **more)
                for more in ({"reset_state": zeros}, {})
            ]
            assert_same(*both)
    with torch.no_grad():
        expected = lstm(x, reset=reset)
        assert_same(lstm.prepack()(x, reset=reset, reset_state=zeros), expected)


def test_reset_state_unbatched_recomputed_and_differentiated_twice():
    lstm, _, (x, h0, c0), reset = _case()
    h_r, c_r = _given_states(h0, c0)
    whole = lstm(x, reset=reset, reset_state=(h_r, c_r))
    output, (h_n, c_n) = lstm(x[:, 0], reset=reset[:, 0], reset_state=(h_r[:, 0], c_r[:, 0]))
    assert_close(output, whole[0][:, 0])
    assert_same((h_n, c_n), tuple(state[:, 0] for state in whole[1]))
    lstm.recompute = True
    again = lstm(x, reset=reset, reset_state=(h_r, c_r))
    inputs = [x, h_r, c_r, *lstm.parameters()]
    assert_same(gradients(again, inputs), gradients(whole, inputs))
    assert torch.autograd.gradgradcheck(
        lambda x, h, c: lstm(x, reset=reset, reset_state=(h, c))[0],
        (x, h_r, c_r),
    )


def test_reset_state_is_data_which_no_graph_holds():
    lstm, _, (x, h0, c0), reset = _case()
    states = (h0.detach(), c0.detach())
    expected = lstm(x, reset=reset, reset_state=states)
    torch.compiler.reset()
    compiled = torch.compile(lstm, backend="eager")
    assert_same(compiled(x, reset=reset, reset_state=states), expected)
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="where the episodes are is data"):
        torch.compile(lstm, backend="eager", fullgraph=True)(x, reset=reset, reset_state=states)
    kwargs = {"reset": reset, "reset_state": states}
    with pytest.raises(NotImplementedError, match="where the episodes are is data"):
        torch.export.export(lstm, (x.detach(),), kwargs, strict=False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"reset": None}, ValueError, "give reset, and padded input"),
        ({"reset_state": torch.zeros(2, 1, N, H)}, TypeError, r"a tuple \(h, c\) of two tensors"),
        ({"reset_state": (torch.zeros(1, N, H),)}, TypeError, r"a tuple \(h, c\) of two tensors"),
        (
            {"reset_state": (torch.zeros(1, N + 1, H).double(),) * 2},
            RuntimeError,
            r"Expected hidden\[0\] size \(1, 4, 6\), got \[1, 5, 6\]",
        ),
        ({"reset_state": (torch.zeros(1, N, H),) * 2}, RuntimeError, "not the same dtype"),
    ],
)
def test_bad_reset_states_raise(change, error, message):
    lstm, _, (x, h0, c0), reset = _case()
    with pytest.raises(error, match=message):
        lstm(x, **{"reset": reset, "reset_state": (h0, c0)} | change)
