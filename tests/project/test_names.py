"""Names that begin with an underscore stay in their module.

ruff's SLF001 refuses `module._name` wherever it stands; here are the imports of such names.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("lstm_kernels", "benchmarks", ".ci", "examples")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
FILES.remove(ROOT / "lstm_kernels/_torch_private.py")  # it is there for them


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def is_module(file, imported, name):
    """Whether `from imported import name`, somewhere in the file, imports a module of ours."""
    folder = file.parents[imported.level - 1] if imported.level else ROOT
    target = folder.joinpath(*(imported.module or "").split("."), name)
    return target.is_dir() or target.with_suffix(".py").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_imports_a_private_name(file):
    """A module may be private to its package, and is then imported as a whole or for its names."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            private = [name.name for name in node.names if is_private(name.name)]
            assert [name for name in private if not is_module(file, node, name)] == []
