"""Lets torchvision and torchaudio be imported next to a torch that their wheels are not made for.

The wheels on PyPI load libraries that need torch with one version of CUDA. Next to another torch,
such as one for CPUs alone, `import` fails. The clients run nothing that is in these libraries.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def without_libraries() -> torch.library.Library | None:
    """To be called before the imports; its result must be kept for as long."""
    extension = ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False  # as where it comes without a library
    extension.fail_if_no_align = lambda function: function
    sys.modules["torchaudio._extension"] = extension
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    try:
        for file in Path(found.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(file))
    except OSError:  # its import asks for these operators
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in MISSING:
            library.define(schema)
        return library
    return None
