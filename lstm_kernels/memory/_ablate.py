"""ablate: what a model does without its states, changed between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lstm_kernels import LSTM, LSTMStates

from ._record import called_once, check_input, evaluating, find, intercepted
from ._recording import Layout, map_states, packed_like
from ._repr import one_line

State = Literal["both", "cell", "hidden"]
Change = Literal["zero", "hold", "swap"]


@dataclass(frozen=True)
class Ablation:
    """What the model returned with its memory as it is, and with its memory changed.

    Attributes:
        baseline: the model's result (the first one, where it returns several).
        output: the same after the intervention.
        baseline_loss, loss: of the two, where a loss was given.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> swapped = memory.ablate(lstm, x, 20, change="swap", loss=lambda y: y[0][-1].sum())
        >>> tuple(swapped.change.shape), swapped.loss != swapped.baseline_loss
        ((40, 6), True)
    """

    baseline: Tensor
    output: Tensor
    baseline_loss: float | None
    loss: float | None

    def __repr__(self) -> str:
        moved = (self.output.double() - self.baseline.double()).abs()
        return one_line(
            self,
            output=tuple(self.output.shape),
            largest_change=float(moved.max()) if moved.numel() else 0.0,
            baseline_loss=self.baseline_loss,
            loss=self.loss,
        )

    @property
    def change(self) -> Tensor:
        """The L2 norm of the difference over the last dimension: (T, N) of (T, N, F)."""
        difference: Tensor = torch.linalg.vector_norm(self.output - self.baseline, dim=-1)
        return difference


def ablate(
    model: nn.Module,
    x: Any,
    steps: int | Iterable[int],
    units: int | Sequence[int] | None = None,
    *,
    state: State = "both",
    change: Change = "zero",
    layer: int | None = None,
    norm: float | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    lstm: str | None = None,
) -> Ablation:
    """Runs `model(x)` as it is, and with the memory changed before some steps.

    Before each step t of `steps`, the h_{t-1} or c_{t-1} that the step reads is replaced. The
    output at t-1 stays as it was. The sequence runs in pieces, each from the changed state of the
    piece before it. The model runs in evaluation mode without gradients.

    Args:
        model: any module with one `lstm_kernels.LSTM` inside, not a bidirectional one: there, no
            single state separates past from future.
        x: its input.
        steps: a step or several, 0..T-1.
        units: which units; default, all.
        state: change the "cell" state, the "hidden" state, or "both".
        change: "zero" erases; "hold" keeps what the state was before the first of the steps; "swap"
            gives each sequence the state of the next one in the batch.
        layer: of which layer; default, of every layer.
        norm: scale what changes in each state of a sequence, per layer, to this L2 norm, so that
            changes of c and of h compare; default, the change as it is.
        loss: maps the model's result to a scalar, evaluated for both runs.
        lstm: the name of the LSTM in `model.named_modules()`, where there are several.

    Raises:
        TypeError: `steps` is no integers, say the loss.
        ValueError: a step, unit or layer is out of range, `state` or `change` is unknown, or `norm`
            is not above 0. There is nothing to swap with, the LSTM is bidirectional, or `record`
            refuses the model.
        NotImplementedError: the model calls its LSTM with masks or states to reset to.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> erased = memory.ablate(lstm, x, steps=20, state="cell")
        >>> float(erased.change[:20].max()), bool(erased.change[20].min() > 0)
        (0.0, True)
    """
    module = find(model, lstm, (LSTM,))
    check_input(x)
    edit = _Edit(module, _integers(steps, "steps"), units, state, change, layer, norm)
    calls: list[None] = []

    def replacement(forward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        calls.append(None)
        return _run(module, forward, arguments, edit)

    with torch.no_grad(), evaluating(model):
        with intercepted(module, replacement):
            ablated = model(x)
        called_once(calls)
        baseline = model(x)
        losses = [None if loss is None else float(loss(result)) for result in (baseline, ablated)]
    return Ablation(_first(baseline), _first(ablated), *losses)


class _Edit:
    """A checked intervention: which entries of the states change before which steps, and how."""

    def __init__(
        self,
        lstm: LSTM,
        steps: list[int],
        units: int | Sequence[int] | None,
        state: State,
        change: Change,
        layer: int | None,
        norm: float | None,
    ) -> None:
        if lstm.bidirectional:
            raise ValueError(
                "ablate() does not support a bidirectional LSTM: "
                "no single state separates past from future"
            )
        if state not in get_args(State):
            raise ValueError(f"state must be one of {get_args(State)}, got {state!r}")
        if change not in get_args(Change):
            raise ValueError(f"change must be one of {get_args(Change)}, got {change!r}")
        if layer is not None and not -lstm.num_layers <= layer < lstm.num_layers:
            raise ValueError(f"layer must be less than {lstm.num_layers}, got {layer}")
        if norm is not None and not 0 < norm < float("inf"):
            raise ValueError(f"norm must be above 0 and finite, got {norm}")
        self.steps = sorted(set(steps))
        everywhere = layer is None and units is None and norm is None
        self.erases_all = change == "zero" and state == "both" and everywhere
        self._norm = norm
        self._hidden, self._cell = state != "cell", state != "hidden"
        self._change = change
        self._layers = range(lstm.num_layers) if layer is None else [layer]
        self._units = None if units is None else _integers(units, "units")
        self._held: tuple[Tensor, Tensor] | None = None
        sizes = [lstm.proj_size or lstm.hidden_size] * self._hidden + [
            lstm.hidden_size
        ] * self._cell
        for unit in self._units or []:
            if not 0 <= unit < min(sizes):
                raise ValueError(f"units must be in 0..{min(sizes) - 1}, got {unit}")

    def check(self, total: int, sequences: int) -> None:
        """Of a call on (T, N): the steps are there, and something to swap with."""
        for step in self.steps:
            if not 0 <= step < total:
                raise ValueError(f"steps must be in 0..{total - 1}, got {step}")
        if self._change == "swap" and sequences < 2:
            raise ValueError("change='swap' needs at least two sequences in x")

    def apply(self, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The states (L, N, ...) that the step reads in place of h and c."""
        if self._held is None:
            self._held = h, c
        held_h, held_c = self._held
        return (
            self._changed(h, held_h) if self._hidden else h,
            self._changed(c, held_c) if self._cell else c,
        )

    def _changed(self, state: Tensor, held: Tensor) -> Tensor:
        source = {
            "zero": lambda: torch.zeros_like(state),
            "hold": lambda: held,
            "swap": lambda: state.roll(-1, dims=1),
        }[self._change]()
        result = state.clone()
        units = slice(None) if self._units is None else self._units
        for layer in self._layers:
            result[layer][:, units] = source[layer][:, units]
        if self._norm is None:
            return result
        moved = result - state
        size = torch.linalg.vector_norm(moved, dim=2, keepdim=True)
        return state + moved * torch.where(size > 0, self._norm / size, 0)


