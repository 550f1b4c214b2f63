"""The tasks are what they claim; the reproduction runs and says what it measured."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lstm_kernels.programs.cell_or_hidden import answer
from lstm_kernels.programs.cell_or_hidden.claims import claims
from lstm_kernels.programs.cell_or_hidden.knowledge import PROBES, Knowledge
from lstm_kernels.programs.cell_or_hidden.main import main
from lstm_kernels.programs.cell_or_hidden.measure import Run
from lstm_kernels.programs.cell_or_hidden.summary import Interval, headline, knows
from lstm_kernels.programs.cell_or_hidden.tasks import Adding, Copying, Text
from lstm_kernels.programs.cell_or_hidden.training import CONTENDERS


def generator():
    return torch.Generator().manual_seed(0)


def test_adding_asks_for_the_sum_of_the_marked():
    x, target = Adding().batch(300, generator())
    values, marks = x.unbind(-1)
    assert x.shape == (50, 300, 2)
    assert (marks[:25].sum(0) == 1).all()
    assert (marks[25:].sum(0) == 1).all()
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
    assert task.score(torch.cat([torch.zeros(20, 50, task.kinds), perfect]), target) == 1


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


def a_run(contender, seed, **changes):
    """A run of the adding task in which every claim holds, but for the changes."""
    lstm = contender != "RNN"
    stages = ("untrained", "trained")
    bias = float(contender[-1]) if lstm else 0.0
    knowledge = Knowledge(
        "step t",
        [1, 2, 3],
        [0.0, 0.0, 0.0],
        {probe: [0.2, 0.1, -50.0] for probe in ("linear", "mlp")},
        {probe: [0.8, 0.7, 0.9] for probe in ("linear", "mlp")},
        "R2",
    )
    overlap = {f"{way}, {probe}": 0.9 - (way == "c from h") for way in WAYS for probe in PROBES}
    changed = ("zeroed", "held for 10 steps", "swapped", "moved by |h|")
    found = {
        "task": "adding",
        "contender": contender,
        "seed": seed,
        "units": 4,
        "parameters": 80,
        "steps": 200,
        "score": 0.17 if not lstm else 0.004 - bias / 1000,
        "learnt": bias > 0,
        "curve": [(100, 0.2), (200, 0.1)],
        "gradient": {s: {k: [0.1, 1.0] for k in ("hidden", "cell", "highway")} for s in stages},
        "reach": {s: {"hidden": 3, "cell": 9, "highway": 9} for s in stages},
        "growth": dict.fromkeys(stages, -0.1),
        "lyapunov": dict.fromkeys(stages, -0.2),
        "half_life": {s: [bias + 1, bias + 2, 40.0] for s in stages} if lstm else {},
        "knowledge": knowledge if lstm else None,
        "overlap": overlap if lstm else {},
        "ablation": {f"{s} {c}": 0.5 + (s == "c") for s in "ch" for c in changed} if lstm else {},
    }
    return Run(**found | changes)


WAYS = ("h from c", "c from h")


def runs_of(seeds, **changes):
    return [a_run(c.name, seed, **changes) for seed in range(seeds) for c in CONTENDERS]


def test_a_claim_holds_in_the_seeds_in_which_it_holds():
    runs = runs_of(3)
    judged = {claim.text: (claim.holds, claim.of) for claim in claims(Adding(), runs)}
    assert judged.pop("the RNN learns the task.") == (0, 3)
    assert judged.pop("the LSTM, forget bias 0 learns the task.") == (0, 3)
    assert set(judged.values()) == {(3, 3)}
    assert len(judged) == 15
    # One LSTM with forget bias 3 of three ends with a gradient that grows, and knows less in c.
    at = next(n for n, r in enumerate(runs) if r.seed == 1 and r.contender == CONTENDERS[3].name)
    known = dataclasses.replace(runs[at].knowledge, cell={p: [0.1] * 3 for p in PROBES})
    runs[at] = dataclasses.replace(
        runs[at], knowledge=known, growth={"untrained": -0.1, "trained": 0.1}
    )
    judged = {claim.text: (claim.holds, claim.of) for claim in claims(Adding(), runs)}
    for text in (
        "a linear probe finds more of the past in c than in h.",
        "a small network finds more of the past in c than in h.",
        "after training, the signs agree in the same way.",
    ):
        assert judged.pop(text) == (2, 3)
    assert list(judged.values()).count((3, 3)) == 12


def test_what_states_carry_is_judged_where_the_task_is_learnt():
    runs = [dataclasses.replace(r, learnt=r.learnt and r.seed > 0) for r in runs_of(3)]
    judged = {claim.text: claim for claim in claims(Adding(), runs)}
    assert judged["to zero c costs more than to zero h."].of == 2
    assert judged["before training, " + BEFORE_CLAIM].of == 3
    nothing = [dataclasses.replace(r, learnt=False) for r in runs]
    last = claims(Adding(), nothing)[-1]
    assert last.sentence.startswith("Nothing to judge it by: a change as large as h")


BEFORE_CLAIM = (
    "the gradient reaches farther back in c of the LSTM with forget bias 1 than in h of the RNN."
)


def test_the_headline_is_the_lstm_that_learns_most_often():
    runs = runs_of(2)
    assert headline(Adding(), runs) == "LSTM, forget bias 3"  # as often as 1, but better
    runs = [
        dataclasses.replace(r, learnt=r.learnt and not (r.seed and r.contender.endswith("3")))
        for r in runs
    ]
    assert headline(Adding(), runs) == "LSTM, forget bias 1"


def test_one_step_cannot_ruin_a_summary():
    """The median over the places, of scores between guessing and certainty."""
    run = a_run("LSTM, forget bias 1", 0)
    assert knows(run.knowledge, "hidden", "linear") == 0.1  # of 0.2, 0.1 and -50
    guessing = dataclasses.replace(run.knowledge, chance=[0.5] * 3)
    assert knows(guessing, "cell", "mlp") == pytest.approx(0.6)


def test_intervals():
    interval = Interval.of([3.0, 1.0, 2.0, 1000.0])
    assert interval == Interval(2.5, 1.0, 1000.0, 4)
    assert str(interval) == "2.5 [1, 1,000]"
    assert str(Interval.of([0.12345])) == "0.12"


@pytest.mark.slow
def test_the_reproduction_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(answer, "SEQUENCES", 80)
    main(["--part", "0.001", "--seeds", "1", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "memory.json").read_text())["tasks"]
    assert list(found) == ["adding", "copying", "text"]
    shown = capsys.readouterr().out
    names = [c.name for c in CONTENDERS]
    for task in found.values():
        assert [run["contender"] for run in task["runs"]] == names
        assert all(claim["text"] in shown for claim in task["claims"])
        assert task["headline"] in names[1:]
        lstm = task["summary"][task["headline"]]
        assert -0.5 < lstm["c knows, linear"]["low"] <= lstm["c knows, linear"]["high"] <= 1
    html = (tmp_path / "memory.html").read_text(encoding="utf-8")
    assert html.count("<img") == 9
    table = (tmp_path / "memory.md").read_text()
    assert table.count("**") == 6
    for task in found:
        assert (tmp_path / f"{task}.png").read_bytes().startswith(b"\x89PNG")


def test_bad_options(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--part", "2"])
    assert "invalid part value: '2'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "invalid count value: '0'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "file")])
    assert "cannot make" in capsys.readouterr().err
