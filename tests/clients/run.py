"""Trains one client's own model and prints what came of it, as JSON.

    python run.py CLIENT {native,ours}

`ours` puts lstm_kernels.LSTM in the place of torch.nn.LSTM before the client is imported; nothing
else about the client changes.
"""

import importlib
import json
import sys
import time

import torch
import wheels
from torch import nn

import lstm_kernels

TORCHVISION = wheels.without_libraries()


def main(client: str, which: str) -> None:
    if which == "ours":
        nn.LSTM = lstm_kernels.LSTM
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = importlib.import_module(client)
    start = time.perf_counter()
    model, numbers = module.train()
    found = {
        "numbers": numbers,
        "seconds": time.perf_counter() - start,
        "lstms": [isinstance(m, lstm_kernels.LSTM) for m in model.modules()].count(True),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
