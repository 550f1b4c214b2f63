"""The demo: its text, its errors, its picture, and the whole of it on a small text."""

import json
import math
import os
import re
import subprocess
import sys
from itertools import pairwise

import matplotlib.image
import pytest
import torch
from torch import nn

from lstm_kernels import LSTM
from lstm_kernels.programs.characters.main import main
from lstm_kernels.programs.characters.model import CharacterModel
from lstm_kernels.programs.characters.picture import choose_units, measure_units
from lstm_kernels.programs.characters.text import chunks, find_sentence, make_corpus, read_text

SMALL = ["--batch-size", "4", "--length", "8", "--hidden-size", "8", "--steps", "6"]
SENTENCE = 'She said "no" and left the room, as quietly as she had come in.'
TEXT = f"It rained. {SENTENCE} Nobody spoke. " * 16


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_chunks_continue_each_other_and_targets_are_one_step_ahead():
    tokens = torch.arange(100)
    found = list(chunks(tokens, batch_size=3, length=5))
    assert len(found) == 6  # streams of 33 characters: 6 times 5, and one more as a target
    for inputs, targets in found:
        assert inputs.shape == targets.shape == (5, 3)
        assert torch.equal(targets, inputs + 1)
    for (before, _), (after, _) in pairwise(found):
        assert torch.equal(after[0], before[-1] + 1)
    assert torch.equal(found[0][0][0], torch.tensor([0, 33, 66]))