def _run(lstm: LSTM, forward: Callable[..., Any], arguments: dict[str, Any], edit: _Edit) -> Any:
    """What `forward(**arguments)` returns, with the states edited between the steps."""
    packed = arguments["input"] if isinstance(arguments["input"], PackedSequence) else None
    if packed is not None:
        padded, lengths = pad_packed_sequence(packed, batch_first=lstm.batch_first)
        arguments |= {"input": padded, "lengths": lengths.to(padded.device)}
    layout = Layout(lstm.batch_first, batched=arguments["input"].dim() == 3)
    total, sequences = layout.time_first(arguments["input"]).shape[:2]
    edit.check(total, sequences)
    if edit.erases_all:
        output, last, *states = forward(**arguments | {"reset": _resets(arguments, edit, layout)})
    else:
        output, last, *states = _in_pieces(lstm, forward, arguments, edit, layout)
    if packed is None:
        return output, last, *states

    def pack(value: Tensor) -> PackedSequence:
        return packed_like(packed, layout.time_first(value))

    return pack(output), last, *(map_states(pack, value) for value in states)


def _resets(arguments: dict[str, Any], edit: _Edit, layout: Layout) -> Tensor:
    """The LSTM's own way to forget everything: one run, no pieces."""
    input, given = arguments["input"], arguments.get("reset")
    reset: Tensor = (
        input.new_zeros(input.shape[:-1], dtype=torch.bool) if given is None else given.clone()
    )
    layout.time_first(reset)[edit.steps] = True
    return reset


