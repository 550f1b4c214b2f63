"""Pictures of the analyses. Each function draws on one matplotlib Axes and returns it.

Colours tell apart with any colour vision (Okabe & Ito); the cell state is always blue, the
hidden state always orange.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lstm_kernels import LSTMStates
from lstm_kernels._layer import FORGET_GATE, INPUT_GATE, OUTPUT_GATE

from ._gradient_flow import GradientFlow
from ._horizon import Horizon
from ._recording import Recording, recordings
from ._retention import Retention, Saturation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL, HIDDEN, HIGHWAY, OTHER = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_DASHES = ("-", "--", ":", "-.")  # one per layer
_DIVERGING = "PuOr_r"
_UNITS_SHOWN = 24


def states(
    states: LSTMStates | Recording,
    *,
    state: Literal["cell", "hidden"] = "cell",
    layer: int = -1,
    sequence: int = 0,
    units: Sequence[int] | None = None,
    tokens: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A state of one sequence as a heat map, units against steps.

    Args:
        states: one `LSTMStates` or `Recording`.
        state, layer, sequence: which state to draw.
        units: which units, from the top; default, the 24 whose state varies most.
        tokens: one label per step, written along t.
        ax: where to draw; default, a new figure.

    Raises:
        ValueError: `tokens` does not have one label per step.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> ax = memory.plot.states(memory.record(lstm, x), state="hidden")
    """
    recording = next(recordings(states))
    values = _sequence(recording, getattr(recording, state)[layer], sequence)
    if units is None:
        units = values.std(0, correction=0).argsort(descending=True)[:_UNITS_SHOWN].tolist()
    values = values[:, list(units)]
    if tokens is not None and len(tokens) != len(values):
        raise ValueError(f"tokens must have {len(values)} labels, one per step, got {len(tokens)}")
    ax = ax or _axes()
    bound = float(values.abs().max()) or 1.0
    image = ax.imshow(
        values.T.numpy(),
        aspect="auto",
        cmap=_DIVERGING,
        vmin=-bound,
        vmax=bound,
        interpolation="nearest",
    )
    ax.figure.colorbar(image, ax=ax, label=f"{state} state", pad=0.01)
    ax.set_yticks(range(len(units)), [str(unit) for unit in units], fontsize=7)
    ax.set_ylabel("unit")
    _label_steps(ax, tokens)
    return ax


def retention(retention: Retention, *, ax: Axes | None = None) -> Axes:
    """The half-life of every unit's cell, the longest first; a line per layer.

    The band of the first layer runs from the 10% to the 90% quantile over the steps.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> ax = memory.plot.retention(memory.retention(memory.record(lstm, x)))
    """
    ax = ax or _axes()
    longest = 1.0
    for layer, (life, order) in enumerate(zip(retention.half_life, retention.order, strict=True)):
        rank = range(1, len(order) + 1)
        finite = life[order]
        longest = max(
            longest, float(finite[finite.isfinite()].max()) if finite.isfinite().any() else 1
        )
        ax.plot(rank, finite, color=CELL, linestyle=_DASHES[layer % 4], label=f"layer {layer}")
        if layer == 0:
            quantiles = retention.half_life_quantiles[0][:, order]
            ax.fill_between(rank, quantiles[0], quantiles[-1], color=CELL, alpha=0.2, linewidth=0)
    ax.set_yscale("log")
    ax.set_ylim(top=10 * longest)
    ax.set_xlabel("units, the longest half-life first")
    ax.set_ylabel("half-life of the cell state (steps)")
    ax.legend(frameon=False)
    return _grid(ax)


def saturation(saturation: Saturation, *, layer: int = -1, ax: Axes | None = None) -> Axes:
    """One dot per unit and gate: how often it is shut against how often it is open.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> ax = memory.plot.saturation(memory.saturation(memory.record(lstm, x)))
    """
    ax = ax or _axes()
    gates = (
        ("input", INPUT_GATE, OTHER, "o"),
        ("forget", FORGET_GATE, CELL, "s"),
        ("output", OUTPUT_GATE, HIDDEN, "^"),
    )
    for name, index, colour, marker in gates:
        shut, open_ = saturation.shut[layer][index], saturation.open[layer][index]
        ax.scatter(
            shut, open_, 18, colour, marker=marker, alpha=0.6, linewidths=0, label=f"{name} gate"
        )
    ax.plot([0, 1], [1, 0], color="0.6", linewidth=0.8)  # shut and open cannot exceed 1 together
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel(f"fraction of steps shut (< {saturation.below:g})")
    ax.set_ylabel(f"fraction of steps open (> {saturation.above:g})")
    ax.legend(frameon=False)
    return _grid(ax)


