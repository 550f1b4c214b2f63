"""Compiles C++ sources to objects, once for each content of all the files that go in."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def files_of(command: Sequence[object], source: Path) -> list[str]:
    """The files that go into the object, but for system headers."""
    listing = [*map(str, command), "-x", "c++", str(source), "-MM", "-MT", ""]
    listed = subprocess.run(listing, check=True, capture_output=True, text=True)
    return listed.stdout.lstrip(" :").replace("\\\n", " ").split()


def compiled(command: Sequence[object], source: Path, folder: Path, salt: object = None) -> Path:
    """The object that `command` makes of a source, from the folder if it is there.

    `salt` names the versions of system headers, which are not among the files.
    """
    words = list(map(str, command))
    flags = [word for word in words if not word.startswith(("-I", "/"))]
    digest = hashlib.sha256(repr((flags, salt)).encode())
    for file in files_of(command, source):  # by content: a copy of the sources shares the objects
        digest.update(Path(file).read_bytes())
    out = folder / f"{source.name}.{digest.hexdigest()[:16]}.o"
    if not out.exists():
        partial = out.with_suffix(f".{os.getpid()}")
        subprocess.run([*words, "-x", "c++", "-c", str(source), "-o", str(partial)], check=True)
        partial.rename(out)
    return out
