"""Runs small_layers.py under a sanitizer."""

import os
import subprocess
import sys
from pathlib import Path

import build_module

LIBRARY = {"address": "libasan.so", "thread": "libtsan.so"}
REPORTS = {  # the exit status that says so, as against wrong values
    "address": {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:exitcode=66"},
    "thread": {"TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_signal_unsafe=0"},
}
REPORTED = 66


def run(sanitizer, folder, *seeds, seconds=600):
    """The finished process; `sanitizer` None runs without one.

    SIGXCPU ends it after `seconds` of a processor. Time that others take does not count.
    """
    environment = dict(os.environ)
    prefix = ["prlimit", f"--cpu={seconds}:{seconds + 5}"]
    if sanitizer:
        found = subprocess.run(
            ["g++", f"-print-file-name={LIBRARY[sanitizer]}"], capture_output=True, check=True
        )
        environment |= {"LD_PRELOAD": found.stdout.decode().strip(), **REPORTS[sanitizer]}
        # Arrays straight from malloc, where overruns show; no addresses ThreadSanitizer rejects.
        environment |= {"PYTHONMALLOC": "malloc"}
        prefix += ["setarch", "--addr-no-randomize"]
    script = Path(build_module.HERE) / "small_layers.py"
    return subprocess.run(
        [*prefix, sys.executable, script, folder, *map(str, seeds)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
