"""Libraries that build on nn.LSTM train the same with ours in its place.

Each client runs twice in a separate process, from the same seed, with torch.nn.LSTM and with
lstm_kernels.LSTM. Run by `make test-clients`, which installs the clients.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.timing import compare

HERE = Path(__file__).parent
CLIENTS = {
    "lightning_module": "lightning",
    "recurrent_ppo": "sb3-contrib",
    "deepar": "pytorch-forecasting",
    "neuralhydrology_basins": "neuralhydrology",
}
ROUNDS = 3  # for a ratio of times; where none is asked for, each runs once


def train(client, which):
    ran = subprocess.run(
        [sys.executable, HERE / "run.py", client, which], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("client", CLIENTS)
def test_client_trains_the_same(client, request, ratio):
    package = CLIENTS[client]
    if find_spec(package.replace("-", "_")) is None:
        pytest.skip(f"{package} is not installed")
    rounds = 1 if request.config.option.ratios is None else ROUNDS
    seconds = {"native": [], "ours": []}
    for at in range(rounds):
        found = {}
        for which in ("native", "ours") if at % 2 == 0 else ("ours", "native"):
            found[which] = train(client, which)
            seconds[which].append(found[which]["seconds"])
        assert found["native"]["lstms"] == 0
        assert found["ours"]["lstms"] > 0
        # float32 from the same seed: rounding differs and grows with every step of the optimizer.
        expected = pytest.approx(found["native"]["numbers"], rel=1e-3, abs=1e-4)
        assert found["ours"]["numbers"] == expected
    times = compare(seconds["ours"], seconds["native"]) if rounds > 1 else None
    ratio.note("the whole of its training", times, package)
