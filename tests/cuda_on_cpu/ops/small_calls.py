"""A little of everything test_ops.py asks of the ops, for a process under a sanitizer."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import library
import test_ops
import torch

os.environ["LSTM_KERNELS_CUDA_PATH"] = "step"
ops = library.load(sys.argv[1])
for seed, ragged in enumerate((None, "packed", "lengths", "reset")):
    for dtype in (torch.float32, torch.bfloat16):
        for size in ((1, 3, 5, None), (9, 8, 8, None), (17, 5, 6, None), (18, 4, 5, 3)):
            D = 1 if ragged == "reset" else 2
            test_ops.check(ops, test_ops.Case(dtype, 3, *size, D, ragged, seed + 1))
for N in (1, 9, 17):
    test_ops.test_a_step_on_its_own(ops, torch.float32, N)
print("every value is right")
