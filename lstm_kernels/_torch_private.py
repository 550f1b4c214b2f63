"""Every private name of torch that this library uses. tests/test_torch_private.py tests each one.

A release of torch may rename or change any of them. Names that a call of one small step needs are
bound here as they are: a function around them would take longer than they do.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling
from torch.utils import _pytree

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Whether a transform of torch.func, such as vmap or grad, is running.
transforms_active = torch._C._are_functorch_transforms_active

#: Whether autocast is on for any device.
any_autocast_enabled = torch._C._is_any_autocast_enabled

#: How many modes see every operation, such as FakeTensorMode or a FlopCounterMode.
count_dispatch_modes = torch._C._len_torch_dispatch_stack

#: What torch.jit.trace records into, or None.
tracing_state = torch._C._get_tracing_state

#: How a backend may multiply float32. Of "mkldnn" and "rnn" it is what
#: torch.backends.mkldnn.rnn.fp32_precision returns, in a seventh of the time.
fp32_precision = torch._C._get_fp32_precision_getter

#: Whether a transform of torch.func hides the values of a tensor.
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor

#: Whether autograd maps a gradient by its older vmap, as is_grads_batched asks it to.
is_mapped_by_autograd = torch._C._functorch.is_legacy_batchedtensor


def forward_mode_active() -> bool:
    """Whether forward-mode differentiation is running."""
    return forward_ad._current_level >= 0


def tracing() -> bool:
    """Whether torch.jit.trace is recording."""
    return tracing_state() is not None


@contextlib.contextmanager
def tracing_paused() -> Iterator[None]:
    """Let nothing of what follows into the trace, so that sizes are numbers and not its values."""
    state = tracing_state()
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]
    set_state(None)
    try:
        yield
    finally:
        set_state(state)


def recording() -> bool:
    """Whether calls are recorded into a graph, or a mode sees every op."""
    return is_dynamo_compiling() or count_dispatch_modes() > 0 or tracing()


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that the transforms of torch.func have wrapped."""
    while is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def level_of_autograds_vmap() -> int:
    """The level of the vmap that is_mapped_by_autograd asks about."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    return level


def unmap(tensor: Tensor, level: int) -> Tensor:
    """Make the axis that autograd maps an ordinary first axis."""
    return torch._remove_batch_dim(tensor, level, 1, 0)  # reads the size of the axis itself


def map_first_axis(tensor: Tensor, level: int) -> Tensor:
    """Let autograd map the first axis: the inverse of unmap."""
    return torch._add_batch_dim(tensor, 0, level)


def assert_without_waiting(condition: Tensor, message: str) -> None:
    """Check a bool tensor on its device; a failure there shows up in a later call."""
    torch._assert_async(condition, message)


def refuse_to_compile(reason: str) -> None:
    """Make torch.compile run the caller outside a graph, or raise the reason with fullgraph."""
    torch._dynamo.graph_break(msg=reason)


def never_compile(function: types.FunctionType) -> None:
    """Keep torch.compile out of a Python function, and of what it calls, at no cost per call."""
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))


def constant_in_graphs(function: _Function) -> _Function:
    """Let torch.compile call a function while it records, and keep what it returned.

    torch.compiler.assume_constant_result does the same, and imports all of torch.compile first.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def register_namedtuple(kind: type[Any], name: str) -> None:
    """Let torch.export.save write programs that return this NamedTuple, under this name."""
    _pytree._register_namedtuple(kind, serialized_type_name=name)


def below_autograd(op: torch._ops.OpOverload, keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
    """Call an op from its Autograd kernel, past it."""
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)


def optional_tensor_type() -> Any:
    """In a graph of the older exporter, the type of a tensor that may be absent."""
    return torch._C.OptionalType.ofTensor()


def is_expanded_weight(weight: Any) -> bool:
    """Whether a weight is to keep the gradient of each sample of a batch."""
    expanded = sys.modules.get("torch.nn.utils._expanded_weights.expanded_weights_impl")
    return expanded is not None and isinstance(weight, expanded.ExpandedWeight)


def unexpanded(weight: Any) -> Tensor:
    """The parameter behind an expanded weight; any other tensor itself."""
    parameter: Tensor = weight.orig_weight if is_expanded_weight(weight) else weight
    return parameter


def set_grad_sample(weight: Any, gradients: Tensor) -> None:
    """Add the gradient of each sample to those that an expanded weight keeps."""
    from torch.nn.utils._expanded_weights import expanded_weights_utils

    expanded_weights_utils.set_grad_sample_if_exists(weight, lambda _: gradients)
