"""record and stream: any model with our LSTM inside, any layout, put back as it was."""

import pytest
import torch
from models import Reader
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import memory

X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))


def held(recording):
    return recording.hidden, recording.cell, recording.gates


@pytest.fixture
def lstm():
    torch.manual_seed(0)
    return lstm_kernels.LSTM(3, 5, 2, dropout=0.5)


def test_states_are_those_of_the_call(lstm):
    model = Reader(lstm).train()
    found = memory.record(model, X)
    _, _, expected = lstm.eval()(X, return_gates=True)  # no dropout while recording
    assert_close(held(found), tuple(expected), rtol=0, atol=0)
    assert found.lengths is None
    assert found.valid is None
    assert (found.steps, found.sequences) == (6, 4)
    assert not found.cell[0].requires_grad
    assert model.training


def test_the_model_sees_nothing_of_it(lstm):
    """A model that asks for states gets what it asked for, and only that."""

    class Curious(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.lstm, self.options, self.seen = lstm, options, None

        def forward(self, x):
            self.seen = self.lstm(x, **self.options)
            return self.seen[0]

    for options, gates in (
        ({}, True),
        ({"return_states": True}, True),
        ({"return_gates": True}, False),
    ):
        model = Curious(**options)
        found = memory.record(model, X, gates=gates)
        lstm.eval()
        assert_close(model.seen, lstm(X, **options), rtol=0, atol=0)
        assert (found.gates is None) == (not gates and "return_gates" not in options)


def test_layouts_are_time_first(lstm):
    expected = memory.record(lstm, X)
    first = lstm_kernels.LSTM(3, 5, 2, batch_first=True)
    first.load_state_dict(lstm.state_dict())
    found = memory.record(first, X.transpose(0, 1))
    assert_close(held(found), held(expected), rtol=1e-5, atol=1e-6)
    alone = memory.record(lstm, X[:, 1])
    assert_close(alone.cell[1], expected.cell[1][:, 1:2], rtol=1e-5, atol=1e-6)
    assert alone.gates[0].shape == (6, 1, 1, 4, 5)


@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_states_are_padded_with_their_lengths(batch_first):
    lstm = lstm_kernels.LSTM(3, 5, batch_first=batch_first)
    lengths = torch.tensor([2, 6, 1, 4])
    packed = pack_padded_sequence(X, lengths, enforce_sorted=False)
    found = memory.record(lstm, packed)
    assert found.lengths.tolist() == lengths.tolist()
    for n, length in enumerate(lengths):
        _, _, alone = lstm(X[:length, n], return_gates=True)
        assert_close(found.cell[0][:length, n], alone.cell[0], rtol=1e-5, atol=1e-6)
        assert_close(found.gates[0][:length, n], alone.gates[0], rtol=1e-5, atol=1e-6)
    assert found.rows(found.cell[0]).shape == (13, 5)


def test_stream_holds_one_batch_at_a_time(lstm):
    served = []

    def batches():
        for k in range(3):
            served.append(k)
            yield X + k, "a target"

    stream = memory.stream(lstm, batches(), progress=False)
    assert served == []
    first = next(stream)
    assert served == [0]
    assert_close(held(first), held(memory.record(lstm, X)), rtol=0, atol=0)
    assert len(list(stream)) == 2


def test_choosing_among_several(lstm):
    model = nn.ModuleDict({"a": lstm, "b": lstm_kernels.LSTM(3, 4)})
    model.forward = lambda x: model["a"](x)[0].sum() + model["b"](x)[0].sum()
    assert memory.record(model, X, lstm="b").cell[0].shape == (6, 4, 4)
    with pytest.raises(ValueError, match=r"model has 2 of lstm_kernels\.LSTM; choose with lstm="):
        memory.record(model, X)
    with pytest.raises(ValueError, match=r"named 'c'; there are \['a', 'b'\]"):
        memory.record(model, X, lstm="c")


def test_models_without_our_lstm():
    with pytest.raises(ValueError, match=r"replace_lstm\(model\) exchanges"):
        memory.record(nn.LSTM(3, 4), X)
    with pytest.raises(ValueError, match=r"stack what its calls return, and analyse LSTMStates"):
        memory.record(lstm_kernels.LSTMCell(3, 4), X)
    with pytest.raises(ValueError, match=r"model has no lstm_kernels\.LSTM inside$"):
        memory.record(nn.Linear(3, 4), X)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        memory.record(3, X)


def test_the_states_of_a_loop_over_cells():
    """What the error says to do gives the recording of an LSTM with the same weights."""
    torch.manual_seed(0)
    cell, lstm = lstm_kernels.LSTMCell(3, 4), lstm_kernels.LSTM(3, 4)
    lstm.load_state_dict({f"{name}_l0": w for name, w in cell.state_dict().items()})
    steps, state = [], None
    with torch.no_grad():
        for x_t in X:
            h, c, gates = cell(x_t, state, return_gates=True)
            state = h, c
            steps.append((h, c, gates))
    h, c, gates = map(torch.stack, zip(*steps, strict=True))
    recording = memory.Recording.of(lstm_kernels.LSTMStates((h,), (c,), (gates.unsqueeze(2),)))
    for kind in ("hidden", "cell", "gates"):
        stacked, whole = getattr(recording, kind)[0], getattr(memory.record(lstm, X), kind)[0]
        assert_close(stacked, whole)  # sums in another order


def test_more_than_one_call(lstm):
    class Twice(nn.Module):
        def __init__(self, times):
            super().__init__()
            self.lstm, self.times = lstm, times

        def forward(self, x):
            for _ in range(self.times):
                self.lstm(x)

    for times in (0, 2):
        with pytest.raises(ValueError, match=f"called its LSTM {times} times"):
            memory.record(Twice(times), X)


def test_an_error_inside_puts_everything_back(lstm):
    model = Reader(lstm).train()
    with pytest.raises((RuntimeError, ValueError)):
        memory.record(model, X[..., :2])
    assert model.training
    assert lstm.training
    assert "forward" not in vars(lstm)


def test_nan_in_the_input(lstm):
    x = X.clone()
    x[3, 2, 1] = torch.nan
    with pytest.raises(ValueError, match="x holds NaN"):
        memory.record(lstm, x)
    with pytest.raises(TypeError, match="data must be a tensor"):
        list(memory.stream(lstm, 3))


def test_states_given_by_the_caller():
    _, _, states = lstm_kernels.LSTM(3, 5)(X, return_states=True)
    assert_close(held(memory.Recording.of(states)), tuple(states), rtol=0, atol=0)
    with pytest.raises(TypeError, match="states must be LSTMStates or Recordings, got tuple"):
        memory.Recording.of((1, 2, 3))
