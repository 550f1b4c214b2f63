"""horizon and its ridge probe against memories of known length."""

import pytest
import torch
from models import delay_line, fixed_gates, states_of
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import memory
from lstm_kernels.memory import _mlp
from lstm_kernels.memory._ridge import predict_held_out
from lstm_kernels.memory._sample import Sample


def signs(*shape):
    """+1 and -1: what a linear probe reads through any one-to-one function."""
    return torch.randint(0, 2, shape, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("sequences", [2, 8])  # folds over time, and over sequences
def test_horizon_of_a_delay_line_is_its_length(length, sequences):
    torch.manual_seed(0)
    found = memory.horizon(delay_line(length), signs(600, sequences, 1), max_lag=length + 4)
    assert found.metric == "R2"
    for state in ("hidden", "cell"):
        score = getattr(found, state)[0]
        assert score[: length + 1].min() > 1 - 1e-6
        assert score[length + 1 :].max() < 0.05  # nothing: R2 of independent signs
        assert found.reach(state) == (length,)


def test_classes_are_scored_by_accuracy():
    torch.manual_seed(1)
    x = signs(400, 8, 1)
    found = memory.horizon(delay_line(2), x, lambda x: x[..., 0] > 0, max_lag=4)
    assert found.metric == "accuracy"
    assert_close(found.cell[0][:3], torch.ones(3, dtype=torch.float64), rtol=0, atol=0)
    # 3168 fair coins: the standard deviation of the accuracy is 0.009
    assert (found.cell[0][3:] - 0.5).abs().max() < 0.05
    assert (found.chance - 0.5).abs().max() < 0.05
    assert found.reach("cell") == (2,)


def test_a_leaky_integrator_knows_with_the_square_of_its_decay():
    """c_t = sum f^k x_{t-k} of white x: R2 at lag k is f^2k (1 - f^2)."""
    torch.manual_seed(2)
    f = 0.8
    lstm = fixed_gates(0.5, f, 0.5, 0.5)
    with torch.no_grad():
        lstm.bias_ih_l0[2] = 0
        lstm.weight_ih_l0[2] = 1e-3  # g = tanh(x / 1000): linear to 1e-6
    found = memory.horizon(lstm, torch.randn(500, 40, 1, dtype=torch.float64), max_lag=6)
    expected = f ** (2 * found.lags.double()) * (1 - f**2)
    # 19,760 samples: the standard deviation of an R2 is below 0.01
    assert_close(found.cell[0], expected, rtol=0, atol=0.03)


def test_raw_numbers_that_no_state_keeps_are_said_to_be_the_wrong_question():
    torch.manual_seed(3)
    x = torch.randn(300, 8, 1, dtype=torch.float64)
    forgetful = fixed_gates(0.5, 1e-9, 0.5, 0.5)  # reads nothing of x
    with torch.no_grad():
        forgetful.weight_ih_l0[1] = 1e-9
    with pytest.warns(UserWarning, match=r"no state tells .* best R2 is .* give target_fn"):
        found = memory.horizon(forgetful, x, max_lag=2)
    assert found.cell[0].max() < 0.1
    memory.horizon(forgetful, x, lambda x: x, max_lag=2)  # who asks for it gets no warning
    memory.horizon(delay_line(2), signs(300, 8, 1), max_lag=2)


def test_states_and_targets_give_what_the_model_gives():
    torch.manual_seed(3)
    lstm = lstm_kernels.LSTM(1, 6, 2, dtype=torch.float64, batch_first=True)
    x = torch.randn(7, 30, 1, dtype=torch.float64)
    by_model = memory.horizon(lstm, x, max_lag=3)
    states = memory.Recording.of(lstm(x, return_states=True)[2], batch_first=True)
    assert_close(memory.horizon(states, x, max_lag=3).cell, by_model.cell)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=3)
    assert_close(memory.horizon(lstm, loader, max_lag=3, progress=False).cell, by_model.cell)
    streamed = memory.horizon(memory.stream(lstm, x.split(3)), x.split(3), max_lag=3)
    assert_close(streamed.hidden, by_model.hidden)


