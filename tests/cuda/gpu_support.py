"""What the tests on a GPU share."""

import pytest
import torch
from torch import nn

import lstm_kernels

DEVICE = "cuda"
FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
PATHS = ("step", "persistent")  # what LSTM_KERNELS_CUDA_PATH takes
TF32 = "persistent in TF32"
ON_PATHS = [  # what each can compute: forced, it never falls back
    pytest.param(dtype, path, id=f"{dtype}-{path}".removeprefix("torch."))
    for dtype in FLOATING
    for path in (*PATHS, TF32)
    if (dtype is not torch.float64 or path == "step") and (dtype is torch.float32 or path != TF32)
]


def take(path, monkeypatch):
    """Force a path, and float32 as it is or in TF32."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", path.split()[0])
    precision = "tf32" if path == TF32 else "ieee"
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", precision)


def pair(dtype, *sizes, seed=0, **options):
    """This library's LSTM and nn.LSTM with the same weights."""
    torch.manual_seed(seed)
    native = nn.LSTM(*sizes, device=DEVICE, dtype=dtype, **options)
    return lstm_kernels.LSTM.from_native(native), native


def random(*size, dtype=torch.float32, seed=1):
    draw = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(*size, generator=draw, device=DEVICE, dtype=torch.float64).to(dtype)


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def run(module, x, states, upstream, **options):
    """Results and gradients of one forward and backward pass, in one list."""
    x, *states = leaves(x, *states)
    module.zero_grad()
    output, (h_n, c_n), *more = module(x, tuple(states) if states else None, **options)
    results = [output, h_n, c_n, *(t for s in more for group in s if group for t in group)]
    torch.autograd.backward(results[: len(upstream)], upstream)
    gradients = [t.grad for t in (x, *states, *module.parameters())]
    return [t.detach() for t in results], gradients


def error(results, exact):
    """The largest deviation from float64 results, each relative to the largest value there."""
    return max(
        ((got.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3)).item()
        for got, wanted in zip(results, exact, strict=True)
        if wanted.numel()
    )
