"""A little of everything the CUDA library does, to be run under compute-sanitizer.

    compute-sanitizer --tool memcheck python3 -m benchmarks.gpu_sanitize
    compute-sanitizer --tool initcheck python3 -m benchmarks.gpu_sanitize --odd

initcheck does not see what cuBLAS writes by the tensor memory accelerator, and calls it
uninitialized. cuBLAS needs rows of whole 16 bytes for that: --odd takes others.
"""

import argparse
import itertools
import os
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_kernels
from lstm_kernels import Variant

DEVICE = "cuda"
PROJECTION = {"proj_size": 9}
OF_SINGLE_CELLS = (
    Variant(peephole=True, coupled="input", recurrent_dropout=0.3, zoneout_hidden=0.3),
    Variant(recurrent_dropout=0.3, dropout_on="candidate", zoneout_cell=0.3),
)
OF_ROWS = (
    Variant(layer_norm="separate", cell_norm="carried", recurrent_dropout=0.3, dropout_on="gates"),
    Variant(layer_norm="joint", cell_norm="output"),
)


@dataclass(frozen=True)
class Run:
    """Layers of one dtype on one path; `plan` as LSTM_KERNELS_CUDA_PLAN takes it."""

    path: str
    dtype: torch.dtype
    plan: str = ""
    precision: str = "tf32"  # of products of float32
    small: bool = False  # for kernels that take the tools long


# The persistent kernels first: with every type, number of units and exchange.
RUNS = (
    Run("persistent", torch.bfloat16, "8,8,tagged"),
    Run("persistent", torch.bfloat16, "16,16,counter"),
    Run("persistent", torch.float32, "8,8,counter"),
    Run("persistent", torch.float32, "16,16,tagged"),
    Run("persistent", torch.float32, "16,8,tagged", "ieee", small=True),
    Run("persistent", torch.float32, "8,8,counter", "ieee", small=True),
    Run("step", torch.float32),
    Run("step", torch.bfloat16),
)


def layers(run: Run, large: int) -> None:
    """Forward and backward; `large` is the size of the layer that fills a block."""
    torch.manual_seed(0)
    lengths = torch.tensor([5, 2, 3])
    units = 20 if run.small else 37
    for options in ({}, {"bidirectional": True}, *([PROJECTION] if run.path == "step" else ())):
        module = lstm_kernels.LSTM(7, units, device=DEVICE, dtype=run.dtype, **options)
        x = torch.randn(5, 3, 7, device=DEVICE, dtype=run.dtype)
        module(x, return_gates=True)[0].sum().backward()
        if run.small:
            return
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        module(packed)[0].data.sum().backward()
        module(x, lengths=lengths.to(DEVICE))[0].sum().backward()
    many = torch.randn(6, 33, large // 2, device=DEVICE, dtype=run.dtype)
    module = lstm_kernels.LSTM(large // 2, large, device=DEVICE, dtype=run.dtype)
    module(many)[0].sum().backward()


def variants(path: str, plan: str, of: tuple[Variant, ...]) -> None:
    """Forward and backward of every kind of kernel that variants have."""
    os.environ["LSTM_KERNELS_CUDA_PATH"] = path
    os.environ["LSTM_KERNELS_CUDA_PLAN"] = plan
    lengths = torch.tensor([5, 2, 3], device=DEVICE)
    kinds = ({}, {"bidirectional": True}, *([PROJECTION] if path == "step" else ()))
    for dtype, variant, options in itertools.product((torch.float32, torch.bfloat16), of, kinds):
        module = lstm_kernels.LSTM(7, 37, device=DEVICE, dtype=dtype, variant=variant, **options)
        x = torch.randn(5, 3, 7, device=DEVICE, dtype=dtype)
        module(x, lengths=lengths, return_gates=True)[0].sum().backward()
    print("variants", path, plan, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_sanitize", description=__doc__)
    parser.add_argument("--odd", action="store_true", help="no rows of whole 16 bytes")
    odd = parser.parse_args().odd
    for run in RUNS:
        os.environ["LSTM_KERNELS_CUDA_PATH"] = run.path
        os.environ["LSTM_KERNELS_CUDA_PLAN"] = run.plan
        torch.backends.cudnn.rnn.fp32_precision = run.precision  # type: ignore[attr-defined]
        layers(run, 125 if odd else 128)
        print(run, flush=True)
    variants("step", "", OF_SINGLE_CELLS + OF_ROWS)
    for plan in ("8,8,tagged", "16,16,counter"):
        variants("persistent", plan, OF_SINGLE_CELLS)
    os.environ["LSTM_KERNELS_CUDA_PATH"] = os.environ["LSTM_KERNELS_CUDA_PLAN"] = ""
    for batch in (1, 5, 20):
        cell = lstm_kernels.LSTMCell(7, 37, device=DEVICE)
        h, c = cell(torch.randn(batch, 7, device=DEVICE))
        (h + c).sum().backward()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    print("done")


if __name__ == "__main__":
    main()
