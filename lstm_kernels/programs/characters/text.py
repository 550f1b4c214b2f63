"""The text: read, checked, turned into character indices and cut into streams."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

VALIDATION_PART = 10  # one character in ten, the last ones, is for validation


@dataclass(frozen=True)
class Corpus:
    """A text as character indices: its beginning to train on, its end to validate on."""

    alphabet: str  # the characters that occur, sorted; a character's index is its place here
    train: Tensor  # (characters,) int64
    validation: Tensor  # (characters,) int64

    def encode(self, text: str) -> Tensor:
        """Indices of the characters of `text`, (len(text),) int64; ValueError for unknown ones."""
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise ValueError(f"characters that never occur in the text: {' '.join(unknown)!r}")
        index = {character: i for i, character in enumerate(self.alphabet)}
        return torch.tensor([index[character] for character in text], dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """The text that `tokens` (characters,) stand for."""
        return "".join(self.alphabet[i] for i in tokens.tolist())


def read_text(path: Path | None) -> str:
    """The text of a UTF-8 file, or, without one, Python's own documentation of its topics.

    Raises:
        ValueError: the file cannot be read or is not UTF-8, or Python came without its topics.
    """
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise ValueError(
                "this Python came without pydoc_data, the default text: name a file with --text"
            ) from None
        return "\n".join(topics.values())
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: byte {error.start} is {error.reason}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


def make_corpus(text: str, batch_size: int, length: int) -> Corpus:
    """Splits `text`; both parts must give `batch_size` streams with at least one chunk each.

    Raises:
        ValueError: the text is too short; the message says how long it must be.
    """
    alphabet = "".join(sorted(set(text)))
    # The last character of a stream is only ever a target, hence the + 1.
    needed = batch_size * (length + 1) * VALIDATION_PART
    if len(text) < needed:
        raise ValueError(
            f"the text is too short: {len(text):,} characters, where {batch_size} streams of "
            f"{length} steps need {needed:,}; lower --batch-size or --length, or give more"
        )
    index = {character: i for i, character in enumerate(alphabet)}
    tokens = torch.tensor([index[character] for character in text], dtype=torch.int64)
    train, validation = tokens.tensor_split([len(tokens) - len(tokens) // VALIDATION_PART])
    return Corpus(alphabet, train, validation)


def chunks(tokens: Tensor, batch_size: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cuts `tokens` into `batch_size` parallel streams and yields them `length` steps at a time.

    Row n of a chunk continues row n of the one before, so that the LSTM's state can be carried on.

    Yields:
        inputs and targets, each (length, batch_size); targets are the inputs one step later.
    """
    steps = len(tokens) // batch_size
    streams = tokens[: steps * batch_size].view(batch_size, steps).t().contiguous()
    for start in range(0, steps - length, length):
        yield streams[start : start + length], streams[start + 1 : start + length + 1]


def find_sentence(text: str, shortest: int = 44, longest: int = 64) -> str:
    """A sentence of `text` that fits a picture; one with quotation marks, where there is one."""
    flowing = re.sub(r"\s+", " ", text)
    sentences: list[str] = [
        sentence
        for sentence in re.findall(r"(?<=\. )[A-Z][^.]+\.(?= )", flowing)
        if shortest <= len(sentence) <= longest
    ]
    quoting = [sentence for sentence in sentences if sentence.count('"') == 2]
    return next(iter(quoting + sentences), flowing[:longest])
