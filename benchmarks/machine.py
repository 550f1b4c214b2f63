"""Which machine and which software a result belongs to."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "LSTM_KERNELS_CPU_ISA", "OMP_NUM_THREADS")


def describe() -> dict[str, object]:
    """The machine's description, as JSON can hold it."""
    import torch

    import lstm_kernels  # noqa: F401  (loads the ops)

    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch instruction set": torch.backends.cpu.get_cpu_capability(),
        "lstm_kernels": version("lstm_kernels"),
        "lstm_kernels instruction set": torch.ops.lstm_kernels._cpu_isa(),
        "onnxruntime": version("onnxruntime"),
        "revision": revision(),
        "environment": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def cpu_name() -> str:
    """What the processor calls itself, with family and model, which say more than some names."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = {
        key: re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        for key in ("model name", "cpu family", "model")
    }
    name = found["model name"].group(1) if found["model name"] else platform.machine()
    if found["cpu family"] and found["model"]:
        name += f" (family {found['cpu family'].group(1)} model {found['model'].group(1)})"
    return name


def folder_name(isa: str | None) -> str:
    """A folder's name for the results of this machine, held to an instruction set or not."""
    name = re.sub(r"\(R\)|\(TM\)|Processor", "", cpu_name())
    name += f" {len(os.sched_getaffinity(0))} cores {isa or ''}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def version(package: str) -> str | None:
    """The installed version of a package, None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def revision() -> str | None:
    """The commit that was measured, marked where files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
