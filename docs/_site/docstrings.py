"""How the reference shows docstrings, which are plain text, as Markdown; what is private, not."""

import re

import griffe


class PlainText(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_function(self, *, func, **_):
        for parameter in [p for p in func.parameters if p.name.startswith("_")]:
            del func.parameters[parameter.name]

    def on_class(self, *, cls, **_):
        cls.bases = [base for base in cls.bases if not str(base).rpartition(".")[2].startswith("_")]


def as_markdown(text):
    """`4*H` outside backquotes is a product, no emphasis; `::` announces an indented block."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"(?<=\w)\*(?=\w)", r"\\*", part) for part in parts[::2]]
    return re.sub(r"::$", ":", "".join(parts), flags=re.MULTILINE)
