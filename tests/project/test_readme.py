"""What README.md says is true: its examples run, its numbers are those of committed results."""

import json
import re
from pathlib import Path

import pytest
import torch

import lstm_kernels
from benchmarks.tables import README_RESULTS, load, readme_lines

ROOT = Path(__file__).parents[2]
PATH = r"(?<![\w./<-])[\w.][\w./-]*(?:/|\.(?:py|sh|h|cuh?|cpp|def|cmake|toml|md))(?!\S)"
FOLDERS = (".ci", "benchmarks", "csrc", "docs", "examples", "lstm_kernels", "tests")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPACED = " ".join(README.split())


def test_the_examples_run_in_their_order():
    torch.manual_seed(0)
    names: dict[str, object] = {}
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    assert type(names["model"]) is lstm_kernels.LSTM
    assert names["output"].shape == names["states"].cell[0].shape == (100, 8, 64)
    assert names["states"].cell[0].requires_grad


def test_the_table_is_that_of_committed_results():
    table = "\n".join(readme_lines(README_RESULTS))
    assert table in README, "run python -m benchmarks.tables FOLDER into the README"
    assert f"](benchmarks/results/{README_RESULTS.name})" in README
    busy = load(README_RESULTS)["busy"]["summary"]
    assert f"single shapes fall to {min(peer['worst'] for peer in busy):.2f}x" in SPACED


def test_the_numbers_of_the_demo_are_committed():
    demo = json.loads((ROOT / "benchmarks/results/demo/demo.json").read_text())
    bits, speed = (demo[kind].values() for kind in ("bits_per_character", "characters_per_second"))
    (bits,) = {f"{value:.3f}" for value in bits}
    ours, native = (f"{value:,.0f}" for value in speed)
    assert f"both models end at {bits} bits per character" in SPACED
    assert f"{ours} characters a second with this LSTM, {native} with `nn.LSTM`" in SPACED


def test_the_number_of_planted_faults_is_committed():
    found = (ROOT / "benchmarks/results/cuda-on-cpu/mutants.txt").read_text()
    (planted,) = re.findall(r"^(\d+) of \1 planted bugs found$", found, re.MULTILINE)
    assert f"plants {planted} faults" in SPACED
    assert f"find all {planted}]" in SPACED


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {lstm_kernels.__version__}\n" in citation


def test_the_changelog_begins_with_this_version():
    """Or with what is not released yet, and then with this version, with the citation's date."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (date,) = re.findall(r"^date-released: (\d{4}-\d\d-\d\d)$", citation, re.MULTILINE)
    released = [section for section in sections if section != "Unreleased"]
    assert sections in (released, ["Unreleased", *released])
    assert released[0] == f"{lstm_kernels.__version__} - {date}"


def test_it_is_short_and_names_what_ci_runs():
    assert len(README.splitlines()) <= 150
    assert "make test" in README
    assert "make test" in (ROOT / ".ci/run").read_text()


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
        load(tmp_path)
