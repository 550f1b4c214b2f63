"""Counts the places that a new capability would have to touch.

    python .ci/places.py [REVISION ...]     # without one: the files as they are in HEAD

One row for each question, one column for each revision. A new argument of a layer edits each list
of them; a new instruction set edits each file that names one.
"""

import ast
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAMS = ("lstm_kernels/memory/", "lstm_kernels/demo/", "lstm_kernels/programs/")
LAYER = ("batch_sizes", "lengths", "reset")  # what each full list of a layer's arguments has
BY_POSITION = re.compile(r"\b(?:arguments|inputs|in_dims|needs_input_grad|saved_tensors)\[[^\]]*\d")


def sources(revision: str) -> dict[str, str]:
    """What builds the library, programs apart: text by path."""
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, capture_output=True
    ).stdout
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            name = member.name
            built = name.startswith(("lstm_kernels/", "csrc/")) or name in (
                "setup.py",
                "CMakeLists.txt",
            )
            if member.isfile() and built and not name.startswith(PROGRAMS):
                file = files.extractfile(member)
                assert file is not None
                texts[name] = file.read().decode("utf-8", errors="ignore")
    return texts


def functions(text: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]


def lists_of_arguments(name: str, text: str) -> int:
    """Parameter lists of a file, in Python, C++ or the schema, that name all of LAYER."""
    if not name.endswith(".py"):
        in_order = r"\([^()]*" + r"\b[^()]*\b".join(LAYER) + r"\b[^()]*\)"
        return len(re.findall(in_order, text))
    return sum(
        set(LAYER) <= {parameter.arg for parameter in (*node.args.args, *node.args.kwonlyargs)}
        for node in functions(text)
    )


def own_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring and the functions in it."""
    inner = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef)][1:]
    lines = set(range(function.lineno, (function.end_lineno or 0) + 1))
    texts = function.body[:1] if ast.get_docstring(function) else []
    for node in (*inner, *texts):
        lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def answers(revision: str) -> dict[str, int]:
    texts = sources(revision)
    python = [text for name, text in texts.items() if name.endswith(".py")]
    lists = [lists_of_arguments(name, text) for name, text in texts.items()]
    return {
        "lists of a layer's arguments": sum(lists),
        "files that have one": sum(count > 0 for count in lists),
        "accesses to arguments by position": sum(len(BY_POSITION.findall(t)) for t in python),
        "lines of the longest Python function": max(
            own_lines(function) for text in python for function in functions(text)
        ),
        "files that name an instruction set": sum("avx512_bf16" in t for t in texts.values()),
    }


def main() -> None:
    revisions = sys.argv[1:] or ["HEAD"]
    columns = [answers(revision) for revision in revisions]
    print("| |", " | ".join(revisions), "|")
    print("| --- |", " | ".join("---" for _ in revisions), "|")
    for question in columns[0]:
        print(f"| {question} |", " | ".join(str(column[question]) for column in columns), "|")


if __name__ == "__main__":
    main()
