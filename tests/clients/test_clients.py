"""Libraries that build on nn.LSTM train the same with ours in its place.

Each client runs twice in a separate process, from the same seed, with torch.nn.LSTM and with
lstm_kernels.LSTM. Run by `make test-clients`, which installs the clients.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def train(client, which):
    ran = subprocess.run(
        [sys.executable, HERE / "run.py", client, which], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("client", ["lightning_module", "recurrent_ppo", "deepar"])
def test_client_trains_the_same(client):
    theirs, ours = train(client, "native"), train(client, "ours")
    assert theirs["lstms"] == 0
    assert ours["lstms"] > 0
    # float32 from the same seed: rounding differs and grows with every step of the optimizer.
    assert ours["numbers"] == pytest.approx(theirs["numbers"], rel=1e-3, abs=1e-4)
