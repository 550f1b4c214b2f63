"""`python docs/tutorials/execute.py NAME`: run a tutorial and write NAME.md, output included.

A tutorial is a script of cells: `# %%` begins a cell of code, `# %% [markdown]` one of text, whose
lines begin with `# `. A figure that a cell leaves open becomes a picture.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

HERE = Path(__file__).parent


def cells(source):
    """(kind, text) of each cell; kind is "code" or "markdown"."""
    parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)
    for mark, text in zip(parts[1::2], parts[2::2], strict=True):
        if mark.strip() == "[markdown]":
            yield "markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip()
        else:
            yield "code", text.strip()


def execute(name, pictures):
    """The page of a tutorial. Pictures go to the folder `pictures`."""
    names = {"__name__": "__main__"}
    page = []
    pyplot.close("all")
    for number, (kind, text) in enumerate(cells((HERE / f"{name}.py").read_text(encoding="utf-8"))):
        if kind == "markdown":
            page.append(text)
            continue
        page.append(f"```python\n{text}\n```")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, f"{name}.py, cell {number}", "exec"), names)
        if printed.getvalue():
            page.append(f"```text\n{printed.getvalue().rstrip()}\n```")
        for figure in map(pyplot.figure, pyplot.get_fignums()):
            picture = f"{name}-{number}.png"
            figure.savefig(pictures / picture, dpi=110)
            page.append(f"![{figure.axes[0].get_title(loc='left') or name}]({picture})")
        pyplot.close("all")
    return "\n\n".join(page) + "\n"


def main():
    for name in sys.argv[1:]:
        (HERE / f"{name}.md").write_text(execute(name, HERE), encoding="utf-8")


if __name__ == "__main__":
    main()
