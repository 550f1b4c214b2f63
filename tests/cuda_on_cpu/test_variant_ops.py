"""The CUDA ops of variants, run on the CPU against the equations in plain torch.

The library's own autograd calls them in the place of the CPU's ops, so that what it makes of their
results is checked too: gradients of weights, peepholes, gains and initial states.
"""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import assert_same, rounding
from variant_cases import both, calls, variants

from lstm_kernels import Variant, _variant_autograd, _variant_ops, _variants_reference
from lstm_kernels._layer import LayerBackward

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


@pytest.fixture
def by_step(monkeypatch):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")


@pytest.fixture
def in_one_launch(monkeypatch):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")


@pytest.mark.parametrize("ragged", ["", "packed", "lengths", "reset"])
@given(data=st.data(), variant=variants())
@settings(max_examples=30, **PATIENT)
def test_a_variant_step_by_step(ops, by_step, data, variant, ragged):
    layer, tensors = drawn(data, variant, ragged=ragged)
    assert_same(*by_ops(layer, tensors, variant), rtol=1e-9, atol=1e-9)


@given(data=st.data(), variant=variants())
@settings(max_examples=8, **PATIENT)
def test_more_units_than_threads_of_a_block(ops, by_step, data, variant):
    layer, tensors = drawn(data, variant, T=2, N=2, H=300)
    assert_same(*by_ops(layer, tensors, variant), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(data=st.data(), variant=variants())
@settings(max_examples=20, **PATIENT)
def test_a_variant_of_every_dtype(ops, by_step, data, variant, dtype):
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


@st.composite
def of_single_cells(draw):
    """A variant whose steps the persistent kernels compute."""
    on = draw(st.sampled_from(["hidden", "candidate"]))
    return dataclasses.replace(draw(variants()), layer_norm=None, cell_norm=None, dropout_on=on)


@pytest.mark.parametrize("ragged", ["", "packed", "lengths", "reset"])
@given(data=st.data(), variant=of_single_cells())
@settings(max_examples=25, **PATIENT)
def test_a_variant_in_one_launch(ops, in_one_launch, data, variant, ragged):
    """In float32 of full precision, whose tensor cores add up products of two TF32 numbers each."""
    sizes = {"N": data.draw(st.sampled_from([1, 3, 9, 20])), "ragged": ragged}
    layer, tensors = drawn(data, variant, torch.float32, projects=False, **sizes)
    found, expected = both(full_precision, layer, tensors, variant)
    assert_same(found, expected, rtol=1e-4, atol=1e-4)


@given(data=st.data(), variant=of_single_cells())
@settings(max_examples=4, **PATIENT)
def test_a_block_with_several_tiles(ops, in_one_launch, data, variant):
    sizes = {"T": 3, "N": 190, "H": 17}  # 24 tiles of 8 for at most 22 groups of blocks
    layer, tensors = drawn(data, variant, torch.float32, projects=False, **sizes)
    found, expected = both(full_precision, layer, tensors, variant)
    assert_same(found, expected, rtol=1e-3, atol=1e-3)  # gradients are sums over 570 cells


def full_precision(layer, variant, tensors):
    return _variant_autograd.differentiable(layer, variant, tensors, reduced_precision=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(data=st.data(), variant=of_single_cells())
@settings(max_examples=10, **PATIENT)
def test_a_variant_of_every_dtype_in_one_launch(ops, in_one_launch, data, variant, dtype):
    """In TF32 too, whose numbers have as many digits as float16's."""
    layer, tensors = drawn(data, variant, dtype, projects=False)
    with torch.no_grad():
        found = _variant_ops.forward(layer, variant, tensors, True, True, True)[:5]
    exact = _variants_reference.sequence_forward(*_in_float64(layer, variant, tensors))
    tolerance = rounding(torch.float16 if dtype is torch.float32 else dtype, 40)
    assert_same([value.double() for value in found], exact, **tolerance)


def test_a_step_that_needs_more_than_single_cells_is_not_forced_into_one_launch(ops, in_one_launch):
    weights = [torch.randn(24, 3), torch.randn(24, 6)]
    layer = _variant_ops.Layer(torch.randn(4, 2, 3), None, None, weights, False, False)
    nothing = _variant_ops.LayerTensors(*[None] * 9)
    for variant, tensors, reason in (
        (Variant(layer_norm="joint"), {"norm_gates": torch.ones(1, 1, 24)}, "sums over all units"),
        (Variant(cell_norm="output"), {"norm_cell": torch.ones(1, 2, 6)}, "sums over all units"),
        (
            Variant(recurrent_dropout=0.5, dropout_on="gates"),
            {"recurrent": torch.ones(1, 2, 1, 4, 6)},
            "another mask",
        ),
    ):
        with pytest.raises(RuntimeError, match=f"PATH=persistent: .*{reason}"):
            _variant_ops.forward(layer, variant, nothing._replace(**tensors), True, True)


@pytest.mark.parametrize("path", ["step", "persistent"])
def test_gradients_of_rows_past_the_ends_are_zeros(ops, monkeypatch, path):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", path)
    separate = path == "step"  # the persistent kernels have no layer norm
    variant = Variant(layer_norm="separate" if separate else None, input_gate=True)
    draw = torch.Generator().manual_seed(0)
    random = lambda *size: torch.randn(*size, generator=draw)  # noqa: E731
    lengths = torch.tensor([4, 2, 0])
    layer = _variant_ops.Layer(
        random(4, 3, 3), None, None, [random(24, 3), random(24, 6)], False, False, None, lengths
    )
    nothing = dict.fromkeys(_variant_ops.LayerTensors._fields)
    nothing["input_gate"] = random(4, 3, 6).sigmoid()
    if separate:
        nothing["norm_gates"] = torch.ones(1, 2, 24)
    tensors = _variant_ops.LayerTensors(**nothing)
    output, h_n, c_n, cell, gates, products = _variant_ops.forward(
        layer, variant, tensors, True, True
    )
    grads = [random(*value.shape) for value in (output, h_n, c_n, cell, gates)]
    call = LayerBackward.of_layer(layer, grads, cell, gates)
    of_z, _, _, _, of_gate, of_product, _ = _variant_ops.backward(
        call, variant, tensors, products, False
    )
    past = torch.arange(4)[:, None] >= lengths
    for grad in (of_z, of_gate, *([of_product] if separate else [])):
        assert not grad[past].any()
        assert grad[~past].any()


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
