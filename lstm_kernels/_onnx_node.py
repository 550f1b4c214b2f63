"""Any LSTM node of an ONNX graph as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ._variants import ACTIVATIONS, Activation, Variant
from .modules import LSTM

_DEFAULT_ACTIVATIONS = ["Sigmoid", "Tanh", "Tanh"]
# Where our gates i, f, g, o stand in ONNX's order i, o, f, c; and our i, f, o in its i, o, f.
_GATES, _PEEPHOLES = [0, 2, 3, 1], [0, 2, 1]


class OnnxLSTM(nn.Module):
    """An LSTM with the inputs and outputs of ONNX's LSTM operator.

    Attributes:
        lstms: the LSTMs that compute it: one, of all directions, or one for each direction where
            their activations differ.
        reverse: whether the first of them runs from the last step to the first.
        layout: as in ONNX: 0, or 1 where the batch comes first.

    Examples:
        >>> import onnx, torch
        >>> from lstm_kernels.onnx import from_node
        >>> node = onnx.helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=4)
        >>> module = from_node(node, {"W": torch.randn(1, 16, 3), "R": torch.randn(1, 16, 4)})
        >>> module.lstms[0]
        LSTM(3, 4, bias=False)
    """

    def __init__(self, lstms: Sequence[LSTM], reverse: bool, layout: int) -> None:
        super().__init__()
        self.lstms = nn.ModuleList(lstms)
        self.reverse, self.layout = reverse, layout

    def extra_repr(self) -> str:
        return f"reverse={self.reverse}, layout={self.layout}"

    def forward(
        self,
        x: Tensor,
        sequence_lens: Tensor | None = None,
        initial_h: Tensor | None = None,
        initial_c: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run over a sequence.

        Args:
            x: (T, N, I), or with layout 1 (N, T, I).
            sequence_lens: (N,) integers.
            initial_h, initial_c: (D, N, H), or with layout 1 (N, D, H); zeros if None.

        Returns:
            Y (T, D, N, H), Y_h and Y_c (D, N, H); with layout 1 (N, T, D, H) and (N, D, H).

        Examples:
            >>> import onnx, torch
            >>> from lstm_kernels.onnx import from_node
            >>> node = onnx.helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=4)
            >>> module = from_node(node, {"W": torch.randn(1, 16, 3), "R": torch.randn(1, 16, 4)})
            >>> y, y_h, y_c = module(torch.randn(5, 2, 3))
            >>> tuple(y.shape), tuple(y_c.shape)
            ((5, 1, 2, 4), (1, 2, 4))
        """
        if self.layout == 1:
            x = x.transpose(0, 1)
            initial_h, initial_c = (
                None if state is None else state.transpose(0, 1) for state in (initial_h, initial_c)
            )
        outputs, last_h, last_c = [], [], []
        first = 0
        for k, module in enumerate(self.lstms):
            lstm = cast(LSTM, module)
            directions = 1 + lstm.bidirectional
            own = slice(first, first + directions)
            first += directions
            hx = None
            if initial_h is not None or initial_c is not None:
                zeros = x.new_zeros(directions, x.shape[1], lstm.hidden_size)
                hx = tuple(
                    zeros if state is None else state[own] for state in (initial_h, initial_c)
                )
            backwards = self.reverse if k == 0 else True
            given = _reversed(x, sequence_lens) if backwards else x
            output, (h_n, c_n) = lstm(given, hx, lengths=sequence_lens)
            output = _reversed(output, sequence_lens) if backwards else output
            outputs.append(output.unflatten(-1, (directions, -1)))
            last_h.append(h_n)
            last_c.append(c_n)
        y, h_n, c_n = torch.cat(outputs, -2), torch.cat(last_h), torch.cat(last_c)
        if self.layout == 1:
            return y.transpose(0, 1), h_n.transpose(0, 1), c_n.transpose(0, 1)
        return y.transpose(1, 2), h_n, c_n


