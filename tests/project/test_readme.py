"""What README.md says is true: its examples run, its numbers are those of committed results."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.readme_table import lines

ROOT = Path(__file__).parents[2]
PATH = r"(?<![\w./<-])[\w.][\w./-]*(?:/|\.(?:py|h|cuh?|cpp|def|md))(?!\S)"
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


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_path_in_a_document_exists(document):
    """Of what stands in backquotes: a path from the root, or the name of a file somewhere."""
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {
        path.name
        for folder in (".ci", "benchmarks", "csrc", "docs", "lstm_kernels", "tests")
        for path in (ROOT / folder).rglob("*")
    }
    for quoted in re.findall(r"`([^`\n]+)`", text):
        for word in re.findall(PATH, quoted):
            assert (ROOT / word).exists() or word in names, f"{document} names {word}"


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results in"):
        list(lines(tmp_path))
