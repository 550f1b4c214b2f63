"""Shows that a change of the code changes no bit of any result.

    python tests/result_bits.py save bits.json        # on the tree before
    python tests/result_bits.py compare bits.json     # on the tree after

Draws a few hundred calls (dtypes, sizes, layers, directions, projection, packed sequences, lengths,
resets, states and gates, recompute, prepacked weights, cells, 1 and 2 threads), computes each on
every instruction set of this machine, and hashes outputs, states, gates and all gradients. Only the
public API is used, so that any two revisions can be compared.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys

CASES = 320


def draw(number):
    """The options of case `number`, the same in every process."""
    draw = random.Random(number)
    kind = draw.choice(["uniform", "uniform", "packed", "lengths", "reset", "cell"])
    big = draw.random() < 0.15
    return {
        "kind": kind,
        "dtype": draw.choice(["float32", "float32", "float64", "bfloat16", "float16"]),
        "T": draw.choice([1, 2, 3, 8, 17, 40]),
        "N": draw.choice([1, 2, 3, 4, 7, 16, 33]),
        "I": draw.choice([1, 3, 16, 40, 129]),
        "H": draw.choice([128, 256, 300] if big else [1, 4, 7, 8, 33, 64, 100]),
        "layers": draw.choice([1, 1, 2]),
        "bidirectional": kind != "reset" and draw.random() < 0.35,
        "bias": draw.random() < 0.8,
        "project": draw.random() < 0.25,
        "batch_first": draw.random() < 0.25,
        "states": draw.choice(["none", "states", "gates"]),
        "given": draw.random() < 0.6,
        "recompute": draw.random() < 0.2,
        "prepack": draw.choice([None, None, "own", "bfloat16", "float16"]),
        "strided": draw.random() < 0.2,
        "threads": draw.choice([1, 2]),
    }


def tensors(value):
    """Every tensor in nested results, in order."""
    from torch import Tensor
    from torch.nn.utils.rnn import PackedSequence

    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, PackedSequence):
        yield value.data
    elif isinstance(value, tuple | list):
        for element in value:
            yield from tensors(element)


def digest(values):
    """One hash of the bytes of many tensors."""
    import torch

    total = hashlib.sha256()
    for value in values:
        data = value.detach().contiguous()
        total.update(f"{list(data.shape)}{data.dtype}".encode())
        total.update(data.view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return total.hexdigest()[:24]


def random_like(shape, dtype, seed, strided=False):
    """Normal numbers of NumPy's, which do not change with torch."""
    import numpy as np
    import torch

    rows = list(shape)
    if strided:
        rows[0] *= 2
    numbers = np.random.default_rng(seed).standard_normal(rows, dtype=np.float32)
    tensor = torch.from_numpy(numbers).to(dtype)
    return tensor[::2] if strided else tensor


def set_weights(module, dtype, seed):
    """Weights of about the size that torch draws."""
    import torch

    with torch.no_grad():
        for k, weight in enumerate(module.parameters()):
            scale = module.hidden_size**-0.5
            weight.copy_(random_like(weight.shape, dtype, [seed, k]) * scale)


def run_cell(case, number, dtype):
    """A step of LSTMCell: results and gradients."""
    import lstm_kernels

    cell = lstm_kernels.LSTMCell(case["I"], case["H"], case["bias"], dtype=dtype)
    set_weights(cell, dtype, number)
    x = random_like((case["N"], case["I"]), dtype, [number, 100], case["strided"]).requires_grad_()
    state = None
    if case["given"]:
        state = tuple(random_like((case["N"], case["H"]), dtype, [number, k]) for k in (101, 102))
        state = tuple(value.requires_grad_() for value in state)
    import torch

    with torch.no_grad():
        plain = [*tensors(cell(x, state, return_gates=True))]
    results = [*tensors(cell(x, state, return_gates=case["states"] == "gates"))]
    sum((value.float() * (k + 1)).square().sum() for k, value in enumerate(results)).backward()
    wanted = [x, *cell.parameters(), *(state or ())]
    return [*plain, *results, *(value.grad for value in wanted)]


