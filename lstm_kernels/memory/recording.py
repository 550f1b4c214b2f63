"""Reads the states of the LSTM inside a model, whatever surrounds it.

Every analysis starts from a `Recording`: the states of one batch in one layout. `record` makes one
from a model and an input, `stream` makes one per batch of a data loader and keeps none, and
`Recording.of` wraps states that a call with `return_states=True` gave.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lstm_kernels import LSTM, LSTMCell, LSTMStates

Module = TypeVar("Module", bound=nn.Module)
Batch: TypeAlias = tuple[Any, tuple[Any, ...]]


@dataclass(frozen=True)
class Layout:
    """How the caller lays out what has a value at every step."""

    batch_first: bool = False
    batched: bool = True

    def time_first(self, value: Tensor | PackedSequence) -> Tensor:
        """`value` as (T, N, ...), padded where it was packed."""
        if isinstance(value, PackedSequence):
            return pad_packed_sequence(value)[0]
        if not self.batched:
            return value.unsqueeze(1)
        return value.transpose(0, 1) if self.batch_first else value


def packed_like(packed: PackedSequence, value: Tensor) -> PackedSequence:
    """`value` (T, N, ...) packed as `packed` is."""
    if packed.sorted_indices is not None:
        value = value.index_select(1, packed.sorted_indices)
    lengths = (torch.arange(value.shape[1])[:, None] < packed.batch_sizes).sum(1)
    return packed._replace(data=pack_padded_sequence(value, lengths).data)


@dataclass(frozen=True)
class Recording:
    """The states of one batch, laid out (T, N, ...) whatever the layout of the model.

    Attributes:
        hidden: per layer (T, N, D*P).
        cell: per layer (T, N, D*H).
        gates: per layer (T, N, D, 4, H), or None.
        lengths: (N,), the number of valid steps of each sequence, or None where all T are.
        layout: how the caller's own tensors (targets, labels) map to (T, N, ...).
    """

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...]
    gates: tuple[Tensor, ...] | None = None
    lengths: Tensor | None = None
    layout: Layout = Layout()

    @classmethod
    def of(
        cls,
        states: LSTMStates,
        *,
        batch_first: bool = False,
        lengths: Tensor | None = None,
    ) -> Recording:
        """Wraps what `lstm(x, return_states=True)` returned.

        Args:
            states: of batched, unbatched or packed input.
            batch_first: the states are (N, T, ...), as a module with `batch_first=True` gives.
            lengths: (N,), the valid steps of each padded sequence; packed states know theirs.

        Raises:
            TypeError: `states` is not an `LSTMStates`.
        """
        if not isinstance(states, LSTMStates):
            raise TypeError(f"states must be LSTMStates or Recordings, got {type(states).__name__}")
        first = states.hidden[0]
        if isinstance(first, PackedSequence):
            layout = Layout(batch_first)
            lengths = pad_packed_sequence(first)[1].to(first.data.device)
        else:
            layout = Layout(batch_first, batched=first.dim() == 3)

        def each(values: Iterable[Tensor | PackedSequence]) -> tuple[Tensor, ...]:
            return tuple(layout.time_first(value) for value in values)

        gates = None if states.gates is None else each(states.gates)
        return cls(each(states.hidden), each(states.cell), gates, lengths, layout)

    @property
    def sequences(self) -> int:
        """N, how many sequences were recorded."""
        return int(self.cell[0].shape[1])

    @property
    def steps(self) -> int:
        """T, the steps of the longest sequence."""
        return int(self.cell[0].shape[0])

    @property
    def empty(self) -> bool:
        """No sequence has a step."""
        lengths = self.lengths
        return self.steps * self.sequences == 0 or (lengths is not None and not lengths.any())

    @property
    def valid(self) -> Tensor | None:
        """(T, N) bool, True where a sequence has that step; None where all have."""
        if self.lengths is None:
            return None
        return torch.arange(self.steps, device=self.lengths.device)[:, None] < self.lengths

    def rows(self, value: Tensor) -> Tensor:
        """The valid steps of `value` (T, N, ...) side by side, (R, ...)."""
        return value.flatten(0, 1) if self.lengths is None else value[self.valid]

    def gate(self, layer: int, index: int) -> Tensor:
        """One activated gate of a layer, (R, D*H); index 0..3 for i, f, g, o."""
        assert self.gates is not None
        return self.rows(self.gates[layer][..., index, :].flatten(-2))


States: TypeAlias = "LSTMStates | Recording | Iterable[LSTMStates | Recording]"


def recordings(states: States, *, gates: bool = False) -> Iterator[Recording]:
    """The recordings that an analysis was given: one, several, or a stream of them.

    Raises:
        TypeError: `states` is something else.
        ValueError: there are none, gates are needed and absent, or a state holds NaN.
    """
    if isinstance(states, (LSTMStates, Recording)):
        states = [states]
    elif not isinstance(states, Iterable):
        raise TypeError(f"states must be LSTMStates or Recordings, got {type(states).__name__}")
    count = 0
    for item in states:
        recording = item if isinstance(item, Recording) else Recording.of(item)
        if gates and recording.gates is None:
            raise ValueError(
                "states holds no gates, and this analysis needs them: call the LSTM with "
                "return_gates=True, or record with gates=True"
            )
        if recording.empty:
            continue
        for name, values in (("cell", recording.cell), ("hidden", recording.hidden)):
            for layer, value in enumerate(values):
                refuse_nan(value, f"states.{name}[{layer}]")
        count += 1
        yield recording
    if count == 0:
        raise ValueError("states is empty: there is nothing to analyse")


def refuse_nan(value: Tensor, name: str) -> None:
    """Raises ValueError where a floating `value` holds NaN."""
    if value.is_floating_point() and bool(value.sum().isnan()) and bool(value.isnan().any()):
        raise ValueError(f"{name} holds NaN")


def find(model: nn.Module, name: str | None, kinds: tuple[type[Module], ...]) -> Module:
    """The recurrent module of a model, by its name where there are several.

    Raises:
        TypeError: `model` is not a module.
        ValueError: there is none, several and no name, or none of that name.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = {at: module for at, module in model.named_modules() if isinstance(module, kinds)}
    wanted = " or ".join(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in kinds)
    if not found:
        other = next((m for m in model.modules() if isinstance(m, (nn.LSTM, LSTMCell))), None)
        hint = ""
        if isinstance(other, nn.LSTM):
            hint = "; it has a torch.nn.LSTM, which lstm_kernels.replace_lstm(model) exchanges"
        elif other is not None:
            hint = (
                "; it has an LSTMCell, whose loop already holds the states: stack what its calls "
                "return, and analyse LSTMStates((h,), (c,), (gates.unsqueeze(2),))"
            )
        raise ValueError(f"model has no {wanted} inside{hint}")
    if name is None:
        if len(found) > 1:
            raise ValueError(
                f"model has {len(found)} of {wanted}; choose with lstm=, one of {list(found)}"
            )
        return next(iter(found.values()))
    if name not in found:
        raise ValueError(f"model has no {wanted} named {name!r}; there are {list(found)}")
    return found[name]


