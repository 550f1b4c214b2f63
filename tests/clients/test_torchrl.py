"""torchrl asks isinstance(lstm, nn.LSTM): its LSTMModule trains the same with our subclass."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lstm_kernels

torchrl = pytest.importorskip("torchrl")
from tensordict import TensorDict  # noqa: E402
from torchrl.modules import LSTMModule  # noqa: E402
from torchrl.modules.tensordict_module.rnn import set_recurrent_mode  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from torchrl_lstm import ResettingLSTMModule  # noqa: E402

CLIENT = "torchrl"
OUT_KEYS = ["out", ("next", "h"), ("next", "c")]


def module(kind, cls=LSTMModule, sizes=(3, 4), **options):
    torch.manual_seed(0)
    lstm = nn.LSTM(*sizes, batch_first=True, **options)
    if kind == "ours":
        lstm = lstm_kernels.replace_lstm(lstm, subclass=True)
    return cls(lstm=lstm, in_keys=["obs", "h", "c"], out_keys=OUT_KEYS)


def outcome(model, tensordict):
    """What a module leaves in a tensordict, and the gradients of a loss of it."""
    result = model(tensordict)
    results = [result[key] for key in OUT_KEYS]
    loss = sum(value.sin().sum() for value in results)
    return [*results, *torch.autograd.grad(loss, list(model.parameters()))]


def rollout():
    """Two rows of six steps, each with a second episode in its middle."""
    torch.manual_seed(1)
    starts = torch.zeros(2, 6, 1, dtype=torch.bool)
    starts[:, 0] = starts[0, 3] = starts[1, 2] = True
    states = {name: torch.randn(2, 6, 1, 4) for name in "hc"}
    return TensorDict({"obs": torch.randn(2, 6, 3), "is_init": starts, **states}, [2, 6])


def test_recurrent_mode_trains_the_same():
    with set_recurrent_mode(True):
        ours, native = (outcome(module(kind), rollout()) for kind in ("ours", "native"))
    torch.testing.assert_close(ours, native)


def test_default_mode_trains_the_same():
    """One step for each entry, from its stored state, or from zeros where an episode starts."""
    steps = rollout()[:, 3]
    assert steps["is_init"].sum() == 1
    ours, native = (outcome(module(kind), steps.clone()) for kind in ("ours", "native"))
    torch.testing.assert_close(ours, native)


def test_make_python_based():
    model = module("ours")
    with set_recurrent_mode(True):
        expected = outcome(model, rollout())
        actual = outcome(model.make_python_based(), rollout())
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's scan
def test_the_backends_of_recurrent_mode_compute_the_same(layers):
    """`pad` calls nn.LSTM's forward; `scan` computes with the module's weights itself."""
    found = []
    for backend in ("pad", "scan"):
        for kind in ("ours", "native"):
            model = module(kind, num_layers=layers)
            model.recurrent_backend = backend
            with set_recurrent_mode(True):
                found.append(outcome(model, primed(2, 6, 3, 4, layers)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def primed(rows, steps, inputs, hidden, layers=1):
    """Rows of several episodes; states are zero where one starts, as torchrl's primer has them."""
    torch.manual_seed(1)
    starts = torch.rand(rows, steps, 1) < 0.1
    starts[:, 0] = True
    kept = torch.where(starts[..., None], 0.0, torch.randn(2, rows, steps, layers, hidden))
    content = {"obs": torch.randn(rows, steps, inputs), "is_init": starts}
    return TensorDict({**content, "h": kept[0], "c": kept[1]}, [rows, steps])


def acting(model, rows):
    """What the default mode says, one step after the other, each from the state before."""
    state = {name: rows[name][:, 0] for name in "hc"}
    for t in range(rows.shape[1]):
        now = {"obs": rows["obs"][:, t], "is_init": rows["is_init"][:, t], **state}
        step = model(TensorDict(now, [len(rows)]))
        state = {name: step["next", name] for name in "hc"}
        yield [step[key] for key in OUT_KEYS]


@pytest.mark.parametrize("layers", [1, 2])
def test_the_resetting_module_says_what_acting_says(layers):
    rows = primed(3, 40, 3, 4, layers)
    model = module("ours", ResettingLSTMModule, num_layers=layers)
    expected = [torch.stack(values, 1) for values in zip(*acting(model, rows), strict=True)]
    with set_recurrent_mode(True):
        result = model(rows.clone())
    torch.testing.assert_close([result[key] for key in OUT_KEYS], expected)


def test_the_resetting_module_trains_as_theirs(ratio):
    rows = primed(16, 128, 32, 64)
    theirs = module("native", sizes=(32, 64))
    ours = module("ours", ResettingLSTMModule, sizes=(32, 64))

    def work(model):
        with set_recurrent_mode(True):
            output = model(rows.copy())["out"]
        return [output, *torch.autograd.grad(output.square().mean(), list(model.parameters()))]

    results = [work(model) for model in (theirs, ours)]
    # float32: rounding of 128 steps
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    text = "forward and backward, 16 rows of 128 steps with episodes in them"
    ratio(text, lambda: work(theirs), lambda: work(ours))
