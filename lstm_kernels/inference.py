"""LSTMs for inference on the CPU, which own their weights in the form that the kernels read.

A call of an LSTM lays its weights out anew; a prepacked one compares them with those it packed,
which means reading them once more. A module without Parameters does neither. It computes all its
layers in one call of an op.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from . import _checks, _inference_ops, _ops, _overloads
from . import nn as subclasses
from ._autograd import wanted
from ._inference_ops import OwnedCall
from ._layer import Layer
from ._layouts import layout_of
from ._quantized import dequantized, quantized
from ._states import LSTMStates
from ._torch_private import forward_mode_active, tracing, transforms_active
from .functional import batched_step, ops_look, unbatched_step
from .modules import (
    CELL_WEIGHTS,
    LSTM,
    LSTMCell,
    is_plain,
    refuse_scripting,
    refuse_variant,
    weights_of,
)

_Model = TypeVar("_Model", bound=nn.Module)
_FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_NARROW = (torch.bfloat16, torch.float16)
# Sums of this many products of 8-bit numbers fit into 32 bits.
_MOST_QUANTIZED = 1 << 16
_INSTEAD = ": call the module itself under torch.inference_mode()"


class _Owner(nn.Module):
    """Weights as buffers, in the order and by the names of torch.nn's modules, and laid out.

    The buffers are what is saved and loaded. What is computed with is made of them when the module
    is made, loaded or copied to another process; it is good for one process and never saved.
    """

    # Of the format of the state_dict, where torch keeps it with the module's entries.
    _version = 1
    _owned: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        bidirectional: bool,
        proj_size: int,
        dtype: torch.dtype | None,
        weight_dtype: torch.dtype | None,
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        #: of the input, the states and the results
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        self.weight_dtype = _weight_dtype(self.dtype, weight_dtype)
        self._names = tuple(names)
        self._stack = (num_layers, hidden_size, proj_size or hidden_size, bidirectional)
        self._shapes = self._weight_shapes()
        for name, shape in zip(names, self._shapes, strict=True):
            dtype = self.weight_dtype if len(shape) == 2 else self.dtype
            self.register_buffer(name, torch.zeros(shape, dtype=dtype, device="cpu"))
        matrices = [k for k, shape in enumerate(self._shapes) if len(shape) == 2]
        self._scales = {names[k]: f"{names[k]}_scale" for k in matrices}
        if self.weight_dtype is not torch.int8:
            self._scales = {}
        elif max(self._shapes[k][1] for k in matrices) > _MOST_QUANTIZED:
            raise ValueError(
                f"int8 weights have rows of at most {_MOST_QUANTIZED} numbers, got input_size "
                f"{input_size} and hidden_size {hidden_size}"
            )
        for name, scale in self._scales.items():
            rows = self._buffers[name].shape[0]  # type: ignore[union-attr]
            self.register_buffer(scale, torch.zeros(rows, dtype=self.dtype, device="cpu"))

    def _weight_shapes(self) -> list[tuple[int, ...]]:
        """Those of the weights, in order."""
        num_layers, hidden_size, h_size, bidirectional = self._stack
        gates, shapes = 4 * hidden_size, []
        for layer in range(num_layers):
            width = self.input_size if layer == 0 else (1 + bidirectional) * h_size
            of_direction: list[tuple[int, ...]] = [(gates, width), (gates, h_size)]
            of_direction += [(gates,), (gates,)] if self.bias else []
            of_direction += [(h_size, hidden_size)] if h_size != hidden_size else []
            shapes += of_direction * (1 + bidirectional)
        return shapes

    def _take(self, weights: Sequence[Tensor]) -> None:
        """Copy weights, rounded where they are held narrower, and lay them out."""
        with torch.no_grad():
            for name, weight in zip(self._names, weights, strict=True):
                if name in self._scales:
                    if not weight.isfinite().all():
                        raise ValueError(
                            f"{name} has numbers that are not finite, which int8 cannot hold"
                        )
                    rounded, scale = quantized(weight)
                    self._buffers[name].copy_(rounded)  # type: ignore[union-attr]
                    self._buffers[self._scales[name]].copy_(scale)  # type: ignore[union-attr]
                else:
                    self._buffers[name].copy_(weight)  # type: ignore[union-attr]
        self._lay_out()

    def _wide(self) -> list[Tensor]:
        """The weights in the dtype of the results: exact but for the scales of int8."""
        return [
            dequantized(self._buffers[name], self._buffers[self._scales[name]])  # type: ignore[arg-type]
            if name in self._scales
            else self._buffers[name].to(self.dtype)  # type: ignore[union-attr]
            for name in self._names
        ]

    def _laid_out(self) -> Tensor:
        """The weights as the ops want them."""
        num_layers, _, _, bidirectional = self._stack
        if self._scales:
            weights = [cast(Tensor, self._buffers[name]) for name in self._names]
            scales = [cast(Tensor, self._buffers[name]) for name in self._scales.values()]
            return _inference_ops.own_quantized(
                weights, scales, num_layers, self.bias, bidirectional
            )
        narrow = self.weight_dtype if self.weight_dtype in _NARROW else None
        weights = self._wide()
        return _inference_ops.own_weights(weights, num_layers, self.bias, bidirectional, narrow)

    def _lay_out(self) -> None:
        with torch.no_grad():
            self.__dict__["_owned"] = self._laid_out()

    def _stand_ins(self) -> list[Tensor]:
        """Tensors without memory of the weights' shapes, for the checks of the arguments."""
        nothing = torch.empty((), dtype=self.dtype)
        return [nothing.expand(shape) for shape in self._shapes]

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        version = local_metadata.get("version")
        if version is not None and version > self._version:
            error_msgs.append(
                f"{prefix or type(self).__name__}: saved in format {version} by a later version of "
                f"lstm_kernels, which this one, of format {self._version}, cannot read"
            )
            return
        for name in (*self._names, *self._scales.values()):
            given, own = state_dict.get(prefix + name), self._buffers[name]
            if isinstance(given, Tensor) and given.dtype is not own.dtype:  # type: ignore[union-attr]
                error_msgs.append(
                    f"{prefix}{name}: expected {own.dtype}, got {given.dtype}; "  # type: ignore[union-attr]
                    "make the module with for_inference and the weight_dtype that was saved"
                )
                return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        self._lay_out()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        first = self._buffers[self._names[0]]
        becomes = fn(first)
        if becomes.device != first.device or becomes.dtype is not first.dtype:  # type: ignore[union-attr]
            raise NotImplementedError(
                f"an inference module stays on the CPU, with weights of {self.weight_dtype} and "
                f"results of {self.dtype}: convert the LSTM that it is made from instead, got "
                f"{becomes.device} and {becomes.dtype}"
            )
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_owned"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lay_out()

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_scripting(self)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if not self.bias:
            parts.append("bias=False")
        parts += self._options()
        if self.dtype is not torch.float32:
            parts.append(f"dtype={self.dtype}")
        if self.weight_dtype is not self.dtype:
            parts.append(f"weight_dtype={self.weight_dtype}")
        return ", ".join(parts)

    def _options(self) -> list[str]:
        return []


