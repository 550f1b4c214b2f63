"""What a caller can get wrong, said in torch.nn.LSTM's types and words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from . import _load, _torch_private
from ._layer import WeightKind, kind_of

_FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def explain(refusal: Exception, check: Callable[..., None], *arguments: Any) -> NoReturn:
    """Raise what is wrong with the arguments of an op that refused them, or its refusal."""
    try:
        check(*arguments)
    except Exception as problem:
        raise problem from None
    raise refusal


def pair(hx: Sequence[Tensor] | None, name: str) -> tuple[Tensor | None, Tensor | None]:
    """Return (h0, c0), or (None, None)."""
    if hx is None:
        return None, None
    if not isinstance(hx, tuple) and isinstance(hx, Tensor):
        raise TypeError(f"{name}: hx must be a tuple (h_0, c_0) of two tensors, not a Tensor")
    if len(hx) > 2 or (len(hx) < 2 and name == "lstm_cell"):
        raise RuntimeError(f"{name} expects two hidden states")
    h0, c0 = hx[0], hx[1]
    if h0 is None or c0 is None:
        raise AttributeError(f"{name}: hx must hold two tensors; None has no attribute 'dim'")
    return h0, c0


def reset_pair(reset_state: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The two states that a reset leads to."""
    if (
        not isinstance(reset_state, (tuple, list))
        or len(reset_state) != 2
        or not all(isinstance(state, Tensor) for state in reset_state)
    ):
        raise TypeError(
            f"reset_state must be a tuple (h, c) of two tensors, got {type(reset_state).__name__}"
        )
    h, c = reset_state
    return h, c


def autocast_dtype(input: Tensor) -> torch.dtype | None:
    """What autocast, where it is on, makes of floating-point arguments; float64 it leaves alone."""
    if not _torch_private.any_autocast_enabled():
        return None
    device = input.device.type
    if device == "meta" or not torch.is_autocast_enabled(device) or input.dtype is torch.float64:
        return None
    return torch.get_autocast_dtype(device)


def weights_count(weights: Sequence[Tensor], num_layers: int, directions: int) -> None:
    """Whether each direction of each layer has 2, 3, 4 or 5 weights."""
    count, rest = divmod(len(weights), num_layers * directions) if num_layers > 0 else (0, 0)
    if rest or not 2 <= count <= 5:
        raise ValueError(
            f"expected 2, 3, 4 or 5 weights for each of {directions} directions of {num_layers} "
            f"layers, got {len(weights)} weights in all"
        )


def dense(x: Tensor) -> None:
    if x.is_nested or x.layout is not torch.strided:
        layout = "nested tensor" if x.is_nested else f"layout {x.layout}"
        raise RuntimeError(
            f"input must be a dense tensor, got {layout}; for sequences of different lengths pass "
            "a PackedSequence, or a padded tensor and lengths"
        )


def input_is_usable(x: Tensor, weight: Tensor, dims: int, autocast: torch.dtype | None) -> None:
    """Kind, dtype, device and last dimension of the input; `dims` is the number it should have."""
    dense(x)
    if x.dtype is not weight.dtype and (autocast is None or not x.is_floating_point()):
        raise ValueError(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). "
            f"Convert input: input.to({weight.dtype}), or convert model: model.to({x.dtype})"
        )
    if x.dtype not in _FLOATING:
        raise NotImplementedError(f"lstm_kernels has no kernel for {x.dtype}")
    if x.dim() != dims:
        raise RuntimeError(f"input must have {dims} dimensions, got {x.dim()}")
    if x.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            "input.size(-1) must be equal to input_size. "
            f"Expected {weight.shape[-1]}, got {x.shape[-1]}"
        )
    device_has_kernels(x)


