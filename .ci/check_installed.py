"""Compute with the installed package and compare with nn.LSTM; prints what ran."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

import lstm_kernels


def gradients(
    lstm: nn.LSTM | lstm_kernels.LSTM, x: Tensor, *, states: bool
) -> tuple[list[Any], list[Any]]:
    """The outputs of one training step, and the gradients of the input and of every weight."""
    x = x.clone().requires_grad_()
    output, (h_n, c_n), *rest = lstm(x, return_states=True) if states else lstm(x)
    (output.square().sum() + h_n.sum() + c_n.square().sum()).backward()
    return [output, h_n, c_n, x.grad, *(p.grad for p in lstm.parameters())], rest


assert "site-packages" in lstm_kernels.__file__, "this is the source tree, not the wheel"
torch.manual_seed(0)
for dtype, rounding in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
    theirs = nn.LSTM(5, 7, num_layers=2, bidirectional=True, dtype=dtype)
    ours = lstm_kernels.LSTM.from_native(theirs)
    x = torch.randn(11, 3, 5, dtype=dtype)
    expected, _ = gradients(theirs, x, states=False)
    found, (states,) = gradients(ours, x, states=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding)
    # The last cell state of the forward direction is that of the last step.
    torch.testing.assert_close(
        states.cell[1][-1, :, :7], expected[2][2], rtol=rounding, atol=rounding
    )

python = ".".join(map(str, sys.version_info[:3]))
print(f"Python {python}, torch {torch.__version__}: equal to nn.LSTM, {lstm_kernels.__file__}")
