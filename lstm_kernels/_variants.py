"""Variants of the LSTM: what they are, what they need, and what a caller can get wrong about them.

A Variant says which equations a layer computes; `bind` adds the tensors of one call. The equations
stand in _variants_reference.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from . import _checks
from ._layer import kind_of
from ._torch_private import recording, transforms_active

# Of each activation: the values of alpha and beta where they are not given, which are ONNX's.
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01,),
    "thresholdedrelu": (1.0,),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}
_CHOICES = {
    "coupled": (None, "input", "forget"),
    "layer_norm": (None, "joint", "separate"),
    "cell_norm": (None, "carried", "output"),
    "dropout_on": ("hidden", "gates", "candidate"),
}
_Given = str | Sequence[Any]


class Activation(NamedTuple):
    """An activation by its name in ACTIVATIONS; alpha and beta are 0 where it has none."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


SIGMOID, TANH = Activation("sigmoid"), Activation("tanh")


class VariantWeights(NamedTuple):
    """The parameters that a variant adds to one direction of one layer.

    Attributes:
        peephole: (3, H), the diagonal weights from the cell state to i, f and o.
        norm_gates: gains of the gates' layer norm: (1, 4*H) where it is joint, (2, 4*H), of the
            input's product and of the recurrent one, where there are two. The layer's biases,
            which are added afterwards, are its biases.
        norm_cell: (2, H), gain and bias of the cell state's layer norm.

    Examples:
        >>> import torch
        >>> from lstm_kernels import Variant, VariantWeights, lstm
        >>> variant = Variant(peephole=True).bind([VariantWeights(peephole=torch.randn(3, 4))])
        >>> weights = [torch.randn(16, 3), torch.randn(16, 4)]
        >>> tuple(lstm(torch.randn(5, 2, 3), None, weights, variant=variant)[0].shape)
        (5, 2, 4)
    """

    peephole: Tensor | None = None
    norm_gates: Tensor | None = None
    norm_cell: Tensor | None = None


class Masks(NamedTuple):
    """The random masks of one layer, given instead of drawn. None: drawn where the call needs it.

    N is missing for unbatched input. A mask without T holds for all steps.

    Attributes:
        recurrent: factors, 0 or 1 / (1 - p): of the hidden state before the recurrent product,
            (N, D*H_out) or (T, N, D*H_out); with dropout_on="gates" one for each gate,
            (N, D, 4, H_out) or (T, N, D, 4, H_out); with "candidate" of g, (N, D*H) or (T, N, D*H).
        zoneout_cell: 1 where an element of the cell state stays, else 0; (N, D*H) or (T, N, D*H).
        zoneout_hidden: the same for the hidden state, (N, D*H_out) or (T, N, D*H_out).
        weight: for each direction, factors of w_hh, (4*H, H_out).

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, Masks, Variant
        >>> lstm = LSTM(3, 4, variant=Variant(zoneout_cell=0.5))
        >>> masks = Masks(zoneout_cell=torch.ones(2, 4))  # every element stays as it was: zero
        >>> _, (_, c_n) = lstm(torch.randn(5, 2, 3), masks=[masks])
        >>> bool((c_n == 0).all())
        True
    """

    recurrent: Tensor | None = None
    zoneout_cell: Tensor | None = None
    zoneout_hidden: Tensor | None = None
    weight: Sequence[Tensor] | None = None


