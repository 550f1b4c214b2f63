"""What training loops put around a model: autocast, checkpointing, hooks, scalers, modes."""

import pytest
import torch
from support import H, I, N, T, assert_equal, assert_same, gradients, tensors, twins, weigh
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import lstm_kernels


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_autocast_gives_the_dtypes_of_nn_lstm(options):
    """Results in the autocast dtype, gradients in that of their tensors.

    Computed by nn.LSTM in float32, because not every CPU has its bfloat16.
    """
    lstm, native = twins(**options)
    x = torch.randn(T, N, I, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        results = lstm(x)
    assert {tensor.dtype for tensor in tensors(results)} == {torch.bfloat16}
    # Weights, inputs and results are rounded to 8 bits.
    assert_same([r.float() for r in tensors(results)], native(x), rtol=0.02, atol=0.02)
    grads = gradients(results, [x, *lstm.parameters()])
    assert {grad.dtype for grad in grads} == {torch.float32}
    expected = gradients(native(x), [x, *native.parameters()])
    assert_same(grads, expected, rtol=0.05, atol=0.1)


def test_autocast_carries_the_cell_state_in_fp32():
    """1000 additions of 1/256 to 1: every one would be lost in a bfloat16 carry."""
    steps = 1000
    lstm = lstm_kernels.LSTM(1, 1)
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
        lstm.bias_ih_l0.copy_(torch.tensor([30.0, 30.0, 1 / 256, 0.0]))  # i = f = 1
    start = torch.ones(1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        _, (_, c_n) = lstm(torch.zeros(steps, 1, 1), (start, start))
    assert_close(c_n.float().item(), 1 + steps / 256, rtol=2**-8, atol=0)


def test_autocast_leaves_float64_alone():
    lstm, native = twins(dtype=torch.float64)
    x = torch.randn(T, N, I, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(lstm(x), native(x))


def test_autocast_gives_the_dtypes_of_nn_lstm_cell():
    """Which on the CPU are those of the states."""
    cell = lstm_kernels.LSTMCell(I, H)
    native = cell.to_native()
    x = torch.randn(N, I)
    for states in (None, (torch.randn(N, H), torch.randn(N, H))):
        with torch.autocast("cpu", torch.bfloat16):
            ours, theirs = cell(x, states), native(x, states)
        assert [r.dtype for r in ours] == [r.dtype for r in theirs]
        assert_same(ours, theirs, rtol=0.02, atol=0.02)  # 8 bits in nn.LSTMCell's products


def test_backward_inside_autocast():
    """Gradients keep the dtype of their parameters when backward() runs under autocast."""
    lstm, _ = twins()
    x = torch.randn(T, N, I)
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradients(lstm(x), list(lstm.parameters()))
        results = lstm(x)
    assert_equal(inside, gradients(results, list(lstm.parameters())))


class _Calls(TorchDispatchMode):
    """The ops that ran."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.ops.append(op)
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(use_reentrant):
    lstm, _ = twins(num_layers=2, bidirectional=True)
    x = torch.randn(T, N, I, requires_grad=True)
    inputs = [x, *lstm.parameters()]
    output = checkpoint(lambda x: lstm(x)[0], x, use_reentrant=use_reentrant)
    if use_reentrant:  # it supports backward() alone
        weigh(output).backward()
        found = [tensor.grad for tensor in inputs]
    else:
        found = gradients(output, inputs)
    assert_equal(found, gradients(lstm(x)[0], inputs))


def test_selective_checkpoint_can_keep_the_op():
    """A policy may name the op: its results are kept, everything else is computed again."""
    lstm, _ = twins()
    op = torch.ops.lstm_kernels._sequence_forward.default
    x = torch.randn(T, N, I, requires_grad=True)
    inputs = [x, *lstm.parameters()]

    def contexts():
        return torch.utils.checkpoint.create_selective_checkpoint_contexts([op])

    output = checkpoint(
        lambda x: lstm(x.exp())[0].exp(), x, use_reentrant=False, context_fn=contexts
    )
    with _Calls() as again:
        found = gradients(output, inputs)
    assert torch.ops.aten.exp.default in again.ops
    assert op not in again.ops
    assert_same(found, gradients(lstm(x.exp())[0].exp(), inputs))


def test_saved_tensor_hooks_see_everything_that_is_saved():
    lstm, _ = twins()
    x = torch.randn(T, N, I, requires_grad=True)
    inputs = [x, *lstm.parameters()]
    packed = []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.clone().numpy(force=True)

    with torch.autograd.graph.saved_tensors_hooks(pack, torch.from_numpy):
        results = lstm(x)
    assert (T, N, 1, 4, H) in packed
    assert_equal(gradients(results, inputs), gradients(lstm(x), inputs))
    with torch.autograd.graph.save_on_cpu():
        results = lstm(x)
    assert_equal(gradients(results, inputs), gradients(lstm(x), inputs))


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.filterwarnings("ignore:Error detected in:UserWarning")
def test_anomaly_mode_finds_where_a_nan_comes_from():
    lstm, _ = twins()
    x = torch.randn(T, N, I, requires_grad=True)
    with torch.autograd.detect_anomaly(check_nan=True):
        gradients(lstm(x), [x])
        output = lstm(x)[0]
        with pytest.raises(RuntimeError, match=r"returned nan values in its"):
            torch.autograd.grad((output * float("nan")).sum(), x)


def test_inference_mode():
    lstm, native = twins(num_layers=2)
    cell = lstm_kernels.LSTMCell(I, H)
    x = torch.randn(T, N, I)
    with torch.inference_mode():
        results = lstm(x)
        assert_same(results, native(x))
        assert all(tensor.is_inference() for tensor in tensors(results))
        assert_same(cell(x[0]), cell.to_native()(x[0]))


def test_gradients_of_an_inference_tensor_input():
    """torch's own error, as with nn.LSTM."""
    lstm, native = twins()
    with torch.inference_mode():
        x = torch.randn(T, N, I)
    for module in (lstm, native):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            module(x)


def test_grad_scaler():
    """Scaled, unscaled, one step with an infinity skipped, the next one taken."""
    lstm, native = twins()
    x = torch.randn(T, N, I)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (lstm, native)]
    start = [parameter.detach().clone() for parameter in lstm.parameters()]
    for module, optimizer in zip((lstm, native), optimizers, strict=True):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        for factor in (float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale(factor * module(x)[0].square().mean()).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(module.parameters(), 10.0)
            scaler.step(optimizer)
            scaler.update()
            if factor != 1.0:
                assert_equal(list(module.parameters()), start)
        assert scaler.get_scale() == 2.0**7
    assert_same(list(lstm.parameters()), list(native.parameters()))
    assert not torch.equal(lstm.weight_hh_l0, start[1])


def test_backward_hooks_and_retained_graphs():
    lstm, _ = twins()
    x = torch.randn(T, N, I, requires_grad=True)
    seen = []
    lstm.register_full_backward_hook(lambda module, grads, outputs: seen.append(grads))
    loss = weigh(lstm(x))
    first = torch.autograd.grad(loss, x, retain_graph=True)
    second = torch.autograd.grad(loss, x)
    assert_equal(first, second)
    assert_close(seen[0][0], first[0])
