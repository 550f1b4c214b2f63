"""What README.md says is true: its examples run, its numbers are those of committed results."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.readme_table import lines
from lstm_kernels.programs.cell_or_hidden.tables import tables

ROOT = Path(__file__).parents[2]
PATH = r"(?<![\w./<-])[\w.][\w./-]*(?:/|\.(?:py|sh|h|cuh?|cpp|def|cmake|toml|md))(?!\S)"
FOLDERS = (".ci", "benchmarks", "csrc", "docs", "examples", "lstm_kernels", "tests")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_in_their_order():
    torch.manual_seed(0)
    names: dict[str, object] = {}
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    assert names["output"].shape == (100, 8, 128)
    assert names["i"].shape == names["o"].shape == (100, 8, 2, 64)
    assert names["lstm"].weight_hh_l0.grad.abs().sum() > 0


def test_every_line_of_the_table_is_a_committed_result():
    links = re.findall(
        r"^\| \[\w+\]\((benchmarks/results/[^)/]+)/\w+\.json\)", README, re.MULTILINE
    )
    assert links
    for folder in dict.fromkeys(links):
        for line in lines(ROOT / folder):
            assert line in README, f"run python -m benchmarks.readme_table {folder} into the README"


def test_the_table_of_isolated_calls_is_a_committed_result():
    (path,) = re.findall(r"\]\((benchmarks/results/[^)]+/isolated\.json)\)", README)
    for condition, found in json.loads((ROOT / path).read_text())["conditions"].items():
        ratios = found["ratios"].values()
        cells = " | ".join(f"{r['geomean']:.2f}x, {r['worst']:.2f}x" for r in ratios)
        assert f"| {condition} | {cells} |" in README


def test_what_the_states_carry_is_a_committed_result():
    results = ROOT / "benchmarks" / "results" / "memory"
    numbers = json.loads((results / "memory.json").read_text())
    written = (results / "memory.md").read_text()
    assert tables(numbers) == written.splitlines()
    states = written.split("\n\n")[1]
    assert states in README, "copy the second table of memory.md into the README"
    # The sentences under the table.
    claims = {
        name: {claim["text"]: (claim["holds"], claim["of"]) for claim in task["claims"]}
        for name, task in numbers["tasks"].items()
    }
    for change in ("to zero c", "to hold c", "to swap c", "a change as large as h"):
        for task, of, judged in (("adding", 4, 4), ("copying", 4, 4), ("text", 0, 5)):
            (text,) = (text for text in claims[task] if text.startswith(change))
            assert claims[task][text] == (of, judged)
    assert claims["text"]["a linear probe finds more of the past in c than in h."] == (5, 5)
    assert claims["text"]["the best LSTM ends with a better score than the RNN."] == (0, 5)
    for bias, adding, copying in ((0, 4, 0), (3, 4, 4)):
        text = f"the LSTM, forget bias {bias} learns the task."
        assert (claims["adding"][text], claims["copying"][text]) == ((adding, 5), (copying, 5))
    before = (
        "before training, the gradient reaches farther back in c of the LSTM with forget bias 1"
    )
    signs = "after training, the signs agree in the same way."
    for task, agree in (("adding", 0), ("copying", 2), ("text", 4)):
        assert claims[task][signs] == (agree, 5)
        (text,) = (text for text in claims[task] if text.startswith(before))
        assert claims[task][text] == (5, 5)


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


def absent(text):
    """The paths in backquotes that lead nowhere: from the root, or names of files somewhere."""
    names = {path.name for path in FILES}
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = [word for found in quoted for word in re.findall(PATH, found)]
    below = [ROOT, ROOT / "csrc", ROOT / "lstm_kernels"]
    return [w for w in words if w not in names and not any((f / w).exists() for f in below)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_in_a_document_exists(document):
    assert absent(document.read_text(encoding="utf-8")) == []


def test_a_path_that_leads_nowhere_is_seen():
    gone = ["tests/test_modules.py", "no.cmake", "gone/", "cuda/no.h"]
    assert absent("`make test ARGS=tests/test_modules.py`, `no.cmake`, `gone/ cuda/no.h`") == gone
    assert absent("`csrc/cuda/register.cpp`, `ops.h`, `cuda/ops.cpp`, `memory/`, `x.T`") == []


def test_every_source_file_has_its_place_in_the_map():
    """By its name, or where a source has a header, by that; packages in folders as a whole."""
    named = set(re.findall(r"[\w.]+", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    sources = [p for p in FILES if p.is_relative_to(ROOT / "csrc")]
    sources += [p for p in FILES if p.parent == ROOT / "lstm_kernels" and p.suffix == ".py"]
    assert len(sources) > 80
    for path in sources:
        header = path.with_suffix(".h").name
        assert path.name in {*named, "__init__.py"} or header in named, path


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results in"):
        list(lines(tmp_path))