class _Derived:
    """What follows from the options of a Variant: every call asks for it.

    Attributes:
        changes_steps: whether a step has other equations than the plain LSTM's.
        weight_names: the parameters that the variant adds to one direction, as VariantWeights names
            them.
        numbers: what of it is a number, in the order of csrc/schema.cpp.
    """

    changes_steps: bool
    weight_names: tuple[str, ...]
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class Variant(_Derived):
    r"""Changes to the LSTM's equations. All combine unless that would contradict itself.

    With x and h the input and the hidden state, ' the step before and LN a layer norm, a step is::

        z  = W_ih x + W_hh h' + b_ih + b_hh, and its parts z_i, z_f, z_g, z_o
        i  = a_gates(z_i + p_i c'),  f = a_gates(z_f + p_f c'),  g = a_candidate(z_g)
        c~ = f c' + i g
        o  = a_gates(z_o + p_o c~)
        h~ = o * a_cell(c~), with a projection W_hr h~
        c  = k_c c' + (1 - k_c) c~,  h = k_h h' + (1 - k_h) h~

    Args:
        peephole: the weights p (Gers & Schmidhuber 2000). Without, p is 0.
        coupled: "input": i = 1 - f (CIFG; Greff et al. 2017). "forget": f = 1 - i (ONNX's
            input_forget).
        clip: what a gate's activation is given, peephole included, is bounded to [-clip, clip], as
            ONNX Runtime does.
        cell_clip: c~ is bounded to [-cell_clip, cell_clip].
        activations: of the gates i, f and o, of the candidate g and of the cell state, as ONNX
            names them: a name, or a tuple of a name, alpha and perhaps beta. The names are
            sigmoid, tanh, relu, affine, leakyrelu, thresholdedrelu, scaledtanh, hardsigmoid, elu,
            softsign and softplus, in any case.
        layer_norm: "joint": z = LN(W_ih x + W_hh h') + b_ih + b_hh, over all 4*H numbers, as in
            torchaudio. "separate": z = LN(W_ih x) + LN(W_hh h') + b_ih + b_hh, as in Ba, Kiros &
            Hinton 2016.
        cell_norm: "carried": c~ = LN(f c' + i g). "output": h~ = o * a_cell(LN(c~)), as in Ba et
            al.
        norm_eps: what the norms add to the variance.
        recurrent_dropout: the probability p with which elements are zeroed, the others being
            divided by 1 - p, while training.
        dropout_on: what recurrent_dropout zeroes. "hidden": h' before the product (Gal &
            Ghahramani 2016). "gates": the same with a mask for each gate (Keras). "candidate":
            g (Semeniuta, Severyn & Barth 2016).
        dropout_per_step: draw these masks for each step, not once for all of them.
        weight_dropout: the probability with which elements of w_hh are zeroed for a whole call,
            the others being divided by 1 - p, while training (AWD-LSTM; Merity et al. 2017).
        zoneout_cell, zoneout_hidden: the probability that an element of c or h stays as it was,
            drawn for each step (Krueger et al. 2017): k is 1 there. k is the probability itself
            when not training.
        input_gate: i comes from outside, as in the EA-LSTM (Kratzert et al. 2019). The rows of the
            weights for i then have no effect.

    Raises:
        ValueError: a value out of range, an unknown name, or options that contradict each other.
        TypeError: an option of another type.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, Variant
        >>> variant = Variant(layer_norm="joint", cell_norm="carried", recurrent_dropout=0.25)
        >>> lstm = LSTM(3, 4, variant=variant)
        >>> sorted(lstm.state_dict())[2:4]
        ['norm_cell_l0', 'norm_gates_l0']
        >>> tuple(lstm(torch.randn(5, 2, 3))[0].shape)
        (5, 2, 4)
    """

    peephole: bool = False
    coupled: str | None = None
    clip: float | None = None
    cell_clip: float | None = None
    activations: Sequence[_Given] = ("sigmoid", "tanh", "tanh")
    layer_norm: str | None = None
    cell_norm: str | None = None
    norm_eps: float = 1e-5
    recurrent_dropout: float = 0.0
    dropout_on: str = "hidden"
    dropout_per_step: bool = False
    weight_dropout: float = 0.0
    zoneout_cell: float = 0.0
    zoneout_hidden: float = 0.0
    input_gate: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {_listed(choices)}, got {getattr(self, name)!r}"
                )
        for name in ("peephole", "dropout_per_step", "input_gate"):
            if not isinstance(getattr(self, name), bool):
                kind = type(getattr(self, name)).__name__
                raise TypeError(f"{name} must be a bool, got {kind}")
        for name in ("clip", "cell_clip"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value, name) and 0 < value < math.inf):
                raise ValueError(f"{name} must be positive and finite, or None; got {value}")
        if not (_is_number(self.norm_eps, "norm_eps") and 0 < self.norm_eps < math.inf):
            raise ValueError(f"norm_eps must be positive and finite, got {self.norm_eps}")
        for name in ("recurrent_dropout", "weight_dropout"):
            value = getattr(self, name)
            if not (_is_number(value, name) and 0 <= value < 1):
                raise ValueError(f"{name} must be a probability below 1, got {value}")
        for name in ("zoneout_cell", "zoneout_hidden"):
            value = getattr(self, name)
            if not (_is_number(value, name) and 0 <= value <= 1):
                raise ValueError(f"{name} must be a probability, got {value}")
        if self.input_gate and self.coupled == "input":
            raise ValueError('input_gate=True and coupled="input" both say what i is')
        object.__setattr__(self, "activations", _three_activations(self.activations))
        object.__setattr__(self, "changes_steps", _changes_steps(self))
        object.__setattr__(self, "weight_names", tuple(self.weight_shapes(1)))
        object.__setattr__(self, "numbers", _numbers(self))

    @property
    def each_activation(self) -> tuple[Activation, Activation, Activation]:
        """`activations`, which __post_init__ has read."""
        return cast("tuple[Activation, Activation, Activation]", self.activations)

    def bind(
        self,
        weights: Sequence[VariantWeights] = (),
        *,
        masks: Sequence[Masks] | None = None,
        input_gate: Tensor | None = None,
        reset_state: Sequence[Tensor] | None = None,
    ) -> BoundVariant:
        """This variant with the tensors of one call, for lstm() and lstm_cell().

        Args:
            weights: one for each direction of each layer; may be left out where the variant has
                no parameters.
            masks: one for each layer, instead of drawn ones.
            input_gate: i where the variant takes it from outside, (N, D*H), or (T, N, D*H); of
                unbatched input without N. A call of several layers has no one i.
            reset_state: `(h, c)`, what the states become where `reset` is true, instead of zeros:
                (L, N, H_out) and (L, N, H), or one for each step, (T, L, N, H_out) and
                (T, L, N, H); of unbatched input without N.

        Examples:
            >>> import torch
            >>> from lstm_kernels import Variant, lstm_cell
            >>> variant = Variant(input_gate=True).bind(input_gate=torch.rand(2, 4))
            >>> w_ih, w_hh = torch.randn(16, 3), torch.randn(16, 4)
            >>> h, c = lstm_cell(torch.randn(2, 3), None, w_ih, w_hh, variant=variant)
            >>> tuple(c.shape)
            (2, 4)
        """
        return BoundVariant(self, tuple(weights), masks, input_gate, reset_state)

    def __repr__(self) -> str:
        plain = _DEFAULTS
        given = [
            f"{field.name}={_shown(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != plain[field.name]
        ]
        return f"Variant({', '.join(given)})"

    def weight_shapes(self, hidden_size: int) -> dict[str, tuple[int, int]]:
        """The parameters that the variant adds to one direction, as VariantWeights names them."""
        shapes = {}
        if self.peephole:
            shapes["peephole"] = (3, hidden_size)
        if self.layer_norm is not None:
            shapes["norm_gates"] = (1 if self.layer_norm == "joint" else 2, 4 * hidden_size)
        if self.cell_norm is not None:
            shapes["norm_cell"] = (2, hidden_size)
        return shapes


