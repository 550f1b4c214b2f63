"""What the tests of this folder share: a module beside torch's own, and how results compare."""

import torch
from torch.testing import assert_close

import lstm_kernels

T, N, I, H = 5, 3, 4, 6


def twins(*sizes, **options):
    """One of our LSTMs and an nn.LSTM with the same weights."""
    torch.manual_seed(0)
    ours = lstm_kernels.LSTM(*(sizes or (I, H)), **options)
    return ours, ours.to_native()


def flat(results):
    """The tensors in nested tuples, in order; what is absent is left out."""
    if results is None:
        return []
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for part in results for tensor in flat(part)]


def weigh(results):
    """A scalar that depends on every element of every result, each with a weight of its own."""
    total = 0.0
    for k, tensor in enumerate(flat(results)):
        weights = torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype).cos() + 0.1 * k
        total = total + (weights.view_as(tensor) * tensor).sum()
    return total


def gradients(results, inputs):
    """The gradients of weigh(results)."""
    return torch.autograd.grad(weigh(results), inputs)


def assert_all_close(actual, expected, **tolerance):
    actual, expected = flat(actual), flat(expected)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs, **tolerance)
