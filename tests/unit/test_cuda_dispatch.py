"""What becomes of CUDA tensors where there is no GPU: fake ones, which have shapes and no data."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import precision_of_rnns
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from variant_cases import calls, floating, on_device, variants

import lstm_kernels
from lstm_kernels import (
    Variant,
    _autograd,
    _load,
    _ops,
    _variant_autograd,
    _variant_ops,
    _weight_gradients,
)
from lstm_kernels._layer import Layer, LayerBackward
from lstm_kernels._variants import LayerTensors


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


class Recorder(TorchDispatchMode):
    """The name of every op that runs, and of those that bring host memory to the device."""

    def __init__(self):
        super().__init__()
        self.names, self.waiting = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(func._schema.name)
        from_host = any(isinstance(a, torch.Tensor) and a.is_cpu for a in args)
        to_device = isinstance(result, torch.Tensor) and not result.is_cpu
        if from_host and to_device and func.namespace == "aten":
            self.waiting.append(str(func))
        return result


def products(dtype, packed, D, by_ops=True, reduced_precision=False):
    """The gradients of a layer's weights and input on a device without data, recorded."""
    batch_sizes = torch.tensor([3, 2, 2, 1]) if packed else None
    rows = (8,) if packed else (4, 3)

    def on_device(*size):
        return torch.empty(*size, device="meta", dtype=dtype)

    layer = Layer(on_device(*rows, 6), on_device(D, 3, 5), None, [], True, D == 2, batch_sizes)
    z, output = on_device(*rows, D, 4, 5), on_device(*rows, D * 5)
    with Recorder() as recorder:
        weights, of_input = _weight_gradients.gradients(
            z, layer, output, [True] * D, [on_device(20, 6)] * D, by_ops, reduced_precision
        )
    shapes = [tuple(t.shape) for w in weights for t in w]
    assert shapes == D * [(20, 6), (20, 5), (20,)]
    assert tuple(of_input.shape) == (*rows, 6)
    return recorder


@pytest.mark.parametrize("D", [1, 2])
def test_gradients_of_packed_weights_wait_for_nothing(D):
    """Copies from the host would: they wait for the device, and no graph can capture them."""
    recorder = products(torch.bfloat16, True, D)
    assert not recorder.waiting
    assert recorder.names.count("lstm_kernels::_pack_offsets") == D


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_products_in_tf32_where_nn_lstms_are(packed, monkeypatch):
    """As torch is installed, its switch for cuDNN's LSTM is "tf32" and that for matmul is not."""

    def count(reduced_precision, by_ops=True):
        names = products(torch.float32, packed, 2, by_ops, reduced_precision).names
        return names.count("lstm_kernels::_tf32_product"), names.count("aten::mm")

    # of each direction: w_ih, w_hh from the steps and from h0; and of the input
    assert count(True) == (0, 7)  # not on CUDA
    monkeypatch.setattr(_ops, "multiplies_in_tf32", lambda tensor, reduced: reduced)
    assert count(False) == (0, 7)
    assert count(True) == (7, 0)
    assert count(True, by_ops=False) == (0, 7)  # they may be differentiated again


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("variant", [None, Variant(peephole=True)])
def test_gradients_of_a_graph_are_products_in_tf32_where_it_was_recorded_so(
    recorded, variant, monkeypatch
):
    """What the switch says by now is not asked."""
    monkeypatch.setattr(_ops, "multiplies_in_tf32", lambda tensor, reduced: reduced)
    monkeypatch.setattr(_variant_ops, "computes_on", lambda tensor: True)

    def on_device(*size):
        return torch.empty(*size, device="meta", requires_grad=True)

    x, h0, c0 = on_device(4, 3, 6), on_device(1, 3, 5), on_device(1, 3, 5)
    weights = [on_device(20, 6), on_device(20, 5), on_device(20), on_device(20)]
    layer = Layer(x, h0, c0, weights, True, False)
    if variant is None:
        results = _autograd.sequence(layer, recorded)
    else:
        tensors = LayerTensors(on_device(1, 3, 5), *[None] * (len(LayerTensors._fields) - 1))
        results = _variant_autograd.differentiable(layer, variant, tensors, recorded)
    with Recorder() as recorder:
        torch.autograd.grad(sum(result.sum() for result in results), [x, h0, c0, *weights])
    counts = [recorder.names.count(name) for name in ("lstm_kernels::_tf32_product", "aten::mm")]
    assert counts == ([4, 0] if recorded else [0, 4])


class OneDevice(TorchDispatchMode):
    """Refuses operations of torch on tensors of several devices, which "meta" does not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor) and v.dim()]
        devices = {value.device.type for value in given}
        moves = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        assert len(devices) < 2 or func.namespace != "aten" or moves, f"{func} on {devices}"
        return func(*args, **(kwargs or {}))


@given(data=st.data(), variant=variants())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_gradients_of_variants_stay_on_one_device(data, variant, monkeypatch):
    """All but batch_sizes, which are on the CPU in any case."""
    monkeypatch.setattr(_variant_ops, "computes_on", lambda tensor: True)

    layer, tensors = (
        on_device(values, "meta") for values in data.draw(calls(variant, states=True))
    )
    tensors = tensors._replace(reset_h=None, reset_c=None)
    leaves = floating(layer, tensors)
    for value in leaves:
        value.requires_grad_()
    with OneDevice():
        results = _variant_autograd.differentiable(layer, variant, tensors)
        gradients = torch.autograd.grad(
            sum(result.sum() for result in results), leaves, allow_unused=True
        )
    assert all(result.is_meta for result in results)
    for value, gradient in zip(leaves, gradients, strict=True):
        assert gradient is None or (gradient.shape == value.shape and gradient.is_meta)


def test_tf32_follows_the_switch_of_nn_lstm(fake_cuda, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
    assert _ops.reduced_precision(fake_cuda(2))
    assert not _ops.reduced_precision(fake_cuda(2).double())
    assert not _ops.reduced_precision(torch.ones(2, device="cpu"))
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
    assert not _ops.reduced_precision(fake_cuda(2))


def test_tf32_is_for_float32_on_cuda(fake_cuda):
    """A graph may have been recorded with the switch on another device, or in another dtype."""
    assert _ops.multiplies_in_tf32(fake_cuda(2), True)
    assert not _ops.multiplies_in_tf32(fake_cuda(2), False)
    assert not _ops.multiplies_in_tf32(fake_cuda(2).double(), True)
    assert not _ops.multiplies_in_tf32(torch.ones(2, device="cpu"), True)


def test_switch_of_the_cpu_leaves_cuda_alone(fake_cuda, monkeypatch):
    """Nor does the switch of cuDNN change what that of the CPU says."""
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
    with precision_of_rnns("bf16"):
        assert not _ops.reduced_precision(fake_cuda(2))
        assert not _ops.reduced_precision(torch.ones(2, device="meta"))
        monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
        assert _ops.reduced_precision(torch.ones(2, device="cpu"))
