"""neuralhydrology's CustomLSTM says every state and gate; so does one call of ours."""

import sys
from pathlib import Path

import pytest
import torch

import lstm_kernels

pytest.importorskip("neuralhydrology")
from neuralhydrology.modelzoo.cudalstm import CudaLSTM
from neuralhydrology.modelzoo.customlstm import CustomLSTM
from neuralhydrology.utils.config import Config
from neuralhydrology_basins import OPTIONS

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from neuralhydrology_states import states_and_gates

CLIENT = "neuralhydrology"
BASINS, DAYS, HIDDEN = 64, 365, 64


@pytest.fixture
def models():
    """The trained model, as far as this test needs one, and theirs that looks inside."""
    options = Config(OPTIONS | {"hidden_size": HIDDEN})
    optimized, custom = CudaLSTM(options).eval(), CustomLSTM(options).eval()
    custom.copy_weights(optimized)
    return lstm_kernels.replace_lstm(optimized), custom


def test_states_and_gates_are_those_of_custom_lstm(models, ratio):
    ours, custom = models
    weather = {name: torch.randn(BASINS, DAYS, 1) for name in OPTIONS["dynamic_inputs"]}
    data = {"x_d": weather, "x_s": torch.randn(BASINS, 1)}
    with torch.no_grad():
        expected, found = custom(data), states_and_gates(ours, data)
        # float32 over 365 steps; a forget bias of 3 keeps what was rounded for twenty of them
        torch.testing.assert_close(found, dict(expected), rtol=1e-3, atol=1e-4)
        work = f"every state and gate, {BASINS} basins, {DAYS} days"
        ratio(work, lambda: custom(data), lambda: states_and_gates(ours, data))
