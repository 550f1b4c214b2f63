"""The ops and the kernels of a step under AddressSanitizer, on arrays of their exact sizes."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "ops" / "small_calls.py"
ROOT = Path(__file__).parents[2]


def test_no_access_outside_an_array():
    found = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    environment = os.environ | {
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    sys.path.insert(0, str(SCRIPT.parent))
    import library

    library.build("address")  # the compiler itself runs without
    done = subprocess.run(
        [sys.executable, SCRIPT, "address"],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("every value is right\n")
