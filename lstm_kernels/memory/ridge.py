"""Cross-validated ridge regression in closed form, for many targets at once."""

from __future__ import annotations

import torch
from torch import Tensor

_PENALTIES = torch.logspace(-8, 2, 6, dtype=torch.float64)  # relative to a feature's variance


def predict_held_out(features: Tensor, targets: Tensor, fold: Tensor, folds: int) -> Tensor:
    """Every row predicted by a fit to the rows of the other folds.

    The penalty of each target is chosen on one of the training folds, by a fit to the rest of them,
    so that the fold being predicted plays no part in it.

    Args:
        features: (R, F). targets: (R, K). fold: (R,) in 0..folds-1, each with rows; folds >= 3.

    Returns:
        (R, K), float64.
    """
    features, targets = features.double(), targets.double()
    penalties = _PENALTIES.to(features.device)
    predictions = torch.empty_like(targets)
    for k in range(folds):
        held_out, inner = fold == k, fold == (k + 1) % folds
        chooser = _Ridge(features[~held_out & ~inner], targets[~held_out & ~inner])
        errors = [
            (chooser.predict(features[inner], penalty) - targets[inner]).square().sum(0)
            for penalty in penalties
        ]
        chosen = penalties[torch.stack(errors).argmin(0)]
        fitted = _Ridge(features[~held_out], targets[~held_out])
        predictions[held_out] = fitted.predict(features[held_out], chosen)
    return predictions


class _Ridge:
    """A fit for every penalty at once, from the eigenvectors of the features' correlation."""

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        self._mean, self._offset = features.mean(0), targets.mean(0)
        scale = features.std(0, correction=0)
        self._scale = torch.where(scale > 0, scale, 1)  # a constant feature says nothing
        x = (features - self._mean) / self._scale
        self._values, self._vectors = torch.linalg.eigh(x.mT @ x / len(x))
        self._rotated = self._vectors.mT @ (x.mT @ (targets - self._offset) / len(x))

    def predict(self, features: Tensor, penalty: Tensor) -> Tensor:
        """Predictions (R, K) with one penalty, or one for each target."""
        shrunk = self._rotated / (self._values.clamp(min=0)[:, None] + penalty)
        x = (features - self._mean) / self._scale
        prediction: Tensor = x @ (self._vectors @ shrunk) + self._offset
        return prediction