def device_has_kernels(x: Tensor) -> None:
    if x.is_cpu:
        return
    if x.device.type == "cuda":
        if _load.cuda_problem is not None:
            raise NotImplementedError(f"lstm_kernels cannot use CUDA tensors: {_load.cuda_problem}")
    elif not x.is_meta:
        raise NotImplementedError(
            f"lstm_kernels has no kernel for device {x.device}: "
            'move the module and its input with .to("cpu")'
        )


def same_device(x: Tensor, other: Tensor, name: str) -> None:
    if other.device != x.device:
        raise RuntimeError(
            f"Input and {name} tensors are not at the same device, found input tensor at "
            f"{x.device} and {name} tensor at {other.device}"
        )


def same_dtype(x: Tensor, other: Tensor, name: str, autocast: torch.dtype | None) -> None:
    if other.dtype is x.dtype:
        return
    if autocast is None or other.dtype not in _FLOATING or other.dtype is torch.float64:
        raise RuntimeError(
            f"Input and {name} tensors are not the same dtype, found input tensor with {x.dtype} "
            f"and {name} tensor with {other.dtype}"
        )


def weights_fit(
    x: Tensor,
    weights: Sequence[Tensor],
    kind: WeightKind,
    directions: int,
    autocast: torch.dtype | None,
) -> None:
    """Shapes, dtypes and devices of all the weights."""
    gates, input_size = weights[0].shape
    h_size = weights[1].shape[1]
    hidden_size, rest = divmod(gates, 4)
    if rest or gates == 0 or h_size == 0 or (h_size != hidden_size and not kind.projects):
        raise RuntimeError(
            f"weight_ih {list(weights[0].shape)} and weight_hh {list(weights[1].shape)} are not "
            "those of an LSTM: expected (4 * hidden_size, input_size) and "
            "(4 * hidden_size, hidden_size), or (4 * hidden_size, proj_size) with projections"
        )
    matrix, vector = (gates, h_size), (gates,)
    rest_shapes = [matrix, vector, vector] if kind.has_biases else [matrix]
    if kind.projects:
        rest_shapes.append((h_size, hidden_size))
    dtype, device = x.dtype, x.device
    for start in range(0, len(weights), kind.each):
        if start == directions * kind.each:
            input_size = directions * h_size
        for k, expected in enumerate(((gates, input_size), *rest_shapes)):
            weight = weights[start + k]
            if weight.shape != expected:
                layer = start // (directions * kind.each)
                raise RuntimeError(
                    f"Expected weight {k} of layer {layer} to have size {list(expected)}, got "
                    f"{list(weight.shape)}"
                )
            if weight.dtype is not dtype or weight.device != device:
                same_device(x, weight, "parameter")
                same_dtype(x, weight, "parameter", autocast)


def ragged_kinds(
    packed: PackedSequence | None, lengths: Tensor | None, reset: Tensor | None
) -> None:
    if packed is not None and (lengths is not None or reset is not None):
        raise ValueError("lengths and reset describe padded input, not a PackedSequence")
    for value, name in ((lengths, "lengths"), (reset, "reset")):
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a Tensor, got {type(value).__name__}")


def state_dims(h0: Tensor | None, c0: Tensor | None, dims: int) -> None:
    if h0 is None or c0 is None:
        return
    if dims == 3 and (h0.dim() != 3 or c0.dim() != 3):
        raise RuntimeError(
            "For batched 3-D input, hx and cx should also be 3-D but got "
            f"({h0.dim()}-D, {c0.dim()}-D) tensors"
        )
    if dims == 2 and (h0.dim() != 2 or c0.dim() != 2):
        raise RuntimeError(
            "For unbatched 2-D input, hx and cx should also be 2-D but got "
            f"({h0.dim()}-D, {c0.dim()}-D) tensors"
        )


