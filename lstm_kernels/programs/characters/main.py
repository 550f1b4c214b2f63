"""Command line: train both models, report and draw."""

import argparse
import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lstm_kernels import LSTM, for_inference

from .distributed import World, join, world_size
from .model import CharacterModel
from .text import Corpus, chunks, find_sentence, make_corpus, read_text
from .train import Contender, evaluate, speedup

try:
    from tqdm import tqdm

    from .picture import COLOURS, draw
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: the demo needs it, pip install 'lstm_kernels[demo]'") from None

LONGEST_SENTENCE = 200


def positive_integer(text: str) -> int:
    """An integer >= 1; argparse puts this function's name into its error message."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def device(text: str) -> torch.device:
    """A device that is there."""
    try:
        return torch.empty(0, device=text).device
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def command_line() -> argparse.ArgumentParser:
    """The options; with their defaults the demo takes about two minutes on two cores."""
    parser = argparse.ArgumentParser(
        prog="python -m lstm_kernels.demo",
        description="Trains a character model with lstm_kernels.LSTM and with torch.nn.LSTM side "
        "by side, samples text, and draws both memories of the LSTM along a sentence. "
        "Runs under torchrun too: then the streams are shared among the processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--text", type=Path, help="UTF-8 text to learn; without it, Python's own documentation")
    add("--sentence", help="what to draw the states over; without it, a sentence of the text")
    add("--output", type=Path, default=Path("demo"), help="folder for states.png and demo.json")
    add("--hidden-size", type=positive_integer, default=256, help="units of each LSTM layer")
    add("--layers", type=positive_integer, default=1, help="number of LSTM layers")
    add("--batch-size", type=positive_integer, default=32, help="streams trained on in parallel")
    add("--length", type=positive_integer, default=64, help="steps of a stream per training step")
    add("--steps", type=positive_integer, default=600, help="training steps of each model")
    add("--learning-rate", type=float, default=5e-3, help="Adam's, at the beginning")
    add("--sample", type=positive_integer, default=400, help="characters of text to sample")
    add("--seed", type=int, default=0, help="of the initial weights and of the sampling")
    add("--device", type=device, default=torch.device("cpu"), help="cpu or cuda")
    return parser


def endless(corpus: Corpus, batch_size: int, length: int) -> Iterator[tuple[bool, Tensor, Tensor]]:
    """Chunks of the training text over and over, each with whether the streams begin anew."""
    while True:
        for i, (inputs, targets) in enumerate(chunks(corpus.train, batch_size, length)):
            yield i == 0, inputs, targets


def train_side_by_side(
    models: dict[str, CharacterModel], options: argparse.Namespace, corpus: Corpus, world: World
) -> list[Contender]:
    """Trains the models on the same batches, turn by turn."""
    contenders = [
        Contender(name, world.wrap(model), options.steps, options.learning_rate)
        for name, model in models.items()
    ]
    batches = endless(corpus, options.batch_size, options.length)
    steps = range(options.steps)
    with tqdm(steps, "training", unit="step", mininterval=0.5, disable=not world.first) as bar:
        for step in bar:
            begins, inputs, targets = next(batches)
            inputs, targets = world.share(inputs), world.share(targets)
            # Who goes first alternates, so that neither always finds the caches warm.
            for contender in contenders[:: 1 if step % 2 == 0 else -1]:
                if begins:
                    contender.rewind()
                loss = contender.step(inputs, targets)
            bar.set_postfix_str(f"{loss:.2f} bits/character", refresh=False)
    return contenders


def prepare(options: argparse.Namespace) -> tuple[Corpus, str]:
    """The text to learn and the sentence to draw; makes the output folder.

    Raises:
        ValueError: an option or the text will not do.
    """
    corpus = make_corpus(read_text(options.text), options.batch_size, options.length)
    if options.hidden_size < len(COLOURS):
        raise ValueError(
            f"--hidden-size {options.hidden_size}: the picture shows {len(COLOURS)} units"
        )
    sentence = options.sentence
    if sentence is None:
        sentence = find_sentence(corpus.decode(corpus.validation))
    if not 2 <= len(sentence) <= LONGEST_SENTENCE:
        raise ValueError(
            f"--sentence has {len(sentence)} characters, a picture holds 2 to {LONGEST_SENTENCE}"
        )
    corpus.encode(sentence)
    if options.batch_size % world_size():
        raise ValueError(
            f"--batch-size {options.batch_size} does not split over {world_size()} processes"
        )
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make {options.output}: {error.strerror}") from None
    return corpus, sentence


def run(options: argparse.Namespace, corpus: Corpus, sentence: str, world: World) -> None:
    """Trains, measures, samples and draws; the first process reports."""
    models = {}
    for name, lstm in (("lstm_kernels.LSTM", LSTM), ("torch.nn.LSTM", nn.LSTM)):
        torch.manual_seed(options.seed)
        model = CharacterModel(lstm, len(corpus.alphabet), options.hidden_size, options.layers)
        models[name] = model.to(world.device)
    contenders = train_side_by_side(models, options, corpus, world)
    if not world.first:
        return

    validation = corpus.validation.to(world.device)
    bits = {
        name: evaluate(model, validation, options.batch_size, options.length)
        for name, model in models.items()
    }
    ratio = speedup(*contenders)
    characters = options.batch_size * options.length // world.size
    rates = {c.name: c.characters_per_second(characters) for c in contenders}
    print(f"\n{'':20}{'validation loss':>24}{'training throughput':>24}")
    for name in models:
        print(f"{name:20}{bits[name]:>14.3f} bits/char{rates[name]:>16,.0f} chars/s")
    print(f"{'ratio':20}{'':24}{ratio:>23.2f}x")

    model = models["lstm_kernels.LSTM"]
    narrow = for_inference(copy.deepcopy(model).cpu(), torch.int8)
    with_int8 = evaluate(narrow, corpus.validation, options.batch_size, options.length)
    print(f"{'with int8 weights':20}{with_int8:>14.3f} bits/char")
    torch.manual_seed(options.seed)
    tokens = corpus.encode(sentence).to(world.device)
    sample = corpus.decode(model.sample(tokens, options.sample))
    print(f"\nText sampled after {sentence!r}:\n\n{sample}\n")

    picture = options.output / "states.png"
    stretch = validation[: len(validation) // 8 * 8].view(8, -1).t()
    draw(model, sentence, tokens, stretch, picture)
    print(f"Cell state, hidden state and forget gate along that sentence: {picture}")

    measured = {
        "bits_per_character": bits,
        "bits_per_character_with_int8_weights": with_int8,
        "characters_per_second": rates,
        "speedup": ratio,
        "options": {n: str(value) for n, value in vars(options).items() if n != "output"},
    }
    (options.output / "demo.json").write_text(json.dumps(measured, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the demo; a user's mistake ends it with one line."""
    parser = command_line()
    options = parser.parse_args(arguments)
    try:
        corpus, sentence = prepare(options)
    except ValueError as error:
        parser.error(str(error))
    with join(options.device) as world:
        run(options, corpus, sentence, world)
