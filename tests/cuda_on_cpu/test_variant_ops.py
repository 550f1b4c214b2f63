"""The CUDA ops of variants, run on the CPU against the equations in plain torch.

The library's own autograd calls them in the place of the CPU's ops, so that what it makes of their
results is checked too: gradients of weights, peepholes, gains and initial states.
"""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import assert_equal, assert_same, rounding
from variant_cases import PLANS, both, calls, floating, variants

from lstm_kernels import Variant, _variant_autograd, _variant_ops, _variants_reference
from lstm_kernels._layer import LayerBackward

sys.path.insert(0, str(Path(__file__).parent / "ops"))
import library

NOTHING = _variant_ops.LayerTensors(*[None] * len(_variant_ops.LayerTensors._fields))
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


@pytest.mark.parametrize("paths", ["persistent persistent", "persistent step", "step persistent"])
@pytest.mark.parametrize("ragged", ["", "packed", "lengths", "reset"])
@given(data=st.data(), variant=of_single_cells())
@settings(max_examples=25, **PATIENT)
def test_a_variant_in_one_launch(ops, monkeypatch, data, variant, ragged, paths):
    """In float32 of full precision, whose tensor cores add up products of two TF32 numbers each.

    Each pass chooses its own path: the gradient may be taken of what the other one computed.
    """
    sizes = {"N": data.draw(st.sampled_from([1, 3, 9, 20, 45])), "ragged": ragged}
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PLAN", data.draw(st.sampled_from(PLANS)))
    layer, tensors = drawn(data, variant, torch.float32, projects=False, **sizes)
    forward, backward = paths.split()

    def compute(*call):
        monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", forward)
        results = full_precision(*call)
        monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", backward)
        return results

    found, _ = both(compute, layer, tensors, variant)
    exact = by_equations(*_in_float64(layer, variant, tensors))
    tolerance = {"rtol": 2e-4, "atol": 2e-4}  # gradients are sums over up to 270 cells
    for seed in range(2):
        moved = by_equations(*_in_float64(layer, variant, tensors), seed)
        assume(all(torch.allclose(*pair, **tolerance) for pair in zip(moved, exact, strict=True)))
    for got, wanted in zip([*found[0], *found[1]], exact, strict=True):
        assert_same(got.double(), wanted, **tolerance)


def by_equations(layer, variant, tensors, seed=None):
    """Results and gradients of plain torch; with a seed of numbers that differ by some roundings.

    A bound or a kink may lie between: what the gradient is, float32 cannot say then.
    """
    if seed is not None:
        draw = torch.Generator().manual_seed(seed)
        for value in floating(layer, tensors):
            units = torch.randint(-16, 17, value.shape, generator=draw)
            value.mul_(1 + torch.finfo(torch.float32).eps * units)
    computed = lambda *call: _variants_reference.sequence_forward(*call)  # noqa: E731
    (results, gradients), _ = both(computed, layer, tensors, variant)
    return [*results, *gradients]


def full_precision(layer, variant, tensors):
    return _variant_autograd.differentiable(layer, variant, tensors, reduced_precision=False)


def in_tf32(layer, variant, tensors):
    return _variant_autograd.differentiable(layer, variant, tensors, reduced_precision=True)


SMOOTH = {
    "peephole, dropout": Variant(peephole=True, recurrent_dropout=0.3, coupled="forget"),
    "zoneout, input gate": Variant(
        zoneout_cell=0.3, zoneout_hidden=0.3, recurrent_dropout=0.3, dropout_on="candidate",
        input_gate=True, activations=("sigmoid", "softsign", "tanh"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 5e-3), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)],
    ids=["TF32", "float16", "bfloat16"],
)
@pytest.mark.parametrize("variant", SMOOTH.values(), ids=SMOOTH)
@given(data=st.data())
@settings(max_examples=4, **PATIENT)
def test_gradients_of_narrow_products(
    ops, in_one_launch, monkeypatch, data, variant, dtype, tolerance, plan
):
    """Of the largest: ten bits of digits, or seven, and sums over five steps and ten sequences."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PLAN", plan)
    layer, tensors = drawn(data, variant, dtype, T=5, N=10, projects=False)
    exact_layer, _, exact_tensors = _in_float64(layer, variant, tensors)
    (found, gradients), _ = both(in_tf32, layer, tensors, variant)
    exact = by_equations(exact_layer, variant, exact_tensors)
    for got, wanted in zip((*found, *gradients), exact, strict=True):
        largest = max(1.0, float(wanted.abs().max()))
        assert_same(got.double() / largest, wanted / largest, rtol=0, atol=tolerance)


def test_a_variant_without_room_goes_step_by_step(ops, monkeypatch):
    variant, draw = Variant(peephole=True), torch.Generator().manual_seed(0)
    random = lambda *size: torch.randn(*size, generator=draw)  # noqa: E731
    weights = [random(20, 3), random(20, 5), random(20, 3), random(20, 5)]
    layer = _variant_ops.Layer(random(5, 3, 3), None, None, weights, False, True)
    tensors = NOTHING._replace(peephole=random(2, 3, 5))
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    by_step, _ = both(full_precision, layer, tensors, variant)
    monkeypatch.delenv("LSTM_KERNELS_CUDA_PATH")
    ops.set_room(1)  # of two directions only one
    try:
        found, _ = both(full_precision, layer, tensors, variant)
    finally:
        ops.set_room(132)
    assert_equal(found, by_step)


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
            _variant_ops.forward(layer, variant, NOTHING._replace(**tensors), True, True)


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
    tensors = NOTHING._replace(
        input_gate=random(4, 3, 6).sigmoid(),
        norm_gates=torch.ones(1, 2, 24) if separate else None,
    )
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
    tensors = NOTHING._replace(norm_gates=torch.ones(1, 2, 24) if variant.layer_norm else None)
    layer = _variant_ops.Layer(torch.randn(4, 0, 3), None, None, weights, False, False)
    output, h_n, c_n, cell, gates, products = _variant_ops.forward(
        layer, variant, tensors, True, True
    )
    assert output.shape == cell.shape == (4, 0, 6)
    assert gates.shape == (4, 0, 1, 4, 6)
    assert h_n.shape == c_n.shape == (1, 0, 6)
    assert products.shape == ((4, 0, 1, 2, 24) if variant.layer_norm else (0,))


@pytest.mark.parametrize(
    "variant", [Variant(peephole=True), Variant(cell_norm="output"), Variant(layer_norm="joint")],
    ids=str,
)  # fmt: skip
def test_without_sequences_gradients_of_parameters_are_zeros(ops, variant):
    weights = [torch.randn(24, 3), torch.randn(24, 6)]
    tensors = NOTHING._replace(
        peephole=torch.randn(1, 3, 6) if variant.peephole else None,
        norm_gates=torch.randn(1, 1, 24) if variant.layer_norm else None,
        norm_cell=torch.randn(1, 2, 6) if variant.cell_norm else None,
    )
    layer = _variant_ops.Layer(torch.randn(4, 0, 3), None, None, weights, False, False)
    (_, gradients), _ = both(full_precision, layer, tensors, variant)
    assert not any(bool(gradient.any()) for gradient in gradients)
