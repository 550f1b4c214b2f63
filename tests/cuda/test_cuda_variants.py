"""On a GPU a variant's results and gradients are those of its equations in plain torch."""

import pytest
import torch
from gpu_support import DEVICE, FLOATING, PATHS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import assert_same, rounding
from variant_cases import PLANS, both, calls, on_device, variants

from lstm_kernels import Variant, _variant_autograd

pytestmark = pytest.mark.cuda
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
SMOOTH = {
    "peephole": Variant(peephole=True, coupled="input"),
    "dropout of gates": Variant(recurrent_dropout=0.3, dropout_on="gates"),
    "input gate": Variant(
        input_gate=True, zoneout_cell=0.3, recurrent_dropout=0.3, dropout_on="candidate"
    ),
    "dropout and zoneout": Variant(recurrent_dropout=0.3, zoneout_cell=0.3, zoneout_hidden=0.3),
    "separate norms": Variant(layer_norm="separate", cell_norm="carried", norm_eps=0.1),
    "joint norm": Variant(layer_norm="joint", cell_norm="output", norm_eps=0.1, peephole=True),
}


@pytest.fixture(autouse=True)
def _exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")


def check(data, variant, dtype, tolerance, **sizes):
    layer, tensors = (
        on_device(values, DEVICE) for values in data.draw(calls(variant, dtype, **sizes))
    )
    tensors = tensors._replace(reset_h=None, reset_c=None)
    assert _variant_autograd.has_kernel(layer, variant, tensors, True)
    found = [
        (
            [value.double() for value in results],
            [g.double() / max(1.0, float(g.abs().max())) for g in gradients],
        )
        for results, gradients in both(_variant_autograd.differentiable, layer, tensors, variant)
    ]
    assert_same(*found, **tolerance)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", FLOATING[1:], ids=str)
@pytest.mark.parametrize("ragged", ["", "packed", "lengths", "reset"])
@pytest.mark.parametrize("name", ["peephole", "input gate", "dropout and zoneout"])
@given(data=st.data())
@settings(max_examples=4, **PATIENT)
def test_either_path(monkeypatch, data, path, dtype, ragged, name):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", path)
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PLAN", data.draw(st.sampled_from(PLANS)))
    sizes = {"T": 6, "N": 45, "H": 70, "ragged": ragged, "projects": False}
    check(data, SMOOTH[name], dtype, rounding(dtype, 40), **sizes)


@given(data=st.data(), variant=variants())
@settings(max_examples=60, **PATIENT)
def test_any_variant(data, variant):
    check(data, variant, torch.float64, {"rtol": 1e-9, "atol": 1e-9})


@pytest.mark.parametrize("dtype", FLOATING[1:], ids=str)
@pytest.mark.parametrize("variant", SMOOTH.values(), ids=SMOOTH)
@given(data=st.data())
@settings(max_examples=4, **PATIENT)
def test_every_dtype_and_more_units_than_threads(data, variant, dtype):
    check(data, variant, dtype, rounding(dtype, 40), T=5, N=4, H=300)
