"""Expanded weights: call_for_per_sample_grads leaves each sequence's gradient at the weights."""

import copy

import pytest
import torch
from support import H, I, assert_same
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_kernels import LSTM, LSTMCell

T, N = 5, 4
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
each_mode = pytest.mark.parametrize("training", [True, False])


def total(values):
    return sum(value.sin().sum() for value in values)


@each_dtype
@each_mode
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "batch_first": True},
        {"num_layers": 2, "bidirectional": True},
        {"proj_size": 2, "bias": False},
        {"recompute": True},
    ],
    ids=str,
)
def test_each_sequence_has_its_gradients(options, training, dtype):
    module = LSTM(I, H, dtype=dtype, **options).train(training)
    axis = 0 if module.batch_first else 1
    x = torch.randn(T, N, I, dtype=dtype).movedim(1, axis).contiguous().requires_grad_()
    output, (h_n, c_n) = call_for_per_sample_grads(module, batch_size=N)(x)
    total((output, h_n, c_n)).backward()
    assert all(parameter.grad is None for parameter in module.parameters())
    of_x, x.grad = x.grad, None
    for n in range(N):
        output, states = module(x.narrow(axis, n, 1))
        loss = total((output, *states))
        gradients = torch.autograd.grad(loss, [x, *module.parameters()])
        assert_same(of_x.select(axis, n), gradients[0].select(axis, n))
        assert_same([p.grad_sample[n] for p in module.parameters()], gradients[1:])


@each_dtype
def test_states_gates_lengths_resets_and_initial_states(dtype):
    module = LSTM(I, H, 2, dtype=dtype)
    x = torch.randn(T, N, I, dtype=dtype)
    hx = tuple(torch.randn(2, N, H, dtype=dtype, requires_grad=True) for _ in range(2))
    lengths, reset = torch.tensor([5, 2, 0, 3]), torch.rand(T, N) < 0.3

    def loss(module, n=None):
        of = slice(None) if n is None else slice(n, n + 1)
        output, last, states = module(
            x[:, of],
            tuple(state[:, of] for state in hx),
            lengths=lengths[of],
            reset=reset[:, of],
            return_gates=True,
        )
        return total((output, *last, *states.hidden, *states.cell, *states.gates))

    loss(call_for_per_sample_grads(module, batch_size=N)).backward()
    for n in range(N):
        gradients = torch.autograd.grad(loss(module, n), [*hx, *module.parameters()])
        assert_same([state.grad[:, n] for state in hx], [g[:, n] for g in gradients[:2]])
        assert_same([p.grad_sample[n] for p in module.parameters()], gradients[2:])


@each_dtype
@each_mode
@pytest.mark.parametrize("ordered", [True, False])
def test_packed_sequences_as_nn_lstm(ordered, training, dtype):
    """nn.LSTM and this one, by the same expanded weights."""
    lengths = torch.tensor([5, 4, 2, 1] if ordered else [2, 5, 1, 4])
    x = torch.randn(T, N, I, dtype=dtype)
    module = LSTM(I, H, 2, dtype=dtype).train(training)
    hx = tuple(torch.randn(2, N, H, dtype=dtype) for _ in range(2))
    packed = pack_padded_sequence(x, lengths, enforce_sorted=ordered)
    output, last = call_for_per_sample_grads(module, batch_size=N)(packed, hx)
    assert_same((output, last), module(packed, hx))
    total((pad_packed_sequence(output)[0], *last)).backward()
    for n, length in enumerate(lengths.tolist()):
        output, last = module(x[:length, n : n + 1], tuple(s[:, n : n + 1] for s in hx))
        gradients = torch.autograd.grad(total((output, *last)), list(module.parameters()))
        assert_same([p.grad_sample[n] for p in module.parameters()], gradients)


@each_dtype
@pytest.mark.parametrize("bias", [True, False])
def test_a_step(bias, dtype):
    module = LSTMCell(I, H, bias, dtype=dtype)
    x, h, c = (torch.randn(N, size, dtype=dtype) for size in (I, H, H))

    def loss(module, of):
        return total(module(x[of], (h[of], c[of]), return_gates=True))

    loss(call_for_per_sample_grads(module, batch_size=N), slice(None)).backward()
    for n in range(N):
        gradients = torch.autograd.grad(loss(module, slice(n, n + 1)), list(module.parameters()))
        assert_same([p.grad_sample[n] for p in module.parameters()], gradients)


def test_a_mean_loss_frozen_weights_and_dropout():
    """A frozen weight gets nothing, a mean is scaled up, and both passes drop the same elements."""
    module = LSTM(I, H, 2, dropout=0.5, dtype=torch.float64)
    module.weight_ih_l0.requires_grad_(False)
    x = torch.randn(T, N, I, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    run = call_for_per_sample_grads(module, batch_size=N, loss_reduction="mean")
    run(x)[0].sin().sum((0, 2)).mean().backward()
    assert not hasattr(module.weight_ih_l0, "grad_sample")
    mean = module.bias_ih_l1.grad_sample
    for parameter in module.parameters():
        parameter.grad_sample = None
    torch.manual_seed(1)
    each = call_for_per_sample_grads(module, batch_size=N)(x)[0].sin().sum((0, 2))
    each.sum().backward()
    torch.testing.assert_close(mean, module.bias_ih_l1.grad_sample)
    found = module.bias_ih_l1.grad_sample.sum(1)
    # The same random numbers again, with every bias of the last layer moved a little.
    losses = []
    for step in (1e-5, -1e-5):
        for parameter in module.parameters():
            parameter.grad_sample = None
        torch.manual_seed(1)
        moved = copy.deepcopy(module)
        with torch.no_grad():
            moved.bias_ih_l1 += step
        run = call_for_per_sample_grads(moved, batch_size=N)
        losses.append(run(x)[0].sin().sum((0, 2)).detach())
    torch.testing.assert_close(found, (losses[0] - losses[1]) / 2e-5, rtol=1e-6, atol=1e-8)


def test_what_is_wrong_raises():
    module = LSTM(I, H)
    with pytest.raises(RuntimeError, match="need a batch: expected input to be 3D, got 2D"):
        call_for_per_sample_grads(module, batch_size=N)(torch.randn(T, I))
    with pytest.raises(RuntimeError, match=r"input batch size of 4 with .* of batch size 3"):
        call_for_per_sample_grads(module, batch_size=3)(torch.randn(T, N, I))
    with pytest.raises(RuntimeError, match="need a batch: expected input to be 2D, got 1D"):
        call_for_per_sample_grads(LSTMCell(I, H), batch_size=N)(torch.randn(I))
