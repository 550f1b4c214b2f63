"""Who computes a case: ours, and what a user could pick instead; all from the same weights.

Each contender is a function of a `Workload` that returns the call to be timed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import lstm_kernels

from .onnx_peer import session_call
from .workload import Call, Unavailable, Workload, reduced_precision


def run(
    workload: Workload,
    forward: Callable[[], Tensor],
    parameters: list[nn.Parameter],
    padded: bool = False,
) -> Call:
    """The call that is timed: `forward`, or with it the gradients of the input and parameters.

    `padded` says that `forward` starts from the padded input even in a packed case.
    """
    if not workload.case.training:
        return torch.no_grad()(forward)
    data = workload.padded if padded else workload.input
    rows = data.data if isinstance(data, PackedSequence) else data
    leaves = [rows, *parameters]

    def step() -> object:
        output = forward()
        return torch.autograd.grad(output, leaves, torch.ones_like(output))

    return step


def run_module(workload: Workload, module: nn.Module, **options: bool) -> Call:
    """The call that is timed, of a module that takes the whole input at once."""

    def forward() -> Tensor:
        output = module(workload.input, **options)[0]
        return output.data if isinstance(output, PackedSequence) else output

    return run(workload, forward, list(module.parameters()))


def ours(workload: Workload) -> Call:
    module = lstm_kernels.LSTM.from_native(workload.native)
    return run_module(workload, module)


def ours_prepacked(workload: Workload, weight_dtype: torch.dtype | None = None) -> Call:
    """The same module with packed weights kept, which each call compares with the module's."""
    module = lstm_kernels.LSTM.from_native(workload.native).prepack(weight_dtype)
    return run_module(workload, module)


def ours_prepacked_bfloat16(workload: Workload) -> Call:
    return ours_prepacked(workload, torch.bfloat16)


def ours_prepacked_float16(workload: Workload) -> Call:
    return ours_prepacked(workload, torch.float16)


def ours_with_states(workload: Workload) -> Call:
    module = lstm_kernels.LSTM.from_native(workload.native)
    return run_module(workload, module, return_states=True)


def ours_reduced(workload: Workload) -> Call:
    """The same module where torch's switch allows products to round to bfloat16."""
    call = ours(workload)

    def reduced() -> object:
        with reduced_precision():
            return call()

    return reduced


def op_alone(workload: Workload) -> Call:
    """The op of a plain layer without the module around it: the rest is what Python adds."""
    op = torch.ops.lstm_kernels._sequence_forward.default
    weights = list(workload.native.parameters())
    ragged = (None, None, None)

    def call() -> object:
        return op(workload.padded, None, None, weights, True, False, *ragged, False, False)[0]

    return torch.no_grad()(call)


def native(workload: Workload) -> Call:
    return run_module(workload, workload.native)


def cell_loop(workload: Workload) -> Call:
    """A loop over nn.LSTMCell that stacks the hidden states."""
    cell = native_cell(workload)
    forward = lambda: loop(cell, workload)[0]  # noqa: E731
    return run(workload, forward, list(cell.parameters()))


def cell_loop_with_states(workload: Workload) -> Call:
    """The same, stacking the cell states as well: what people write to see both."""
    cell = native_cell(workload)
    forward = lambda: loop(cell, workload, stack_cell=True)[0]  # noqa: E731
    return run(workload, forward, list(cell.parameters()))


def compiled_loop(workload: Workload) -> Call:
    """The same loop, its step compiled: a whole loop of T steps compiles for minutes."""
    cell = native_cell(workload)
    step = torch.compile(cell)
    forward = lambda: loop(step, workload)[0]  # noqa: E731
    return run(workload, forward, list(cell.parameters()))


def onnx_runtime(workload: Workload, spinning: bool = True) -> Call:
    return session_call(workload, spinning)


def onnx_runtime_without_spinning(workload: Workload) -> Call:
    return onnx_runtime(workload, spinning=False)


def native_cell_step(workload: Workload) -> Call:
    return cell_step(workload, native_cell(workload))


def ours_cell_step(workload: Workload) -> Call:
    return cell_step(workload, lstm_kernels.LSTMCell.from_native(native_cell(workload)))


def cell_op_alone(workload: Workload) -> Call:
    """The op of a cell without the module around it."""
    op = torch.ops.lstm_kernels._cell_forward.default
    weights = list(native_cell(workload).parameters())
    x, state = cell_inputs(workload)
    return torch.no_grad()(lambda: op(x, *state, *weights, False))


def cell_step(workload: Workload, cell: nn.Module) -> Call:
    """One call of a cell, its state given."""
    x, state = cell_inputs(workload)
    return torch.no_grad()(lambda: cell(x, state))


def cell_inputs(workload: Workload) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The first step's input, and a hidden and a cell state."""
    x = workload.padded[0]
    h, c = torch.randn(2, workload.case.N, workload.case.H, dtype=x.dtype)
    return x, (h, c)


def native_cell(workload: Workload) -> nn.LSTMCell:
    """nn.LSTMCell with the weights of the workload's LSTM."""
    case = workload.case
    if case.layers > 1 or case.bidirectional or case.proj_size or case.packed:
        raise Unavailable("a loop over cells computes one plain layer")
    cell = nn.LSTMCell(case.input_size, case.H, dtype=getattr(torch, case.dtype))
    weights = workload.native.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in weights.items()})
    return cell


def loop(cell: Callable[..., Any], workload: Workload, stack_cell: bool = False) -> list[Tensor]:
    """Steps a cell along the input: hidden states (T, N, H), then cell states if asked for."""
    case, inputs = workload.case, workload.padded
    h = c = inputs.new_zeros(case.N, case.H)
    hidden, cells = [], []
    for x in inputs.unbind():
        h, c = cell(x, (h, c))
        hidden.append(h)
        cells.append(c)
    return [torch.stack(hidden), torch.stack(cells)] if stack_cell else [torch.stack(hidden)]
