"""One self-contained HTML page: text, tables and pictures, no network and no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE = """
body { max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff;
       font: 1rem/1.55 system-ui, sans-serif; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.lead { font-size: 1.1rem; } figure { margin: 1.5rem 0; } img { max-width: 100%; }
figcaption, caption { color: #555; font-size: .9rem; text-align: left; padding: .3rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { vertical-align: bottom; }
"""


class Page:
    """Collects the parts of a page in their order. All text is escaped."""

    def __init__(self, title: str) -> None:
        self._title = escape(title)
        self._parts: list[str] = []

    def lead(self, text: str) -> None:
        self._parts.append(f'<p class="lead">{escape(text)}</p>')

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        self._parts.append(
            f'<div class="wide"><table><caption>{escape(caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def picture(self, ax: Axes, caption: str) -> None:
        """Puts the figure that `ax` is in on the page, and closes it."""
        from matplotlib import pyplot

        figure = ax.get_figure(root=True)
        assert figure is not None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        pyplot.close(figure)
        data = base64.b64encode(buffer.getvalue()).decode()
        self._parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def write(self, path: str | Path) -> Path:
        """Writes the page and returns where."""
        path = Path(path)
        body = "\n".join(self._parts)
        path.write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{self._title}</title><style>{_STYLE}</style></head>\n"
            f"<body><h1>{self._title}</h1>\n{body}\n</body></html>\n",
            encoding="utf-8",
        )
        return path
