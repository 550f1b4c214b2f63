"""Cross-validated ridge regression in closed form, for many targets at once.

Every fit, and every choice of a penalty, needs only sums of products over rows. They are taken once
per fold; what a fit leaves out is subtracted. The rows themselves are read once more, to predict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_PENALTIES = torch.logspace(-8, 2, 6, dtype=torch.float64)  # relative to a feature's variance


def predict_held_out(features: Tensor, targets: Tensor, fold: Tensor, folds: int) -> Tensor:
    """Every row predicted by a fit to the rows of the other folds.

    The penalty of each target is chosen on one of the training folds, by a fit to the rest of them,
    so that the targets being predicted play no part in it.

    Args:
        features: (R, F). targets: (R, K). fold: (R,) in 0..folds-1, each with rows; folds >= 3.

    Returns:
        (R, K), float64.
    """
    features, targets = features.double(), targets.double()
    spread = features.std(0, correction=0)
    x = (features - features.mean(0)) / torch.where(spread > 0, spread, 1)
    offset = targets.mean(0)
    members = [(fold == k).nonzero()[:, 0] for k in range(folds)]
    moments = [_Moments.of(x[rows], targets[rows] - offset) for rows in members]
    predictions = torch.empty_like(targets)
    penalties = _PENALTIES.to(x.device)
    for k, rows in enumerate(members):
        inner = (k + 1) % folds
        chooser = _Ridge(_total(m for at, m in enumerate(moments) if at not in (k, inner)))
        errors = [moments[inner].squared_error(*chooser.fit(penalty)) for penalty in penalties]
        chosen = penalties[torch.stack(errors).argmin(0)]
        weights, bias = _Ridge(_total(m for at, m in enumerate(moments) if at != k)).fit(chosen)
        predictions[rows] = x[rows] @ weights + (bias + offset)
    return predictions


@dataclass(frozen=True)
class _Moments:
    """Sums over rows of x (F,), y (K,) and their products."""

    count: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Moments:
        return cls(len(x), x.sum(0), y.sum(0), x.mT @ x, x.mT @ y, y.square().sum(0))

    def squared_error(self, weights: Tensor, bias: Tensor) -> Tensor:
        """The sum over the rows of (x @ weights + bias - y)^2, (K,)."""
        of_x = (weights * (self.xx @ weights - 2 * self.xy)).sum(0)
        of_bias = bias * (2 * (self.x @ weights - self.y) + self.count * bias)
        return of_x + of_bias + self.yy


def _total(parts: Iterable[_Moments]) -> _Moments:
    kinds = zip(*(vars(part).values() for part in parts), strict=True)
    return _Moments(*(sum(kind[1:], kind[0]) for kind in kinds))


class _Ridge:
    """A fit for every penalty at once, from the eigenvectors of the features' covariance."""

    def __init__(self, m: _Moments) -> None:
        self._x, self._y = m.x / m.count, m.y / m.count
        covariance = m.xx / m.count - torch.outer(self._x, self._x)
        self._values, self._vectors = torch.linalg.eigh(covariance)
        self._rotated = self._vectors.mT @ (m.xy / m.count - torch.outer(self._x, self._y))

    def fit(self, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (F, K) and bias (K,) with one penalty, or one for each target."""
        shrunk = self._rotated / (self._values.clamp(min=0)[:, None] + penalty)
        weights = self._vectors @ shrunk
        return weights, self._y - self._x @ weights
