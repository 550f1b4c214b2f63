"""The trained silero-vad around our LSTM says what its own runtimes say, chunk by chunk too."""

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
silero_vad = pytest.importorskip("silero_vad")
from silero_vad_memory import CHUNK, SileroVAD  # noqa: E402
from silero_vad_stream import SpeechStream  # noqa: E402

CLIENT = "silero-vad"
RATE = 16_000
# float32 through five convolutions and an LSTM of 41 steps, each in another order of sums
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def sounds():
    """Three recordings of 40 chunks and a part of one, quiet to loud."""
    generator = torch.Generator().manual_seed(0)
    sound = torch.randn(40 * CHUNK + 100, 3, generator=generator)
    return sound * torch.logspace(-3, -0.5, 3)


def test_every_chance_of_speech_is_that_of_its_own_runtime(ratio):
    """ONNX Runtime on the file that takes whole recordings, one after the other."""
    sound = sounds()
    own = silero_vad.load_silero_vad(sequence=True)
    model = SileroVAD().eval()
    with torch.no_grad():
        ours = model(sound)
        for n in range(3):
            theirs = torch.from_numpy(own.audio_forward(sound[:, n].numpy()))
            torch.testing.assert_close(ours[:, n], theirs, **TOLERANCE)
        one, array = sound[:, :1], sound[:, 0].numpy()
        ratio(
            "a whole recording, against its ONNX runtime",
            lambda: own.audio_forward(array),
            lambda: model(one),
        )
        native = copy.deepcopy(model)
        native.lstm = native.lstm.to_native()
        torch.testing.assert_close(native(one), ours[:, :1], **TOLERANCE)
        ratio("a whole recording, against nn.LSTM", lambda: native(one), lambda: model(one))


@pytest.mark.parametrize("recordings", [1, 3])
def test_every_chunk_as_it_arrives(recordings, ratio):
    """ONNX Runtime on the file that takes one chunk and the states."""
    own = silero_vad.load_silero_vad(onnx=True)
    stream = SpeechStream(SileroVAD().eval(), recordings)
    chunks = sounds()[: 40 * CHUNK, :recordings].T.split(CHUNK, 1)
    for chunk in chunks:
        theirs = own(chunk, RATE).flatten()
        torch.testing.assert_close(stream(chunk), theirs, **TOLERANCE)
    if recordings == 1:
        ratio(
            "a chunk as it arrives, against its ONNX runtime",
            lambda: own(chunks[0], RATE),
            lambda: stream(chunks[0]),
        )
        jit = silero_vad.load_silero_vad()
        ratio(
            "a chunk as it arrives, against its torch.jit",
            lambda: jit(chunks[0], RATE),
            lambda: stream(chunks[0]),
        )
