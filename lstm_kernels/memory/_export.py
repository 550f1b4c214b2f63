"""States to files and tables."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lstm_kernels import LSTMStates
from lstm_kernels._layer import CANDIDATE, FORGET_GATE, INPUT_GATE, OUTPUT_GATE

from ._recording import Layout, Recording

if TYPE_CHECKING:
    import pandas

_KINDS = ("hidden", "cell", "gates")
_OF_TORCH = ("", ".pt", ".pth", ".bin")
_GATES = {  # columns of a table
    "input": INPUT_GATE,
    "forget": FORGET_GATE,
    "candidate": CANDIDATE,
    "output": OUTPUT_GATE,
}


def save(states: LSTMStates | Recording, path: str | Path) -> None:
    """Writes states to a file: safetensors, or what `torch.save` writes, as its name says.

    Plain states are written as (T, N, ...), packed ones padded with their lengths.

    Args:
        states: of one batch.
        path: a name that ends in .safetensors, or in .pt, .pth, .bin or nothing.

    Raises:
        ImportError: safetensors is asked for and not installed.
        ValueError: the name ends as those of another format do.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> recording = memory.record(lstm, x)
        >>> memory.save(recording, "states.pt")
        >>> torch.equal(memory.load("states.pt").cell[0], recording.cell[0])
        True
    """
    suffix = Path(path).suffix
    if suffix not in (".safetensors", *_OF_TORCH):
        raise ValueError(
            f"save() writes .safetensors, or torch's format as {', '.join(_OF_TORCH[1:])} or "
            f"without an extension; got {suffix}"
        )
    recording = states if isinstance(states, Recording) else Recording.of(states)
    tensors = {
        f"{kind}.{layer}": value.detach().contiguous()
        for kind in _KINDS
        for layer, value in enumerate(getattr(recording, kind) or ())
    }
    if recording.lengths is not None:
        tensors["lengths"] = recording.lengths
    layout = json.dumps(vars(recording.layout))
    if suffix == ".safetensors":
        _safetensors("torch").save_file(tensors, str(path), {"layout": layout})
    else:
        torch.save({**tensors, "layout": layout}, path)


def load(path: str | Path) -> Recording:
    """Reads what `save` wrote.

    Raises:
        ImportError: a safetensors file, and safetensors is not installed.
        ValueError: the file holds something else.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> recording = memory.record(lstm, x)
        >>> memory.save(recording, "states.pt")
        >>> torch.equal(memory.load("states.pt").cell[0], recording.cell[0])
        True
    """
    if Path(path).suffix == ".safetensors":
        with _safetensors().safe_open(str(path), "pt") as file:
            layout = (file.metadata() or {}).get("layout")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    else:
        tensors = torch.load(path, weights_only=True)
        layout = tensors.pop("layout", None) if isinstance(tensors, dict) else None
    if layout is None or "cell.0" not in tensors:
        raise ValueError(f"{path} holds no states written by lstm_kernels.memory.save")
    hidden, cell, gates = (
        tuple(tensors[f"{kind}.{layer}"] for layer in range(_count(tensors, kind)))
        for kind in _KINDS
    )
    return Recording(
        hidden, cell, gates or None, tensors.get("lengths"), Layout(**json.loads(layout))
    )


def _count(tensors: dict[str, Tensor], kind: str) -> int:
    return sum(name.startswith(f"{kind}.") for name in tensors)


def _safetensors(part: str = "") -> Any:
    try:
        return importlib.import_module(f"safetensors.{part}".rstrip("."))
    except ImportError as error:
        raise ImportError(
            "a .safetensors file needs safetensors: pip install safetensors"
        ) from error


def to_pandas(states: LSTMStates | Recording) -> pandas.DataFrame:
    """A tidy table: one row per valid step, sequence, layer, direction and unit.

    Columns:
        step, sequence, layer, direction, unit: where the row is. Only gates tell the directions
            apart; without them the units of both count on in direction 0.
        cell: the cell state.
        hidden: the hidden state; absent if the LSTM projects, because its units are others then.
        input, forget, candidate, output: the gates; absent if none were recorded.

    Raises:
        ImportError: pandas is not installed.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, memory
        >>> lstm, x = LSTM(3, 8), torch.randn(40, 6, 3)
        >>> memory.to_pandas(memory.record(lstm, x, gates=False)).shape  # 40 * 6 * 8 rows
        (1920, 7)
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas") from error
    recording = states if isinstance(states, Recording) else Recording.of(states)
    return pandas.concat(
        [_table(recording, layer) for layer in range(len(recording.cell))], ignore_index=True
    )


def _table(recording: Recording, layer: int) -> pandas.DataFrame:
    import pandas

    hidden, cell = recording.hidden[layer], recording.cell[layer]
    gates = None if recording.gates is None else recording.gates[layer]
    columns = {"cell": cell}
    if hidden.shape == cell.shape:
        columns["hidden"] = hidden
    if gates is not None:
        columns |= {name: gates[..., at, :].flatten(-2) for name, at in _GATES.items()}
    wide = torch.promote_types(cell.dtype, torch.float32)  # NumPy has no bfloat16
    rows = {name: recording.rows(value).flatten().to(wide) for name, value in columns.items()}
    steps, sequences, width = cell.shape
    directions = 1 if gates is None else gates.shape[2]
    at = [torch.arange(size) for size in (steps, sequences, directions, width // directions)]
    step, sequence, direction, unit = (
        recording.rows(index.flatten(2)).flatten() for index in torch.meshgrid(*at, indexing="ij")
    )
    index = {"step": step, "sequence": sequence, "layer": torch.full_like(step, layer)}
    index |= {"direction": direction, "unit": unit}
    table: pandas.DataFrame = pandas.DataFrame(
        {name: value.cpu().numpy() for name, value in (index | rows).items()}
    )
    return table
