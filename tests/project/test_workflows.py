"""The workflows call what is there, and test the oldest versions that the package accepts."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_and_scripts_of_the_repository(path):
    """So that all they do can be run, and is run, elsewhere. One installs a compiler first."""
    commands = re.findall(r"\brun: (.+)", path.read_text())
    assert commands or "run:" not in path.read_text()
    for command in commands:
        if command.startswith("sudo apt-get"):
            continue
        kind, name = command.split()[:2]
        assert kind in ("make", "bash"), command
        assert name in TARGETS if kind == "make" else (ROOT / name).is_file(), command


@pytest.mark.parametrize("name", ["tests", "wheels"])
def test_the_oldest_versions_are_tested(name):
    text = (ROOT / f".github/workflows/{name}.yml").read_text()
    python = re.search(r'requires-python = ">=([\d.]+)"', PROJECT)[1]
    torch = re.search(r'"torch>=([\d.]+)"', PROJECT)[1]
    assert re.search(rf'python: \["{re.escape(python)}", ', text)
    assert re.search(rf'torch: \["?(==)?{re.escape(torch)}\.', text)


def test_only_a_tag_publishes():
    text = (ROOT / ".github/workflows/wheels.yml").read_text()
    publish = text[text.index("  publish:") :]
    assert "if: github.ref_type == 'tag'\n    needs: test" in publish
    assert text.count("id-token: write") == publish.count("id-token: write") == 1
