"""The probes that read states, and the folds of data that they are fitted to and tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from . import _mlp, _ridge
from ._steps import Steps

FOLDS = 5
Probe: TypeAlias = Literal["linear", "mlp"]


def check_probe(probe: Probe) -> None:
    """Raises ValueError for a probe that does not exist."""
    if probe not in get_args(Probe):
        raise ValueError(f"probe must be one of {get_args(Probe)}, got {probe!r}")


def predictor(probe: Probe) -> Callable[[Tensor, Tensor, Tensor, int], Tensor]:
    """The function (features, targets, fold, folds) that predicts every row held out."""
    return _mlp.predict_held_out if probe == "mlp" else _ridge.predict_held_out


def folds_of(steps: Steps) -> Tensor:
    """Which fold each row belongs to: whole sequences, or spans of time where there are too few."""
    found, rank = torch.unique(steps.sequence, return_inverse=True)
    if len(found) >= FOLDS:
        by_sequence: Tensor = rank % FOLDS
        return by_sequence
    found, rank = torch.unique(steps.time, return_inverse=True)
    if len(found) < FOLDS:
        raise ValueError(
            f"too little data: the probes are tested on {FOLDS} parts, and beyond max_lag there "
            f"are {len(found)} steps in fewer than {FOLDS} sequences"
        )
    by_time: Tensor = rank * FOLDS // len(found)
    return by_time
