"""A trained speech detector on sound that is still arriving, one chunk of 32 ms at a time.

    pip install silero-vad onnx 'lstm_kernels[memory]'
    python examples/silero_vad_stream.py < sound.raw  # 16 kHz, mono, 16-bit

Silero VAD (https://github.com/snakers4/silero-vad) around lstm_kernels.LSTM, which keeps the states
between the chunks.
"""

from __future__ import annotations

import sys

import torch
from silero_vad_memory import CHUNK, CONTEXT, SileroVAD
from torch import Tensor


class SpeechStream:
    """The chance of speech in each chunk of several recordings, as the chunks arrive."""

    def __init__(self, model: SileroVAD, recordings: int = 1) -> None:
        self._model = model
        self._lstm = model.lstm.for_inference().stream(recordings)
        self._before = torch.zeros(recordings, CONTEXT)

    @torch.inference_mode()
    def __call__(self, chunk: Tensor) -> Tensor:
        """chunk: (recordings, 512), at most 1 in size. Returns one chance for each."""
        frame = torch.cat([self._before, chunk], 1)
        self._before = chunk[:, -CONTEXT:]
        return self._model.chance(self._lstm(self._model.features(frame)))


def main() -> None:
    stream = SpeechStream(SileroVAD().eval())
    while len(raw := sys.stdin.buffer.read(2 * CHUNK)) == 2 * CHUNK:
        sound = torch.frombuffer(bytearray(raw), dtype=torch.int16) / 2**15
        print(f"{stream(sound.unsqueeze(0)).item():.3f}")


if __name__ == "__main__":
    main()
