"""docs/clients.md: its ratios are committed results, and a test runs every adapter it names."""

import re
from pathlib import Path

import pytest

from benchmarks.clients import client_lines, load_clients

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
TESTS = [path.read_text(encoding="utf-8") for path in (ROOT / "tests/clients").glob("*.py")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_the_ratios_are_committed_results():
    table = "\n".join(client_lines(load_clients()))
    assert table in PAGE, "run python -m benchmarks.clients into docs/clients.md"


def test_the_machine_is_that_of_the_results():
    assert load_clients()["machine"]["cpu"] in " ".join(PAGE.split())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_on_the_page_and_run_by_a_test(example):
    assert f"](../examples/{example.name})" in PAGE
    imports = re.compile(rf"^ *(?:from|import) {example.stem}\b", re.MULTILINE)
    assert any(imports.search(text) for text in TESTS)
