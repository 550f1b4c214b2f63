"""Weights in 8 bits, and in plain torch the products that csrc/cpu/quantized.h computes."""

from __future__ import annotations

import torch
from torch import Tensor


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as int8 numbers from -127 to 127, and one scale for each of its rows.

    The largest number of a row becomes 127, so that no number moves by more than half of the
    scale. A row of zeros, or of numbers whose scale is below the least float32, is zeros.
    """
    wide = weight.double()
    scale = (wide.abs().amax(1) / 127).float()
    steps = torch.where(scale > 0, scale, torch.inf).double()
    return (wide / steps[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def dequantized(weight: Tensor, scale: Tensor) -> Tensor:
    """The matrix that int8 numbers and the scales of their rows stand for."""
    return weight * scale[:, None]


def quantized_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of x as integers that times the row's scale are x, rounded: 256 values, 0 included.

    A row with a number that is not finite has the scale NaN.
    """
    least, most = x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)
    scale = most / 255 - least / 255
    usable = scale > 1e-37
    inverse = torch.where(usable, 1 / scale, 0)
    zero = (-least * inverse + 0.5).floor()
    u = ((x * inverse[..., None]).round() + zero[..., None]).clamp(0, 255)
    finite = x.isfinite().all(-1)
    scale = torch.where(usable, scale, 0)
    return u - zero[..., None], torch.where(finite, scale, torch.nan)


def product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x @ w.mT for a matrix of int8 numbers, with x rounded row by row; its sums are exact."""
    u, of_rows = quantized_rows(x)
    return (u.double() @ weight.double().mT).to(x.dtype) * (of_rows[..., None] * scale)
