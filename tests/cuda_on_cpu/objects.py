"""Compiles C++ sources to objects, once for each content of all the files that go in."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def compiled(command: Sequence[object], source: Path, folder: Path, salt: object = None) -> Path:
    """The object that `command` makes of a source, from the folder if it is there.

    `salt` names the versions of system headers, which are not among the files.
    """
    command = [*map(str, command), "-x", "c++", str(source)]
    listed = subprocess.run([*command, "-MM", "-MT", ""], check=True, capture_output=True)
    files = listed.stdout.decode().lstrip(" :").replace("\\\n", " ").split()
    flags = [word for word in command if not word.startswith(("-I", "/"))]
    digest = hashlib.sha256(repr((flags, salt)).encode())
    for file in files:  # by content: a copy of the sources shares the objects
        digest.update(Path(file).read_bytes())
    out = folder / f"{source.name}.{digest.hexdigest()[:16]}.o"
    if not out.exists():
        partial = out.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-c", "-o", str(partial)], check=True)
        partial.rename(out)
    return out
