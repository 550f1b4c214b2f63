"""LSTM and LSTMCell: torch.nn's modules, computed by this library's kernels."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, cast, overload

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from . import _overloads, _reference
from ._layer import FORGET_GATE, DirectionWeights
from ._layouts import layout_of
from ._preactivations import preactivations
from ._prepacked import Prepacked
from ._states import LSTMStates
from ._variants import BoundVariant, Masks, Variant, VariantWeights
from .functional import lstm, lstm_cell

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._types import (
        CallsForward,
        CellOptions,
        LSTMOptions,
        Returned,
        ReturnedStates,
        Rows,
        Stepped,
        SteppedGates,
    )
    from .inference import InferenceLSTM, InferenceLSTMCell

_Module = TypeVar("_Module", bound=nn.Module)
CELL_WEIGHTS = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]


class LSTM(nn.RNNBase):
    r"""A multi-layer LSTM: a drop-in for torch.nn.LSTM that can show every step.

    For each step t and layer (Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber &
    Cummins 2000; projection of Sak, Senior & Beaufays 2014)::

        i_t = sigmoid(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)      input gate
        f_t = sigmoid(W_if x_t + b_if + W_hf h_{t-1} + b_hf)      forget gate
        g_t =    tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)      candidate
        o_t = sigmoid(W_io x_t + b_io + W_ho h_{t-1} + b_ho)      output gate
        c_t = f_t * c_{t-1} + i_t * g_t                           cell state
        h_t = o_t * tanh(c_t), with proj_size: W_hr (o_t * tanh(c_t))     hidden state

    Arguments, parameters, `state_dict`, initial values, results and errors are torch.nn.LSTM's.
    Different: `isinstance(module, torch.nn.LSTM)` is False (it is True of lstm_kernels.nn.LSTM),
    `flatten_parameters()` does nothing because nothing needs it, and torch.jit.script, which
    torch has deprecated, cannot compile it.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout: as in torch.nn.LSTM.
        bidirectional, proj_size, device, dtype: as in torch.nn.LSTM.
        forget_bias: start with b_if + b_hf equal to this number in every layer and direction
            (1 keeps memories longer at the start of training: Jozefowicz, Zaremba & Sutskever
            2015); None starts as torch.nn.LSTM does.
        recompute: keep only the inputs of each layer for the backward pass, and compute the steps
            again there. Gradients are the same to the bit. Saves most of the memory of training for
            about a third more time. Without effect on a call that returns states.
        variant: other equations, with their parameters as `peephole_l0`, `norm_gates_l0` and
            `norm_cell_l0` (see VariantWeights); the names go on as those of the weights do.
            Peepholes start as weights do, gains as 1, and where gates are normalised biases as 0.

    Raises:
        TypeError, ValueError: as torch.nn.LSTM; ValueError for a forget_bias without biases.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM
        >>> lstm = LSTM(3, 4, num_layers=2, forget_bias=1.0)
        >>> output, (h_n, c_n), states = lstm(torch.randn(5, 2, 3), return_states=True)
        >>> tuple(output.shape), tuple(c_n.shape), tuple(states.cell[0].shape)
        ((5, 2, 4), (2, 2, 4), (5, 2, 4))
    """

    forget_bias: float | None = None
    recompute: bool = False
    variant: Variant | None = None
    _prepacked: Prepacked | None = None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        forget_bias: float | None = None,
        recompute: bool = False,
        variant: Variant | None = None,
    ) -> None:
        _check_forget_bias(forget_bias, bias)
        _check_variant(variant)
        self.forget_bias = forget_bias  # reset_parameters reads it
        self.recompute = recompute
        nn.RNNBase.__init__(  # not super(): torch.nn.LSTM, in a subclass of both, takes no name
            self,
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )
        if variant is not None:
            self.variant = variant
            _add_variant_weights(self, self._variant_suffixes(), device, dtype)
            self.reset_parameters()

    def _variant_suffixes(self) -> list[str]:
        """What the names of a direction's parameters end in, in the order of the weights."""
        return [
            f"_l{layer}{direction}"
            for layer in range(self.num_layers)
            for direction in (("", "_reverse") if self.bidirectional else ("",))
        ]

    def reset_parameters(self) -> None:
        """Draw initial values as torch.nn.LSTM does, then set the forget gate's bias if asked.

        Examples:
            >>> from lstm_kernels import LSTM
            >>> lstm = LSTM(3, 4, forget_bias=1.0)
            >>> lstm.reset_parameters()
            >>> (lstm.bias_ih_l0 + lstm.bias_hh_l0)[4:8].tolist()  # of the forget gate
            [1.0, 1.0, 1.0, 1.0]
        """
        super().reset_parameters()
        if self.variant is not None:
            _reset_norms(self)
        if self.forget_bias is not None:
            for name in self._flat_weights_names:
                if name.startswith("bias"):
                    value = self.forget_bias if name.startswith("bias_ih") else 0.0
                    _fill_forget_gate(getattr(self, name), value)

    def flatten_parameters(self) -> None:
        """Do nothing: the kernels read the weights where they are.

        Examples:
            >>> from lstm_kernels import LSTM
            >>> LSTM(3, 4).flatten_parameters()
        """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_flat_weights":
            self._refuse_other_weights(value)
        super().__setattr__(name, value)

    def _refuse_other_weights(self, weights: Sequence[Any]) -> None:
        """Where torch.nn.LSTM would compute with a list that it is given, this module would not."""
        own = self._parameters
        for name, weight in zip(self._flat_weights_names, weights, strict=False):
            if name in own and weight is not None and weight is not own[name]:
                raise ValueError(
                    f"_flat_weights: expected the module's own {name}, got another tensor. "
                    "lstm_kernels.LSTM computes with its parameters: set them, or call "
                    "lstm_kernels.lstm(input, hx, weights)"
                )

    def extra_repr(self) -> str:
        forget_bias = "" if self.forget_bias is None else f", forget_bias={self.forget_bias}"
        recompute = ", recompute=True" if self.recompute else ""
        variant = "" if self.variant is None else f", variant={self.variant}"
        return super().extra_repr() + forget_bias + recompute + variant

    @overload
    def forward(
        self,
        input: Rows,
        hx: Sequence[Tensor] | None = None,
        *,
        return_states: Literal[False] = False,
        return_gates: Literal[False] = False,
        **options: Unpack[LSTMOptions],
    ) -> Returned[Rows]: ...
    @overload
    def forward(
        self,
        input: Rows,
        hx: Sequence[Tensor] | None = None,
        *,
        return_states: Literal[True],
        return_gates: bool = False,
        **options: Unpack[LSTMOptions],
    ) -> ReturnedStates[Rows]: ...
    @overload
    def forward(
        self,
        input: Rows,
        hx: Sequence[Tensor] | None = None,
        *,
        return_states: bool = False,
        return_gates: Literal[True],
        **options: Unpack[LSTMOptions],
    ) -> ReturnedStates[Rows]: ...
    @overload
    def forward(
        self,
        input: Rows,
        hx: Sequence[Tensor] | None = None,
        *,
        return_states: bool = False,
        return_gates: bool = False,
        **options: Unpack[LSTMOptions],
    ) -> Returned[Rows] | ReturnedStates[Rows]: ...
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Sequence[Tensor] | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_state: Sequence[Tensor] | None = None,
        return_states: bool = False,
        return_gates: bool = False,
        masks: Sequence[Masks] | None = None,
        input_gate: Tensor | None = None,
    ) -> Any:
        """Run over a sequence.

        Args:
            input: (T, N, I), unbatched (T, I), (N, T, I) with batch_first, or a PackedSequence; in
                the dtype of the weights: float32, float64, bfloat16 or float16.
            hx: `(h_0, c_0)`, (D * L, N, H_out) and (D * L, N, H), without N for unbatched input;
                zeros if None. N comes second with batch_first too, as in torch.nn.LSTM: where
                N = D * L, a mistake about that cannot be seen.
            lengths: (N,) integers on the input's device: sequence n of the padded input ends after
                lengths[n] steps. Outputs and states are zero past each end, h_n and c_n are
                those of each last step, and the reverse direction starts there.
            reset: (T, N) bool, or 0 and 1 in any dtype, (N, T) with batch_first: both states are
                zeroed before that step.
            reset_state: `(h, c)` like hx, with gradients: what the states are set to there in place
                of zeros. The host waits for `reset`, which no graph can; torch.compile breaks it.
            return_states: also return the hidden and cell state of every step.
            return_gates: also return the gates of every step; implies return_states.
            masks, input_gate: see Variant.bind; (N, T, ...) with batch_first.

        Returns:
            `(output, (h_n, c_n))` as torch.nn.LSTM does, or `(output, (h_n, c_n), states)` where
            `states` is an LSTMStates.

        Raises:
            ValueError, RuntimeError, TypeError: as torch.nn.LSTM does, in its words.
            NotImplementedError: a dtype or device that has no kernel.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
            >>> output, (h_n, c_n) = lstm(x, lengths=torch.tensor([5, 2]))
            >>> torch.equal(h_n[0, 1], output[1, 1]), bool((output[2:, 1] == 0).all())
            (True, True)
            >>> starts = torch.tensor([[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]]).bool()
            >>> output, _, states = lstm(x, reset=starts, return_gates=True)
            >>> torch.allclose(output[2:, 0], lstm(x[2:])[0][:, 0])  # as from zeros
            True
            >>> tuple(states.gates[0].shape)  # (T, N, D, 4, H)
            (5, 2, 1, 4, 4)
        """
        if type(input) is not Tensor and isinstance(input, Proxy):
            options = {
                "lengths": lengths,
                "reset": reset,
                "reset_state": reset_state,
                "return_states": return_states,
                "return_gates": return_gates,
                "masks": masks,
                "input_gate": input_gate,
            }
            recorded = _overloads.leaf(self, input, hx, options)
            if recorded is not NotImplemented:
                return recorded
            if self.variant is None:  # torch.fx makes a proxy of every argument of what it traces
                masks = input_gate = None
        variant = None
        if self.variant is not None or masks or input_gate is not None:
            suffixes = self._variant_suffixes()
            variant = _bind(self, self.variant, suffixes, masks, input_gate, reset_state)
            reset_state = None
        return lstm(
            input,
            hx,
            weights_of(self, self._flat_weights_names),
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            batch_first=self.batch_first,
            dropout=self.dropout,
            training=self.training,
            lengths=lengths,
            reset=reset,
            reset_state=reset_state,
            return_states=return_states,
            return_gates=return_gates,
            recompute=self.recompute,
            variant=variant,
            _prepacked=self._prepacked,
        )

    if TYPE_CHECKING:
        __call__: CallsForward

    def preactivations(
        self,
        input: Tensor | PackedSequence,
        states: LSTMStates,
        hx: Sequence[Tensor] | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_state: Sequence[Tensor] | None = None,
    ) -> tuple[Any, ...]:
        """The gates before their sigmoid or tanh, exact where these saturate, with gradients.

        Args:
            input, hx, lengths, reset, reset_state: those of the call.
            states: what the call returned.

        Returns:
            For each layer i, f, g, o of every step, shaped and laid out like `states.gates`.

        Raises:
            ValueError: dropout between layers changed what they read, which nothing has kept.
            NotImplementedError: a variant, whose gates are made of more than one product.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
            >>> _, _, states = lstm(x, return_gates=True)
            >>> z = lstm.preactivations(x, states)[0]
            >>> i, f, g, o = states.gates[0].unbind(dim=3)
            >>> torch.allclose(torch.sigmoid(z[..., 1, :]), f, atol=1e-6)
            True
        """
        refuse_variant(self, "preactivations")
        if self.training and self.dropout > 0 and self.num_layers > 1:
            raise ValueError("preactivations: dropout between layers must be off, as in eval()")
        packed = isinstance(input, PackedSequence)
        given: Any = input
        x = given
        hidden: list[Any] = list(states.hidden)
        if packed:
            x, lengths = pad_packed_sequence(x)
            lengths = lengths.to(x.device)
            hidden = [pad_packed_sequence(h)[0] for h in hidden]
        layout = layout_of(x, self.batch_first and not packed)
        hidden = [layout.given(h, None, None)[0] for h in hidden]
        _, h_reset, _ = layout.given(x, *(reset_state or (None, None)))
        x, h0, _ = layout.given(x, *(hx or (None, None)))
        lengths, reset = layout.ragged(lengths, reset)
        found = preactivations(
            x,
            hidden,
            h0,
            weights_of(self, self._flat_weights_names),
            self.bidirectional,
            lengths,
            None if reset is None else reset.to(torch.bool),
            h_reset,
        )
        return tuple(_packed_like(given, z) if packed else layout.back(z) for z in found)

    def prepack(self, weight_dtype: torch.dtype | None = None) -> LSTM:
        """Pack the weights once, for inference on the CPU.

        A plain call without gradients packs the weights each time; afterwards, such calls use the
        packed weights. Results are identical, except in very short calls (2 to 8 steps, up to 16
        rows, steps times sequences), where they agree to rounding. Calls that record gradients,
        torch.compile and torch.export ignore packed weights.

        A changed weight is always noticed: each call compares the contents of the weights with what
        was packed, and packs a changed layer again. Comparing reads the weights once.

        Packed weights take as much memory as the weights, or half of it with a weight_dtype. They
        are not saved, copied or pickled. After .to(device) they are ignored, and with a
        weight_dtype after .to(dtype) too.

        Args:
            weight_dtype: torch.bfloat16 or torch.float16 rounds the packed matrices of a float32
                module to that dtype, for half the reading; sums, states and biases stay float32,
                and the numbers are those of a module whose matrices have been rounded. Rounding
                moves a weight by up to 2**-8 (bfloat16) or 2**-11 (float16) of itself; beyond
                65,504 float16 has only infinity, and below 6e-5 less precision. None keeps the
                module's precision.

        Returns:
            The module.

        Raises:
            ValueError: a weight_dtype that is neither of the two, or is not narrower than weights.
            TypeError: weight_dtype is not a dtype.
            NotImplementedError: weights that are not plain tensors on the CPU, or a variant.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> lstm, x = LSTM(3, 4).eval(), torch.randn(50, 2, 3)
            >>> with torch.no_grad():
            ...     plain = lstm(x)[0]
            ...     packed = lstm.prepack()(x)[0]
            >>> torch.equal(packed, plain)
            True
        """
        refuse_variant(self, "prepack")
        self._prepacked = Prepacked(
            weights_of(self, self._flat_weights_names),
            self.num_layers,
            self.bidirectional,
            weight_dtype,
        )
        return self

    def unpack(self) -> LSTM:
        """Drop what prepack keeps, if anything.

        Returns:
            The module.

        Examples:
            >>> from lstm_kernels import LSTM
            >>> LSTM(3, 4).prepack().unpack()
            LSTM(3, 4)
        """
        self._prepacked = None
        return self

    def for_inference(self, weight_dtype: torch.dtype | None = None) -> InferenceLSTM:
        """A module for inference on the CPU that owns its weights and shares no memory with this.

        It has no Parameters: its weights lie in the form that the kernels read, and a call neither
        packs nor compares anything. Results are those of this module with the same weights: to the
        bit where no weight is rounded, to rounding in calls of up to 8 steps and few rows.

        Args:
            weight_dtype: torch.bfloat16 or torch.float16 rounds the matrices of a float32 module,
                as in prepack. torch.int8 keeps 8 bits of each weight of a float32 module, with a
                scale for each gate of each unit. In every step it rounds the input and the hidden
                state of each sequence to 8 bits, between its smallest and its largest number. Sums
                are exact, and the rest is float32. A sequence that meets a NaN or an infinite
                number is NaN from there on. None keeps the module's precision.

        torch.backends.mkldnn.rnn.fp32_precision, where it is "bf16" now, allows float32 products
        to round their factors: see docs/faq.md.

        Raises:
            RuntimeError: the module is in training mode and has dropout.
            TypeError: weight_dtype is not a dtype.
            ValueError: a weight_dtype that is not narrower than the weights; for int8, weights
                that are not finite, or rows of more than 65,536 of them.
            NotImplementedError: weights that are not on the CPU, or a variant.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
            >>> small = lstm.for_inference(torch.int8)
            >>> bool((small(x)[0] - lstm(x)[0]).abs().max() < 0.02)
            True
        """
        from .inference import inference_lstm

        return inference_lstm(self, weight_dtype)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: prepacked weights are good for this module alone."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_prepacked", None)
        return state

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_scripting(self)

    @classmethod
    def from_native(cls, module: nn.LSTM) -> LSTM:
        """A copy of a torch.nn.LSTM that computes with this library and shares no memory with it.

        Parameters, parametrizations, hooks and training mode come along.

        Raises:
            TypeError: `module` is not a torch.nn.LSTM itself.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> native, x = torch.nn.LSTM(3, 4), torch.randn(5, 2, 3)
            >>> torch.allclose(LSTM.from_native(native)(x)[0], native(x)[0], atol=1e-6)
            True
        """
        return _converted(module, nn.LSTM, cls)

    def to_native(self) -> nn.LSTM:
        """A copy as torch.nn.LSTM that shares no memory with this one.

        Raises:
            ValueError: the module computes a variant, which torch.nn.LSTM does not have.

        Examples:
            >>> from lstm_kernels import LSTM
            >>> type(LSTM(3, 4).to_native())
            <class 'torch.nn.modules.rnn.LSTM'>
        """
        if self.variant is not None:
            raise ValueError(f"torch.nn.LSTM does not compute {self.variant}")
        native = _converted(self, _own_class(self, LSTM), nn.LSTM)
        for ours in ("forget_bias", "recompute", "variant", "_prepacked"):
            native.__dict__.pop(ours, None)
        native.flatten_parameters()
        return native


