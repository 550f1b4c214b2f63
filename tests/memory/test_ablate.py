"""ablate against runs in which the states were changed by hand."""

import pytest
import torch
from models import Reader, fixed_gates
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import memory


@pytest.fixture
def lstm():
    torch.manual_seed(0)
    return lstm_kernels.LSTM(3, 4, 2, dtype=torch.float64)


X = torch.randn(10, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def in_two(lstm, at, change):
    """The output with the states (h, c) changed before step `at`."""
    before, hx = lstm(X[:at])
    after, _ = lstm(X[at:], change(*hx))
    return torch.cat([before, after])


def test_zeroing_everything_is_a_fresh_start(lstm):
    found = memory.ablate(lstm, X, 6)
    assert_close(found.output[6:], lstm(X[6:])[0])
    assert_close(found.output[:6], found.baseline[:6], rtol=0, atol=0)
    assert_close(found.baseline, lstm(X)[0], rtol=0, atol=0)
    assert_close(found.change, (found.output - found.baseline).norm(dim=-1))


@pytest.mark.parametrize("state", ["cell", "hidden", "both"])
@pytest.mark.parametrize("layer", [0, 1, -1, None])
def test_zeroed_units(lstm, state, layer):
    def change(h, c):
        chosen = slice(None) if layer is None else [layer]
        for value, named in ((h, "hidden"), (c, "cell")):
            if state in (named, "both"):
                part = value[chosen]
                part[..., [0, 2]] = 0
                value[chosen] = part
        return h, c

    found = memory.ablate(lstm, X, 4, [0, 2], state=state, layer=layer)
    assert_close(found.output, in_two(lstm, 4, change), rtol=0, atol=1e-15)


@pytest.mark.parametrize("state", ["cell", "hidden"])
def test_changes_matched_in_norm(lstm, state):
    """Towards zero by a length of 0.05, in each layer and sequence."""

    def change(h, c):
        chosen = h if state == "hidden" else c
        chosen -= 0.05 * chosen / chosen.norm(dim=2, keepdim=True)
        return h, c

    found = memory.ablate(lstm, X, 4, state=state, norm=0.05)
    assert_close(found.output, in_two(lstm, 4, change), rtol=0, atol=1e-15)


def test_swapped_cells(lstm):
    found = memory.ablate(lstm, X, 7, 1, state="cell", layer=0, change="swap")

    def change(h, c):
        c[0, :, 1] = c[0, [1, 2, 3, 4, 0], 1]
        return h, c

    assert_close(found.output, in_two(lstm, 7, change), rtol=0, atol=1e-15)


def test_held_cell_keeps_its_value():
    """An integrator that is held: what it read at the held steps leaves no trace."""
    lstm = fixed_gates(0.5, 1 - 1e-15, 0.5, 0.5)
    with torch.no_grad():
        lstm.bias_ih_l0[2] = 0
        lstm.weight_ih_l0[2] = 1.0
    x = torch.randn(8, 2, 1, dtype=torch.float64)
    found = memory.ablate(lstm, x, [3, 4, 5], change="hold", state="cell", units=0)
    left_out = torch.cat([x[:3], x[5:]])  # steps 3 and 4 are undone by holding at 4 and 5
    assert_close(found.output[5:], lstm(left_out)[0][3:], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("units", [None, [1, 3]])
def test_packed_padded_batch_first_and_unbatched(lstm, units):
    """Each sequence of a batch is changed as it is alone."""
    first = lstm_kernels.LSTM(3, 4, 2, dtype=torch.float64, batch_first=True)
    first.load_state_dict(lstm.state_dict())
    lengths = torch.tensor([10, 3, 7, 6, 5])
    packed = pack_padded_sequence(X, lengths, enforce_sorted=False)
    steps = [2, 5]
    options = {"steps": steps, "units": units}
    ragged = memory.ablate(Packed(lstm), packed, **options).output
    for n, length in enumerate(lengths):
        alone = X[:length, n]
        inside = [t for t in steps if t < length]
        expected = memory.ablate(lstm, alone, inside, units).output
        assert_close(ragged[:length, n], expected, rtol=1e-12, atol=1e-14)
    whole = memory.ablate(lstm, X, **options).output
    assert_close(memory.ablate(first, X.transpose(0, 1), **options).output, whole.transpose(0, 1))


class Packed(nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm

    def forward(self, packed):
        return pad_packed_sequence(self.lstm(packed)[0])[0]


def test_a_model_that_reads_states_resets_and_a_first_state(lstm):
    reset = torch.zeros(10, 5, dtype=torch.bool)
    reset[3, 2] = reset[8, 0] = True
    hx = torch.randn(2, 2, 5, 4, dtype=torch.float64).unbind()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            return self.lstm(x, hx, reset=reset, return_gates=True)[2].gates[1]

    found = memory.ablate(Model(), X, [0, 5], 2, state="cell", layer=0)
    _, (h, c), begun = lstm(X[:5], (hx[0], zeroed(hx[1])), reset=reset[:5], return_gates=True)
    _, _, ended = lstm(X[5:], (h, zeroed(c)), reset=reset[5:], return_gates=True)
    assert_close(found.output, torch.cat([begun.gates[1], ended.gates[1]]), rtol=0, atol=1e-15)
    erased = memory.ablate(Model(), X, 5)  # the reset that the model asks for itself stays
    assert_close(erased.output[5:], lstm(X[5:], reset=reset[5:], return_gates=True)[2].gates[1])


def zeroed(c):
    c = c.clone()
    c[0, :, 2] = 0
    return c


def test_loss_of_both_runs(lstm):
    model = Reader(lstm)
    found = memory.ablate(model, X, 9, loss=lambda y: y.square().sum())
    assert found.loss == found.output.square().sum().item()
    assert found.baseline_loss == found.baseline.square().sum().item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 10}, r"steps must be in 0\.\.9, got 10"),
        ({"steps": -1}, r"steps must be in 0\.\.9, got -1"),
        ({"steps": []}, "steps is empty"),
        ({"steps": 1, "units": 4}, r"units must be in 0\.\.3, got 4"),
        ({"steps": 1, "layer": 2}, "layer must be less than 2, got 2"),
        ({"steps": 1, "state": "c"}, "state must be one of"),
        ({"steps": 1, "change": "flip"}, "change must be one of"),
    ],
)
def test_bad_input(lstm, options, message):
    with pytest.raises(ValueError, match=message):
        memory.ablate(lstm, X, **options)


