"""What a trained speech detector keeps in its cell state and in its hidden state.

    pip install silero-vad onnx 'lstm_kernels[memory]'  # and Debian's espeak-ng, which speaks
    python examples/silero_vad_memory.py

Silero VAD (https://github.com/snakers4/silero-vad) says for each 32 ms of sound whether someone
speaks. Its PyPI package holds the trained weights. This program builds the model around
lstm_kernels.LSTM, asks it about speech that espeak-ng makes, and prints one table: medians, and the
range over several sets of recordings.
"""

from __future__ import annotations

import argparse
import io
import random
import subprocess
import wave
from importlib import resources

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lstm_kernels import LSTM, memory
from lstm_kernels.programs.cell_or_hidden.summary import Interval
from lstm_kernels.programs.characters.text import read_text

RATE = 16_000
CHUNK, CONTEXT, REFLECTED = 512, 64, 64  # samples of a step, of the one before it, at its end
LAGS = 63  # chunks, two seconds
VOICES = ("en-us", "en-gb", "de", "fr-fr", "es", "it", "nl", "pt", "pl", "sv")


class SileroVAD(nn.Module):
    """The 16 kHz model on whole recordings: (samples, N) to the chance of speech (chunks, N)."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        widths, strides = (129, 128, 64, 64, 128), (1, 2, 2, 1)
        self.encoder = nn.Sequential()
        for at, stride in enumerate(strides):
            self.encoder.append(nn.Conv1d(widths[at], widths[at + 1], 3, stride, padding=1))
            self.encoder.append(nn.ReLU())
        self.lstm = LSTM(128, 128)
        self.head = nn.Conv1d(128, 1, 1)
        self.load_state_dict(_trained())

    def forward(self, sound: Tensor) -> Tensor:
        samples, recordings = sound.shape
        chunks = -(-samples // CHUNK)
        padded = nn.functional.pad(sound.T, (CONTEXT, chunks * CHUNK - samples))
        frames = padded.unfold(1, CONTEXT + CHUNK, CHUNK).flatten(0, 1)
        features = self.features(frames).view(recordings, chunks, 128)
        hidden, _ = self.lstm(features.transpose(0, 1))
        return self.chance(hidden.flatten(0, 1)).view(chunks, recordings)

    def features(self, frames: Tensor) -> Tensor:
        """What the LSTM reads, (steps, 128), of chunks with their context, (steps, 576)."""
        frames = nn.functional.pad(frames, (0, REFLECTED), "reflect").unsqueeze(1)
        real, imaginary = self.spectrum(frames).chunk(2, 1)
        features: Tensor = self.encoder(torch.hypot(real, imaginary)).squeeze(2)
        return features

    def chance(self, hidden: Tensor) -> Tensor:
        """The chance of speech, (steps,), from the LSTM's hidden state, (steps, 128)."""
        return torch.sigmoid(self.head(hidden.relu().unsqueeze(2))).flatten()


def _trained() -> dict[str, Tensor]:
    """The weights of the package's 16 kHz sequence model, by the names in `SileroVAD`."""
    path = resources.files("silero_vad.data") / "silero_vad_16k_sequence.onnx"
    graph = onnx.load(str(path)).graph
    given = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in graph.initializer}
    (node,) = (node for node in graph.node if node.op_type == "LSTM")
    w_ih, w_hh, bias = (_ifgo(given[name][0]) for name in node.input[1:4])
    weights = {
        "spectrum.weight": given["stft.forward_basis_buffer"],
        "lstm.weight_ih_l0": w_ih,
        "lstm.weight_hh_l0": w_hh,
        "lstm.bias_ih_l0": bias[:512],
        "lstm.bias_hh_l0": bias[512:],
    }
    for kind in ("weight", "bias"):
        weights[f"head.{kind}"] = given[f"output.{kind}"]
        for at in range(4):
            weights[f"encoder.{2 * at}.{kind}"] = given[f"encoder.{at}.{kind}"]
    return weights


def _ifgo(gates: Tensor) -> Tensor:
    """Gates from ONNX's order i, o, f, g into i, f, g, o; both biases stand one after the other."""
    parts = gates.unflatten(0, (-1, 4, 128))
    return parts[:, [0, 2, 3, 1]].flatten(0, 2)