def sequence_fits(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    num_layers: int,
    directions: int,
    packed: PackedSequence | None,
    autocast: torch.dtype | None,
) -> None:
    """Everything about input, (T, N, I) or packed, states and weights."""
    weights_count(weights, num_layers, directions)
    state_dims(h0, c0, 3)
    kind = kind_of(weights, num_layers * directions)
    input_is_usable(x, weights[0], 3 if packed is None else 2, autocast)
    weights_fit(x, weights, kind, directions, autocast)
    batch = x.shape[1] if packed is None else packed_batch(packed)
    if x.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if h0 is not None and c0 is not None:
        rows = num_layers * directions
        state_fits(h0, (rows, batch, weights[1].shape[1]), 0, x, autocast)
        state_fits(c0, (rows, batch, weights[0].shape[0] // 4), 1, x, autocast)


def state_fits(
    state: Tensor,
    expected: tuple[int, int, int],
    index: int,
    x: Tensor,
    autocast: torch.dtype | None,
) -> None:
    if state.shape != expected:
        rows, batch, size = expected
        order = ""
        if state.shape == (batch, rows, size):
            order = "; states are (num_layers * num_directions, batch, size), batch_first or not"
        raise RuntimeError(
            f"Expected hidden[{index}] size {expected}, got {list(state.shape)}{order}"
        )
    same_device(x, state, "hidden")
    same_dtype(x, state, "hidden", autocast)


def packed_batch(packed: PackedSequence) -> int:
    """The number of sequences of a PackedSequence whose parts agree with each other."""
    if torch.compiler.is_dynamo_compiling():  # an error with fullgraph=True, else not compiled
        _torch_private.refuse_to_compile(
            "PackedSequence is not supported under torch.compile (its sizes are data-dependent). "
            "Pass a padded tensor and lengths=."
        )
    data, batch_sizes, sorted_indices, unsorted_indices = packed
    if (
        batch_sizes.dim() != 1
        or batch_sizes.dtype is not torch.int64
        or batch_sizes.device.type != "cpu"
    ):
        raise RuntimeError(
            "PackedSequence.batch_sizes must be a 1-D int64 tensor on the CPU, got "
            f"{batch_sizes.dim()}-D {batch_sizes.dtype} on {batch_sizes.device}"
        )
    sizes = batch_sizes.tolist()
    if not sizes:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if sizes[-1] < 1 or any(later > size for size, later in itertools.pairwise(sizes)):
        raise RuntimeError("PackedSequence.batch_sizes must be positive and never increase")
    if sum(sizes) != data.shape[0]:
        raise RuntimeError(
            f"PackedSequence.batch_sizes sum to {sum(sizes)}, but its data has {data.shape[0]} rows"
        )
    batch: int = sizes[0]
    for name, indices in (("sorted", sorted_indices), ("unsorted", unsorted_indices)):
        if indices is not None and indices.shape != (batch,):
            raise RuntimeError(
                f"PackedSequence.{name}_indices must have size [{batch}], the number of sequences, "
                f"got {list(indices.shape)}"
            )
    return batch


def ragged_fits(x: Tensor, lengths: Tensor | None, reset: Tensor | None, directions: int) -> None:
    """Lengths (N,) and reset (T, N) against x (T, N, I)."""
    if lengths is not None:
        lengths_fit(lengths, x)
    if reset is not None:
        if directions == 2:
            raise ValueError("reset has no meaning for a bidirectional LSTM")
        reset_fits(reset, x)


def lengths_fit(lengths: Tensor, x: Tensor) -> None:
    steps, batch = x.shape[:2]
    if lengths.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"lengths must be an int64 or int32 tensor, got {lengths.dtype}")
    if lengths.shape != (batch,):
        raise RuntimeError(f"Expected lengths of size [{batch}], got {list(lengths.shape)}")
    same_device(x, lengths, "lengths")
    message = "lengths must lie between 0 and the number of steps"
    if _can_read(lengths):
        values = _torch_private.unwrapped(lengths)  # vmap hides them from conditions
        if values.numel() and not (values.min() >= 0 and values.max() <= steps):
            raise ValueError(f"{message}, {steps}; got {values.min()} to {values.max()}")
    elif x.device.type != "meta":
        inside = (lengths >= 0) & (lengths <= steps)
        # No wait for the device; and no number in the words, which would tie a graph to it.
        _torch_private.assert_without_waiting(inside.all(), message)


def reset_fits(reset: Tensor, x: Tensor) -> None:
    if reset.shape != x.shape[:2]:
        raise RuntimeError(
            f"Expected reset to have one element per step and sequence, {list(x.shape[:2])} in the "
            f"order (steps, sequences), got {list(reset.shape)}"
        )
    same_device(x, reset, "reset")
    if reset.dtype is torch.bool:
        return
    message = "reset must be a bool tensor, or hold nothing but 0 and 1"
    if _can_read(reset):
        values = _torch_private.unwrapped(reset)
        wrong = values[(values != 0) & (values != 1)]
        if wrong.numel():
            raise ValueError(f"{message}; got {wrong[0]}")
    elif x.device.type != "meta":
        _torch_private.assert_without_waiting(((reset == 0) | (reset == 1)).all(), message)


def _can_read(values: Tensor) -> bool:
    """Whether a check can look at values now: without waiting for a device, and outside a graph."""
    return values.is_cpu and not _torch_private.recording()


def cell_state_dims(h0: Tensor | None, c0: Tensor | None) -> None:
    for k, state in enumerate((h0, c0)):
        if state is not None and state.dim() not in (1, 2):
            raise ValueError(
                f"LSTMCell: Expected hx[{k}] to be 1D or 2D, got {state.dim()}D instead"
            )


def cell_fits(
    input: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    dims: int,
    autocast: torch.dtype | None,
) -> None:
    """Everything about the arguments of one step, batched; the caller gave `dims` dimensions."""
    if dims == 2:
        cell_state_dims(h0, c0)
    if input.is_nested or input.layout is not torch.strided:
        raise RuntimeError(f"input must be a dense tensor, got layout {input.layout}")
    gates, input_size = w_ih.shape
    hidden_size = w_hh.shape[1]
    if input.shape[1] != input_size:
        raise RuntimeError(
            f"input has inconsistent input_size: got {input.shape[1]} expected {input_size}"
        )
    if gates != 4 * hidden_size:
        raise RuntimeError(
            f"weight_ih first dim must be 4 * hidden_size = {4 * hidden_size}, but got {gates}"
        )
    if w_hh.shape[0] != gates:
        raise RuntimeError(
            f"weight_hh first dim must be 4 * hidden_size = {gates}, but got {w_hh.shape[0]}"
        )
    batch = input.shape[0]
    for k, state in enumerate((h0, c0)):
        if state is None or state.shape == (batch, hidden_size):
            continue
        if state.shape[0] != batch:
            raise RuntimeError(
                f"Input batch size {batch} doesn't match hidden{k} batch size {state.shape[0]}"
            )
        raise RuntimeError(
            f"hidden{k} has inconsistent hidden_size: got "
            f"{state.shape[min(1, state.dim() - 1)]}, expected {hidden_size}"
        )
    if (b_ih is None) != (b_hh is None):
        raise RuntimeError("expected both b_ih and b_hh, or neither")
    for bias in (b_ih, b_hh):
        if bias is not None and bias.shape != (gates,):
            raise RuntimeError(f"Expected bias of size [{gates}], got {list(bias.shape)}")
    dtype, device = input.dtype, input.device
    for name, group in (("parameter", (w_ih, w_hh, b_ih, b_hh)), ("hidden", (h0, c0))):
        for tensor in group:
            if tensor is not None and (tensor.dtype is not dtype or tensor.device != device):
                same_device(input, tensor, name)
                same_dtype(input, tensor, name, autocast)
    if input.dtype not in _FLOATING:
        raise NotImplementedError(f"lstm_kernels has no kernel for {input.dtype}")
    device_has_kernels(input)