def _in_pieces(
    lstm: LSTM,
    forward: Callable[..., Any],
    arguments: dict[str, Any],
    edit: _Edit,
    layout: Layout,
) -> tuple[Any, ...]:
    """Runs the steps from one edit to the next, each piece from the state the edit left."""
    input, lengths, reset = arguments["input"], arguments.get("lengths"), arguments.get("reset")
    for name in ("masks", "reset_state"):
        if arguments.get(name) is not None:
            raise NotImplementedError(f"ablate does not cut {name} between steps")
    gate = arguments.get("input_gate")
    time = 1 if layout.batched and layout.batch_first else 0
    total = input.shape[time]
    hx = arguments.get("hx") or _zeros(lstm, input, layout)
    starts = sorted({0, *edit.steps})
    pieces = []
    for start, stop in zip(starts, [*starts[1:], total], strict=True):
        if start in edit.steps:
            hx = edit.apply(*hx) if layout.batched else _unbatched(edit.apply, hx)
        piece = {"input": input.narrow(time, start, stop - start), "hx": hx}
        if lengths is not None:
            piece["lengths"] = (lengths - start).clamp(0, stop - start)
        if reset is not None:
            piece["reset"] = reset.narrow(time, start, stop - start)
        if gate is not None and gate.dim() == input.dim():  # one for each step
            piece["input_gate"] = gate.narrow(time, start, stop - start)
        output, hx, *states = forward(**arguments | piece)
        pieces.append((output, states))
    outputs, states = zip(*pieces, strict=True)

    def join(values: Iterable[Tensor]) -> Tensor:
        return torch.cat(tuple(values), time)

    joined = [_together(join, [piece[0] for piece in states])] if states[0] else []
    return join(outputs), hx, *joined


def _together(join: Callable[[Iterable[Tensor]], Tensor], pieces: list[LSTMStates]) -> LSTMStates:
    """The states of all pieces as those of one call."""
    hidden, cell, gates = (
        None if kind[0] is None else tuple(map(join, zip(*kind, strict=True)))
        for kind in zip(*pieces, strict=True)
    )
    assert hidden is not None
    assert cell is not None
    return LSTMStates(hidden, cell, gates)


def _zeros(lstm: LSTM, input: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    batch = [layout.time_first(input).shape[1]] if layout.batched else []
    h, c = (
        torch.zeros(lstm.num_layers, *batch, size, dtype=input.dtype, device=input.device)
        for size in (lstm.proj_size or lstm.hidden_size, lstm.hidden_size)
    )
    return h, c


def _unbatched(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], hx: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    h, c = function(hx[0].unsqueeze(1), hx[1].unsqueeze(1))
    return h.squeeze(1), c.squeeze(1)


def _first(result: Any) -> Tensor:
    """The tensor of a model's result that ablations are compared by."""
    if isinstance(result, (tuple, list)) and not isinstance(result, PackedSequence):
        result = result[0]
    if isinstance(result, PackedSequence):
        result = result.data
    if not isinstance(result, Tensor):
        raise TypeError(f"model must return a tensor, or it first, got {type(result).__name__}")
    return result


def _integers(value: int | Iterable[int], name: str) -> list[int]:
    if callable(value):
        raise TypeError(f"{name} must be an int or several, got a function; is it loss=?")
    values = [value] if isinstance(value, int) else list(value)
    if not values:
        raise ValueError(f"{name} is empty")
    if not all(isinstance(v, int) or (isinstance(v, Tensor) and v.numel() == 1) for v in values):
        raise TypeError(f"{name} must be an int or several, got {value!r}")
    return [int(v) for v in values]
