"""Cross-validated ridge regression in closed form, for many targets at once.

Every fit, and every choice of a penalty, needs only sums of products over rows. They are taken once
per fold; what a fit leaves out is subtracted. The rows themselves are read once more, to predict.

A probe must not fail because the states are unkind to it. Three rules bound its errors:

* A feature far outside its usual range is moved to the edge of that range.
* The penalty is chosen on rows that the fit has not seen, and one choice is to predict the mean.
* No prediction lies far outside the targets that the fit has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Relative to a feature's variance; with infinity, a fit predicts the mean.
_PENALTIES = torch.tensor([1e-8, 1e-6, 1e-4, 1e-2, 1, 100, torch.inf], dtype=torch.float64)
_LOOKED_AT = 1000  # rows that tell the usual range of a feature
_OUTSIDE = 5  # of them at most on each side lie outside


def predict_held_out(features: Tensor, targets: Tensor, fold: Tensor, folds: int) -> Tensor:
    """Every row predicted by a fit to the rows of the other folds.

    Args:
        features: (R, F). targets: (R, K). fold: (R,) in 0..folds-1, each with rows; folds >= 3.

    Returns:
        (R, K), float64.
    """
    x, targets = standardised(features), targets.double()
    offset = targets.mean(0)
    y = targets - offset
    members = [(fold == k).nonzero()[:, 0] for k in range(folds)]
    predictions = torch.empty_like(y)
    for k, (weights, bias) in enumerate(fits(x, y, members)):
        found = x[members[k]] @ weights + bias
        predictions[members[k]] = near_seen(found, y[fold != k])
    return predictions + offset


def fits(x: Tensor, y: Tensor, members: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights (F, K) and bias (K,) of each fold, fitted to the rows of the others.

    The penalty of each target is chosen on two of the training folds, each by a fit without it. The
    fold to be predicted plays no part in the choice.

    Args:
        x: (R, F), standardised. y: (R, K). members: the rows of each fold.
    """
    folds = len(members)
    moments = [_Moments.of(x[rows], y[rows]) for rows in members]
    penalties = _PENALTIES.to(x.device)
    errors = torch.zeros(folds, len(penalties), y.shape[1], dtype=x.dtype, device=x.device)
    for k in range(folds):
        pair = (k, (k + 1) % folds)  # a fit without both judges for each of them on the other
        fit = _Ridge(_total(m for at, m in enumerate(moments) if at not in pair))
        for at, penalty in enumerate(penalties):
            weights, bias = fit.weights(penalty)
            for one, other in (pair, pair[::-1]):
                errors[one, at] += moments[other].squared_error(weights, bias)
    for k in range(folds):
        fit = _Ridge(_total(m for at, m in enumerate(moments) if at != k))
        yield fit.weights(penalties[errors[k].argmin(0)])


def near_seen(predictions: Tensor, seen: Tensor) -> Tensor:
    """Predictions at most half a range outside the targets (R, K) that were seen."""
    low, high = seen.aminmax(dim=0)
    room = (high - low) / 2
    return predictions.clamp(low - room, high + room)


def standardised(features: Tensor) -> Tensor:
    """Features (R, F) of mean 0 and variance 1 in float64, without their outliers.

    A value outside the usual range by more than its width is moved to there. A feature that varies
    by no more than rounding becomes 0.
    """
    x = features.double()
    some = x[:: -(-len(x) // _LOOKED_AT)]
    outside = min(_OUTSIDE, len(some) // 20) + 1
    high = some.topk(outside, 0).values[-1]
    low = some.topk(outside, 0, largest=False).values[-1]
    width = torch.where(high > low, high - low, torch.inf)  # most are equal: the others may matter
    x = x.clamp(low - width, high + width)
    x -= x.mean(0)
    spread = x.std(0, correction=0)
    precision = torch.finfo(features.dtype if features.is_floating_point() else x.dtype).eps
    varies = spread > 4 * precision * features.abs().amax(0)
    return torch.where(varies, x / torch.where(varies, spread, 1), 0)


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

    def weights(self, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (F, K) and bias (K,) with one penalty, or one for each target."""
        shrunk = self._rotated / (self._values.clamp(min=0)[:, None] + penalty)
        weights = self._vectors @ shrunk
        return weights, self._y - self._x @ weights
