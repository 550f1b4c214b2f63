"""A little of everything the CUDA library does, to be run under compute-sanitizer.

compute-sanitizer --tool memcheck python3 -m benchmarks.gpu_sanitize
"""

import os

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_kernels


def sequences(dtype: torch.dtype, *, projects: bool) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([5, 2, 3])
    for options in ({}, {"bidirectional": True}, {"proj_size": 9})[: 3 if projects else 2]:
        module = lstm_kernels.LSTM(7, 37, device="cuda", dtype=dtype, **options)
        x = torch.randn(5, 3, 7, device="cuda", dtype=dtype)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        module(x, return_gates=True)[0].sum().backward()
        module(packed)[0].data.sum().backward()
        module(x, lengths=lengths.cuda())[0].sum().backward()
    many = torch.randn(6, 33, 64, device="cuda", dtype=dtype)
    lstm_kernels.LSTM(64, 128, device="cuda", dtype=dtype)(many)[0].sum().backward()


def main() -> None:
    torch.backends.cudnn.rnn.fp32_precision = "tf32"  # type: ignore[attr-defined]
    for path in ("step", "persistent"):
        os.environ["LSTM_KERNELS_CUDA_PATH"] = path
        for dtype in (torch.float32, torch.bfloat16):
            sequences(dtype, projects=path == "step")
    for batch in (1, 5, 20):
        cell = lstm_kernels.LSTMCell(7, 37, device="cuda")
        h, c = cell(torch.randn(batch, 7, device="cuda"))
        (h + c).sum().backward()
    torch.cuda.synchronize()
    print("done")


if __name__ == "__main__":
    main()
