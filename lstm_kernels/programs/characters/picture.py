"""The picture: what a trained LSTM keeps, shows and erases along a sentence."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from lstm_kernels._layer import FORGET_GATE
from lstm_kernels.memory import retention

from .model import CharacterModel

# Okabe and Ito's colour-blind safe palette: blues remember long, oranges briefly.
COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00")
TEXT = "#333333"


@torch.no_grad()
def measure_units(model: CharacterModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """How long each unit of the last layer remembers, and how much it does.

    Args:
        tokens: (T, N) int64.

    Returns:
        half-lives in steps, and the standard deviations of tanh(c_t), which is what the rest of the
        network can read of the cell; each (H,).
    """
    _, _, states = model.lstm(model.embedding(tokens), return_gates=True)
    return retention(states).half_life[-1], states.cell[-1].tanh().flatten(0, 1).std(dim=0).cpu()


def choose_units(half_lives: Tensor, content: Tensor, each: int = 2) -> list[int]:
    """The `each` units that remember longest, then the `each` that remember shortest.

    Only the half of the units that remember most takes part: a cell that has run into one end of
    the tanh stays there for ever and says nothing.
    """
    moving = content.topk(max(2 * each, len(content) // 2)).indices
    order = moving[half_lives[moving].argsort(descending=True)].tolist()
    return order[:each] + order[-each:]


@torch.no_grad()
def draw(model: CharacterModel, sentence: str, tokens: Tensor, corpus: Tensor, path: Path) -> None:
    """Draws cell state, hidden state and forget gate of four units along `sentence`, as a PNG.

    Args:
        tokens: the sentence, (T,) int64.
        corpus: text over which to measure how long units remember, (T', N) int64.
    """
    half_lives, content = measure_units(model, corpus)
    units = choose_units(half_lives, content)
    _, _, states = model.lstm(model.embedding(tokens[:, None]), return_gates=True)
    cell, hidden = (layers[-1][:, 0, units].cpu() for layers in (states.cell, states.hidden))
    forget = states.gates[-1][:, 0, 0, FORGET_GATE, units].cpu()

    # An eighth of an inch a character, so that longer sentences make wider pictures.
    figure = Figure(figsize=(max(8, len(sentence) / 8), 6.4), dpi=200, layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2.4, 1.5))
    lines(axes[0], "Cell state $c_t$: what each unit keeps", cell)
    lines(axes[1], "Hidden state $h_t$: what it shows the rest of the network", hidden)
    axes[1].set_ylim(-1.05, 1.05)
    gates(axes[2], "Forget gate $f_t$: how much of the cell survives the step", forget, figure)
    axes[2].set_xticks(range(len(sentence)), [visible(character) for character in sentence])
    axes[2].tick_params(axis="x", length=0, labelsize=11, labelfontfamily="monospace")
    figure.legend(
        [Line2D([], [], color=colour, linewidth=2.5) for colour in COLOURS],
        [f"unit {unit}: {steps(half_lives[unit])}" for unit in units],
        title="Half-life of what the cell stores, in characters",
        loc="outside upper center",
        ncols=len(units),
        frameon=False,
        fontsize=10,
    )
    figure.savefig(path)


def lines(axes: Axes, title: str, values: Tensor) -> None:
    """One line a unit, over the characters; values (T, units)."""
    axes.axhline(0, color="#BBBBBB", linewidth=0.8, zorder=0)
    # Long memories are drawn last, above the quick ones.
    for unit in reversed(range(values.shape[1])):
        axes.plot(values[:, unit].numpy(), color=COLOURS[unit], linewidth=1.8, zorder=10 - unit)
    axes.set_title(title, loc="left", fontsize=11, color=TEXT)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.tick_params(axis="y", labelsize=9)
    axes.margins(x=0.01)


def gates(axes: Axes, title: str, values: Tensor, figure: Figure) -> None:
    """One row a unit, dark where the gate erases and bright where it keeps; values (T, units)."""
    image = axes.imshow(values.T.numpy(), aspect="auto", cmap="cividis", vmin=0, vmax=1)
    axes.set_title(title, loc="left", fontsize=11, color=TEXT)
    axes.set_yticks(range(values.shape[1]), ["●"] * values.shape[1], fontsize=13)
    for label, colour in zip(axes.get_yticklabels(), COLOURS, strict=True):
        label.set_color(colour)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.5, 1], pad=0.01, fraction=0.02)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)


def steps(half_life: Tensor) -> str:
    """A half-life in words, with as many digits as it deserves."""
    return f"{half_life:.1f}" if half_life < 10 else f"{half_life:.0f}"


def visible(character: str) -> str:
    """A character as a label can show it."""
    return {"\n": "↵", "\t": "→"}.get(character, character)
