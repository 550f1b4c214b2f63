"""What the tests of clients share: a model and its copy with our LSTMs, and one step of each."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lstm_kernels


def twins(model: nn.Module, **options: bool) -> tuple[nn.Module, nn.Module]:
    """The model, and a copy whose nn.LSTMs are ours."""
    ours = lstm_kernels.replace_lstm(copy.deepcopy(model), **options)
    assert any(isinstance(m, lstm_kernels.LSTM) for m in ours.modules())
    return model, ours


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of every parameter, by name."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def trainer(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Callable[[], float]:
    """A function that does one step of SGD and returns the loss before it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model)
        value.backward()
        optimizer.step()
        return value.item()

    return step