def run_sequence(case, number, dtype):
    """A call of LSTM: results without and with gradients, and the gradients."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    import lstm_kernels

    T, N, H = case["T"], case["N"], case["H"]
    proj_size = max(1, H // 2) if case["project"] and H > 1 else 0
    lstm = lstm_kernels.LSTM(
        case["I"],
        H,
        case["layers"],
        bias=case["bias"],
        batch_first=case["batch_first"],
        bidirectional=case["bidirectional"],
        proj_size=proj_size,
        dtype=dtype,
        recompute=case["recompute"],
    )
    set_weights(lstm, dtype, number)
    draw = random.Random(number + 10**6)
    shape = (N, T, case["I"]) if case["batch_first"] else (T, N, case["I"])
    x = random_like(shape, dtype, [number, 100], case["strided"]).requires_grad_()
    given, options = x, {}
    if case["kind"] == "packed":
        lengths = torch.tensor([draw.randint(1, T) for _ in range(N)])
        given = pack_padded_sequence(x, lengths, case["batch_first"], enforce_sorted=False)
    elif case["kind"] == "lengths":
        options["lengths"] = torch.tensor([draw.randint(0, T) for _ in range(N)])
    elif case["kind"] == "reset":
        flags = torch.tensor([[draw.random() < 0.2 for _ in range(N)] for _ in range(T)])
        options["reset"] = flags.T if case["batch_first"] else flags
    state = None
    if case["given"]:
        rows = case["layers"] * (1 + case["bidirectional"])
        state = tuple(
            random_like((rows, N, width), dtype, [number, 101 + k]).requires_grad_()
            for k, width in enumerate((proj_size or H, H))
        )
    asked = {
        "none": {},
        "states": {"return_states": True},
        "gates": {"return_gates": True},
    }[case["states"]]
    with torch.no_grad():
        values = [*tensors(lstm(given, state, **options)[:2])]
        values += tensors(lstm(given, state, return_gates=True, **options))
        if case["prepack"]:
            narrow = {"own": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
            kept = narrow[case["prepack"]] if dtype is torch.float32 else None
            lstm.prepack(kept)
            values += tensors(lstm(given, state, **options))
            lstm.unpack()
    results = [*tensors(lstm(given, state, **asked, **options))]
    sum((value.float() * (k + 1)).square().sum() for k, value in enumerate(results)).backward()
    wanted = [x, *lstm.parameters(), *(state or ())]
    return [*values, *results, *(value.grad for value in wanted)]


def hashes():
    """The hash of every case, on the instruction set that the environment names."""
    import torch

    found = {}
    for number in range(CASES):
        case = draw(number)
        torch.set_num_threads(case["threads"])
        run = run_cell if case["kind"] == "cell" else run_sequence
        found[f"{number}: {json.dumps(case)}"] = digest(
            run(case, number, getattr(torch, case["dtype"]))
        )
    return found


def on_every_isa():
    """The hashes of each instruction set, each computed in a separate process."""
    import torch

    import lstm_kernels

    print(lstm_kernels.__file__)
    chosen, _, compiled = torch.ops.lstm_kernels._cpu_isa().partition(" of ")
    names = compiled.split(",")
    found = {}
    for isa in names[: names.index(chosen) + 1]:
        done = subprocess.run(
            [sys.executable, __file__, "hashes"],
            env={**os.environ, "LSTM_KERNELS_CPU_ISA": isa},
            stdout=subprocess.PIPE,
            check=True,
        )
        found[isa] = json.loads(done.stdout)
        print(f"{isa}: {len(found[isa])} cases", flush=True)
    return found


def main():
    """Save, compare, or print the hashes of one instruction set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["save", "compare", "hashes"])
    parser.add_argument("file", nargs="?")
    options = parser.parse_args()
    if options.action == "hashes":
        print(json.dumps(hashes()))
        return
    found = on_every_isa()
    if options.action == "save":
        with open(options.file, "w") as file:
            json.dump(found, file)
        return
    with open(options.file) as file:
        before = json.load(file)
    different = [
        f"{isa} {case}"
        for isa, cases in before.items()
        for case, value in cases.items()
        if found.get(isa, {}).get(case) != value
    ]
    print("\n".join(different))
    sys.exit(f"{len(different)} cases differ" if different else 0)


if __name__ == "__main__":
    main()