def gradient_flow(
    flow: GradientFlow, *, layer: int = -1, name: str = "", ax: Axes | None = None
) -> Axes:
    """The norm of the gradient at every step: of c_t, of h_t, and of c_t along the cell alone.

    Of a bidirectional LSTM the forward direction is drawn. `name` goes before the labels, for
    several models on one Axes.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> flow = memory.gradient_flow(lstm, x, lambda result: result[0][-1].square().sum())
        >>> ax = memory.plot.gradient_flow(flow)
    """
    ax = ax or _axes()
    name = name and f"{name}: "
    plain = flow.cell is None
    lines = [("dL/dh", flow.hidden, OTHER if plain else HIDDEN, "-")]
    if flow.cell is not None and flow.highway is not None:
        lines.append(("dL/dc", flow.cell, CELL, "-"))
        lines.append(("dL/dc along the cell alone", flow.highway, HIGHWAY, "--"))
    for label, layers, colour, dashes in lines:
        norm = layers[layer][0]
        ax.plot(norm.where(norm > 0, torch.nan), dashes, color=colour, label=f"{name}{label}")
    ax.set_yscale("log")
    ax.set_xlabel("step t")
    ax.set_ylabel("norm of the gradient")
    ax.legend(frameon=False)
    return _grid(ax)


def horizon(horizon: Horizon, *, name: str = "", ax: Axes | None = None) -> Axes:
    """How well h_t and c_t know what was k steps back; a line per state and layer.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> ax = memory.plot.horizon(memory.horizon(lstm, x, max_lag=3))
    """
    ax = ax or _axes()
    name = name and f"{name}: "
    for state, layers, colour in (("hidden", horizon.hidden, HIDDEN), ("cell", horizon.cell, CELL)):
        for layer, score in enumerate(layers):
            label = f"{name}{state} state" + (f", layer {layer}" if len(layers) > 1 else "")
            shown = score.clamp(min=float(horizon.chance.min()) - 0.05)
            ax.plot(horizon.lags, shown, color=colour, linestyle=_DASHES[layer % 4], label=label)
    ax.plot(horizon.lags, horizon.chance, color="0.5", linewidth=0.8, label="chance")
    ax.set_ylim(top=1.03)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("lag k (steps back)")
    metric = "$R^2$" if horizon.metric == "R2" else "accuracy"
    ax.set_ylabel(f"{metric} of a linear probe, held out")
    ax.legend(frameon=False)
    return _grid(ax)


def text(
    tokens: Sequence[str],
    values: Tensor,
    *,
    columns: int = 80,
    ax: Axes | None = None,
) -> Axes:
    """Tokens on a ground coloured by one unit's state.

    Args:
        tokens: characters or words, one per step.
        values: (T,), the state of one unit, say `recording.cell[0][:, 0, unit]`.
        columns: characters per line.
        ax: where to draw; default, a new figure as high as the text needs.

    Raises:
        ValueError: there are not as many values as tokens.

    Examples:
        >>> import torch
        >>> from lstm_kernels import memory
        >>> ax = memory.plot.text(list("To be."), torch.randn(6))
    """
    if values.shape != (len(tokens),):
        raise ValueError(
            f"values must be ({len(tokens)},), one per token, got {tuple(values.shape)}"
        )
    places, line, column = [], 0, 0
    for token in tokens:
        width = max(1, len(token.rstrip("\n")))
        if column + width > columns and column > 0:
            line, column = line + 1, 0
        places.append((column, line, width))
        column += width
        if token.endswith("\n"):
            line, column = line + 1, 0
    lines = places[-1][1] + 1 if places else 1
    ax = ax or _axes(height=0.7 + 0.19 * lines)

    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    bound = float(values.abs().max()) or 1.0
    scale = Normalize(-bound, bound)
    colours = colormaps[_DIVERGING](scale(values.detach().cpu().double().numpy()))
    inches = ax.get_window_extent().width / ax.figure.dpi
    size = 72 * inches / columns / 0.62  # a monospaced glyph is 0.6 of its size wide
    for token, (x, y, width), colour in zip(tokens, places, colours, strict=True):
        ax.add_patch(Rectangle((x, y), width, 1, facecolor=colour, linewidth=0))
        ink = "white" if colour[:3] @ (0.299, 0.587, 0.114) < 0.5 else "black"
        shown = token.rstrip("\n") or "\u21b5"
        ax.text(x, y + 0.5, shown, color=ink, family="monospace", fontsize=size, va="center")
    ax.set_xlim(0, columns)
    ax.set_ylim(lines, 0)
    ax.axis("off")
    return ax


def _axes(height: float = 4.0) -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error
    ax: Axes = pyplot.subplots(figsize=(8, height), layout="constrained")[1]
    return ax


def _sequence(recording: Recording, value: Tensor, sequence: int) -> Tensor:
    """The valid steps of one sequence, (T, F), on the CPU."""
    if not 0 <= sequence < recording.sequences:
        raise ValueError(f"sequence must be in 0..{recording.sequences - 1}, got {sequence}")
    steps = recording.steps if recording.lengths is None else int(recording.lengths[sequence])
    return value[:steps, sequence].detach().cpu().float()


def _label_steps(ax: Axes, tokens: Sequence[str] | None) -> None:
    if tokens is None:
        ax.set_xlabel("step t")
        return
    shown = [token.replace("\n", "\u21b5") for token in tokens]
    size = 9 if len(shown) <= 80 else 5
    turned = 90 if max(map(len, shown), default=0) > 1 else 0
    ax.set_xticks(range(len(shown)), shown, fontsize=size, family="monospace", rotation=turned)
    ax.tick_params(axis="x", length=0)
    ax.set_xlabel("token at step t")


def _grid(ax: Any) -> Axes:
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    result: Axes = ax
    return result
