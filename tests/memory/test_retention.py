"""Retention and saturation against LSTMs whose gates are known."""

import math

import pytest
import torch
from models import fixed_gates
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import Variant, memory


def recorded(lstm, x=None, **options):
    x = torch.randn(7, 3, 1, dtype=torch.float64) if x is None else x
    return lstm(x, return_gates=True, **options)[2]


@pytest.mark.parametrize("f", [0.1, 0.5, 0.9, 0.999])
def test_half_life_of_a_fixed_forget_gate_is_ln_half_over_ln_f(f):
    found = memory.retention(recorded(fixed_gates(0.3, f, 0.5, 0.8)))
    expected = torch.full((1,), math.log(0.5) / math.log(f), dtype=torch.float64)
    assert_close(found.half_life[0], expected, rtol=1e-12, atol=0)
    assert_close(found.half_life_quantiles[0], expected.expand(5, 1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("options", [{}, {"coupled": "input"}], ids=str)
def test_half_life_with_zoneout_is_that_of_what_is_left(options):
    """Of the gates alone it would be shorter. Coupled gates are recorded as they are."""
    variant = Variant(zoneout_cell=0.4, **options)
    lstm = fixed_gates(1e-300, 0.7, 0.5, 0.5, variant=variant).eval()
    states = recorded(lstm)
    found = memory.retention(states, zoneout=variant.zoneout_cell).half_life[0].item()
    assert found == pytest.approx(math.log(0.5) / math.log(0.4 + 0.6 * 0.7))
    if not options:
        c0 = torch.ones(1, 1, 1, dtype=torch.float64)
        x = torch.zeros(6, 1, 1, dtype=torch.float64)
        cell = lstm(x, (torch.zeros_like(c0), c0), return_states=True)[2].cell[0].flatten()
        assert_close(cell[-1].log2().item(), -6 / found)
    assert_close(
        states.gates[0][..., 0, :] + states.gates[0][..., 1, :],
        torch.full_like(states.cell[0], 1.0 if options else 0.7)[:, :, None],
    )
    with pytest.raises(ValueError, match="zoneout must be a probability"):
        memory.retention(states, zoneout=2.0)


def test_half_life_says_when_half_of_a_stored_value_is_left():
    lstm = fixed_gates(1e-300, 0.93, 0.5, 0.5)
    life = memory.retention(recorded(lstm)).half_life[0].item()
    c0 = torch.ones(1, 1, 1, dtype=torch.float64)
    x = torch.zeros(20, 1, 1, dtype=torch.float64)
    cell = lstm(x, (torch.zeros_like(c0), c0), return_states=True)[2].cell[0].flatten()
    left = (cell > 0.5).sum().item()  # steps after which more than half is left
    assert left <= life < left + 1


def test_a_unit_that_never_forgets_has_no_half_life():
    lstm = fixed_gates(0.5, 0.5, 0.5, 0.5)
    with torch.no_grad():
        lstm.bias_ih_l0[1] = 60.0  # sigmoid rounds to 1
    assert memory.retention(recorded(lstm)).half_life[0].item() == math.inf


def test_geometric_mean_is_over_the_valid_steps_only():
    """A forget gate that reads its input: f_t = sigmoid(x_t), so ln f is averaged by hand."""
    lstm = fixed_gates(0.5, 0.5, 0.5, 0.5)
    with torch.no_grad():
        lstm.weight_ih_l0[1] = 1.0
    x, lengths = torch.randn(6, 3, 1, dtype=torch.float64), torch.tensor([6, 2, 4])
    valid = torch.cat([x[:n, k, 0] for k, n in enumerate(lengths)])
    expected = math.log(0.5) / valid.sigmoid().log().mean()
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    padded = memory.Recording.of(recorded(lstm, x, lengths=lengths), lengths=lengths)
    for states in (recorded(lstm, packed), padded, memory.record(lstm, packed)):
        found = memory.retention(states)
        assert found.steps == 12
        assert_close(found.half_life[0], expected.reshape(1), rtol=1e-12, atol=0)


def test_quantiles_show_a_unit_that_drops_its_value_now_and_then():
    lstm = fixed_gates(0.5, 0.5, 0.5, 0.5)
    with torch.no_grad():
        lstm.weight_ih_l0[1] = 1.0
    x = torch.full((100, 1, 1), 5.0, dtype=torch.float64)
    x[::8] = -5.0  # 13 of 100 steps forget
    low, _, median, _, high = memory.retention(recorded(lstm, x)).half_life_quantiles[0][:, 0]
    keep, drop = (math.log(0.5) / math.log(1 / (1 + math.exp(-v))) for v in (5.0, -5.0))
    assert_close(low.item(), drop, rtol=1e-9, atol=0)
    assert_close((median.item(), high.item()), (keep, keep), rtol=1e-9, atol=0)


def test_units_are_ordered_by_half_life_and_rates_counted():
    lstm = fixed_gates(0.3, 0.5, 0.5, 0.8, hidden_size=3)
    with torch.no_grad():
        lstm.bias_ih_l0[3:6] = torch.tensor([0.0, 2.0, 1.0])  # forget gates
        lstm.bias_ih_l0[1] = 1.0  # unit 1 writes
    found = memory.retention(recorded(lstm))
    assert found.order[0].tolist() == [1, 2, 0]
    assert found.writes[0].tolist() == [0, 1, 0]
    assert found.shows[0].tolist() == [1, 1, 1]


def test_saturation_counts_shut_and_open_gates():
    found = memory.saturation(recorded(fixed_gates(0.05, 0.95, -0.99, 0.5)))
    assert found.shut[0].flatten().tolist() == [1, 0, 0, 0]
    assert found.open[0].flatten().tolist() == [0, 1, 1, 0]  # the candidate counts by its size
    assert found.never_forget()[0].tolist() == [0]
    assert found.never_write()[0].tolist() == [0]


def test_saturation_is_a_fraction_of_steps():
    lstm = fixed_gates(0.5, 0.5, 0.5, 0.5)
    with torch.no_grad():
        lstm.weight_ih_l0[0] = 1.0  # the input gate reads x
    x = torch.tensor([9.0, -9.0, 0.0, 9.0], dtype=torch.float64).view(4, 1, 1)
    found = memory.saturation(recorded(lstm, x))
    assert found.open[0][0].item() == 0.5
    assert found.shut[0][0].item() == 0.25


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"num_layers": 2}, {"proj_size": 2}]
)
def test_a_stream_adds_up_to_the_whole(options):
    torch.manual_seed(0)
    lstm = lstm_kernels.LSTM(3, 4, dtype=torch.float64, batch_first=True, **options)
    data = torch.randn(8, 10, 3, dtype=torch.float64)
    whole = memory.record(lstm, data)
    parts = list(data.split(3))
    for analysis in (memory.retention, memory.saturation):
        together, streamed = analysis(whole), analysis(memory.stream(lstm, parts))
        for name, value in vars(together).items():
            if name != "half_life_quantiles":  # of the same steps in another order: equal too
                assert_close(getattr(streamed, name), value, rtol=1e-12, atol=0)
        assert together.steps == 80
    width = 4 * (1 + lstm.bidirectional)
    assert memory.retention(whole).half_life_quantiles[-1].shape == (5, width)
    assert memory.saturation(whole).shut[-1].shape == (4, width)