def test_a_text_of_just_the_length_asked_for_is_enough():
    needed = 4 * (8 + 1) * 10
    corpus = make_corpus("ab" * (needed // 2), batch_size=4, length=8)
    assert len(list(chunks(corpus.validation, 4, 8))) == 1
    assert len(corpus.train) + len(corpus.validation) == needed
    with pytest.raises(ValueError, match=f"too short: {needed - 2} characters, .* need {needed}"):
        make_corpus("ab" * (needed // 2 - 1), batch_size=4, length=8)


def test_encoding_and_decoding_are_inverse():
    corpus = make_corpus(TEXT, 4, 8)
    assert corpus.decode(corpus.encode(SENTENCE)) == SENTENCE
    with pytest.raises(ValueError, match="never occur in the text: '# é'"):
        corpus.encode("one #é")


def test_the_default_text_is_real_english_text():
    text = read_text(None)
    assert len(text) > 300_000
    assert "The simple form" in text


def test_the_sentence_drawn_is_one_with_quotation_marks_if_there_is_one():
    plain = "All of this has been written without a single mark of speech."
    assert find_sentence(f"It rained. {plain} {SENTENCE} Nobody spoke.") == SENTENCE
    assert find_sentence(f"It rained. {plain} Nobody spoke. ") == plain
    assert find_sentence("no  sentence\nhere") == "no sentence here"


def test_both_models_start_from_equal_weights():
    models = []
    for lstm in (LSTM, nn.LSTM):
        torch.manual_seed(3)
        models.append(CharacterModel(lstm, characters=9, hidden_size=5, num_layers=2).state_dict())
    assert models[0].keys() == models[1].keys()
    for name, weight in models[0].items():
        assert torch.equal(weight, models[1][name]), name


def test_sampling_follows_the_model_and_the_seed():
    torch.manual_seed(0)
    model = CharacterModel(LSTM, characters=5, hidden_size=4)
    prompt = torch.tensor([1, 2, 3])
    torch.manual_seed(1)
    first = model.sample(prompt, 20)
    torch.manual_seed(1)
    assert torch.equal(model.sample(prompt, 20), first)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 1e4]))
    assert model.sample(prompt, 7).tolist() == [4] * 7


def test_a_unit_that_keeps_longer_and_one_that_stands_still():
    """With zero weights the gates are what their biases make them: the forget gate is `keep`."""
    model = CharacterModel(LSTM, characters=5, hidden_size=2)
    keep = torch.tensor([0.5, 0.9])
    with torch.no_grad():
        for parameter in model.lstm.parameters():
            parameter.zero_()
        model.lstm.bias_ih_l0[2:4] = torch.logit(keep)
        model.lstm.bias_ih_l0[5] = 1.0  # unit 1 writes, so that its cell moves
    half_lives, content = measure_units(model, torch.randint(5, (6, 2)))
    torch.testing.assert_close(
        half_lives.double(), math.log(0.5) / keep.double().log(), rtol=1e-5, atol=0
    )
    assert content[0] == 0
    assert content[1] > 0.1


def test_units_that_stand_still_are_not_chosen():
    half_lives = torch.tensor([900.0, 1.0, 7.0, 3.0, 5.0, 800.0, 0.5, 0.1])
    content = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert choose_units(half_lives, content) == [2, 4, 3, 1]


@pytest.mark.slow
def test_the_whole_demo(text_file, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    main([*SMALL, "--text", str(text_file), "--output", str(out), "--sample", "30"])
    printed = capsys.readouterr().out
    measured = json.loads((out / "demo.json").read_text())
    ours, theirs = measured["bits_per_character"].values()
    # Six steps are too few for float32's rounding to grow beyond a few parts in 10^5.
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert 0 < ours < math.log2(len(set(TEXT))) + 0.5  # hardly worse than blind guesses
    assert f"{ours:.3f} bits/char" in printed
    with_int8 = measured["bits_per_character_with_int8_weights"]
    assert with_int8 != ours
    assert with_int8 == pytest.approx(ours, abs=0.01)
    assert re.search(rf"with int8 weights +{with_int8:.3f} bits/char", printed)
    assert f"{measured['speedup']:.2f}x" in printed
    assert all(rate > 0 for rate in measured["characters_per_second"].values())
    assert repr(SENTENCE) in printed
    picture = matplotlib.image.imread(out / "states.png")
    assert picture.shape == (1280, 1600, 4)
    assert (picture[:, :, :3].std(axis=(0, 1)) > 0.1).all()  # something is drawn on the white


@pytest.mark.slow
def test_two_processes_learn_what_one_does(text_file, tmp_path):
    arguments = [*SMALL, "--text", str(text_file), "--sample", "5", "--output"]
    main([*arguments, str(tmp_path / "one")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "lstm_kernels.demo", *arguments, str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    one, two = (
        json.loads((tmp_path / name / "demo.json").read_text())["bits_per_character"]
        for name in ("one", "two")
    )
    # The gradients are the same but for the order in which float32 sums them.
    assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "{folder}/none.txt"], r"cannot read .*none\.txt: No such file"),
        (["--text", "{folder}"], r"cannot read .*: Is a directory"),
        (["--text", "{folder}/latin1.txt"], r"latin1\.txt is not UTF-8: byte 3"),
        (["--text", "{folder}/short.txt"], r"too short: 5 characters"),
        (["--text", "{folder}/empty.txt"], r"too short: 0 characters"),
        (["--sentence", "\N{SNOWMAN}?"], r"never occur in the text: '\N{SNOWMAN}'"),
        (["--sentence", ""], r"--sentence has 0 characters, a picture holds 2 to 200"),
        (["--sentence", "a" * 201], r"--sentence has 201 characters"),
        (["--output", "{folder}/short.txt/out"], r"cannot make .*short\.txt/out: Not a directory"),
        (["--hidden-size", "0"], r"--hidden-size: invalid positive_integer value: '0'"),
        (["--hidden-size", "3"], r"--hidden-size 3: the picture shows 4 units"),
        (["--layers", "two"], r"--layers: invalid positive_integer value: 'two'"),
        (["--steps", "-1"], r"--steps: invalid positive_integer value: '-1'"),
        (["--learning-rate", "fast"], r"--learning-rate: invalid float value: 'fast'"),
        (["--device", "tpu9"], r"--device: tpu9: "),
        (["--no-such-option"], r"unrecognized arguments: --no-such-option"),
    ],
)
def test_a_mistake_ends_with_one_line_before_any_training(arguments, message, tmp_path, capsys):
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9" * 1000)
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(SystemExit) as exit_info:
        main([argument.format(folder=tmp_path) for argument in arguments])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert "training" not in error
    last = error.strip().splitlines()[-1]
    assert last.startswith("python -m lstm_kernels.demo: error: ")
    assert re.search(message, last)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "cuda"])
    assert "--device: cuda: " in capsys.readouterr().err