class InferenceLSTM(_Owner):
    """A stack of LSTM layers for inference, made by `LSTM.for_inference`.

    It is called as the LSTM is, with the same results, and has no Parameters and no dropout. Its
    state_dict has the names, shapes and order of torch.nn.LSTM's, with matrices in `weight_dtype`.
    It is the same on every CPU. What is laid out for the CPU at hand is made of these buffers once;
    to change a buffer in place has no effect, to load a state_dict has.

    Made directly, its weights are zeros, to be loaded.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, proj_size: as in
            LSTM.
        dtype: of the input, the states and the results.
        weight_dtype: of the matrices; see LSTM.for_inference.

    Raises:
        TypeError, ValueError: as torch.nn.LSTM and LSTM.for_inference.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM, InferenceLSTM
        >>> made = LSTM(3, 4).for_inference(torch.bfloat16)
        >>> again = InferenceLSTM(3, 4, weight_dtype=torch.bfloat16)
        >>> again.load_state_dict(made.state_dict())
        <All keys matched successfully>
        >>> x = torch.randn(5, 2, 3)
        >>> torch.equal(made(x)[0], again(x)[0])
        True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: torch.dtype | None = None,
        weight_dtype: torch.dtype | None = None,
    ) -> None:
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, 0.0)
        shape = LSTM(*sizes, bidirectional, proj_size, device="meta")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            bidirectional,
            proj_size,
            dtype,
            weight_dtype,
            shape._flat_weights_names,
        )
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._lay_out()

    def _options(self) -> list[str]:
        options = {
            "proj_size": (self.proj_size, 0),
            "num_layers": (self.num_layers, 1),
            "batch_first": (self.batch_first, False),
            "bidirectional": (self.bidirectional, False),
        }
        return [f"{name}={is_}" for name, (is_, usual) in options.items() if is_ != usual]

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Sequence[Tensor] | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        return_states: bool = False,
        return_gates: bool = False,
    ) -> Any:
        """Run over a sequence: arguments and results are those of LSTM.forward.

        There are no arguments for a variant, and no reset_state. Where autocast is on, input and
        states are converted to the module's dtype.

        Raises:
            ValueError, RuntimeError, TypeError: as LSTM does.
            RuntimeError: a gradient is wanted.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> lstm = LSTM(3, 4).for_inference()
            >>> output, (h_n, c_n) = lstm(torch.randn(5, 2, 3), lengths=torch.tensor([5, 3]))
            >>> tuple(output.shape)
            (5, 2, 4)
        """
        if type(input) is not Tensor and isinstance(input, Proxy):
            options = {
                "lengths": lengths,
                "reset": reset,
                "return_states": return_states,
                "return_gates": return_gates,
            }
            return _recorded(self, input, hx, options)
        look = not _op_looks(input, hx)
        layout = layout_of(input, self.batch_first)
        h0, c0 = (None, None) if hx is None else _checks.pair(hx, "lstm")
        x, h0, c0 = layout.given(input, h0, c0)
        look = look or lengths is not None or reset is not None
        if look:
            _refuse_derivatives(x, h0, c0)
            _checks.ragged_kinds(layout.packed, lengths, reset)
            if _checks.autocast_dtype(x) is not None:
                x, h0, c0 = (None if t is None else t.to(self.dtype) for t in (x, h0, c0))  # type: ignore[assignment]
        lengths, reset = layout.ragged(lengths, reset)
        directions = 2 if self.bidirectional else 1
        if look:
            self._check(x, h0, c0, layout.packed)
            _checks.ragged_fits(x, lengths, reset, directions)
        if h0 is not None and c0 is not None and layout.order is not None:
            h0, c0 = h0.index_select(1, layout.order), c0.index_select(1, layout.order)
        if lengths is not None:
            lengths = lengths.to(torch.int64)
        if reset is not None:
            reset = reset.to(torch.bool)
        try:
            ragged = (layout.batch_sizes, lengths, reset)
            call = OwnedCall(x, h0, c0, self._owned, *self._stack, *ragged)
            output, h_n, c_n, states = self._run(call, return_states or return_gates, return_gates)
        except Exception as refusal:
            if look:
                raise
            _checks.explain(refusal, self._check, x, h0, c0, layout.packed)
        given = layout.results(output, h_n, c_n)
        if states is None:
            return given
        hidden, cells, gates = (tuple(map(layout.back, of_layers)) for of_layers in states)
        return *given, LSTMStates(hidden, cells, gates if return_gates else None)

    def stream(self, batch: int = 1, hx: Sequence[Tensor] | None = None) -> LSTMStream:
        """Sequences that arrive one step at a time: see LSTMStream.

        Args:
            batch: how many sequences go on side by side.
            hx: `(h, c)` to start from, copied, (L, batch, H_out) and (L, batch, H); zeros if None.

        Raises:
            ValueError: the module is bidirectional, or batch is not a positive number.
            RuntimeError: hx does not fit.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> stream = LSTM(3, 4).for_inference().stream(batch=2)
            >>> tuple(stream(torch.randn(2, 3)).shape)
            (2, 4)
        """
        return LSTMStream(self, batch, hx)

    def _check(
        self, x: Tensor, h0: Tensor | None, c0: Tensor | None, packed: PackedSequence | None
    ) -> None:
        directions = 2 if self.bidirectional else 1
        weights = self._stand_ins()
        _checks.sequence_fits(x, h0, c0, weights, self.num_layers, directions, packed, None)

    def _run(
        self, call: OwnedCall, save_states: bool, save_gates: bool
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Sequence[Tensor], ...] | None]:
        """All layers: output, h_n, c_n, and what was asked for of every step."""
        if _leaves_this_process():
            if not self._scales:
                return self._exported(call, save_states, save_gates)
            call = call._replace(owned=self._laid_out())
        if not save_states:
            return *_inference_ops.owned_forward(call), None
        hidden, h_n, c_n, cells, gates = _inference_ops.owned_states(call, save_gates)
        # The output is the caller's to write to.
        return hidden[-1].clone(), h_n, c_n, (hidden, cells, gates)

    def _exported(
        self, call: OwnedCall, save_states: bool, save_gates: bool
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Sequence[Tensor], ...] | None]:
        """The same from the buffers, layer by layer, which is good for every CPU."""
        weights, results = self._wide(), []
        kind, ragged = (self.bias, self.bidirectional), (call.batch_sizes, call.lengths, call.reset)
        stack = Layer(call.input, call.h0, call.c0, weights, *kind, *ragged)
        x = call.input
        for index in range(self.num_layers):
            layer = stack.nth(index, self.num_layers, x)
            results.append(_ops.sequence_forward(layer, save_states, save_gates))
            x = results[-1][0]
        hidden, h_n, c_n, cells, gates = zip(*results, strict=True)
        output = x.clone() if save_states else x
        return (
            output,
            torch.cat(h_n),
            torch.cat(c_n),
            (hidden, cells, gates) if save_states else None,
        )


class LSTMStream:
    """Sequences that go on from call to call, a step at a time; made by `InferenceLSTM.stream`.

    A step of all layers is one call of an op, which updates the states where they are and lets
    other Python threads run. Streams of one module share its weights, and each may have a thread;
    a stream takes one step at a time.

    Attributes:
        module: the InferenceLSTM.
        hidden, cell: the states after the last step, (L, batch, H_out) and (L, batch, H). They may
            be read, copied and written to, but not replaced by tensors that do not fit.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM
        >>> lstm, x = LSTM(3, 4), torch.randn(5, 2, 3)
        >>> stream = lstm.for_inference().stream(batch=2)
        >>> outputs = [stream(x_t) for x_t in x]  # (batch, I) each
        >>> torch.allclose(torch.stack(outputs), lstm(x)[0], atol=1e-6)
        True
    """

    def __init__(
        self, module: InferenceLSTM, batch: int, hx: Sequence[Tensor] | None = None
    ) -> None:
        """See InferenceLSTM.stream."""
        if module.bidirectional:
            raise ValueError(
                "a bidirectional LSTM has no streams: its reverse direction starts at the end"
            )
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch must be a positive int, got {batch!r}")
        self.module = module
        layers, hidden_size, h_size, _ = module._stack
        self.hidden = torch.zeros(layers, batch, h_size, dtype=module.dtype, device="cpu")
        self.cell = torch.zeros(layers, batch, hidden_size, dtype=module.dtype, device="cpu")
        if hx is not None:
            h, c = _checks.pair(hx, "stream")
            for index, (given, state) in enumerate(((h, self.hidden), (c, self.cell))):
                _checks.state_fits(cast(Tensor, given), tuple(state.shape), index, state, None)  # type: ignore[arg-type]
                state.copy_(cast(Tensor, given).detach())

    def __call__(self, input: Tensor, *, reset: Tensor | None = None) -> Tensor:
        """Take one step.

        Args:
            input: (batch, I).
            reset: (batch,) bool, or 0 and 1 in any dtype: both states of these sequences are zeroed
                before the step.

        Returns:
            (batch, H_out): the hidden state of the last layer, a new tensor.

        Raises:
            RuntimeError, ValueError, TypeError, NotImplementedError: the arguments do not fit, or a
                gradient is wanted; the states are as before.
        """
        if input.requires_grad and is_grad_enabled():
            _refuse_derivatives(input)
        try:
            # torch looks into each argument that it is given, defaults too.
            if reset is None:
                return _inference_ops.owned_step(input, self.hidden, self.cell, self.module._owned)
            reset = reset.to(torch.bool).contiguous()
            return _inference_ops.owned_step(
                input, self.hidden, self.cell, self.module._owned, reset
            )
        except Exception as refusal:
            if _checks.autocast_dtype(input) is not None and input.dtype is not self.hidden.dtype:
                return self(input.to(self.hidden.dtype), reset=reset)
            _checks.explain(refusal, self._check, input, reset)

    def zero_(self, sequences: Tensor | Sequence[int] | None = None) -> LSTMStream:
        """Zero the states, of all sequences or of those with these indices or this bool mask.

        Returns:
            The stream.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTM
            >>> stream = LSTM(3, 4).for_inference().stream(batch=2)
            >>> output = stream(torch.randn(2, 3))
            >>> stream.zero_([1]).hidden[0, 1].tolist()  # the second sequence starts anew
            [0.0, 0.0, 0.0, 0.0]
        """
        if sequences is None:
            sequences = torch.ones(self.hidden.shape[1], dtype=torch.bool)
        for state in (self.hidden, self.cell):
            state[:, torch.as_tensor(sequences)] = 0
        return self

    def __repr__(self) -> str:
        return f"LSTMStream({self.module!r}, batch={self.hidden.shape[1]})"

    def _check(self, input: Tensor, reset: Tensor | None) -> None:
        _refuse_derivatives(input)
        if input.dim() != 2:
            raise ValueError(f"LSTMStream: Expected input to be 2D, got {input.dim()}D instead")
        if input.shape[0] != self.hidden.shape[1]:
            raise RuntimeError(
                f"Expected input of {self.hidden.shape[1]} sequences, got {input.shape[0]}"
            )
        self.module._check(input.unsqueeze(0), self.hidden, self.cell, None)
        if reset is not None:
            _checks.reset_fits(reset.unsqueeze(0), input.unsqueeze(0))


class InferenceLSTMCell(_Owner):
    """One LSTM step for inference, made by `LSTMCell.for_inference`: see InferenceLSTM.

    Args:
        input_size, hidden_size, bias: as in LSTMCell.
        dtype, weight_dtype: as in InferenceLSTM.

    Raises:
        TypeError, ValueError: as LSTMCell and LSTM.for_inference.

    Examples:
        >>> import torch
        >>> from lstm_kernels import InferenceLSTMCell, LSTMCell
        >>> cell = LSTMCell(3, 4).for_inference(torch.float16)
        >>> h, c = cell(torch.randn(2, 3))
        >>> isinstance(cell, InferenceLSTMCell), tuple(c.shape)
        (True, (2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: torch.dtype | None = None,
        weight_dtype: torch.dtype | None = None,
    ) -> None:
        names = CELL_WEIGHTS if bias else CELL_WEIGHTS[:2]
        super().__init__(input_size, hidden_size, 1, bias, False, 0, dtype, weight_dtype, names)
        self._lay_out()

    def forward(
        self, input: Tensor, hx: Sequence[Tensor] | None = None, *, return_gates: bool = False
    ) -> Any:
        """Take one step: arguments and results are those of LSTMCell.forward.

        Where autocast is on, input and states are converted to the module's dtype.

        Raises:
            ValueError, RuntimeError, TypeError: as LSTMCell does.
            RuntimeError: a gradient is wanted.

        Examples:
            >>> import torch
            >>> from lstm_kernels import LSTMCell
            >>> cell = LSTMCell(3, 4).for_inference()
            >>> h, c = cell(torch.randn(2, 3))
            >>> h, c = cell(torch.randn(2, 3), (h, c))
            >>> tuple(h.shape)
            (2, 4)
        """
        if type(input) is not Tensor and isinstance(input, Proxy):
            return _recorded(self, input, hx, {"return_gates": return_gates})
        look = not _op_looks(input, hx)
        x, h0, c0, batched = batched_step(input, hx)
        dims = 2 if batched else 1
        if look:
            _refuse_derivatives(x, h0, c0)
            if _checks.autocast_dtype(x) is not None:
                x, h0, c0 = (None if t is None else t.to(self.dtype) for t in (x, h0, c0))  # type: ignore[assignment]
            self._check(x, h0, c0, dims)
        if h0 is None or c0 is None:
            h0 = c0 = x.new_zeros(x.shape[0], self.hidden_size)
        try:
            h, c, gates = self._run(x, h0, c0, return_gates)
        except Exception as refusal:
            if look:
                raise
            _checks.explain(refusal, self._check, x, h0, c0, dims)
        if batched:
            return (h, c, gates) if return_gates else (h, c)
        return unbatched_step(h, c, gates, return_gates)

    def _check(self, x: Tensor, h0: Tensor | None, c0: Tensor | None, dims: int) -> None:
        weights: list[Any] = [*self._stand_ins(), None, None]
        w_ih, w_hh, b_ih, b_hh = weights[:4]
        _checks.cell_fits(x, h0, c0, w_ih, w_hh, b_ih, b_hh, dims, None)

    def _run(
        self, x: Tensor, h0: Tensor, c0: Tensor, save_gates: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        if _leaves_this_process() and self._scales:
            return _inference_ops.owned_cell(x, h0, c0, self._laid_out(), save_gates)
        if _leaves_this_process():
            w_ih, w_hh, b_ih, b_hh = (*self._wide(), None, None)[:4]
            return _ops.cell_forward(x, h0, c0, w_ih, w_hh, b_ih, b_hh, save_gates)
        return _inference_ops.owned_cell(x, h0, c0, self._owned, save_gates)


def inference_lstm(lstm: LSTM, weight_dtype: torch.dtype | None) -> InferenceLSTM:
    """LSTM.for_inference."""
    refuse_variant(lstm, "for_inference", _INSTEAD)
    if lstm.training and lstm.dropout > 0 and lstm.num_layers > 1:
        raise RuntimeError(
            f"the LSTM is in training mode with dropout={lstm.dropout}, which inference does not "
            "have: call eval() first"
        )
    weights = _plain_weights(lstm, lstm._flat_weights_names)
    made = InferenceLSTM(
        lstm.input_size,
        lstm.hidden_size,
        lstm.num_layers,
        lstm.bias,
        lstm.batch_first,
        lstm.bidirectional,
        lstm.proj_size,
        dtype=weights[0].dtype,
        weight_dtype=weight_dtype,
    )
    made._take(weights)
    return made.train(lstm.training)


def inference_cell(cell: LSTMCell, weight_dtype: torch.dtype | None) -> InferenceLSTMCell:
    """LSTMCell.for_inference."""
    refuse_variant(cell, "for_inference", _INSTEAD)
    weights = _plain_weights(cell, CELL_WEIGHTS if cell.bias else CELL_WEIGHTS[:2])
    sizes = (cell.input_size, cell.hidden_size, cell.bias)
    made = InferenceLSTMCell(*sizes, dtype=weights[0].dtype, weight_dtype=weight_dtype)
    made._take(weights)
    return made.train(cell.training)


def for_inference(model: _Model, weight_dtype: torch.dtype | None = None) -> _Model:
    """Put inference modules in the place of all LSTMs inside a model, this library's and torch's.

    Those of torch.nn and of this library are replaced by what `for_inference` makes of them; the
    rest of the model stays as it is. Instances of subclasses, which may compute something else, are
    left alone. Hooks of the replaced modules stay behind.

    Args:
        model: changed in place, unless it is an LSTM itself.
        weight_dtype: as in LSTM.for_inference.

    Returns:
        The model, or what an LSTM that is the model becomes.

    Raises:
        TypeError: `model` is not a torch.nn.Module.
        RuntimeError, TypeError, ValueError, NotImplementedError: as LSTM.for_inference; the model
            is left as it was.

    Examples:
        >>> import torch
        >>> from lstm_kernels import for_inference
        >>> model = torch.nn.ModuleList([torch.nn.LSTM(3, 4), torch.nn.Linear(4, 2)])
        >>> type(for_inference(model, torch.int8)[0]).__name__
        'InferenceLSTM'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    made: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if any(is_plain(module, kind) for kind in (nn.LSTM, LSTM, subclasses.LSTM)):
            made[module] = inference_lstm(cast(LSTM, module), weight_dtype)
        elif any(is_plain(module, kind) for kind in (nn.LSTMCell, LSTMCell, subclasses.LSTMCell)):
            made[module] = inference_cell(cast(LSTMCell, module), weight_dtype)
    if model in made:
        return cast(_Model, made[model])
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in made:
                parent._modules[name] = made[child]
    return model


def _weight_dtype(dtype: torch.dtype, weight_dtype: torch.dtype | None) -> torch.dtype:
    """What the matrices of a module of `dtype` are held in."""
    if dtype not in _FLOATING:
        raise ValueError(f"dtype must be one of {', '.join(map(str, _FLOATING))}, got {dtype}")
    if weight_dtype is None or weight_dtype is dtype:
        return dtype
    if not isinstance(weight_dtype, torch.dtype):
        raise TypeError(
            f"weight_dtype must be a torch.dtype or None, got {type(weight_dtype).__name__}"
        )
    allowed = [None, dtype, *((*_NARROW, torch.int8) if dtype is torch.float32 else ())]
    if weight_dtype not in allowed:
        narrower = weight_dtype in (*_NARROW, torch.int8)
        raise ValueError(
            f"weight_dtype must be {' or '.join(map(str, allowed))} for a module of {dtype}, got "
            f"{weight_dtype}" + (": call float() on the module first" if narrower else "")
        )
    return weight_dtype


def _plain_weights(module: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """The weights of a module of torch.nn or of this library, which may be parametrized."""
    weights: list[Tensor] = weights_of(module, names)
    for name, weight in zip(names, weights, strict=True):
        if not weight.is_cpu or weight.layout is not torch.strided:
            raise NotImplementedError(
                f"for_inference is for dense weights on the CPU, but {name} is on {weight.device}: "
                "call cpu() first"
            )
        if weight.dtype is not weights[0].dtype:
            raise ValueError(
                f"for_inference expects weights of one dtype, got {name} of {weight.dtype} and "
                f"{names[0]} of {weights[0].dtype}"
            )
    return weights


def _recorded(module: nn.Module, input: Proxy, hx: Any, options: dict[str, Any]) -> Any:
    """The call as torch.fx records it, a leaf of the model."""
    result = _overloads.leaf(module, input, hx, options)
    if result is NotImplemented:
        raise NotImplementedError(
            f"torch.fx cannot trace {type(module).__name__} alone: trace a model that holds it"
        )
    return result


def _op_looks(input: object, hx: Sequence[Tensor] | None) -> bool:
    """Whether the op gets a call's very tensors and no derivative is wanted of them.

    It then refuses what does not fit, so that looking beforehand would only take time.
    """
    return (
        ops_look(input, hx, ())
        and input.is_cpu
        and not (is_grad_enabled() and wanted(input, *(() if hx is None else hx)))
    )


def _leaves_this_process() -> bool:
    """Whether the call is recorded to be saved, so that it must not hold what is laid out here."""
    return torch.compiler.is_exporting() or tracing()


def _refuse_derivatives(*tensors: Tensor | None) -> None:
    if is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise RuntimeError(
            "an inference module computes no gradients, but an argument requires one: call it "
            "under torch.no_grad() or torch.inference_mode(), or detach the argument; to train, "
            "use the LSTM that it was made from"
        )
    if transforms_active() or forward_mode_active():
        raise NotImplementedError(
            "an inference module takes no part in the transforms of torch.func and in forward-mode "
            "differentiation: use the LSTM that it was made from"
        )
