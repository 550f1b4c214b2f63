"""torchaudio's RNN-T, its predictor with layer norm and without, as replace_torchaudio makes it."""

import copy

import pytest
import torch
from comparing import gradients, trainer

from lstm_kernels.convert import TorchaudioLSTM, replace_torchaudio

pytest.importorskip("torchaudio")
from torchaudio.models import RNNTBeamSearch, emformer_rnnt_model

CLIENT = "torchaudio"
SYMBOLS = 32
# float32: rounding of at most 30 steps, layer norms and a transformer of one layer
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}


def models(layer_norm):
    """torchaudio's own base model made small, and a copy with our LSTMs."""
    theirs = emformer_rnnt_model(
        input_dim=16,
        encoding_dim=64,
        num_symbols=SYMBOLS,
        segment_length=4,
        right_context_length=1,
        time_reduction_input_dim=16,
        time_reduction_stride=2,
        transformer_num_heads=2,
        transformer_ffn_dim=32,
        transformer_num_layers=1,
        transformer_dropout=0.0,
        transformer_activation="gelu",
        transformer_left_context_length=4,
        transformer_max_memory_size=0,
        transformer_weight_init_scale_strategy="depthwise",
        transformer_tanh_on_mem=True,
        symbol_embedding_dim=128,
        num_lstm_layers=3,
        lstm_layer_norm=layer_norm,
        lstm_layer_norm_epsilon=1e-3,
        lstm_dropout=0.0,
    )
    ours = replace_torchaudio(copy.deepcopy(theirs))
    assert any(isinstance(module, TorchaudioLSTM) for module in ours.modules())
    return theirs, ours


def named_as_ours(theirs):
    """The same gradients under the names that theirs has, those of the LSTMs left out."""
    return {name: value for name, value in theirs.items() if "lstm" not in name}


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_predictor_trains_the_same(layer_norm, ratio):
    theirs, ours = (model.predictor for model in models(layer_norm))
    words, lengths = torch.randint(SYMBOLS, (16, 30)), torch.full((16,), 30)

    def loss(predictor):
        return predictor(words, lengths, None)[0].square().mean()

    torch.testing.assert_close(
        ours(words, lengths, None), theirs(words, lengths, None), **TOLERANCE
    )
    expected = named_as_ours(gradients(theirs, loss(theirs)))
    found = named_as_ours(gradients(ours, loss(ours)))
    assert "embedding.weight" in found  # its gradient comes through every layer
    torch.testing.assert_close(found, expected, **TOLERANCE)
    work = f"predictor, training step, 16 x 30{', with layer norm' if layer_norm else ''}"
    ratio(work, trainer(theirs, loss), trainer(ours, loss))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_whole_model_joins_the_same(layer_norm):
    found = []
    features, lengths = torch.randn(2, 9, 16), torch.tensor([8, 8])
    words, counts = torch.randint(SYMBOLS, (2, 5)), torch.tensor([5, 3])
    for model in models(layer_norm):
        with torch.no_grad():
            found.append(model(features, lengths, words, counts, None)[0])
    torch.testing.assert_close(found[1], found[0], **TOLERANCE)


def test_beam_search_finds_the_same_words():
    """The states are copied and reordered by torchaudio between the steps."""
    found = []
    features, length = torch.randn(9, 16), torch.tensor([8])
    for model in models(layer_norm=True):
        search = RNNTBeamSearch(model.eval(), blank=SYMBOLS - 1)
        with torch.no_grad():
            best = search(features, length, 3)
        found.append([(tokens, score) for tokens, _, _, score in best])
    for (tokens, score), (expected, expected_score) in zip(*reversed(found), strict=True):
        assert tokens == expected
        assert score == pytest.approx(expected_score, rel=1e-4)