def test_padding_is_never_a_sample():
    torch.manual_seed(4)
    x, lengths = signs(40, 9, 1), torch.tensor([40, 12, 3, 33, 20, 20, 7, 9, 25])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    found = memory.horizon(delay_line(2), packed, max_lag=4)
    assert found.steps == int((lengths - 4).clamp(min=0).sum())
    assert found.reach("cell") == (2,)


def test_tokens_are_classes():
    torch.manual_seed(5)

    class Characters(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(3, 8)
            self.lstm = lstm_kernels.LSTM(8, 32, batch_first=True)

        def forward(self, tokens):
            return self.lstm(self.embed(tokens))[0]

    found = memory.horizon(Characters(), torch.randint(0, 3, (40, 60)), max_lag=2)
    assert found.metric == "accuracy"
    assert found.cell[0][0] > 0.95  # an untrained LSTM knows what it just read


def test_a_sample_of_the_steps_is_enough():
    torch.manual_seed(6)
    found = memory.horizon(delay_line(2), signs(500, 8, 1), max_lag=4, max_steps=700)
    assert found.steps == 700
    assert found.reach("hidden") == (2,)


def test_bad_input():
    lstm = delay_line(1)
    x = signs(5, 2, 1)
    with pytest.raises(ValueError, match="too short for max_lag=5: the longest has 5 steps"):
        memory.horizon(lstm, x, max_lag=5)
    with pytest.raises(ValueError, match="max_lag must be at least 0, got -1"):
        memory.horizon(lstm, x, max_lag=-1)
    with pytest.raises(ValueError, match="too little data"):
        memory.horizon(lstm, x, max_lag=3)
    states = lstm(x, return_states=True)[2]
    with pytest.raises(ValueError, match=r"targets must be \(T, N\)"):
        memory.horizon(states, x.transpose(0, 1))
    with pytest.raises(ValueError, match="targets holds NaN"):
        memory.horizon(states, x * torch.nan)
    with pytest.raises(ValueError, match="targets are constant"):
        memory.horizon(states, torch.ones(5, 2), max_lag=0)
    with pytest.raises(ValueError, match=r"targets of classes must be \(T, N\)"):
        memory.horizon(states, torch.ones(5, 2, 3, dtype=torch.int64), max_lag=0)
    with pytest.raises(ValueError, match=r"probe must be one of .*, got 'tree'"):
        memory.horizon(states, x, probe="tree")
    with pytest.raises(TypeError, match="target_fn needs a model"):
        memory.horizon(states, x, lambda x: x)


def test_ridge_recovers_a_linear_map_and_predicts_held_out_rows_only():
    torch.manual_seed(7)
    features = torch.randn(200, 5, dtype=torch.float64) * 100
    weights = torch.randn(5, 3, dtype=torch.float64)
    fold = torch.arange(200) % 5
    predicted = predict_held_out(features, features @ weights + 7, fold, 5)
    assert_close(predicted, features @ weights + 7, rtol=1e-6, atol=1e-4)
    # The target of one fold is noise: nothing of it may come back in its prediction.
    targets = features @ weights
    targets[fold == 2] = torch.randn(40, 3, dtype=torch.float64) * 1e3
    alone = predict_held_out(features, targets, fold, 5)[fold == 2]
    correlation = torch.corrcoef(torch.stack([alone.flatten(), targets[fold == 2].flatten()]))[0, 1]
    assert correlation.abs() < 0.3  # 120 values: a standard deviation of 0.09


def test_ridge_survives_constant_and_repeated_features():
    torch.manual_seed(8)
    x = torch.randn(50, 1, dtype=torch.float64)
    features = torch.cat([x, x, torch.ones(50, 1)], 1)
    predicted = predict_held_out(features, 2 * x, torch.arange(50) % 5, 5)
    assert_close(predicted, 2 * x, rtol=1e-5, atol=1e-5)


def r2(predicted, targets):
    return float(
        1 - (predicted - targets).square().sum() / (targets - targets.mean(0)).square().sum()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probe_of_states_of_rank_one_is_no_worse_than_the_mean(dtype):
    """All units show one number; what differs between them is rounding."""
    torch.manual_seed(9)
    shown = torch.randn(400, 1, dtype=torch.float64)
    features = (shown @ torch.randn(1, 64, dtype=torch.float64)).to(dtype)
    fold = torch.arange(400) % 5
    unknown = torch.randn(400, 20, dtype=torch.float64)
    # Fits of a slope and a mean to 320 values: 2 / 320 is lost by chance.
    assert r2(predict_held_out(features, unknown, fold, 5), unknown) > -0.02
    known = 3 * shown - 1
    assert r2(predict_held_out(features, known, fold, 5), known) > 1 - 1e-6


def test_a_probe_of_rounding_finds_nothing():
    """A state that stands still but for its last bit; one fold's bits differ in scale."""
    torch.manual_seed(10)
    features = 1 + torch.randint(-1, 2, (100, 32)) * torch.finfo(torch.float32).eps
    fold = torch.arange(100) % 5
    targets = torch.randn(100, 8, dtype=torch.float64)
    predicted = predict_held_out(features.float(), targets, fold, 5)
    assert r2(predicted, targets) > -0.05  # the mean of 80 of 100 values: 1 / 80 by chance


@pytest.mark.parametrize("size", [1e2, 1e4, 1e8])
def test_outliers_neither_hide_a_signal_nor_ruin_a_score(size):
    torch.manual_seed(11)
    features = torch.randn(500, 16, dtype=torch.float64)
    targets = features[:, :3] + 0.5 * torch.randn(500, 3, dtype=torch.float64)
    fold = torch.arange(500) % 5
    clean = r2(predict_held_out(features, targets, fold, 5), targets)
    features[[7, 123]] *= size  # of one fold each
    spoilt = r2(predict_held_out(features, targets, fold, 5), targets)
    assert 0.75 < clean < 0.85  # 1 / (1 + 0.5^2)
    # Two rows of 500 lie anywhere up to half a range outside: 2 / 500 * (range of 7 deviations)^2.
    assert spoilt > clean - 2 / 500 * 7**2


def test_more_features_than_rows_do_not_explode():
    torch.manual_seed(12)
    features, targets = torch.randn(60, 200), torch.randn(60, 10, dtype=torch.float64)
    assert r2(predict_held_out(features, targets, torch.arange(60) % 5, 5), targets) > -0.3


def test_a_feature_of_rare_events_keeps_them():
    torch.manual_seed(13)
    event = torch.arange(2000) % 400 == 0
    features = torch.stack([event.double(), torch.randn(2000, dtype=torch.float64)], 1)
    targets = 5 * event[:, None].double()
    fold = torch.arange(2000) // 400
    assert r2(predict_held_out(features, targets, fold, 5), targets) > 1 - 1e-6


@pytest.mark.slow
def test_a_network_reads_what_no_linear_map_can():
    """The product of two units: a linear probe finds nothing, a network most of it."""
    torch.manual_seed(14)
    cell = torch.randn(50, 40, 6)
    product = cell[..., 0] * cell[..., 1]
    states = states_of(cell)
    linear = memory.horizon(states, product, max_lag=0)
    network = memory.horizon(states, product, max_lag=0, probe="mlp")
    assert (linear.probe, network.probe) == ("linear", "mlp")
    assert abs(linear.cell[0][0]) < 0.02
    assert network.cell[0][0] > 0.8


@pytest.mark.slow
def test_a_network_is_never_much_worse_than_a_linear_map():
    torch.manual_seed(15)
    features, fold = torch.randn(300, 8, dtype=torch.float64), torch.arange(300) % 5
    targets = torch.cat([features[:, :1] * 3, torch.randn(300, 2)], 1)  # all known, and nothing
    for at in range(3):
        column = targets[:, at : at + 1]
        found = r2(_mlp.predict_held_out(features, column, fold, 5), column)
        linear = r2(predict_held_out(features, column, fold, 5), column)
        # Where nothing is known, the choice of when to stop is made on 60 rows of noise.
        assert found > linear - 0.05


def test_sample_is_uniform_and_bounded():
    sample = Sample(1000)
    for first in range(0, 10_000, 250):
        sample.offer(250, lambda rows, first=first: (first + rows,))
    (kept,) = sample.columns
    assert len(kept.unique()) == 1000
    counts = torch.histc(kept.double(), 10, 0, 10_000)
    assert (counts - 100).abs().max() < 40  # binomial: a standard deviation of 9.5
    assert kept.tolist() == sorted(kept.tolist())
