"""What becomes of CUDA tensors where there is no GPU: fake ones, which have shapes and no data."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import lstm_kernels
from lstm_kernels import _load, _ops
from lstm_kernels._layer import Layer, LayerBackward


@pytest.fixture
def fake_cuda():
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield lambda *size: torch.empty(*size, device="cuda")


@pytest.mark.skipif(_load.cuda_problem is None, reason="this installation has CUDA kernels")
def test_cuda_tensors_are_refused_with_the_reason(fake_cuda):
    """Nothing runs on the CPU instead."""
    x, h = fake_cuda(3, 2, 8), fake_cuda(1, 2, 16)
    weights = [fake_cuda(64, 8), fake_cuda(64, 16), fake_cuda(64), fake_cuda(64)]
    with pytest.raises(NotImplementedError, match=r"cannot use CUDA tensors: .*CUDA"):
        lstm_kernels.lstm(x, (h, h), weights)
    with pytest.raises(NotImplementedError, match=r"cannot use CUDA tensors: .*CUDA"):
        lstm_kernels.lstm_cell(fake_cuda(2, 8), (fake_cuda(2, 16), fake_cuda(2, 16)), *weights)


def test_shapes_and_devices_of_the_ops_results(fake_cuda):
    """The fake kernels keep results on the device of the input."""
    x, state = fake_cuda(5, 3, 8), fake_cuda(2, 3, 16)
    weights = 2 * [fake_cuda(64, 8), fake_cuda(64, 16), fake_cuda(64), fake_cuda(64)]
    layer = Layer(x, state, state, weights, True, True)
    results = _ops.sequence_forward(layer, True, True)
    shapes = [(5, 3, 32), (2, 3, 16), (2, 3, 16), (5, 3, 32), (5, 3, 2, 4, 16)]
    assert [tuple(t.shape) for t in results] == shapes
    gradients = _ops.sequence_backward(LayerBackward.of_layer(layer, results, *results[3:]))
    assert [tuple(t.shape) for t in gradients] == [shapes[4], (2, 3, 16), (2, 3, 16), (0,)]
    assert all(t.device.type == "cuda" for t in (*results, *gradients))