class LSTMCell(nn.RNNCellBase):
    """One LSTM step: a drop-in for torch.nn.LSTMCell that can show its gates.

    Equations as in LSTM, without projection.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.LSTMCell.
        forget_bias: as in LSTM.
        variant: as in LSTM; the parameters are `peephole`, `norm_gates` and `norm_cell`.

    Raises:
        ValueError: a forget_bias without biases.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTMCell
        >>> cell, x = LSTMCell(3, 4), torch.randn(5, 2, 3)
        >>> state = None
        >>> for x_t in x:
        ...     state = cell(x_t, state)
        >>> h, c = state
        >>> tuple(h.shape), tuple(c.shape)
        ((2, 4), (2, 4))
    """

    forget_bias: float | None = None
    variant: Variant | None = None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        forget_bias: float | None = None,
        variant: Variant | None = None,
    ) -> None:
        _check_forget_bias(forget_bias, bias)
        _check_variant(variant)
        self.forget_bias = forget_bias  # reset_parameters reads it
        nn.RNNCellBase.__init__(self, input_size, hidden_size, bias, 4, device, dtype)
        if variant is not None:
            self.variant = variant
            _add_variant_weights(self, [""], device, dtype)
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw initial values as torch.nn.LSTMCell does, then set the forget gate's bias.

        Examples:
            >>> from lstm_kernels import LSTMCell
            >>> cell = LSTMCell(3, 4, forget_bias=1.0)
            >>> cell.reset_parameters()
            >>> (cell.bias_ih + cell.bias_hh)[4:8].tolist()  # of the forget gate
            [1.0, 1.0, 1.0, 1.0]
        """
        super().reset_parameters()
        if self.variant is not None:
            _reset_norms(self)
        if self.forget_bias is not None:
            _fill_forget_gate(self.bias_ih, self.forget_bias)
            _fill_forget_gate(self.bias_hh, 0.0)

    def extra_repr(self) -> str:
        forget_bias = "" if self.forget_bias is None else f", forget_bias={self.forget_bias}"
        variant = "" if self.variant is None else f", variant={self.variant}"
        return super().extra_repr() + forget_bias + variant

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Sequence[Tensor] | None = None,
        *,
        return_gates: Literal[False] = False,
        **options: Unpack[CellOptions],
    ) -> Stepped: ...
    @overload
    def forward(
        self,
        input: Tensor,
        hx: Sequence[Tensor] | None = None,
        *,
        return_gates: Literal[True],
        **options: Unpack[CellOptions],
    ) -> SteppedGates: ...
    @overload
    def forward(
        self,
        input: Tensor,
        hx: Sequence[Tensor] | None = None,
        *,
        return_gates: bool = False,
        **options: Unpack[CellOptions],
    ) -> Stepped | SteppedGates: ...
    def forward(
        self,
        input: Tensor,
        hx: Sequence[Tensor] | None = None,
        *,
        return_gates: bool = False,
        masks: Masks | None = None,
        input_gate: Tensor | None = None,
    ) -> Any:
        """Take one step.

        Args:
            input: (N, I), or unbatched (I,); in the dtype of the weights, as in LSTM.
            hx: `(h, c)`, each (N, H) or (H,); zeros if None.
            return_gates: also return the activated gates i, f, g, o, (N, 4, H) or (4, H).
            masks: the variant's masks, instead of drawn ones: a mask that is to be the same in all
                steps must be given to each.
            input_gate: (N, H) or (H,), where the variant takes it from outside.

        Returns:
            `(h, c)` as torch.nn.LSTMCell does, or `(h, c, gates)`.

        Raises:
            ValueError, RuntimeError, TypeError: as torch.nn.LSTMCell does, in its words.
            NotImplementedError: a dtype or device that has no kernel.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTMCell
            >>> cell = LSTMCell(3, 4)
            >>> h, c, gates = cell(torch.randn(2, 3), return_gates=True)
            >>> i, f, g, o = gates.unbind(dim=1)
            >>> torch.allclose(h, o * torch.tanh(c))
            True
        """
        if type(input) is not Tensor and isinstance(input, Proxy):
            options = {"return_gates": return_gates, "masks": masks, "input_gate": input_gate}
            recorded = _overloads.leaf(self, input, hx, options)
            if recorded is not NotImplemented:
                return recorded
            if self.variant is None:  # torch.fx makes a proxy of every argument of what it traces
                masks = input_gate = None
        variant = None
        if self.variant is not None or masks is not None or input_gate is not None:
            of_layers = None if masks is None else [masks]
            variant = _bind(self, self.variant, [""], of_layers, input_gate, None)
        return lstm_cell(
            input,
            hx,
            *weights_of(self, CELL_WEIGHTS),
            return_gates=return_gates,
            variant=variant,
            training=self.training,
        )

    if TYPE_CHECKING:
        __call__: CallsForward

    def preactivations(self, input: Tensor, hx: Sequence[Tensor] | None = None) -> Tensor:
        """The gates before their sigmoid or tanh, (N, 4, H) or (4, H), exact where these saturate.

        Args:
            input, hx: those of the call.

        Raises:
            NotImplementedError: a variant, whose gates are made of more than one product.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTMCell
            >>> tuple(LSTMCell(3, 4).preactivations(torch.randn(2, 3)).shape)
            (2, 4, 4)
        """
        refuse_variant(self, "preactivations")
        w_ih, w_hh, b_ih, b_hh = weights_of(self, CELL_WEIGHTS)
        h = input.new_zeros(*input.shape[:-1], self.hidden_size) if hx is None else hx[0]
        return _reference.preactivations(input, h, DirectionWeights(w_ih, w_hh, b_ih, b_hh, None))

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_scripting(self)

    def for_inference(self, weight_dtype: torch.dtype | None = None) -> InferenceLSTMCell:
        """A cell for inference on the CPU that owns its weights: see LSTM.for_inference.

        Raises:
            TypeError, ValueError, NotImplementedError: as LSTM.for_inference.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTMCell
            >>> h, c = LSTMCell(3, 4).for_inference()(torch.randn(2, 3))
            >>> tuple(h.shape)
            (2, 4)
        """
        from .inference import inference_cell

        return inference_cell(self, weight_dtype)

    @classmethod
    def from_native(cls, module: nn.LSTMCell) -> LSTMCell:
        """A copy of a torch.nn.LSTMCell that computes with this library; shares no memory.

        Raises:
            TypeError: `module` is not a torch.nn.LSTMCell itself.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTMCell
            >>> LSTMCell.from_native(torch.nn.LSTMCell(3, 4))
            LSTMCell(3, 4)
        """
        return _converted(module, nn.LSTMCell, cls)

    def to_native(self) -> nn.LSTMCell:
        """A copy as torch.nn.LSTMCell that shares no memory with this one.

        Raises:
            ValueError: the module computes a variant, which torch.nn.LSTMCell does not have.

        Examples:
            >>> from lstm_kernels import LSTMCell
            >>> type(LSTMCell(3, 4).to_native())
            <class 'torch.nn.modules.rnn.LSTMCell'>
        """
        if self.variant is not None:
            raise ValueError(f"torch.nn.LSTMCell does not compute {self.variant}")
        native = _converted(self, _own_class(self, LSTMCell), nn.LSTMCell)
        for ours in ("forget_bias", "variant"):
            native.__dict__.pop(ours, None)
        return native


def weights_of(module: nn.Module, names: Sequence[str]) -> list[Any]:
    """The weights. Read each attribute once: a parametrized weight is recomputed on access."""
    plain = module._parameters  # noqa: SLF001 - named_parameters() takes as long as a small step
    if [*plain][: len(names)] == names:  # those of a variant follow
        return [*plain.values()][: len(names)]
    return [getattr(module, name) for name in names]


def refuse_variant(module: nn.Module, method: str, instead: str = "") -> None:
    """Refuse a method to a module with a variant, which torch.nn's have not."""
    variant = getattr(module, "variant", None)
    if variant is not None:
        raise NotImplementedError(
            f"{method}() is for modules without a variant, got {variant}{instead}"
        )


