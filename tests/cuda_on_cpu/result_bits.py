"""Shows that a change of the CUDA sources changes no bit of any result.

    python tests/cuda_on_cpu/result_bits.py save bits.json        # on the tree before
    python tests/cuda_on_cpu/result_bits.py compare bits.json     # on the tree after

Runs the kernels and the ops on the stand-in for CUDA, on layers of every dtype, size, direction and
raggedness, on both paths, and hashes outputs, states, gates and gradients.
"""

import argparse
import hashlib
import itertools
import json
import os
import sys
from pathlib import Path

import build_module
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the oracle
sys.path.insert(0, str(build_module.build()))
import test_ops
import test_persistent
from cases import Case, module, run_backward, run_forward

RAGGED = (None, "packed", "lengths", "reset")


def digest(tensors):
    """One hash of the bytes of many tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{list(tensor.shape)}{tensor.dtype}".encode())
        data = tensor.contiguous().view(torch.uint8) if tensor.numel() else tensor
        total.update(data.numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:24]


def digest_arrays(arrays):
    """The same for NumPy arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode() + arrays[name].tobytes())
    return total.hexdigest()[:24]


def kernels():
    """The persistent kernels on their own."""
    shapes = test_persistent.SHAPES + test_persistent.RAGGED + test_persistent.DEVICE
    for shape, dtype in itertools.product(shapes, test_persistent.TYPES):
        for run in (run_forward, run_backward):
            module().set_seed(1)
            yield f"{run.__name__} {dtype} {shape}", digest_arrays(run(Case(dtype, **shape)))


def layers():
    """The ops of a sequence, on both paths."""
    ops = test_ops.library.load()
    options = itertools.product(("step", "persistent"), test_ops.FLOATING, RAGGED, (1, 4))
    for number, (path, dtype, ragged, T) in enumerate(options):
        os.environ["LSTM_KERNELS_CUDA_PATH"] = path
        for D, size in itertools.product((1,) if ragged == "reset" else (1, 2), test_ops.SIZES):
            number += 1
            case = test_ops.Case(dtype, T, *size, D, ragged, number)
            results = case.forward(ops, True)
            gradients = case.gradients(results, absent={number % 7})
            found = (*results, *case.backward(ops, gradients, *results[3:], True))
            yield f"{path} {dtype} {ragged} {T} {D} {size} {number}", digest(found)


def cells():
    """The ops of one step."""
    ops = test_ops.library.load()
    sizes = ((1, 3, 5), (2, 8, 16), (9, 24, 8), (17, 3, 5))
    for dtype, (N, inputs, H), biases in itertools.product(test_ops.FLOATING, sizes, (False, True)):
        draw = test_ops.Case(dtype, 1, N, inputs, H, seed=N).uniform
        c0 = draw(N, H)
        given = (draw(N, inputs), draw(N, H), c0, draw(4 * H, inputs), draw(4 * H, H))
        given += (draw(4 * H), draw(4 * H)) if biases else (None, None)
        h, c, gates = ops._cell_forward(*given, True)
        gradients = [draw(*t.shape) for t in (h, c, gates)]
        found = (h, c, gates, *ops._cell_backward(*gradients, c0, gates))
        yield f"cell {dtype} {N} {inputs} {H} {biases}", digest(found)


def main():
    """Save or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["save", "compare"])
    parser.add_argument("file")
    options = parser.parse_args()
    found = dict(itertools.chain(kernels(), layers(), cells()))
    print(f"{len(found)} cases")
    if options.action == "save":
        with open(options.file, "w") as file:
            json.dump(found, file)
        return
    with open(options.file) as file:
        before = json.load(file)
    different = [case for case, value in before.items() if found.get(case) != value]
    print("\n".join(different))
    sys.exit(f"{len(different)} cases differ" if different else 0)


if __name__ == "__main__":
    main()
