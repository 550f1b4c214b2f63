"""Loads the kernel libraries; says what to do about an installation that cannot work."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import torch

_TORCH_FLOOR = (2, 11)
_SUFFIX = ".dll" if sys.platform == "win32" else ".so"
_INSTALL = "pip install --no-build-isolation --force-reinstall --no-deps lstm_kernels"

# What the system's loader says, what that means, and the remedy. The first match counts.
_CAUSES = (
    (
        r"undefined symbol|[Ss]ymbol not found|procedure could not be found",
        "it was built for another torch",
        f"build it again: {_INSTALL}",
    ),
    (
        r"version `?GLIBC",
        "it was built for a newer system",
        f"build it here: {_INSTALL} --no-binary lstm_kernels",
    ),
    (
        r"ELF|file too short|incompatible architecture|not a mach-o|not a valid Win32"
        r"|lstm_kernels_\w+\.so: cannot open shared object file",
        f"it is no library for {platform.system()} on {platform.machine()}",
        "install the right one: pip install --force-reinstall --no-deps lstm_kernels",
    ),
    ("", "the system's loader refused it", f"build it again: {_INSTALL}"),
)

#: Why CUDA tensors cannot be used, or None where they can.
cuda_problem: str | None = None


def _check_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < _TORCH_FLOOR:
        raise ImportError(
            f"lstm_kernels needs torch >= 2.11, found {torch.__version__}: "
            "pip install --upgrade 'torch>=2.11'"
        )


def _load(name: str) -> None:
    path = Path(__file__).with_name(f"{name}{_SUFFIX}")
    if not path.exists():
        raise ImportError(
            f"{path} is missing: the kernels were not built. From a checkout: "
            f"pip install --no-build-isolation -e . ; otherwise: {_INSTALL}"
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        # torch gives the loader's own words as the cause.
        said = str(error.__cause__ or error.__context__ or error)
        raise ImportError(_explain(path, said)) from error


def _explain(path: Path, said: str) -> str:
    """One sentence for what the system's loader said."""
    cause, remedy = next(rest for pattern, *rest in _CAUSES if re.search(pattern, said))
    first = said.splitlines()[0].removeprefix(f"{path}: ") if said else "no reason given"
    return f"{path} does not load with torch {torch.__version__}, for {cause} ({first}); {remedy}"


def _check_isa() -> None:
    """Have a forced instruction set refused at import, where the cause is plain."""
    try:
        torch.ops.lstm_kernels._cpu_isa()
    except RuntimeError as error:
        forced = os.environ.get("LSTM_KERNELS_CPU_ISA")
        reason, _, compiled = str(error).splitlines()[0].partition("; this build has ")
        raise ImportError(
            f"LSTM_KERNELS_CPU_ISA={forced!r} cannot be used here: {reason}. Unset it, or set it "
            f"to one of {compiled.replace(',', ', ')} that this processor has."
        ) from error


def _find_cuda_problem() -> str | None:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not Path(__file__).with_name(f"lstm_kernels_cuda{_SUFFIX}").exists():
        return (
            "lstm_kernels was built without CUDA kernels; build it where nvcc and a CUDA build of "
            f"torch are found: {_INSTALL}"
        )
    try:
        _load("lstm_kernels_cuda")
    except ImportError as error:
        return str(error)
    return None


def load() -> None:
    """Register the ops of every library that is there."""
    global cuda_problem
    _check_torch()
    _load("lstm_kernels_cpu")
    _check_isa()
    cuda_problem = _find_cuda_problem()
