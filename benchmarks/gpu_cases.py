"""What the GPU benchmark measures: questions in the order of their weight, each with its target."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .cases import Case

TYPES = ("bfloat16", "tf32", "float16")  # tf32: float32 tensors, products in TF32 allowed


@dataclass(frozen=True)
class Question:
    """Cases that share a target: ours at least `target` times as fast as the peer.

    `seconds` is the time for a case, all contenders together. Those that are `as_installed` leave
    every switch of torch where it is by default. What is `last` may take the run along when it
    hangs, so everything else is written down before.
    """

    name: str
    peer: str
    target: float
    cases: tuple[Case, ...]
    seconds: float = 0.3
    as_installed: bool = False
    last: bool = False


def case(N: int, H: int, dtype: str, training: bool = False, T: int = 512, **options: Any) -> Case:
    return Case(T, N, H, dtype=dtype, training=training, **options)


def questions() -> Iterator[Question]:
    """All of them; the benchmark takes as many as its time allows."""
    modes = (False, True)
    yield Question(
        "one layer",
        "nn.LSTM",
        3.0,
        tuple(
            case(N, H, dtype, training)
            for dtype in ("bfloat16", "tf32")
            for H in (256, 512, 1024)
            for N in (1, 16, 64)
            for training in modes
        ),
    )
    yield Question(
        "float32 as installed",
        "nn.LSTM",
        1.0,
        tuple(
            case(N, H, "float32", training)
            for H in (256, 1024)
            for N in (16, 64, 256)
            for training in modes
        ),
        as_installed=True,
    )
    yield Question(
        "fp16 where cuDNN is persistent",
        "nn.LSTM",
        1.1,
        tuple(
            case(N, H, "float16", training)
            for H in (256, 512, 1024)
            for N in (8, 64)
            for training in modes
        ),
    )
    options = ({"bidirectional": True}, {"packed": True}, {"layers": 2}, {"layers": 4})
    yield Question(
        "directions, packed, layers",
        "nn.LSTM",
        3.0,
        tuple(case(32, 512, "bfloat16", training, **o) for o in options for training in modes),
    )
    yield Question(
        "large products",
        "nn.LSTM",
        1.0,
        tuple(
            case(256, H, dtype, training, T=128)
            for dtype in ("bfloat16", "tf32")
            for H in (1024, 2048)
            for training in modes
        ),
    )
    yield Question(
        "variants",
        "our plain LSTM",
        0.9,
        tuple(
            case(N, 512, dtype, training, variant=variant)
            for variant in ("peephole", "coupled", "zoneout", "dropout")
            for dtype in ("bfloat16", "tf32")
            for N in (1, 16, 64)
            for training in modes
        ),
        seconds=0.1,
    )
    yield Question("states of every step", "LSTMCell loop", 20.0, (case(16, 512, "bfloat16"),))
    yield Question("states cost little", "without states", 0.97, (case(16, 512, "bfloat16"),))
    yield Question(
        "single step in a graph",
        "nn.LSTMCell",
        2.0,
        tuple(
            case(1, H, dtype, T=1, cell=True)
            for dtype in ("bfloat16", "float32")
            for H in (128, 512, 1024)
        ),
    )
    published: dict[str, Any] = {"N": 16, "H": 768, "T": 1024}
    yield Question(
        "published peers' shape",
        "nn.LSTM",
        1.1,
        tuple(
            case(dtype=dtype, training=training, **published)
            for dtype in ("float16", "bfloat16", "tf32")
            for training in modes
        ),
    )
    yield Question(
        "never slower",
        "nn.LSTM",
        1.0,
        tuple(
            case(N, H, dtype, training, T=128)
            for training in modes
            for H in (40, 129, 160, 192, 384, 768, 1536, 2048)
            for N in (1, 4, 8, 63, 64, 256)
            for dtype in (*TYPES, "float32")
        ),
        seconds=0.05,
    )
    yield Question(
        "against torch.compile",
        "compiled LSTMCell loop",
        1.0,
        (case(dtype="bfloat16", **published), case(dtype="tf32", **published)),
        last=True,
    )


# Of others, on an H100: T=1024, N=16, H=768, milliseconds for forward and for forward + backward.
PUBLISHED = {
    "nn.LSTM float16": (2.01, 5.19),
    "FlashRNN fused bfloat16": (4.87, 13.61),
    "Haste float32": (18.4, 43.9),
}
SOURCE = "Poeppel, Beck & Hochreiter 2024, FlashRNN, arXiv:2412.07752, on an H100"
