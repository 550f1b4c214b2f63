"""A small neural network as a probe: it learns what a ridge regression leaves unexplained.

If a linear probe finds less in one state than in another, the state may know less, or know it in a
form that no linear map reads. This probe has one hidden layer. It starts from the linear fit, and
stops where rows that it is not trained on say so. Its score is therefore hardly ever lower.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._ridge import fits, near_seen, standardised

_UNITS = 64
_UPDATES = 400
_CHECK_EVERY = 20
_ROWS = 256  # of one update
_LEARNING_RATE = 5e-3


def predict_held_out(features: Tensor, targets: Tensor, fold: Tensor, folds: int) -> Tensor:
    """Every row predicted by a network that was trained on rows of other folds; as in `_ridge`."""
    x, targets = standardised(features), targets.double()
    offset = targets.mean(0)
    y = targets - offset
    members = [(fold == k).nonzero()[:, 0] for k in range(folds)]
    predictions = torch.empty_like(y)
    generator = torch.Generator().manual_seed(0)
    for k, (weights, bias) in enumerate(fits(x, y, members)):
        linear = x @ weights + bias
        stop = (k + 1) % folds
        learn = torch.cat([rows for at, rows in enumerate(members) if at not in (k, stop)])
        left = (y - linear).float()
        more = _learnt(x.float(), left, learn, members[stop], members[k], generator)
        predictions[members[k]] = near_seen(linear[members[k]] + more, y[fold != k])
    return predictions + offset


def _learnt(
    x: Tensor,
    left: Tensor,
    learn: Tensor,
    stop: Tensor,
    ask: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """What a network trained on the rows `learn` predicts of `left` (R, K) for the rows `ask`.

    Of each target, the prediction at the update at which the rows `stop` were predicted best; 0
    where the network never helped.
    """
    scale = left[learn].std(0, correction=0).clamp(min=torch.finfo(left.dtype).tiny)
    goal = left / scale
    inward = torch.randn(x.shape[1], _UNITS, generator=generator) / x.shape[1] ** 0.5
    network = [
        inward.to(x.device),
        *(x.new_zeros(size) for size in (_UNITS, (_UNITS, goal.shape[1]))),
    ]
    for weight in network:
        weight.requires_grad_()
    optimizer = torch.optim.Adam(network, _LEARNING_RATE)

    def predict(rows: Tensor) -> Tensor:
        found: Tensor = torch.tanh(x[rows] @ network[0] + network[1]) @ network[2]
        return found

    least = goal[stop].square().sum(0)
    best = goal.new_zeros(len(ask), goal.shape[1])
    for update in range(1, _UPDATES + 1):
        rows = learn[torch.randint(len(learn), (_ROWS,), generator=generator).to(learn.device)]
        with torch.enable_grad():
            loss = (predict(rows) - goal[rows]).square().mean()
            for weight, slope in zip(network, torch.autograd.grad(loss, network), strict=True):
                weight.grad = slope
        optimizer.step()
        if update % _CHECK_EVERY == 0:
            with torch.no_grad():
                error = (predict(stop) - goal[stop]).square().sum(0)
                best = torch.where(error < least, predict(ask), best)
                least = torch.minimum(error, least)
    return (best * scale).double()