@contextmanager
def intercepted(module: nn.Module, replacement: Callable[..., Any]) -> Iterator[None]:
    """Calls of `module` go to `replacement(forward, arguments)`, arguments bound by name."""
    forward = module.forward
    signature = inspect.signature(forward)

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        return replacement(forward, dict(bound.arguments))

    own = vars(module).get("forward")
    module.forward = call
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout), the code of the module itself even where it was compiled."""
    training = [module for module in model.modules() if module.training]
    compiled = "torch._dynamo" in sys.modules
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager") if compiled else nullcontext())
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def batches(data: Any, progress: bool = True) -> Iterable[Batch]:
    """The batches of `data`, each as its input and what else came with it.

    A tensor or PackedSequence is one batch; otherwise `data` is iterated, a data loader say, and of
    a tuple or list the first element is the input.
    """
    if isinstance(data, (Tensor, PackedSequence)):
        return [(data, ())]
    if not isinstance(data, Iterable):
        raise TypeError(
            f"data must be a tensor, a PackedSequence or iterable, got {type(data).__name__}"
        )
    return (_split(batch) for batch in _with_progress(data, progress))


def _split(batch: Any) -> Batch:
    if isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence):
        return batch[0], tuple(batch[1:])
    return batch, ()


def _with_progress(data: Iterable[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return data
    try:
        from tqdm import tqdm
    except ImportError:
        return data
    # disable=None: silent where no terminal listens
    shown: Iterable[Any] = tqdm(data, desc="states", unit="batch", disable=None)
    return shown


def check_input(x: Any) -> None:
    """Raises ValueError where the input `x` of a model holds NaN."""
    value = x.data if isinstance(x, PackedSequence) else x
    if isinstance(value, Tensor):
        refuse_nan(value, "x")


def record(model: nn.Module, x: Any, *, gates: bool = True, lstm: str | None = None) -> Recording:
    """Runs `model(x)` once and returns what the LSTM inside it held at every step.

    The model runs in evaluation mode without gradients and is put back as it was.

    Args:
        model: any module with one `lstm_kernels.LSTM` inside, or the LSTM itself.
        x: what the model takes; a PackedSequence and a padded input with `lengths=` are understood.
        gates: also keep the gates (four times the size of a state).
        lstm: the name of the LSTM in `model.named_modules()`, where there are several.

    Raises:
        ValueError: `model` has no such LSTM, calls it more than once or never, or `x` holds NaN.
    """
    module = find(model, lstm, (LSTM,))
    check_input(x)
    kept: list[Recording] = []

    def replacement(forward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        asked_gates = bool(arguments.get("return_gates"))
        asked = asked_gates or bool(arguments.get("return_states"))
        arguments |= {"return_states": True, "return_gates": gates or asked_gates}
        output, last, states = forward(**arguments)
        recording = Recording.of(
            states, batch_first=module.batch_first, lengths=arguments.get("lengths")
        )
        kept.append(recording)
        if not asked:
            return output, last
        return output, last, states if asked_gates else states._replace(gates=None)

    with torch.no_grad(), evaluating(model), intercepted(module, replacement):
        model(x)
    return called_once(kept)


Kept = TypeVar("Kept")


def called_once(kept: list[Kept]) -> Kept:
    """The one call of the LSTM that a run of the model made."""
    if len(kept) != 1:
        raise ValueError(
            f"model called its LSTM {len(kept)} times for one input; "
            "the analyses need one call with the whole sequence"
        )
    return kept[0]


def stream(
    model: nn.Module,
    data: Any,
    *,
    gates: bool = True,
    lstm: str | None = None,
    progress: bool = True,
) -> Iterator[Recording]:
    """Records batch after batch, keeping none: give the result to an analysis.

    Args:
        model, gates, lstm: as for `record`.
        data: a data loader, or any iterable of inputs or of tuples that begin with the input.
        progress: show a progress bar where tqdm is installed and a terminal listens.
    """
    for x, _ in batches(data, progress):
        yield record(model, x, gates=gates, lstm=lstm)