class LayerTensors(NamedTuple):
    """What a variant adds to one layer of one call, as the equations take it.

    Where the first size is 1, all T steps share it; `batch` of packed rows is that of step 0.
    """

    peephole: Any  # (D, 3, H)
    norm_gates: Any  # (D, 1 or 2, 4*H)
    norm_cell: Any  # (D, 2, H)
    input_gate: Any  # (1 or T, N, D*H)
    recurrent: Any  # (1 or T, N, D*P), (1 or T, N, D, 4, P) or (1 or T, N, D*H)
    zoneout_cell: Any  # (1 or T, N, D*H)
    zoneout_hidden: Any  # (1 or T, N, D*P)
    reset_h: Any  # (1 or T, N, P)
    reset_c: Any  # (1 or T, N, H)


class Call(NamedTuple):
    """The sizes of a call; N and T as the op sees them."""

    T: int
    N: int
    H: int
    P: int
    directions: int
    layers: int


def call_of(
    x: Tensor,
    weights: Sequence[Tensor],
    layers: int,
    directions: int,
    batch_sizes: Tensor | None,
) -> Call:
    """The sizes of a call whose arguments have been checked."""
    T, N = (
        x.shape[:2] if batch_sizes is None else (batch_sizes.shape[0], int(batch_sizes[0].item()))
    )
    return Call(T, N, weights[0].shape[0] // 4, weights[1].shape[1], directions, layers)


@dataclass(frozen=True, eq=False)
class BoundVariant:
    """A variant with the tensors of one call: see Variant.bind."""

    variant: Variant
    weights: tuple[VariantWeights, ...]
    masks: Sequence[Masks] | None
    input_gate: Tensor | None
    reset_state: Sequence[Tensor] | None

    @property
    def changes_steps(self) -> bool:
        return self.variant.changes_steps or self.reset_state is not None

    def unbatched(self) -> BoundVariant:
        """The same with a batch of one."""

        def of_one(value: Tensor, feature_dims: int) -> Tensor:
            return value.unsqueeze(value.dim() - feature_dims)

        resets = self.reset_state and [of_one(state, 1) for state in self.reset_state]
        return replace(self._each(of_one), reset_state=resets)

    def batch_first(self) -> BoundVariant:
        """The same for batch_first, where what has both T and N has N first."""

        def swapped(value: Tensor, feature_dims: int) -> Tensor:
            return value.transpose(0, 1) if value.dim() == feature_dims + 2 else value

        return self._each(swapped)

    def sorted(self, order: Tensor) -> BoundVariant:
        """The same for sequences in another order."""

        def in_order(value: Tensor, feature_dims: int) -> Tensor:
            return value.index_select(value.dim() - 1 - feature_dims, order)

        return self._each(in_order)

    def _each(self, change: Callable[[Tensor, int], Tensor]) -> BoundVariant:
        """The same with changed masks and input gate.

        change: takes what has a batch, and how many dimensions come after that.
        """

        def changed(value: Tensor | None, feature_dims: int) -> Tensor | None:
            return None if value is None else change(value, feature_dims)

        masks = self.masks and [
            of._replace(
                recurrent=changed(of.recurrent, 3 if self.variant.dropout_on == "gates" else 1),
                zoneout_cell=changed(of.zoneout_cell, 1),
                zoneout_hidden=changed(of.zoneout_hidden, 1),
            )
            for of in self.masks
        ]
        return replace(self, masks=masks, input_gate=changed(self.input_gate, 1))

    def check(self, x: Tensor, call: Call, reset: Tensor | None) -> None:
        """Everything about the tensors."""
        variant, (T, N, H, P, directions, layers) = self.variant, call
        shapes = variant.weight_shapes(H)
        if self.weights or shapes:
            count = directions * layers
            if len(self.weights) != count:
                raise ValueError(
                    f"expected {count} VariantWeights, one for each of {directions} directions of "
                    f"{layers} layers, got {len(self.weights)}"
                )
        for weights in self.weights:
            for name, value in zip(VariantWeights._fields, weights, strict=True):
                if (value is None) != (name not in shapes):
                    has = "has no" if name not in shapes else "needs a"
                    raise ValueError(f"{variant} {has} {name}")
                if value is not None:
                    _check(x, value, name, [shapes[name]])
        if variant.input_gate != (self.input_gate is not None):
            raise ValueError(
                "the variant takes the input gate from outside: pass input_gate"
                if variant.input_gate
                else "input_gate needs Variant(input_gate=True)"
            )
        if self.input_gate is not None:
            if layers != 1:
                raise ValueError(f"input_gate needs one layer, got {layers}")
            _check(x, self.input_gate, "input_gate", _steps_or_all(T, N, directions * H))
        if self.masks is not None:
            if len(self.masks) != layers:
                raise ValueError(
                    f"expected Masks for each of {layers} layers, got {len(self.masks)}"
                )
            for masks in self.masks:
                _check_masks(x, masks, variant, call)
        if self.reset_state is not None:
            if reset is None:
                raise ValueError("reset_state needs reset")
            if isinstance(self.reset_state, Tensor) or len(self.reset_state) != 2:
                raise TypeError("reset_state must be two tensors, (h, c)")
            for state, size, name in zip(self.reset_state, (P, H), "hc", strict=True):
                shape = (layers, N, size)
                _check(x, state, f"reset_state, {name}", [shape, (T, *shape)])

    def drop_weights(
        self, layer: int, weights: Sequence[Tensor], directions: int, training: bool
    ) -> list[Tensor]:
        """The layer's weights, after weight_dropout."""
        p = self.variant.weight_dropout
        given = None if self.masks is None else self.masks[layer].weight
        dropped = list(weights)
        if given is None and not (training and p > 0):
            return dropped
        each = kind_of(weights, directions).each
        for d in range(directions):
            w_hh = dropped[d * each + 1]
            mask = _dropout(w_hh, w_hh.shape, p) if given is None else given[d].to(w_hh.dtype)
            dropped[d * each + 1] = w_hh * mask
        return dropped

    def of_layer(self, layer: int, x: Tensor, call: Call, training: bool) -> LayerTensors:
        """The tensors of one layer; masks that nobody gave are drawn."""
        variant, D = self.variant, call.directions
        stacked: dict[str, Tensor | None] = dict.fromkeys(VariantWeights._fields)
        for name in variant.weight_names:
            of_directions = [
                getattr(weights, name) for weights in self.weights[layer * D : (layer + 1) * D]
            ]
            both = torch.stack(of_directions) if D > 1 else of_directions[0].unsqueeze(0)
            stacked[name] = both if both.dtype is x.dtype else both.to(x.dtype)
        masks = Masks()
        if training or self.masks is not None:
            masks = self._masks_of_layer(layer, x, call, training)
        resets: list[Tensor | None] = [None, None]
        if self.reset_state is not None:
            resets = [
                _with_steps(state.select(-3, layer).to(x.dtype), 2) for state in self.reset_state
            ]
        gate = self.input_gate
        return LayerTensors(
            stacked["peephole"],
            stacked["norm_gates"],
            stacked["norm_cell"],
            None if gate is None else _with_steps(gate.to(x.dtype), 2),
            masks.recurrent,
            masks.zoneout_cell,
            masks.zoneout_hidden,
            *resets,
        )

    def _masks_of_layer(self, layer: int, x: Tensor, call: Call, training: bool) -> Masks:
        """The masks of one layer but those of weights, as its equations take them."""
        variant, (T, N, H, P, D, _) = self.variant, call
        given = Masks() if self.masks is None else self.masks[layer]

        def mask(value: Tensor | None, p: float, size: tuple[int, ...], zoneout: bool) -> Any:
            if value is not None:
                return _with_steps(value.to(x.dtype), len(size) - 1)
            if not training or p == 0:
                return None
            return _bernoulli(x, size, p) if zoneout else _dropout(x, size, p)

        recurrent = {"hidden": (D * P,), "gates": (D, 4, P), "candidate": (D * H,)}
        steps = T if variant.dropout_per_step else 1
        size = (steps, N, *recurrent[variant.dropout_on])
        return Masks(
            mask(given.recurrent, variant.recurrent_dropout, size, False),
            mask(given.zoneout_cell, variant.zoneout_cell, (T, N, D * H), True),
            mask(given.zoneout_hidden, variant.zoneout_hidden, (T, N, D * P), True),
        )


# Numbers that torch computes with one thread. For more it wakes its own, which go on spinning for
# some milliseconds, on the cores that the kernels' threads then need.
_PIECE = 1 << 15

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Variant)}
_DEFAULTS["activations"] = (SIGMOID, TANH, TANH)


