"""Plain English in documents, comments, docstrings and messages: words that we do without."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = (
    r"\b(?:mend|mends|mended|mending|beside|besides|everyone|somebody|whoever)\b|"
    r"\bgone through\b|\bno part of\b|\bof its own\b|\bso many\b|\bthe same of\b|\bwould else\b"
)
SUFFIXES = {".py", ".h", ".cpp", ".cu", ".cuh", ".def", ".cmake", ".md", ".toml", ".sh", ".yml"}
FOLDERS = (".ci", ".github", "benchmarks", "csrc", "docs", "examples", "lstm_kernels", "tests")
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
FILES += ROOT.iterdir()
TEXTS = [
    p for p in FILES if p.is_file() and (p.suffix in SUFFIXES or p.name in ("Makefile", "run"))
]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LONGEST = 25  # words


def test_the_words_are_found_where_they_stand():
    found = re.findall(WORDS, "Besides, whoever comes finds a room of its own.", re.IGNORECASE)
    assert found == ["Besides", "whoever", "of its own"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_does_without_them(path):
    if path == Path(__file__):
        pytest.skip("has the list")
    text = " ".join(re.sub(r"^\s*(?://|#) ?", "", path.read_text("utf-8"), flags=re.M).split())
    context = [text[max(0, m.start() - 40) : m.end() + 40] for m in re.finditer(WORDS, text, re.I)]
    assert context == []


def sentences(text):
    """The sentences of a Markdown document's prose: no code, no tables, no links' addresses."""
    text = re.sub(r"```.*?```|<!--.*?-->|^( {4}|\|).*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", text))
    for paragraph in re.split(r"\n\s*\n|^#.*$|\n\s*(?=[*-] |\d+\. )", text, flags=re.MULTILINE):
        yield from re.split(r"(?<=[.!?:;])\*{0,2}\s+", " ".join(paragraph.split()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_short(path):
    long = [s for s in sentences(path.read_text("utf-8")) if len(s.split()) > LONGEST]
    assert long == []


def docstrings(path):
    """(name, docstring) of a module, its classes and functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", path.stem), text


def plain_sentences(docstring):
    """The sentences of a docstring's prose: each entry of a list alone, no code, no equations."""
    text = re.sub(r"^ *(?:>>>|\.\.\.) .*$", "", docstring, flags=re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n|\n(?=\s+[`\w, ]+: )|(?<=:)\n", text)
    for paragraph in paragraphs:
        if " = " not in paragraph:
            yield from re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "lstm_kernels").rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_sentences_of_docstrings_are_short(path):
    long = [
        (name, sentence)
        for name, text in docstrings(path)
        for sentence in plain_sentences(text)
        if len(sentence.split()) > LONGEST
    ]
    assert long == []


def test_a_long_sentence_of_a_docstring_is_seen():
    long = " ".join(["word"] * (LONGEST + 1))
    found = [*plain_sentences(f"Short.\n\nArgs:\n    x: {long}.\n    y: short.\n")]
    assert [s for s in found if len(s.split()) > LONGEST] == [f"{long}."]
