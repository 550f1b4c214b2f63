"""`python -m benchmarks.clients`: the table of docs/clients.md from its committed results."""

import json
from collections.abc import Iterator
from typing import Any

from .tables import RESULTS

CLIENT_RESULTS = RESULTS / "clients" / "clients.json"


def load_clients() -> dict[str, Any]:
    """The machine, and a row for each piece of work."""
    found: dict[str, Any] = json.loads(CLIENT_RESULTS.read_text(encoding="utf-8"))
    return found


def client_lines(results: dict[str, Any]) -> Iterator[str]:
    """Each library's pieces of work one after the other, by name."""
    yield "| library | work | times as fast | quartiles |"
    yield "| --- | --- | --- | --- |"
    for row in sorted(results["rows"], key=lambda row: row["client"].lower()):
        library = f"{row['client']} {row['version'] or ''}".strip()
        spread = f"{row['low']:.2f} to {row['high']:.2f}"
        yield f"| {library} | {row['work']} | {row['median']:.2f} | {spread} |"


if __name__ == "__main__":
    print("\n".join(client_lines(load_clients())))
