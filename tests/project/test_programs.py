"""The programs stand on the library and the library on none of them; the doors open."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lstm_kernels

PACKAGE = Path(lstm_kernels.__file__).parent
DOORS = [PACKAGE / name / "__main__.py" for name in ("demo", "memory")]
LIBRARY = [
    path for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("memory/*.py")) if path not in DOORS
]


def imported(path):
    """The full names of all that a file of the package imports, wherever in the file."""
    package = ["lstm_kernels", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_imports_no_program(path):
    programs = ("lstm_kernels.programs", "lstm_kernels.demo")
    assert [name for name in imported(path) if name.startswith(programs)] == []


def test_doors_and_relative_imports_are_seen():
    """The walk of the test above finds what it looks for."""
    for door in DOORS:
        assert any(name.startswith("lstm_kernels.programs.") for name in imported(door))
    report = set(imported(PACKAGE / "memory" / "_report.py"))
    assert {"lstm_kernels.LSTM", "lstm_kernels.memory.plot"} <= report
    assert "lstm_kernels.memory._page.Page" in report


@pytest.mark.slow
@pytest.mark.parametrize("door", ["demo", "memory"])
def test_a_door_leads_to_its_program(door):
    command = [sys.executable, "-m", f"lstm_kernels.{door}", "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert shown.stdout.startswith(f"usage: python -m lstm_kernels.{door} ")
