"""rl_games' RnnWithDones against one call with reset=, alone and in its own network."""

import sys
from pathlib import Path

import pytest
import torch
from comparing import gradients

pytest.importorskip("rl_games")
from rl_games.algos_torch import network_builder
from rl_games.common.layers.recurrent import LSTMWithDones

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import rl_games_lstm

CLIENT = "rl-games"
ACTIONS, OBSERVATIONS, HIDDEN, LENGTH, SEQUENCES = 3, 12, 64, 16, 32
PARAMETERS = {
    "separate": False,
    "space": {"discrete": {}},
    "mlp": {"units": [64], "activation": "elu", "initializer": {"name": "default"}},
    "rnn": {"name": "lstm", "units": HIDDEN, "layers": 1},
}
# float32 from the same weights: rounding of at most 16 steps
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("chance", [0.0, 0.1, 1.0])
def test_the_layer_is_theirs(layers, chance):
    theirs = LSTMWithDones(5, 8, layers)
    ours = rl_games_lstm.LSTMWithDones(5, 8, layers)
    ours.load_state_dict(theirs.state_dict())
    x, state = torch.randn(9, 4, 5), tuple(torch.randn(layers, 4, 8) for _ in "hc")
    dones = (torch.rand(9, 4, 1) < chance).byte()
    found = []
    for model in (theirs, ours):
        output, last = model(x, state, dones)
        loss = output.square().sum() + last[1].sin().sum()
        found.append((output, last, gradients(model, loss)))
    torch.testing.assert_close(found[1], found[0], **TOLERANCE)


def network(layer, monkeypatch):
    monkeypatch.setattr(network_builder, "LSTMWithDones", layer)
    builder = network_builder.A2CBuilder()
    builder.load(PARAMETERS)
    size = {"actions_num": ACTIONS, "input_shape": (OBSERVATIONS,), "num_seqs": SEQUENCES}
    return builder.build("a2c", **size)


def test_a_network_trains_the_same(monkeypatch, ratio):
    theirs = network(LSTMWithDones, monkeypatch)
    ours = network(rl_games_lstm.LSTMWithDones, monkeypatch)
    ours.load_state_dict(theirs.state_dict())
    batch = {
        "obs": torch.randn(SEQUENCES * LENGTH, OBSERVATIONS),
        "rnn_states": theirs.get_default_rnn_state(),
        "dones": (torch.rand(SEQUENCES * LENGTH) < 0.05).byte(),
        "seq_length": LENGTH,
    }

    def loss(model):
        logits, value, _ = model(dict(batch))
        return logits.log_softmax(-1)[:, 0].mean() + value.square().mean()

    torch.testing.assert_close(loss(ours), loss(theirs), **TOLERANCE)
    expected = gradients(theirs, loss(theirs))
    torch.testing.assert_close(gradients(ours, loss(ours)), expected, **TOLERANCE)
    work = f"forward and backward, {SEQUENCES} sequences of {LENGTH} steps"
    ratio(work, lambda: loss(theirs).backward(), lambda: loss(ours).backward())