def test_impossible_interventions(lstm):
    with pytest.raises(ValueError, match="needs at least two sequences"):
        memory.ablate(lstm, X[:, :1], 3, change="swap")
    both_ways = lstm_kernels.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    with pytest.raises(ValueError, match="bidirectional LSTM"):
        memory.ablate(both_ways, X, 3)
    with pytest.raises(TypeError, match=r"steps must be .* got a function; is it loss=\?"):
        memory.ablate(lstm, X, lambda result: result[0].sum())
    with pytest.raises(TypeError, match="steps must be an int or several"):
        memory.ablate(lstm, X, ["a"])


@pytest.mark.parametrize("norm", [0, -1.0, float("inf"), float("nan")])
def test_a_norm_that_no_change_can_have(lstm, norm):
    with pytest.raises(ValueError, match="norm must be above 0 and finite"):
        memory.ablate(lstm, X, 4, norm=norm)


class Gated(nn.Module):
    """A model whose LSTM takes its input gate from outside."""

    def __init__(self, per_step):
        super().__init__()
        self.lstm = lstm_kernels.LSTM(3, 4, variant=lstm_kernels.Variant(input_gate=True)).double()
        self.gate = torch.rand(6, 2, 4, dtype=torch.float64)
        self.per_step = per_step

    def forward(self, x):
        return self.lstm(x, input_gate=self.gate if self.per_step else self.gate[0])[0]


@pytest.mark.parametrize("per_step", [False, True])
def test_an_input_gate_from_outside_is_cut_with_the_steps(per_step):
    """Of the steps from the edit on, the model sees the same as from a state of zeros."""
    model, x = Gated(per_step), torch.randn(6, 2, 3, dtype=torch.float64)
    found = memory.ablate(model, x, 2, units=range(4)).output
    gate = model.gate[2:] if per_step else model.gate[0]
    torch.testing.assert_close(found[2:], model.lstm(x[2:], input_gate=gate)[0])
    torch.testing.assert_close(found[:2], model(x)[:2])
