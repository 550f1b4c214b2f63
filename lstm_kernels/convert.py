"""LSTMs of other libraries as this library's, with their weights: docs/variants.md has the list.

Each function takes a module or arrays of the other library, and returns an LSTM that computes the
same numbers. It reads their parts by name, so the library itself need not be installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._variants import SIGMOID, TANH, Activation, Variant
from .modules import LSTM

__all__ = [
    "TorchaudioLSTM",
    "from_haste",
    "from_keras",
    "from_layer_norm_cell",
    "from_torchaudio",
    "replace_torchaudio",
]

# Keras' hard sigmoid, of version 2 and of version 3.
_HARD_SIGMOID = {2: Activation("hardsigmoid", 0.2, 0.5), 3: Activation("hardsigmoid", 1 / 6, 0.5)}


def from_torchaudio(module: nn.Module) -> LSTM:
    """The LSTM that a torchaudio.models.rnnt._CustomLSTM computes, with or without layer norm.

    Where that takes and returns its states as a list of (N, H), an LSTM has (1, N, H).

    Raises:
        TypeError: the module has other parts.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from lstm_kernels.convert import from_torchaudio
        >>> theirs = nn.Module()  # has the parts of a torchaudio.models.rnnt._CustomLSTM(3, 4)
        >>> theirs.x2g, theirs.p2g = nn.Linear(3, 16), nn.Linear(4, 16, bias=False)
        >>> from_torchaudio(theirs)
        LSTM(3, 4)
    """
    x2g, p2g = _parts(module, "x2g", "p2g")
    hidden_size, input_size = p2g.weight.shape[1], x2g.weight.shape[1]
    state = {"weight_ih_l0": x2g.weight, "weight_hh_l0": p2g.weight}
    zeros = torch.zeros_like(x2g.weight[:, 0])
    if isinstance(getattr(module, "g_norm", None), nn.LayerNorm):
        gates, cell = _parts(module, "g_norm", "c_norm")
        variant = Variant(layer_norm="joint", cell_norm="carried", norm_eps=gates.eps)
        state |= {
            "bias_ih_l0": gates.bias,
            "bias_hh_l0": zeros,
            "norm_gates_l0": gates.weight[None],
            "norm_cell_l0": torch.stack([cell.weight, cell.bias]),
        }
        return _loaded(input_size, hidden_size, state, variant)
    state |= {"bias_ih_l0": x2g.bias, "bias_hh_l0": zeros}
    return _loaded(input_size, hidden_size, state, None)


class TorchaudioLSTM(nn.Module):
    """An LSTM with the inputs and outputs of torchaudio's _CustomLSTM.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM
        >>> from lstm_kernels.convert import TorchaudioLSTM
        >>> output, (h, c) = TorchaudioLSTM(LSTM(3, 4))(torch.randn(5, 2, 3), None)
        >>> tuple(output.shape), tuple(c.shape)
        ((5, 2, 4), (2, 4))
    """

    def __init__(self, lstm: LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, input: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Run over (T, N, I), from a state [h, c] of (N, H) each, or from zeros.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> from lstm_kernels.convert import TorchaudioLSTM
            >>> lstm = TorchaudioLSTM(LSTM(3, 4))
            >>> _, state = lstm(torch.randn(5, 2, 3), None)
            >>> output, state = lstm(torch.randn(5, 2, 3), state)  # goes on
        """
        hx = None if state is None else [value.unsqueeze(0) for value in state]
        output, (h, c) = self.lstm(input, hx)
        return output, [h.squeeze(0), c.squeeze(0)]


