"""A layer's arguments, by name: what the ops take, and how torch's Functions want them.

Field names, shapes and the order of the fields are those of csrc/schema.cpp. An autograd.Function
wants flat arguments, with the weights, whose number varies, at the end: `flat` and `of` go there
and back, so that no other code knows a position. `flat` begins with what is no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

# Where each gate stands among the four of a step.
INPUT_GATE, FORGET_GATE, CANDIDATE, OUTPUT_GATE = range(4)


class Layer(NamedTuple):
    """The arguments of one layer; or one thing about each of them, such as its gradient."""

    input: Any
    h0: Any
    c0: Any
    weights: Any
    has_biases: Any
    bidirectional: Any
    batch_sizes: Any = None
    lengths: Any = None
    reset: Any = None

    @classmethod
    def of(cls, flat: Sequence[Any]) -> Layer:
        """From the order of `flat`."""
        has_biases, bidirectional, input, h0, c0, batch_sizes, lengths, reset, *weights = flat
        return cls(input, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, reset)

    def flat(self) -> tuple[Any, ...]:
        """The order in which a Function takes them."""
        input, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, reset = self
        kind = (has_biases, bidirectional)
        return (*kind, input, h0, c0, batch_sizes, lengths, reset, *weights)

    def ragged(self) -> tuple[Any, Any, Any]:
        """Which sequences take part in which step."""
        return self.batch_sizes, self.lengths, self.reset

    def nth(self, index: int, count: int, input: Tensor) -> Layer:
        """Layer `index` of `count`, whose states and weights this one has, on another input."""
        _, h0, c0, weights, has_biases, bidirectional, batch_sizes, lengths, reset = self
        directions, each = 1 + bidirectional, len(weights) // count
        weights = weights[index * each : (index + 1) * each]
        if h0 is not None and c0 is not None:
            h0 = h0[index * directions : (index + 1) * directions]
            c0 = c0[index * directions : (index + 1) * directions]
        kind = (has_biases, bidirectional)
        return Layer(input, h0, c0, weights, *kind, batch_sizes, lengths, reset)

    def batch_axes(self) -> Layer:
        """Which axis of each argument is the batch."""
        rows = 1 if self.batch_sizes is None else 0  # (T, N, ...), or (R, ...) packed
        weights = [None] * len(self.weights)
        return Layer(rows, 1, 1, weights, None, None, batch_sizes=None, lengths=0, reset=1)


class LayerBackward(NamedTuple):
    """The arguments of one layer's backward op; or one thing about each of them."""

    grad_output: Any
    grad_h_n: Any
    grad_c_n: Any
    grad_cell: Any
    grad_gates: Any
    c0: Any
    weights: Any
    has_biases: Any
    bidirectional: Any
    batch_sizes: Any
    lengths: Any
    reset: Any
    cell: Any
    gates: Any

    @classmethod
    def of(cls, flat: Sequence[Any]) -> LayerBackward:
        """From the order of `flat`."""
        grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates, c0, *rest = flat
        batch_sizes, lengths, reset, cell, gates, has_biases, bidirectional, *weights = rest
        grads = (grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates)
        kind, ragged = (has_biases, bidirectional), (batch_sizes, lengths, reset)
        return cls(*grads, c0, weights, *kind, *ragged, cell, gates)

    @classmethod
    def of_layer(
        cls, layer: Layer, grads: Sequence[Any], cell: Tensor, gates: Tensor
    ) -> LayerBackward:
        """From a layer, what it saved, and the gradients of its results."""
        grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates = grads
        kind = (layer.has_biases, layer.bidirectional)
        return cls(
            grad_output,
            grad_h_n,
            grad_c_n,
            grad_cell,
            grad_gates,
            layer.c0,
            layer.weights,
            *kind,
            *layer.ragged(),
            cell,
            gates,
        )

    def flat(self) -> tuple[Any, ...]:
        """The order in which a Function takes them."""
        kind = (self.has_biases, self.bidirectional)
        saved = (self.cell, self.gates)
        return (*self.grads(), self.c0, *self.ragged(), *saved, *kind, *self.weights)

    def grads(self) -> tuple[Any, ...]:
        """Those of the layer's results."""
        of_states = (self.grad_h_n, self.grad_c_n)
        return (self.grad_output, *of_states, self.grad_cell, self.grad_gates)

    def ragged(self) -> tuple[Any, Any, Any]:
        """Which sequences take part in which step."""
        return self.batch_sizes, self.lengths, self.reset

    def floating(self) -> tuple[Any, ...]:
        """The arguments that have a derivative."""
        return (*self.grads(), self.c0, self.cell, self.gates, *self.weights)

    def with_floating(self, floating: Sequence[Any]) -> LayerBackward:
        """The same call with others, in the order of `floating`."""
        grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates, c0, cell, gates, *weights = floating
        kind = (self.has_biases, self.bidirectional)
        grads = (grad_output, grad_h_n, grad_c_n, grad_cell, grad_gates)
        return LayerBackward(*grads, c0, weights, *kind, *self.ragged(), cell, gates)

    def batch_axes(self) -> LayerBackward:
        """Which axis of each argument is the batch."""
        rows = 1 if self.batch_sizes is None else 0  # (T, N, ...), or (R, ...) packed
        grads = (rows, 1, 1, rows, rows)
        weights = [None] * len(self.weights)
        return LayerBackward(*grads, 1, weights, None, None, None, 0, 1, rows, rows)


_Result = TypeVar("_Result")


def gathering(
    kind: Callable[..., tuple[Any, ...]], function: Callable[..., _Result]
) -> Callable[..., _Result]:
    """`function`, whose first argument is of this kind, with the arguments that its op has."""
    fields = len(kind._fields)  # type: ignore[attr-defined]

    def of_op(*arguments: Any) -> _Result:
        return function(kind(*arguments[:fields]), *arguments[fields:])

    return of_op


class WeightKind(NamedTuple):
    """What the number of a layer's weights says.

    each: weights of one direction.
    """

    each: int
    has_biases: bool
    projects: bool


def kind_of(weights: Sequence[Any], directions: int) -> WeightKind:
    """The kind of the weights of that many directions, of one layer or of several."""
    each = len(weights) // directions
    return WeightKind(each, have_biases(weights, directions), project(weights, directions))


def have_biases(weights: Sequence[Any], directions: int) -> bool:
    """`kind_of(weights, directions).has_biases`, for small steps."""
    return len(weights) // directions >= 4


def project(weights: Sequence[Any], directions: int) -> bool:
    """`kind_of(weights, directions).projects`, for small steps."""
    return len(weights) // directions % 2 == 1


class DirectionWeights(NamedTuple):
    """The weights of one direction of one layer, as torch.nn.LSTM names them."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None
    w_hr: Tensor | None


def by_direction(weights: Sequence[Any], bidirectional: bool) -> list[DirectionWeights]:
    """A layer's flat list of weights, direction by direction."""
    kind = kind_of(weights, 1 + bidirectional)
    directions = []
    for start in range(0, len(weights), kind.each):
        w_ih, w_hh, *rest = weights[start : start + kind.each]
        b_ih, b_hh, *w_hr = rest if kind.has_biases else (None, None, *rest)
        directions.append(DirectionWeights(w_ih, w_hh, b_ih, b_hh, *(w_hr or [None])))
    return directions
