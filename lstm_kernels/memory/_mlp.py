"""A small neural network as a probe: it learns what a ridge regression leaves unexplained.

A linear probe may find less in one state than in another for two reasons. The state knows less, or
it knows it in a form that no linear map reads. This probe has one hidden layer. It starts from the
linear fit, and stops where rows that it is not trained on say so. Its score is therefore hardly
ever lower. The networks of all folds are trained together, as one batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._ridge import fits, near_seen, standardised

_UNITS = 64
_UPDATES = 240
_CHECK_EVERY = 24
_ROWS = 256  # of one update
_LEARNING_RATE = 1e-2


def predict_held_out(features: Tensor, targets: Tensor, fold: Tensor, folds: int) -> Tensor:
    """Every row predicted by a network that was trained on rows of other folds; as in `_ridge`."""
    x, targets = standardised(features), targets.double()
    offset = targets.mean(0)
    y = targets - offset
    members = [(fold == k).nonzero()[:, 0] for k in range(folds)]
    linear = [x @ weights + bias for weights, bias in fits(x, y, members)]
    left = torch.stack([(y - found).float() for found in linear])
    learnt = _learnt(x.float(), left, members)
    predictions = torch.empty_like(y)
    for k, rows in enumerate(members):
        predictions[rows] = near_seen(linear[k][rows] + learnt[k], y[fold != k])
    return predictions + offset


def _learnt(x: Tensor, left: Tensor, members: list[Tensor]) -> list[Tensor]:
    """What the networks say of `left` (folds, R, K) for the rows of each fold.

    Network k never sees the rows of fold k, and those of fold k + 1 say when it was best, target by
    target: it says 0 where it never helped.
    """
    folds = len(members)
    stop = [members[(k + 1) % folds] for k in range(folds)]
    learn = [
        torch.cat([rows for at, rows in enumerate(members) if at not in (k, (k + 1) % folds)])
        for k in range(folds)
    ]
    scale = torch.stack([left[k, rows].std(0, correction=0) for k, rows in enumerate(learn)])
    scale = scale.clamp(min=torch.finfo(left.dtype).tiny)
    goal = left / scale[:, None]
    network = _network(folds, x.shape[1], goal.shape[2], x.device)
    optimizer = torch.optim.Adam(network, _LEARNING_RATE)
    least = [goal[k, rows].square().sum(0) for k, rows in enumerate(stop)]
    best = [goal.new_zeros(len(rows), goal.shape[2]) for rows in members]
    generator = torch.Generator().manual_seed(0)
    which = torch.arange(folds, device=x.device)[:, None]
    for update in range(1, _UPDATES + 1):
        drawn = torch.rand(folds, _ROWS, generator=generator).to(x.device)
        rows = torch.stack([of[(at * len(of)).long()] for of, at in zip(learn, drawn, strict=True)])
        with torch.enable_grad():
            loss = (_predict(network, x[rows]) - goal[which, rows]).square().mean((1, 2)).sum()
            for weight, slope in zip(network, torch.autograd.grad(loss, network), strict=True):
                weight.grad = slope
        optimizer.step()
        if update % _CHECK_EVERY == 0:
            with torch.no_grad():
                for k in range(folds):
                    own = [weight[k] for weight in network]
                    error = (_predict(own, x[stop[k]]) - goal[k, stop[k]]).square().sum(0)
                    best[k] = torch.where(error < least[k], _predict(own, x[members[k]]), best[k])
                    least[k] = torch.minimum(error, least[k])
    return [(found * scale[k]).double() for k, found in enumerate(best)]


def _network(folds: int, features: int, targets: int, device: torch.device) -> list[Tensor]:
    """Weights of both layers and the bias between them, for each fold; at first they say 0."""
    generator = torch.Generator().manual_seed(0)
    inward = torch.randn(folds, features, _UNITS, generator=generator) / features**0.5
    bias, outward = torch.zeros(folds, 1, _UNITS), torch.zeros(folds, _UNITS, targets)
    return [weight.to(device).requires_grad_() for weight in (inward, bias, outward)]


def _predict(network: list[Tensor], x: Tensor) -> Tensor:
    inward, bias, outward = network
    return torch.tanh(x @ inward + bias) @ outward