def replace_torchaudio(model: nn.Module) -> nn.Module:
    """Put a TorchaudioLSTM, a copy, in place of every _CustomLSTM inside a model, such as an RNNT.

    Returns:
        The model.

    Raises:
        TypeError: `model` is not a torch.nn.Module.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from lstm_kernels.convert import replace_torchaudio
        >>> class _CustomLSTM(nn.Module):  # stands for torchaudio.models.rnnt._CustomLSTM
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.x2g, self.p2g = nn.Linear(3, 16), nn.Linear(4, 16, bias=False)
        >>> type(replace_torchaudio(nn.Sequential(_CustomLSTM()))[0]).__name__
        'TorchaudioLSTM'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "_CustomLSTM":
                ours = TorchaudioLSTM(from_torchaudio(child)).train(child.training)
                setattr(module, name, ours)
    return model


def from_layer_norm_cell(cell: nn.Module) -> LSTM:
    """The LSTM of torch's fastrnns benchmark and of NeMo, LayerNormLSTMCell, over a sequence.

    Raises:
        TypeError: the cell has other parts.
        ValueError: its norms have different eps.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from lstm_kernels.convert import from_layer_norm_cell
        >>> theirs = nn.Module()  # has the parts of a LayerNormLSTMCell(3, 4)
        >>> theirs.weight_ih, theirs.weight_hh = torch.randn(16, 3), torch.randn(16, 4)
        >>> theirs.layernorm_i, theirs.layernorm_h = nn.LayerNorm(16), nn.LayerNorm(16)
        >>> theirs.layernorm_c = nn.LayerNorm(4)
        >>> from_layer_norm_cell(theirs).variant
        Variant(layer_norm="separate", cell_norm="carried")
    """
    w_ih, w_hh, of_input, of_hidden, of_cell = _parts(
        cell, "weight_ih", "weight_hh", "layernorm_i", "layernorm_h", "layernorm_c"
    )
    if len({of_input.eps, of_hidden.eps, of_cell.eps}) > 1:
        raise ValueError(
            f"the norms' eps differ: {of_input.eps}, {of_hidden.eps} and {of_cell.eps}"
        )
    state = {
        "weight_ih_l0": w_ih,
        "weight_hh_l0": w_hh,
        "bias_ih_l0": of_input.bias,
        "bias_hh_l0": of_hidden.bias,
        "norm_gates_l0": torch.stack([of_input.weight, of_hidden.weight]),
        "norm_cell_l0": torch.stack([of_cell.weight, of_cell.bias]),
    }
    variant = Variant(layer_norm="separate", cell_norm="carried", norm_eps=of_input.eps)
    return _loaded(w_ih.shape[1], w_hh.shape[1], state, variant)


def from_keras(
    weights: Sequence[Any],
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    recurrent_dropout: float = 0.0,
    batch_first: bool = True,
    version: int = 3,
) -> LSTM:
    """The LSTM of a Keras layer.

    Args:
        weights: kernel (I, 4*H), recurrent_kernel (H, 4*H) and perhaps bias (4*H).
        activation, recurrent_activation: "tanh", "sigmoid", "relu" or "hard_sigmoid", as in the
            layer. The candidate and the cell state have the first, the gates the second.
        recurrent_dropout: as in the layer.
        batch_first: Keras has the batch first.
        version: of Keras, 2 or 3, whose hard sigmoids differ.

    Raises:
        ValueError: an activation or version that is not listed.

    Examples:
        >>> import numpy as np
        >>> from lstm_kernels.convert import from_keras
        >>> weights = [np.zeros((3, 16), "f4"), np.zeros((4, 16), "f4"), np.zeros(16, "f4")]
        >>> from_keras(weights)  # weights: what layer.get_weights() returns
        LSTM(3, 4, batch_first=True)
    """
    if version not in _HARD_SIGMOID:
        raise ValueError(f"version must be 2 or 3, got {version}")
    known = {
        "sigmoid": SIGMOID,
        "tanh": TANH,
        "relu": Activation("relu"),
        "hard_sigmoid": _HARD_SIGMOID[version],
    }
    for name in (activation, recurrent_activation):
        if name not in known:
            raise ValueError(f"activation must be one of {', '.join(known)}; got {name!r}")
    kernel, recurrent, *bias = (torch.as_tensor(value) for value in weights)
    state = {"weight_ih_l0": kernel.mT, "weight_hh_l0": recurrent.mT}
    if bias:
        state |= {"bias_ih_l0": bias[0], "bias_hh_l0": torch.zeros_like(bias[0])}
    of_gates, other = known[recurrent_activation], known[activation]
    variant = Variant(
        activations=(of_gates, other, other),
        recurrent_dropout=recurrent_dropout,
        dropout_on="gates",
    )
    plain = variant == Variant(dropout_on="gates")
    return _loaded(
        kernel.shape[0], recurrent.shape[0], state, None if plain else variant, batch_first
    )


def from_haste(module: nn.Module) -> LSTM:
    """The LSTM of a haste_pytorch.LSTM or LayerNormLSTM, whose gates stand in the order i, g, f, o.

    Raises:
        TypeError: the module has other parts.
        ValueError: its dropout is 1.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from lstm_kernels.convert import from_haste
        >>> theirs = nn.Module()  # has the parts of a haste_pytorch.LSTM(3, 4)
        >>> theirs.kernel, theirs.recurrent_kernel = torch.randn(3, 16), torch.randn(4, 16)
        >>> theirs.bias = torch.randn(16)
        >>> from_haste(theirs)
        LSTM(3, 4)
    """
    kernel, recurrent, bias = _parts(module, "kernel", "recurrent_kernel", "bias")

    def ours(value: Tensor) -> Tensor:
        """Gates along the last axis, in our order."""
        ordered: Tensor = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].flatten(-2)
        return ordered

    zoneout = float(getattr(module, "zoneout", 0.0))
    dropout = float(getattr(module, "dropout", 0.0))
    bias = ours(bias)
    state = {
        "weight_ih_l0": ours(kernel).mT,
        "weight_hh_l0": ours(recurrent).mT,
        "bias_ih_l0": bias,
        "bias_hh_l0": torch.zeros_like(bias),
    }
    variant = Variant(zoneout_hidden=zoneout, weight_dropout=dropout)
    if hasattr(module, "gamma"):
        gamma, gain, cell_bias = _parts(module, "gamma", "gamma_h", "beta_h")
        variant = Variant(
            zoneout_hidden=zoneout,
            weight_dropout=dropout,
            layer_norm="separate",
            cell_norm="output",
        )
        state["norm_gates_l0"] = ours(gamma)
        state["norm_cell_l0"] = torch.stack([gain, cell_bias])
    batch_first = bool(getattr(module, "batch_first", False))
    plain = variant == Variant()
    sizes = kernel.shape[0], recurrent.shape[0]
    return _loaded(*sizes, state, None if plain else variant, batch_first)


def _parts(module: nn.Module, *names: str) -> list[Any]:
    missing = [name for name in names if getattr(module, name, None) is None]
    if missing:
        raise TypeError(
            f"expected a module with {', '.join(names)}; {type(module).__name__} has no "
            f"{', '.join(missing)}"
        )
    return [getattr(module, name) for name in names]


def _loaded(
    input_size: int,
    hidden_size: int,
    state: dict[str, Tensor],
    variant: Variant | None,
    batch_first: bool = False,
) -> LSTM:
    first = state["weight_ih_l0"]
    lstm = LSTM(
        input_size,
        hidden_size,
        bias="bias_ih_l0" in state,
        batch_first=batch_first,
        device=first.device,
        dtype=first.dtype,
        variant=variant,
    )
    lstm.load_state_dict(state)
    return lstm
