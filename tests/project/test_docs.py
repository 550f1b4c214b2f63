"""What the documentation says is true: its examples run and print what the pages show."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lstm_kernels
from lstm_kernels import memory

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = [
    page for page in PAGES if "```python" in TEXTS[page] and page.parent.name != "tutorials"
]


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", EXAMPLES, ids=name_of)
@pytest.mark.slow
def test_the_examples_of_a_page_run_and_print_what_it_shows(page, tmp_path, monkeypatch):
    """In their order, in one namespace; a block `text` after one of `python` is its output."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    printed = ""
    for language, code in FENCE.findall(TEXTS[page]):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, str(page), "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert printed == code


def test_every_public_name_is_in_the_reference():
    text = "".join(text for page, text in TEXTS.items() if page.parent.name == "reference")
    shown = set(re.findall(r"^::: lstm_kernels\.([\w.]+)$", text, re.MULTILINE))
    public = {name for name in lstm_kernels.__all__ if not name.startswith("__")}
    public |= {f"memory.{name}" for name in memory.__all__} | {"onnx.translation_table"}
    assert public == shown


def test_every_public_name_is_used_in_an_example():
    code = "".join(code for text in TEXTS.values() for kind, code in FENCE.findall(text) if kind)
    for name in [*lstm_kernels.__all__, *memory.__all__]:
        if not (isinstance(getattr(memory, name, None), type)):  # results: nobody makes them
            assert re.search(rf"\b{name}\b", code), name


def commands(text):
    """The commands that a page names: make and python -m, in blocks or backquotes."""
    for found in re.findall(r"(?:^ {4}|^|`)((?:make|python -m) [^`\n#]*)", text, re.MULTILINE):
        yield found.strip()


DOCUMENTS = {**TEXTS, **{path: path.read_text(encoding="utf-8") for path in ROOT.glob("*.md")}}
COMMANDS = sorted({command for text in DOCUMENTS.values() for command in commands(text)})


def test_every_make_target_that_a_page_names_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [shlex.split(command)[1] for command in COMMANDS if command.startswith("make ")]
    assert len(named) > 5
    assert set(named) <= {*targets, "gpu"}


PROGRAMS = sorted({c.split()[2] for c in COMMANDS if c.startswith("python -m ")} - {"pip"})


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.slow
def test_every_program_that_a_page_names_runs(program):
    result = subprocess.run(
        [sys.executable, "-m", program, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr


def test_pip_extras_that_a_page_names_exist():
    extras_of_the_project = re.search(
        r"^\[project\.optional-dependencies\]\n(.*?)^\[",
        (ROOT / "pyproject.toml").read_text(),
        re.M | re.S,
    )
    present = set(re.findall(r"^(\w+) = \[", extras_of_the_project[1], re.M))
    for text in DOCUMENTS.values():
        for extras in re.findall(r"pip install[^\n`]*\.\[([\w,]+)\]", text):
            assert set(extras.split(",")) <= present