def _changes_steps(variant: Variant) -> bool:
    return any(
        getattr(variant, name) != default
        for name, default in _DEFAULTS.items()
        if name != "weight_dropout"
    )


def _numbers(variant: Variant) -> tuple[float, ...]:
    kinds = list(ACTIVATIONS)  # in the order of ActivationKind of csrc/variant.h
    numbers = [
        float(_CHOICES["coupled"].index(variant.coupled)),
        variant.clip or 0.0,
        variant.cell_clip or 0.0,
        variant.zoneout_cell,
        variant.zoneout_hidden,
        float(variant.cell_norm == "carried"),
        variant.norm_eps,
    ]
    for name, alpha, beta in variant.each_activation:
        numbers += [float(kinds.index(name)), alpha, beta]
    return tuple(numbers)


def bound(variant: Any) -> BoundVariant:
    """What a caller gave as `variant`, with its tensors."""
    if isinstance(variant, Variant):
        return variant.bind()
    if isinstance(variant, BoundVariant):
        return variant
    raise TypeError(
        f"variant must be a Variant, or what its bind() returns; got {type(variant).__name__}"
    )


def _with_steps(value: Tensor, dims: int) -> Tensor:
    """With a first axis of T steps, or of 1 for all."""
    return value if value.dim() > dims else value.unsqueeze(0)