def recordings(count: int, seconds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sentences with pauses between them, in noise.

    Returns:
        The sound (samples, count), and whether someone speaks in each chunk (chunks, count).
    """
    draw = random.Random(seed)
    text = [line for line in read_text(None).splitlines() if 30 < len(line) < 90]
    samples = seconds * RATE // CHUNK * CHUNK
    sounds, spoken = [], []
    for _ in range(count):
        parts: list[Tensor] = []
        voice = draw.choice(VOICES)
        while sum(map(len, parts)) < samples:
            parts.append(torch.zeros(int(draw.uniform(0.3, 4) * RATE)))
            parts.append(_said(draw.choice(text), voice, draw.randint(120, 200)))
        clean = torch.cat(parts)[:samples]
        loud = clean.view(-1, CHUNK).square().mean(1).sqrt()
        noise = torch.randn(samples, generator=torch.Generator().manual_seed(draw.getrandbits(32)))
        sounds.append(clean + draw.uniform(0.001, 0.01) * noise)
        spoken.append(loud > 0.01)
    return torch.stack(sounds, 1), torch.stack(spoken, 1)


def _said(text: str, voice: str, speed: int) -> Tensor:
    """One sentence at 16 kHz, at most 1 in size."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", "--stdin"]
    spoken = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate = file.getframerate()
        raw = np.frombuffer(spoken[44:], dtype="<i2").astype(np.float32) / 2**15
    sound = torch.from_numpy(raw)
    length = len(sound) * RATE // rate
    return nn.functional.interpolate(sound.view(1, 1, -1), length, mode="linear").flatten()


def measure(model: SileroVAD, sound: Tensor, spoken: Tensor) -> dict[str, float]:
    """The numbers of one set of recordings."""
    recording = memory.record(model, sound)
    life = memory.retention(recording).half_life[0]
    units = memory.label(recording, spoken)
    past = memory.horizon(recording, spoken, max_lag=LAGS)
    both = memory.overlap(recording)
    network = memory.overlap(recording, probe="mlp")
    exponents = memory.lyapunov(model, sound).exponents[0]
    found = {
        "half-life of the median cell (chunks of 32 ms)": float(life.median()),
        "half-life that 10% of the cells exceed (chunks)": float(life.quantile(0.9)),
        "AUC of the best single cell for speech": _best(units, "cell"),
        "AUC of the best single hidden unit for speech": _best(units, "hidden"),
        "R2 of h from c, linear probe": float(both.hidden_from_cell[0].median()),
        "R2 of c from h, linear probe": float(both.cell_from_hidden[0].median()),
        "R2 of h from c, small network": float(network.hidden_from_cell[0].median()),
        "R2 of c from h, small network": float(network.cell_from_hidden[0].median()),
        "largest Lyapunov exponent per chunk": float(exponents.median()),
        "chance of guessing whether someone spoke": float(past.chance.median()),
    }
    for lag in (0, 10, 20, 40, LAGS):
        for name, score in (("c", past.cell[0]), ("h", past.hidden[0])):
            title = f"accuracy of {name} on whether someone spoke {lag} chunks before"
            found[title] = float(score[lag])
    at = len(spoken) // 2
    for change, what in (("zero", "zeroed"), ("swap", "swapped")):
        for name, state in (("c", "cell"), ("h", "hidden")):
            changed = memory.ablate(model, sound, at, state=state, change=change)
            moved = (changed.output - changed.baseline).abs()[at : at + 10].mean()
            found[f"change of the output in ten chunks after {name} is {what}"] = float(moved)
    return found


def _best(units: memory.Tracking, state: str) -> float:
    """The held-out score of the unit that the other half of the data chooses."""
    return next(unit.score for unit in units.best if unit.state == state)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sets", type=int, default=3, help="independent sets of recordings")
    parser.add_argument("--recordings", type=int, default=5, help="of each set")
    parser.add_argument("--seconds", type=int, default=20, help="of each recording")
    options = parser.parse_args()
    model = SileroVAD().eval()
    sets = []
    for seed in range(options.sets):
        sound, spoken = recordings(options.recordings, options.seconds, seed)
        with torch.no_grad():
            right = (model(sound) > 0.5) == spoken
        agrees = {"accuracy of the model": float(right.double().mean())}
        sets.append(agrees | measure(model, sound, spoken))
    print("| | median [lowest, highest] of the sets |\n| --- | --- |")
    for name in sets[0]:
        print(f"| {name} | {Interval.of([found[name] for found in sets])} |")


if __name__ == "__main__":
    main()
