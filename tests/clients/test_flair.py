"""flair's tagger trains the same with ours inside, and is the same after save and load."""

import copy

import pytest
import torch
from comparing import gradients, trainer

import lstm_kernels

pytest.importorskip("flair")
import flair
from flair.data import Corpus, Dictionary, Sentence
from flair.datasets import FlairDatapointDataset
from flair.embeddings import CharacterEmbeddings
from flair.models import SequenceTagger
from flair.trainers import ModelTrainer

CLIENT = "flair"
NAMES = ("Ada", "Grace", "Alan", "Kurt", "Emmy")
PLACES = ("Rome", "Oslo", "Bonn", "Lima")


def sentences(count):
    """Who is where, for a longer or shorter time."""
    made = []
    for at in range(count):
        name, place = NAMES[at % len(NAMES)], PLACES[at % len(PLACES)]
        sentence = Sentence(f"{name} stayed in {place} for a {'very ' * (at % 7)}long time .")
        sentence[0:1].add_label("ner", "person")
        sentence[3:4].add_label("ner", "place")
        made.append(sentence)
    return made


def corpus():
    parts = (FlairDatapointDataset(sentences(count)) for count in (70, 20, 20))
    return Corpus(*parts, name="made")


@pytest.fixture
def taggers():
    """A tagger with an LSTM over characters and one over words, without dropout; and ours."""
    flair.device = torch.device("cpu")
    letters = Dictionary()
    for letter in sorted(set("".join((*NAMES, *PLACES, "stayedinforaverylongtime.")))):
        letters.add_item(letter)
    theirs = SequenceTagger(
        embeddings=CharacterEmbeddings(path_to_char_dict=letters),
        tag_dictionary=corpus().make_label_dictionary("ner", add_unk=False),
        tag_type="ner",
        hidden_size=128,
        rnn_layers=1,
        locked_dropout=0.0,
        word_dropout=0.0,
    )
    ours = lstm_kernels.replace_lstm(copy.deepcopy(theirs), subclass=True)
    assert sum(isinstance(m, lstm_kernels.LSTM) for m in ours.modules()) == 2
    return theirs, ours


def losses_of(batch):
    def loss(model):
        for sentence in batch:
            sentence.clear_embeddings()
        total, words = model.forward_loss(batch)
        return total / words

    return loss


def test_its_gradients_are_the_same(taggers, ratio):
    theirs, ours = taggers
    loss = losses_of(sentences(32))
    # float32 through two LSTMs in both directions and a CRF over 15 words
    tolerance = {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(loss(ours), loss(theirs), **tolerance)
    expected = gradients(theirs, loss(theirs))
    torch.testing.assert_close(gradients(ours, loss(ours)), expected, **tolerance)
    ratio("training step of a tagger, 32 sentences", trainer(theirs, loss), trainer(ours, loss))


# what flair warns of does not matter here
@pytest.mark.filterwarnings("ignore")
def test_its_trainer_trains_the_same(taggers, tmp_path):
    """flair rebuilds nn.LSTM on load, and reads our weights into it."""
    scores, words = [], sentences(5)
    for name, tagger in zip(("theirs", "ours"), taggers, strict=True):
        torch.manual_seed(0)
        flair.set_seed(0)
        trainer = ModelTrainer(tagger, corpus())
        result = trainer.train(tmp_path / name, learning_rate=0.3, max_epochs=3, mini_batch_size=8)
        loaded = SequenceTagger.load(tmp_path / name / "final-model.pt")
        assert type(loaded.rnn) is torch.nn.LSTM
        tagger.eval()
        with torch.no_grad():
            score = losses_of(words)(tagger).item()
            assert losses_of(words)(loaded.eval()).item() == pytest.approx(score, rel=1e-4)
        scores.append((score, result["test_score"]))
    # float32 from the same seed: rounding differs and grows with every step of the optimizer
    assert scores[1] == pytest.approx(scores[0], rel=1e-2, abs=1e-3)