def replace_lstm(model: nn.Module, *, subclass: bool = False) -> nn.Module:
    """Make every torch.nn.LSTM and torch.nn.LSTMCell inside a model one of this library, in place.

    The modules stay the same objects with the same Parameters, hooks and parametrizations, so
    optimizers and references to them go on working. Instances of subclasses, which may
    compute something else, are left alone.

    Args:
        model: changed in place.
        subclass: take lstm_kernels.nn.LSTM and LSTMCell, which are a torch.nn.LSTM and LSTMCell to
            isinstance. torch.compile makes no graph of them unless torch._dynamo.config.allow_rnn.

    Returns:
        The model.

    Raises:
        TypeError: `model` is not a torch.nn.Module.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, replace_lstm
        >>> model = torch.nn.ModuleDict({"memory": torch.nn.LSTM(3, 4)})
        >>> weight = model["memory"].weight_hh_l0
        >>> isinstance(replace_lstm(model)["memory"], LSTM), model["memory"].weight_hh_l0 is weight
        (True, True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    from . import nn as subclasses

    kinds: Any = subclasses if subclass else sys.modules[__name__]
    for module in model.modules():
        for native, ours in ((nn.LSTM, kinds.LSTM), (nn.LSTMCell, kinds.LSTMCell)):
            if is_plain(module, native):
                _change_class(module, native, ours)
    return model


def _own_class(module: nn.Module, cls: type[nn.Module]) -> type[nn.Module]:
    """`cls`, or its namesake that is torch.nn's too where the module is one."""
    from . import nn as subclasses

    both: type[nn.Module] = getattr(subclasses, cls.__name__)
    return both if is_plain(module, both) else cls


