"""The tasks are what they claim; the reproduction runs and says what it measured."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lstm_kernels.programs.cell_or_hidden import measure
from lstm_kernels.programs.cell_or_hidden.main import main
from lstm_kernels.programs.cell_or_hidden.tasks import Adding, Copying, Text
from lstm_kernels.programs.cell_or_hidden.training import CONTENDERS


def generator():
    return torch.Generator().manual_seed(0)


def test_adding_asks_for_the_sum_of_the_marked():
    x, target = Adding().batch(300, generator())
    values, marks = x.unbind(-1)
    assert x.shape == (200, 300, 2)
    assert (marks[:100].sum(0) == 1).all()
    assert (marks[100:].sum(0) == 1).all()
    assert_close(target, (values * marks).sum(0))
    # 300 sums of two uniform numbers: the deviation of their variance is 0.01
    assert_close(target.var().item(), Adding.guessing, rtol=0, atol=0.03)


def test_copying_shows_then_asks():
    task = Copying()
    x, target = task.batch(50, generator())
    symbols = x.argmax(-1)
    assert x.shape == (task.symbols + task.delay + task.symbols, 50, task.kinds + 2)
    assert (symbols[: task.symbols] == target).all()
    assert (symbols[task.cue] == task.kinds + 1).all()
    blank = torch.cat([symbols[task.symbols : task.cue], symbols[task.cue + 1 :]])
    assert (blank == task.kinds).all()
    perfect = torch.nn.functional.one_hot(target, task.kinds).float()
    assert task.score(torch.cat([torch.zeros(40, 50, task.kinds), perfect]), target) == 1


def test_text_is_followed_by_itself():
    task = Text()
    x, target = task.batch(7, generator())
    assert x.shape == target.shape == (task.length, 7)
    assert (x[1:] == target[:-1]).all()
    assert 4 < task.guessing < 6  # bits of an English character without context


@pytest.mark.parametrize("task", [Adding, Copying, Text])
def test_contenders_have_the_same_number_of_parameters(task):
    task = task()
    sizes = []
    for contender in CONTENDERS:
        model = contender.model(task, 0)
        recurrent = next(m for m in model.modules() if isinstance(m, nn.RNNBase))
        sizes.append(sum(weight.numel() for weight in recurrent.parameters()))
    assert max(sizes) / min(sizes) < 1.02


@pytest.mark.slow
def test_the_reproduction_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "SEQUENCES", 80)
    main(["--part", "0.001", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "memory.json").read_text())
    assert list(found) == ["adding", "copying", "text"]
    shown = capsys.readouterr().out
    for task in found.values():
        assert [c["name"] for c in task["contenders"]] == [c.name for c in CONTENDERS]
        assert all(sentence in shown for sentence in task["findings"])
    html = (tmp_path / "memory.html").read_text(encoding="utf-8")
    assert html.count("<img") == 6


def test_bad_options(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--part", "2"])
    assert "invalid part value: '2'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "file")])
    assert "cannot make" in capsys.readouterr().err
