"""`python -m benchmarks.readme_table FOLDER`: the results in a folder as one Markdown table."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path


def lines(folder: Path) -> Iterator[str]:
    """The table's lines, header included: per group and peer, the ratios of all rows.

    Raises:
        FileNotFoundError: the folder holds no results.
    """
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not any("summary" in result for result in results.values()):
        raise FileNotFoundError(f"no results in {folder}")
    yield "| group | against | geometric mean | least | rows |"
    yield "| --- | --- | --- | --- | --- |"
    for name, result in results.items():
        for peer in result.get("summary", ()):
            yield (
                f"| [{name}](benchmarks/results/{folder.name}/{name}.json) | {peer['peer']} "
                f"| {peer['mean']:.2f}x | {peer['worst']:.2f}x | {peer['rows']} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_table", description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        print("\n".join(lines(options.folder)))
    except FileNotFoundError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