def is_plain(module: nn.Module, cls: type[nn.Module]) -> bool:
    """Whether a module is of this very class, perhaps parametrized."""
    kind = type(module)
    return kind is cls or (
        nn.utils.parametrize.is_parametrized(module) and kind.__bases__ == (cls,)
    )


def _change_class(module: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    if type(module) is old:
        module.__class__ = new
        return
    # torch parametrizes a module by giving it a special class, with a property per weight.
    members = {
        name: value
        for name, value in vars(type(module)).items()
        if name not in ("__dict__", "__weakref__", "__module__", "__doc__")
    }
    module.__class__ = type(f"Parametrized{new.__name__}", (new,), members)


def _converted(module: nn.Module, old: type[nn.Module], new: type[_Module]) -> _Module:
    if not is_plain(module, old):
        raise TypeError(
            f"expected a {old.__module__}.{old.__name__}, got "
            f"{type(module).__module__}.{type(module).__qualname__}"
        )
    # What a parametrization or a hook has computed is no leaf, which deepcopy would refuse.
    kept = [*vars(module).values(), *getattr(module, "_flat_weights", ())]
    computed = {
        id(value): value.detach().clone()
        for value in kept
        if isinstance(value, Tensor) and not value.is_leaf
    }
    converted = copy.deepcopy(module, computed)
    _change_class(converted, old, new)
    return cast(_Module, converted)


def _packed_like(packed: PackedSequence, padded: Tensor) -> PackedSequence:
    """Values (T, N, ...) as the rows of a PackedSequence."""
    sizes = packed.batch_sizes.to(padded.device)
    active = torch.arange(padded.shape[1], device=padded.device) < sizes[:, None]
    if packed.sorted_indices is not None:
        padded = padded.index_select(1, packed.sorted_indices)
    return packed._replace(data=padded[active])


def refuse_scripting(module: nn.Module) -> NoReturn:
    """What torch.jit.script gets to hear: it asks each module for what to compile in its place."""
    raise NotImplementedError(
        f"torch.jit.script, which torch has deprecated, cannot compile lstm_kernels."
        f"{type(module).__name__}: use torch.compile, torch.export or torch.jit.trace, or script a "
        "model whose LSTMs are converted by to_native()"
    )


def _check_forget_bias(forget_bias: float | None, bias: bool) -> None:
    if forget_bias is not None and not bias:
        raise ValueError("forget_bias needs bias=True")


def _check_variant(variant: Any) -> None:
    if variant is not None and not isinstance(variant, Variant):
        raise TypeError(f"variant must be a Variant or None, got {type(variant).__name__}")


def _add_variant_weights(
    module: LSTM | LSTMCell, suffixes: Sequence[str], device: Any, dtype: torch.dtype | None
) -> None:
    """Give the module its variant's parameters, with no values yet."""
    shapes = cast(Variant, module.variant).weight_shapes(module.hidden_size)
    for suffix in suffixes:
        for name, shape in shapes.items():
            empty = torch.empty(shape, device=device, dtype=dtype)
            module.register_parameter(name + suffix, nn.Parameter(empty))


def _reset_norms(module: LSTM | LSTMCell) -> None:
    """Initial values of the norms: gains 1, biases 0. Those of the gates are the layer's biases."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("norm_gates"):
                parameter.fill_(1)
            elif name.startswith("norm_cell"):
                parameter[0], parameter[1] = 1, 0
            elif name.startswith("bias") and cast(Variant, module.variant).layer_norm is not None:
                parameter.zero_()


def _bind(
    module: nn.Module,
    variant: Variant | None,
    suffixes: Sequence[str],
    masks: Sequence[Masks] | None,
    input_gate: Tensor | None,
    reset_state: Sequence[Tensor] | None,
) -> BoundVariant:
    """A module's variant with its parameters as they are now and the tensors of a call."""
    variant = Variant() if variant is None else variant
    names = variant.weight_names
    weights = [
        VariantWeights(**{name: getattr(module, name + suffix) for name in names})
        for suffix in (suffixes if names else ())
    ]
    return variant.bind(weights, masks=masks, input_gate=input_gate, reset_state=reset_state)


def _fill_forget_gate(bias: Tensor, value: float) -> None:
    with torch.no_grad():
        bias.unflatten(0, (4, -1))[FORGET_GATE].fill_(value)