def from_node(node: Any, initializers: Mapping[str, Any]) -> OnnxLSTM:
    """The module that computes an LSTM node of an ONNX graph, whatever its attributes.

    Args:
        node: an onnx.NodeProto of type LSTM.
        initializers: the node's W, R, B and P by the names that it calls them: onnx.TensorProto,
            NumPy arrays or tensors.

    Raises:
        ImportError: onnx is missing.
        ValueError: the node is no LSTM, an attribute has a value that ONNX does not define, or a
            weight is not among the initializers.

    Examples:
        >>> import onnx, torch
        >>> from lstm_kernels.onnx import from_node
        >>> node = onnx.helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=4)
        >>> values = {"W": torch.randn(1, 16, 3), "R": torch.randn(1, 16, 4)}
        >>> y, y_h, y_c = from_node(node, values)(torch.randn(5, 2, 3))
        >>> tuple(y.shape)  # (T, D, N, H)
        (5, 1, 2, 4)

        Of a file, take `values = {value.name: value for value in model.graph.initializer}`.
    """
    from onnx import helper

    if node.op_type != "LSTM":
        raise ValueError(f"expected a node of type LSTM, got {node.op_type}")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    direction = attributes.get("direction", b"forward").decode()
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"direction must be forward, reverse or bidirectional, got {direction}")
    directions = 2 if direction == "bidirectional" else 1
    layout = attributes.get("layout", 0)
    if layout not in (0, 1):
        raise ValueError(f"layout must be 0 or 1, got {layout}")
    names = [*node.input, *[""] * (8 - len(node.input))]
    w, r, b, p = (
        _value(names[k], what, initializers) for k, what in zip((1, 2, 3, 7), "WRBP", strict=True)
    )
    if w is None or r is None:
        raise ValueError("the node has no W or no R")
    if len(w) != directions:
        raise ValueError(f"W is of {len(w)} directions, but the direction is {direction}")
    activations = _activations(attributes, directions)
    variants = [
        Variant(
            peephole=p is not None,
            coupled="forget" if attributes.get("input_forget", 0) else None,
            clip=attributes.get("clip") or None,
            activations=of_direction,
        )
        for of_direction in activations
    ]
    weights = [_weights(w, r, b, p, d) for d in range(directions)]
    if directions == 2 and variants[0] != variants[1]:
        lstms = [_lstm(variants[d], [weights[d]]) for d in range(2)]
    else:
        lstms = [_lstm(variants[0], weights)]
    return OnnxLSTM(lstms, direction == "reverse", layout)


def _value(name: str, what: str, initializers: Mapping[str, Any]) -> Tensor | None:
    """One of the node's W, R, B and P, or None where the node has none."""
    if not name:
        return None
    if name not in initializers:
        raise ValueError(f"{what}, which the node calls {name!r}, is not among the initializers")
    value = initializers[name]
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "SerializeToString"):
        from onnx import numpy_helper

        value = numpy_helper.to_array(value)
    tensor: Tensor = torch.from_numpy(value.copy())
    return tensor


def _activations(attributes: Mapping[str, Any], directions: int) -> list[list[Activation]]:
    """Of each direction. The lists of alpha and beta name those alone that take one."""
    names = [name.decode() for name in attributes.get("activations", [])]
    names = names or _DEFAULT_ACTIVATIONS * directions
    if len(names) != 3 * directions:
        raise ValueError(f"expected {3 * directions} activations, got {len(names)}: {names}")
    alphas = iter(attributes.get("activation_alpha", []))
    betas = iter(attributes.get("activation_beta", []))
    found = []
    for name in names:
        known = name.lower()
        if known not in ACTIVATIONS:
            raise ValueError(f"ONNX has no activation {name!r} for LSTMs")
        numbers = list(ACTIVATIONS[known])
        for k, given in enumerate((alphas, betas)[: len(numbers)]):
            numbers[k] = next(given, numbers[k])
        found.append(Activation(known, *numbers))
    return [found[3 * d : 3 * d + 3] for d in range(directions)]


def _weights(w: Tensor, r: Tensor, b: Tensor | None, p: Tensor | None, d: int) -> dict[str, Tensor]:
    """The parameters of direction d, as LSTM calls them."""

    def ours(value: Tensor, count: int, order: Sequence[int]) -> Tensor:
        found: Tensor = value.unflatten(0, (count, -1))[list(order)].flatten(0, 1)
        return found

    found = {"weight_ih": ours(w[d], 4, _GATES), "weight_hh": ours(r[d], 4, _GATES)}
    if b is not None:
        of_w, of_r = b[d].chunk(2)
        found |= {"bias_ih": ours(of_w, 4, _GATES), "bias_hh": ours(of_r, 4, _GATES)}
    if p is not None:
        found["peephole"] = p[d].unflatten(0, (3, -1))[_PEEPHOLES]
    return found


def _lstm(variant: Variant, weights: Sequence[dict[str, Tensor]]) -> LSTM:
    first = weights[0]
    plain = variant == Variant()
    w = first["weight_ih"]
    lstm = LSTM(
        w.shape[1],
        w.shape[0] // 4,
        bias="bias_ih" in first,
        bidirectional=len(weights) == 2,
        dtype=w.dtype,
        variant=None if plain else variant,
    )
    state = {
        f"{name}_l0{suffix}": value
        for of_direction, suffix in zip(weights, ("", "_reverse"), strict=False)
        for name, value in of_direction.items()
    }
    lstm.load_state_dict(state)
    return lstm


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(T, N, ...) with each sequence from its end to its start; padding stays where it is."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device)[:, None]
    source = torch.where(steps < lengths, lengths - 1 - steps, steps).long()
    return x.gather(0, source.unsqueeze(-1).expand_as(x))
