"""Runs the persistent kernels on a few small layers: for the sanitizers and the mutants.

    python small_layers.py FOLDER_OF_MODULE [seed ...]

Needs no torch, so that a sanitizer loads with little else. Exits 0 where all values are right.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the oracle
from cases import Case, module, run_backward, run_forward

CASES = [
    ("bfloat16", {"T": 4, "N": 13, "H": 37, "D": 2}),
    ("float16", {"T": 5, "N": 11, "H": 20, "D": 2, "ragged": "packed"}),
    ("bfloat16", {"T": 5, "N": 11, "H": 20, "D": 2, "ragged": "lengths"}),
    ("float16", {"T": 5, "N": 11, "H": 20, "ragged": "reset"}),
    ("tf32", {"T": 3, "N": 9, "H": 70}),  # weights beyond the registers
    ("float32", {"T": 3, "N": 9, "H": 70}),
    # several tiles in a block
    ("bfloat16", {"T": 3, "N": 35, "H": 18, "tile_rows": 16, "multiprocessors": 4}),
]
EXCHANGES = ("counter", "tagged")


def main(folder, *seeds):
    sys.path.insert(0, folder)
    for seed in map(int, seeds or ("1",)):
        for exchange in EXCHANGES:
            for dtype, shape in CASES:
                module().set_seed(seed)
                run_forward(Case(dtype, **shape, exchange=exchange, seed=seed))
                run_backward(Case(dtype, **shape, exchange=exchange, seed=seed))
    print("all values are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
