"""What is computed: one case is one shape, dtype and mode, with its cost."""

from dataclasses import asdict, dataclass

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Case:
    """One call of an LSTM, or of a training step: forward, and all gradients.

    T time steps, N batch, H hidden size; I input size, that of H where None.
    """

    T: int
    N: int
    H: int
    I: int | None = None
    dtype: str = "float32"
    training: bool = False
    layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    packed: bool = False
    cell: bool = False  # one call of LSTMCell
    analysis: str = ""  # of lstm_kernels.memory: which one follows the forward pass
    variant: str = ""  # of the LSTM, by its name in benchmarks/variants.py
    sweep: str = ""  # in a scaling group: which of the sizes is varied

    @property
    def input_size(self) -> int:
        return self.I or self.H

    @property
    def lengths(self) -> list[int]:
        """Of each sequence: all T, or, packed, spread evenly from T down to a quarter of it."""
        if not self.packed:
            return [self.T] * self.N
        return [self.T - 3 * self.T * n // (4 * max(1, self.N - 1)) for n in range(self.N)]

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def flops(self) -> int:
        """Floating-point operations of the products; backward has two for each of forward."""
        state = self.proj_size or self.H
        inputs = [self.input_size] + [self.directions * state] * (self.layers - 1)
        row = sum(2 * 4 * self.H * (size + state) + 2 * self.proj_size * self.H for size in inputs)
        return sum(self.lengths) * self.directions * row * (3 if self.training else 1)

    @property
    def recurrent_bytes(self) -> int:
        """Of W_hh, which every step reads whole."""
        return 4 * self.H * (self.proj_size or self.H) * BYTES[self.dtype]

    @property
    def recurrent_reads(self) -> int:
        """How often W_hh is read: once a step, layer and direction, and again backward."""
        return self.T * self.layers * self.directions * (2 if self.training else 1)

    def __str__(self) -> str:
        words = [f"T={self.T} N={self.N} H={self.H}"]
        words += [f"I={self.I}"] if self.I not in (None, self.H) else []
        words += [self.dtype] if self.dtype != "float32" else []
        words += [f"{self.layers} layers"] if self.layers > 1 else []
        words += ["bidirectional"] if self.bidirectional else []
        words += [f"proj {self.proj_size}"] if self.proj_size else []
        words += ["packed"] if self.packed else []
        words += ["training"] if self.training else []
        words += ["LSTMCell"] if self.cell else []
        words += [self.variant] if self.variant else []
        words += [self.analysis] if self.analysis else []
        return " ".join(words)

    def to_json(self) -> dict[str, object]:
        return asdict(self)
