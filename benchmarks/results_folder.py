"""`python -m benchmarks.results_folder FOLDER`: may this tree leave results in a folder?

Results are committed with the revision that they are of. So a tree that no revision names leaves
none in the folder of committed results; anywhere else it may.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1].resolve()
RESULTS = ROOT / "benchmarks" / "results"


class Refused(Exception):
    """The tree differs from its revision; the message names a file that does."""


def check(folder: Path) -> None:
    """Says nothing where results may go to `folder`.

    Raises:
        Refused: it is for committed results, and the tree differs from its revision.
    """
    if not folder.resolve().is_relative_to(RESULTS):
        return
    changed = uncommitted(ROOT)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refused(
            f"results in {RESULTS} are of a revision, and this tree differs from its own in "
            f"{changed[0]}{more}: commit first, or give another folder"
        )


def uncommitted(root: Path) -> list[str]:
    """The files that git calls changed or new, results left out; none where there is no git."""
    command = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=all"]
    command += ["--", ".", ":(exclude)benchmarks/results"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line[3:] for line in found.splitlines()]


def main() -> None:
    try:
        check(Path(sys.argv[1]))
    except Refused as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