def test_directions_keep_their_own_units():
    """Units count through both directions, as the cell state's last dimension does."""
    lstm = fixed_gates(0.5, 0.5, 0.5, 0.5, bidirectional=True)
    with torch.no_grad():
        lstm.bias_ih_l0_reverse[1] = 3.0
    life = memory.retention(recorded(lstm)).half_life[0]
    f = 1 / (1 + math.exp(-3.0))
    assert_close(
        life,
        torch.tensor([1.0, math.log(0.5) / math.log(f)], dtype=torch.float64),
        rtol=1e-12,
        atol=0,
    )


def test_gates_are_needed():
    states = fixed_gates(0.5, 0.5, 0.5, 0.5)(torch.zeros(3, 1, 1).double(), return_states=True)[2]
    for analysis in (memory.retention, memory.saturation):
        with pytest.raises(ValueError, match="states holds no gates"):
            analysis(states)


def test_nan_is_refused():
    states = recorded(fixed_gates(0.5, 0.5, 0.5, 0.5))
    states.cell[0][2, 1] = math.nan
    with pytest.raises(ValueError, match=r"states\.cell\[0\] holds NaN"):
        memory.retention(states)


def test_nothing_to_analyse():
    with pytest.raises(ValueError, match="states is empty"):
        memory.retention([])
    with pytest.raises(TypeError, match="states must be LSTMStates or Recordings, got int"):
        memory.retention(3)
