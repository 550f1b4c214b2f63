"""gradient_flow: how the gradient of a loss travels back through both states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import PackedSequence

from lstm_kernels import LSTM

from ._adjoints import Outside, lstm_adjoints
from ._record import (
    batches,
    called_once,
    check_input,
    evaluating,
    find,
    intercepted,
    recorded_call,
)
from ._recording import Layout, Recording, map_states
from ._repr import one_line
from ._unrolled_rnn import Steps, unrolled_rnn

Gradients = dict[str, list[Tensor]]  # per kind and layer (D, T, N, P or H)


@dataclass(frozen=True)
class GradientFlow:
    """Norms of the loss's gradient at every step, per layer (D, T), float64.

    All are L2 norms over the batch and the units of one direction; over several batches, the norm
    is as if all were one.

    Attributes:
        hidden: ||dL/dh_t||, over every way from h_t to the loss.
        cell: ||dL/dc_t||; None for an `nn.RNN`, which has none.
        highway: the part of dL/dc_t that came back along the cell alone. Nothing but forget gates
            has scaled it since it left the h_s that the loss reads. None for an `nn.RNN`.
        through_hidden: the rest of dL/dc_t, which went through recurrent weights on its way;
            None for an `nn.RNN`.
        loss: the sum of the losses of all batches.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> flow = memory.gradient_flow(lstm, x, lambda result: result[0][-1].square().sum())
        >>> flow.reach("hidden")[0] <= flow.reach("cell")[0] < 40  # steps back
        True
    """

    hidden: tuple[Tensor, ...]
    cell: tuple[Tensor, ...] | None
    highway: tuple[Tensor, ...] | None
    through_hidden: tuple[Tensor, ...] | None
    loss: float

    def __repr__(self) -> str:
        kinds = ["hidden"] if self.cell is None else ["hidden", "cell", "highway"]
        return one_line(
            self,
            layers=len(self.hidden),
            steps=self.hidden[0].shape[1],
            loss=self.loss,
            **{f"{kind}_reach": self.reach(kind) for kind in kinds},
        )

    def reach(self, kind: str, fraction: float = 0.01) -> tuple[int, ...]:
        """Per layer, how many steps before the last one the gradient first falls below a fraction.

        Of the gradient at the last step, in the forward direction; T where it never does. For a
        loss that looks at the last step only. `kind` is the name of one of the norms.
        """
        layers: tuple[Tensor, ...] | None = getattr(self, kind)
        if layers is None:
            raise ValueError(f"an nn.RNN has no {kind}")
        back = [norm[0].flip(0) for norm in layers]
        return tuple(int((v >= fraction * v[0]).long().cumprod(0).sum()) for v in back)


def gradient_flow(
    model: nn.Module,
    x: Any,
    loss: Callable[..., Tensor],
    *,
    lstm: str | None = None,
    progress: bool = True,
) -> GradientFlow:
    """||dL/dh_t|| and ||dL/dc_t|| at every step of every layer, from one backward pass.

    The model runs in evaluation mode and is put back as it was; no `.grad` is touched.

    Args:
        model: any module with one `lstm_kernels.LSTM` or `nn.RNN` inside.
        x: the input, or a data loader of inputs or of tuples that begin with the input.
        loss: maps the model's result, and whatever followed the input in a tuple, to a scalar. To
            see the gradient change with distance, let it look at the last step only.
        lstm: the name of the LSTM or RNN in `model.named_modules()`, where there are several.
        progress: show a progress bar over a data loader.

    Raises:
        ValueError: `model` has no LSTM or RNN, or calls it more than once; `loss` is no scalar, or
            does not depend on the states; `x` is empty or holds NaN.
        NotImplementedError: the LSTM computes a variant.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> flow = memory.gradient_flow(lstm, x, lambda result: result[0][-1].square().sum())
        >>> tuple(flow.cell[0].shape)  # (D, T)
        (1, 40)
    """
    module = find(model, lstm, (LSTM, nn.RNN))
    norms: dict[str, list[Tensor]] = {}
    total = 0.0
    for batch, rest in batches(x, progress):
        check_input(batch)

        def value_of(result: Any, rest: tuple[Any, ...] = rest) -> Tensor:
            return loss(result, *rest)

        if isinstance(module, LSTM):
            value, gradients = _trace_lstm(model, module, batch, value_of)
        else:
            assert isinstance(module, nn.RNN)
            value, gradients = _trace_rnn(model, module, batch, value_of)
        total += value
        for name, layers in gradients.items():
            found = [torch.linalg.vector_norm(v, dim=(2, 3), dtype=torch.float64) for v in layers]
            known = norms.get(name, [torch.zeros_like(v) for v in found])
            norms[name] = [_as_one(a, b) for a, b in zip(known, found, strict=True)]
    if not norms:
        raise ValueError("x is empty: there is nothing to analyse")
    kinds = {kind: tuple(v.cpu() for v in layers) for kind, layers in norms.items()}
    return GradientFlow(
        kinds["hidden"],
        kinds.get("cell"),
        kinds.get("highway"),
        kinds.get("through_hidden"),
        total,
    )


def _as_one(a: Tensor, b: Tensor) -> Tensor:
    """The norms (D, T) of two batches as if they were one, aligned at the first step."""
    steps = max(a.shape[1], b.shape[1])
    return torch.hypot(pad(a, (0, steps - a.shape[1])), pad(b, (0, steps - b.shape[1])))


def _differentiate(
    model: nn.Module,
    x: Any,
    loss: Callable[[Any], Tensor],
    leaves: Callable[[], list[Tensor]],
) -> tuple[float, list[Tensor | None]]:
    """The loss of one batch and its gradients with respect to the `leaves()` the run left."""
    with torch.enable_grad():
        value = loss(model(x))
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss must return a scalar tensor, got {got}")
        wanted = leaves()
        gradients: list[Tensor | None] = [None] * len(wanted)
        if value.requires_grad:
            gradients = list(torch.autograd.grad(value.squeeze(), wanted, allow_unused=True))
    if all(gradient is None for gradient in gradients):
        raise ValueError("loss does not depend on the states of the LSTM or RNN in model")
    return float(value.detach()), gradients


@dataclass(frozen=True)
class _Call:
    """One call of the LSTM, and the leaves that stand for what it returned."""

    arguments: dict[str, Any]
    recording: Recording
    leaves: tuple[Any, ...]  # (output, (h_n, c_n)), and the states if the model asked for them


def _trace_lstm(
    model: nn.Module, lstm: LSTM, x: Any, loss: Callable[[Any], Tensor]
) -> tuple[float, Gradients]:
    """Autograd from the loss to what the LSTM returned, the adjoint equations from there."""
    if lstm.variant is not None and lstm.variant.changes_steps:
        raise NotImplementedError(f"gradient_flow has no adjoint equations of {lstm.variant}")
    calls: list[_Call] = []

    def replacement(forward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        with torch.no_grad():
            result, recording = recorded_call(lstm, forward, arguments, gates=True)
        leaves = _each(_leaf, result)
        calls.append(_Call(arguments, recording, leaves))
        return _each(_copy, leaves)

    def leaves() -> list[Tensor]:
        found: list[Tensor] = []
        _each(found.append, called_once(calls).leaves)
        return [leaf.data if isinstance(leaf, PackedSequence) else leaf for leaf in found]

    with evaluating(model), intercepted(lstm, replacement):
        value, gradients = _differentiate(model, x, loss, leaves)
    call = calls[0]
    layout = call.recording.layout
    hx, reset = call.arguments.get("hx"), call.arguments.get("reset")
    with torch.no_grad():
        layers = lstm_adjoints(
            lstm,
            call.recording,
            _outside(call, gradients, lstm.num_layers),
            None if hx is None else _batched(hx[1], layout).contiguous(),
            None if reset is None else layout.time_first(reset).contiguous(),
        )
    return value, {
        "hidden": [layer.hidden for layer in layers],
        "cell": [layer.cell for layer in layers],
        "highway": [layer.highway for layer in layers],
        "through_hidden": [layer.cell - layer.highway for layer in layers],
    }


def _each(function: Callable[[Any], Any], result: tuple[Any, ...]) -> tuple[Any, ...]:
    """What an LSTM returned, with `function` applied to each tensor, always in the same order."""
    output, (h_n, c_n), *states = result
    return (
        function(output),
        (function(h_n), function(c_n)),
        *(map_states(function, value) for value in states),
    )


def _leaf(value: Tensor | PackedSequence) -> Tensor | PackedSequence:
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.detach().requires_grad_())
    return value.detach().requires_grad_()


def _copy(value: Tensor | PackedSequence) -> Tensor | PackedSequence:
    """What the model gets in place of a leaf: it may write to this."""
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.clone())
    return value.clone()


def _outside(call: _Call, gradients: list[Tensor | None], layers: int) -> Outside:
    """The gradients of the leaves, time first; they come in the order in which `_each` goes."""
    layout = call.recording.layout
    given = iter(gradients)

    def gradient(leaf: Any) -> Any:
        found = next(given)
        packed = isinstance(leaf, PackedSequence) and found is not None
        return leaf._replace(data=found) if packed else found

    def steps(value: Any) -> Tensor | None:
        return None if value is None else layout.time_first(value)

    def last(value: Tensor | None) -> Tensor | None:
        return None if value is None else _batched(value, layout).contiguous()

    output, (h_n, c_n), *states = _each(gradient, call.leaves)
    hidden, cell, gates = map_states(steps, states[0]) if states else (None, None, None)
    nothing: list[Tensor | None] = [None] * layers
    return Outside(
        steps(output), last(h_n), last(c_n), hidden or nothing, cell or nothing, gates or nothing
    )


def _batched(state: Tensor, layout: Layout) -> Tensor:
    """A first or last state as (L*D, N, ...)."""
    return state if layout.batched else state.unsqueeze(1)


def _trace_rnn(
    model: nn.Module, rnn: nn.RNN, x: Any, loss: Callable[[Any], Tensor]
) -> tuple[float, Gradients]:
    calls: list[list[Steps]] = []

    def replacement(forward: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        input = arguments["input"]
        layout = Layout(rnn.batch_first, isinstance(input, PackedSequence) or input.dim() == 3)
        result, hidden = unrolled_rnn(rnn, input, arguments.get("hx"), layout)
        calls.append(hidden)
        return result

    def leaves() -> list[Tensor]:
        return [h for steps in called_once(calls) for h in steps]

    with evaluating(model), intercepted(rnn, replacement):
        value, found = _differentiate(model, x, loss, leaves)
    shape = leaves()[0]
    given = iter(torch.zeros_like(shape) if g is None else g for g in found)
    directions = [torch.stack([next(given) for _ in steps]) for steps in calls[0]]
    per_layer = 1 + rnn.bidirectional
    layers = [directions[at : at + per_layer] for at in range(0, len(directions), per_layer)]
    return value, {"hidden": [torch.stack(layer) for layer in layers]}
