"""The trained silero-vad around our LSTM says what its own runtime says."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
silero_vad = pytest.importorskip("silero_vad")
from silero_vad_memory import CHUNK, SileroVAD  # noqa: E402


def test_every_chance_of_speech_is_that_of_its_own_runtime():
    print("silero-vad", version("silero-vad"))
    generator = torch.Generator().manual_seed(0)
    sound = torch.randn(40 * CHUNK + 100, 3, generator=generator)
    sound *= torch.logspace(-3, -0.5, 3)  # quiet to loud
    own = silero_vad.load_silero_vad(sequence=True)
    with torch.no_grad():
        ours = SileroVAD().eval()(sound)
    for n in range(3):
        theirs = torch.from_numpy(own.audio_forward(sound[:, n].numpy()))
        # float32 through five convolutions and an LSTM of 41 steps, each in another order of sums
        torch.testing.assert_close(ours[:, n], theirs, rtol=0, atol=1e-5)
