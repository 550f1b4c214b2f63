"""record and stream: the states of the LSTM inside a model, whatever surrounds it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lstm_kernels import LSTM, LSTMCell

from ._recording import Recording, refuse_nan

Module = TypeVar("Module", bound=nn.Module)
Kept = TypeVar("Kept")
Batch: TypeAlias = tuple[Any, tuple[Any, ...]]


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

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> memory.record(lstm, x)
        Recording(layers=1, steps=40, sequences=6, units=8, gates=True, padded=False)
    """
    module = find(model, lstm, (LSTM,))
    check_input(x)
    kept: list[Recording] = []

    def replacement(forward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        result, recording = recorded_call(module, forward, arguments, gates=gates)
        kept.append(recording)
        return result

    with torch.no_grad(), evaluating(model), intercepted(module, replacement):
        model(x)
    return called_once(kept)


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

    Raises:
        ValueError: when an analysis takes a batch, what `record` raises.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> memory.retention(memory.stream(lstm, [x, x], progress=False)).steps
        480
    """
    for x, _ in batches(data, progress):
        yield record(model, x, gates=gates, lstm=lstm)


def find(model: nn.Module, name: str | None, kinds: tuple[type[Module], ...]) -> Module:
    """The recurrent module of a model, chosen by its name if there are several.

    Raises:
        TypeError: `model` is not a module.
        ValueError: `model` has no such module, or several and `name` is missing, or none of that
            name.
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
    """Evaluation mode, without dropout; a compiled model runs its own code, not the compiled."""
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


def recorded_call(
    lstm: LSTM, forward: Callable[..., Any], arguments: dict[str, Any], *, gates: bool
) -> tuple[tuple[Any, ...], Recording]:
    """Runs one intercepted call of an LSTM so that it returns its states.

    Args:
        gates: the recording needs the gates, even if the caller did not ask for them.

    Returns:
        What the caller asked for, `(output, (h_n, c_n))` or that and the states; and the recording.
    """
    asked_gates = bool(arguments.get("return_gates"))
    asked_states = asked_gates or bool(arguments.get("return_states"))
    output, last, states = forward(
        **arguments | {"return_states": True, "return_gates": gates or asked_gates}
    )
    recording = Recording.of(states, batch_first=lstm.batch_first, lengths=arguments.get("lengths"))
    if not asked_states:
        return (output, last), recording
    return (output, last, states if asked_gates else states._replace(gates=None)), recording


def called_once(kept: list[Kept]) -> Kept:
    """The one call of the LSTM that a run of the model made."""
    if len(kept) != 1:
        raise ValueError(
            f"model called its LSTM {len(kept)} times for one input; "
            "the analyses need one call with the whole sequence"
        )
    return kept[0]