def _dropout(like: Tensor, size: Sequence[int], p: float) -> Tensor:
    """Factors of a dropout."""
    return _bernoulli(like, size, 1 - p, 1 / (1 - p))


def _bernoulli(like: Tensor, size: Sequence[int], p: float, high: float = 1.0) -> Tensor:
    """`high` with probability p > 0, else zero.

    On the CPU bernoulli_ takes several times as long as the random bits. Where 16 of them make ones
    and zeros as probable as they should be, to 1 / 10,000 of that, a number has 16. Else it has 32,
    which are 2^-33 off at most.
    """
    if not like.is_cpu or recording() or transforms_active():
        drawn = like.new_empty(size).bernoulli_(p)
        return drawn if high == 1 else drawn.mul_(high)
    count = math.prod(size)
    off = abs(round(p * 2**16) - p * 2**16) / 2**16
    width, dtype = (16, torch.int16) if off <= 1e-4 * min(p, 1 - p) else (32, torch.int32)
    words = torch.empty(-(-count * width // 64), dtype=torch.int64).random_(-(2**63), None)
    highest = max(1, round(p * 2**width)) - 1 - 2 ** (width - 1)
    drawn = like.new_empty(count)
    for bits, to in zip(words.view(dtype)[:count].split(_PIECE), drawn.split(_PIECE), strict=True):
        torch.le(bits, highest, out=to)
        if high != 1:
            to.mul_(high)
    return drawn.view(size)


def _three_activations(given: Any) -> tuple[Activation, Activation, Activation]:
    if isinstance(given, str) or len(given) != 3:
        raise ValueError(
            "activations must be three, of the gates, the candidate and the cell state; "
            f"got {given!r}"
        )
    gates, candidate, cell = (_activation(one) for one in given)
    return gates, candidate, cell


def _activation(given: Any) -> Activation:
    name, *numbers = (given,) if isinstance(given, str) else given
    known = str(name).lower().replace("_", "").replace(" ", "")
    if known not in ACTIVATIONS:
        raise ValueError(f"activations: expected one of {_listed(ACTIVATIONS)}, got {name!r}")
    if isinstance(given, Activation):
        return given
    defaults = ACTIVATIONS[known]
    if len(numbers) > len(defaults):
        raise ValueError(
            f"activations: {known} takes {len(defaults)} numbers, got {len(numbers)}: {numbers}"
        )
    for number in numbers:
        if not (_is_number(number, "activations") and math.isfinite(number)):
            raise ValueError(f"activations: {known} needs finite numbers, got {numbers}")
    return Activation(known, *map(float, numbers), *defaults[len(numbers) :])


def _is_number(value: Any, name: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return True


def _listed(names: Any) -> str:
    return ", ".join("None" if name is None else f'"{name}"' for name in names)


def _shown(value: Any) -> str:
    if not (isinstance(value, tuple) and value and isinstance(value[0], Activation)):
        return f'"{value}"' if isinstance(value, str) else str(value)
    shown = []
    for name, *numbers in value:
        count = len(ACTIVATIONS[name])
        given = "".join(f", {number}" for number in numbers[:count])
        shown.append(f'("{name}"{given})' if count else f'"{name}"')
    return f"({', '.join(shown)})"


def _steps_or_all(T: int, *shape: int) -> list[tuple[int, ...]]:
    return [shape, (T, *shape)]


def _check_masks(x: Tensor, masks: Masks, variant: Variant, call: Call) -> None:
    T, N, H, P, D, _ = call
    recurrent = {"hidden": (N, D * P), "gates": (N, D, 4, P), "candidate": (N, D * H)}
    for value, name, shape in (
        (masks.recurrent, "recurrent", recurrent[variant.dropout_on]),
        (masks.zoneout_cell, "zoneout_cell", (N, D * H)),
        (masks.zoneout_hidden, "zoneout_hidden", (N, D * P)),
    ):
        if value is not None:
            _check(x, value, f"masks, {name}", _steps_or_all(T, *shape), any_dtype=True)
    if masks.weight is not None:
        if len(masks.weight) != D:
            raise ValueError(
                f"masks, weight: expected one for each of {D} directions, got {len(masks.weight)}"
            )
        for value in masks.weight:
            _check(x, value, "masks, weight", [(4 * H, P)], any_dtype=True)


def _check(
    x: Tensor, value: Any, name: str, shapes: Sequence[tuple[int, ...]], any_dtype: bool = False
) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a Tensor, got {type(value).__name__}")
    if value.shape not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise RuntimeError(f"Expected {name} of size {expected}, got {list(value.shape)}")
    _checks.same_device(x, value, name)
    if not (any_dtype or value.dtype is x.dtype):
        _checks.same_dtype(x, value, name, _checks.autocast_dtype(x))
