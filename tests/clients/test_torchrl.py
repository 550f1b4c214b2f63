"""torchrl asks isinstance(lstm, nn.LSTM): its LSTMModule trains the same with our subclass."""

import pytest
import torch
from torch import nn

import lstm_kernels

torchrl = pytest.importorskip("torchrl")
from tensordict import TensorDict  # noqa: E402
from torchrl.modules import LSTMModule  # noqa: E402
from torchrl.modules.tensordict_module.rnn import set_recurrent_mode  # noqa: E402


def module(kind):
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4, batch_first=True)
    if kind == "ours":
        lstm = lstm_kernels.replace_lstm(lstm, subclass=True)
    out_keys = ["out", ("next", "h"), ("next", "c")]
    return LSTMModule(lstm=lstm, in_keys=["obs", "h", "c"], out_keys=out_keys)


def rollout():
    """Two rows of six steps, each with a second episode in its middle."""
    torch.manual_seed(1)
    starts = torch.zeros(2, 6, 1, dtype=torch.bool)
    starts[:, 0] = starts[0, 3] = starts[1, 2] = True
    states = {name: torch.randn(2, 6, 1, 4) for name in "hc"}
    return TensorDict({"obs": torch.randn(2, 6, 3), "is_init": starts, **states}, [2, 6])


def test_recurrent_mode_trains_the_same():
    found = []
    for kind in ("ours", "native"):
        model = module(kind)
        with set_recurrent_mode(True):
            result = model(rollout())
        results = [result["out"], result["next", "h"], result["next", "c"]]
        loss = sum(value.sin().sum() for value in results)
        found.append([*results, *torch.autograd.grad(loss, list(model.parameters()))])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


def test_make_python_based():
    model = module("ours")
    with set_recurrent_mode(True):
        expected = model(rollout())["out"]
        actual = model.make_python_based()(rollout())["out"]
    torch.testing.assert_close(actual, expected)
