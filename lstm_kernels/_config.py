"""What a bug report needs to say about an installation."""

from __future__ import annotations

import platform

import torch

from . import _load
from ._version import __version__


def show_config() -> None:
    """Print versions, the CPU's instruction set, threads and CUDA kernels, one fact per line.

    Examples:
        >>> import lstm_kernels
        >>> lstm_kernels.show_config()  # doctest: +ELLIPSIS
        lstm_kernels: ...
        torch: ...
    """
    chosen, _, compiled = torch.ops.lstm_kernels._cpu_isa().partition(" of ")
    problem = _load.cuda_problem
    cuda = f"none: {problem}" if problem else torch.ops.lstm_kernels._cuda_architectures()
    facts = {
        "lstm_kernels": __version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "CPU kernels": f"{chosen} (compiled: {compiled})",
        "threads": str(torch.get_num_threads()),
        "CUDA kernels": cuda,
    }
    for name, value in facts.items():
        print(f"{name}: {value}")
