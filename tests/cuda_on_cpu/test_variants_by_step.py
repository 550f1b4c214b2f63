"""The CUDA ops of variants, run on the CPU against the equations in plain torch.

The library's own autograd calls them in the place of the CPU's ops, so that what it makes of their
results is checked too: gradients of weights, peepholes, gains and initial states.
"""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import assert_same, rounding
from variant_cases import both, calls, variants

from lstm_kernels import Variant, _variant_autograd, _variant_ops, _variants_reference

sys.path.insert(0, str(Path(__file__).parent / "ops"))
import library

PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture
def ops(monkeypatch):
    """The CUDA ops in the place of the CPU's."""
    found = library.load()
    monkeypatch.setattr(_variant_ops, "_forward", found._variant_forward)
    monkeypatch.setattr(_variant_ops, "_backward", found._variant_backward)
    return found


def drawn(data, variant, dtype=torch.float64, **sizes):
    layer, tensors = data.draw(calls(variant, dtype, **sizes))
    return layer, tensors._replace(reset_h=None, reset_c=None)


def by_ops(layer, tensors, variant):
    """Results and gradients from the ops, and from plain torch."""
    assert _variant_autograd.has_kernel(layer, variant, tensors, True)
    return both(_variant_autograd.differentiable, layer, tensors, variant)


@pytest.mark.parametrize("ragged", ["", "packed", "lengths", "reset"])
@given(data=st.data(), variant=variants())
@settings(max_examples=30, **PATIENT)
def test_a_variant_step_by_step(ops, data, variant, ragged):
    layer, tensors = drawn(data, variant, ragged=ragged)
    assert_same(*by_ops(layer, tensors, variant), rtol=1e-9, atol=1e-9)


@given(data=st.data(), variant=variants())
@settings(max_examples=8, **PATIENT)
def test_more_units_than_threads_of_a_block(ops, data, variant):
    layer, tensors = drawn(data, variant, T=2, N=2, H=300)
    assert_same(*by_ops(layer, tensors, variant), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(data=st.data(), variant=variants())
@settings(max_examples=20, **PATIENT)
def test_a_variant_of_every_dtype(ops, data, variant, dtype):
    """Results alone: where a slope jumps, rounding may fall on the other side of it.

    A norm of few units makes an error larger: by 1 / deviation.
    """
    layer, tensors = drawn(data, variant, dtype)
    with torch.no_grad():
        found = _variant_ops.forward(layer, variant, tensors, True, True)[:5]
    assert all(value.dtype is dtype for value in found)
    exact = _variants_reference.sequence_forward(*_in_float64(layer, variant, tensors))
    normalises = variant.layer_norm is not None or variant.cell_norm is not None
    tolerance = rounding(dtype, 80 if normalises else 40)
    assert_same([value.double() for value in found], exact, **tolerance)


def _in_float64(layer, variant, tensors):
    def exact(value):
        if isinstance(value, list):
            return [exact(one) for one in value]
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.double() if floats else value

    return type(layer)(*map(exact, layer)), variant, type(tensors)(*map(exact, tensors))


def test_the_persistent_path_cannot_be_forced(ops, monkeypatch):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
    nothing = _variant_ops.LayerTensors(*[None] * 9)
    weights = [torch.randn(24, 3), torch.randn(24, 6)]
    layer = _variant_ops.Layer(torch.randn(4, 2, 3), None, None, weights, False, False)
    with pytest.raises(RuntimeError, match="PATH=persistent: it computes no variant"):
        _variant_ops.forward(layer, Variant(), nothing, True, True)


@pytest.mark.parametrize("variant", [Variant(), Variant(layer_norm="separate")], ids=str)
def test_no_sequences(ops, variant):
    weights = [torch.randn(24, 3), torch.randn(24, 6)]
    nothing = dict.fromkeys(_variant_ops.LayerTensors._fields)
    if variant.layer_norm:
        nothing["norm_gates"] = torch.ones(1, 2, 24)
    tensors = _variant_ops.LayerTensors(**nothing)
    layer = _variant_ops.Layer(torch.randn(4, 0, 3), None, None, weights, False, False)
    output, h_n, c_n, cell, gates, products = _variant_ops.forward(
        layer, variant, tensors, True, True
    )
    assert output.shape == cell.shape == (4, 0, 6)
    assert gates.shape == (4, 0, 1, 4, 6)
    assert h_n.shape == c_n.shape == (1, 0, 6)
    assert products.shape == ((4, 0, 1, 2, 24) if variant.layer_norm else (0,))
