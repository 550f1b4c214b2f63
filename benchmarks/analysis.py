"""Contenders that analyse what an LSTM remembers, from its own states or from a loop of cells.

One call runs the model on its input, and then the analysis that the case names. Both sides end in
the same functions of `lstm_kernels.memory`, except where only a special loop can ask the
question.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

import lstm_kernels
from lstm_kernels import LSTMStates, memory

from . import contenders
from .contenders import native_cell
from .workload import Call, Workload

MAX_LAG = 20
WITH_GATES: dict[str, Callable[[LSTMStates | memory.Recording], object]] = {
    "retention": memory.retention,
    "saturation": memory.saturation,
}
WITHOUT_GATES: dict[str, Callable[[LSTMStates | memory.Recording, Tensor], object]] = {
    "horizon": lambda states, x: memory.horizon(states, x[..., 0], max_lag=MAX_LAG),
    "match": lambda states, _: memory.match(states, [0, 1], (0, 10)),
    "label": lambda states, x: memory.label(states, x[..., 0] > 0),
}
ANALYSES = (*WITH_GATES, "gradient_flow", *WITHOUT_GATES, "ablate")


def last_step(output: Tensor) -> Tensor:
    """The loss whose gradient is followed back."""
    return output[-1].square().sum()


def forward_and_backward(workload: Workload) -> Call:
    """A training step of the same model, by which the cost of an analysis is judged."""
    return contenders.ours(Workload(replace(workload.case, training=True), workload.threads))


def ours(workload: Workload) -> Call:
    module = lstm_kernels.LSTM.from_native(workload.native)
    name, x = workload.case.analysis, workload.padded
    if name == "gradient_flow":
        return lambda: memory.gradient_flow(module, x, lambda result: last_step(result[0]))
    if name == "ablate":
        return lambda: memory.ablate(module, x, len(x) // 2, 0)
    if name in WITH_GATES:
        return lambda: WITH_GATES[name](memory.record(module, x))
    return lambda: WITHOUT_GATES[name](memory.record(module, x, gates=False), x)


def cell_loop(workload: Workload) -> Call:
    """The same from a Python loop over nn.LSTMCell."""
    cell = native_cell(workload)
    name, x = workload.case.analysis, workload.padded
    if name == "gradient_flow":
        return lambda: loop_gradient_flow(cell, x)
    if name == "ablate":
        return torch.no_grad()(lambda: loop_ablate(cell, x, len(x) // 2, 0))
    if name in WITH_GATES:
        return torch.no_grad()(lambda: WITH_GATES[name](loop_states(cell, x, gates=True)))
    return torch.no_grad()(lambda: WITHOUT_GATES[name](loop_states(cell, x), x))


def loop_states(cell: nn.LSTMCell, x: Tensor, gates: bool = False) -> LSTMStates:
    """Steps a cell along x (T, N, I). Its gates, which it keeps to itself, are computed again."""
    h = c = x.new_zeros(x.shape[1], cell.hidden_size)
    hidden, cells, activated = [], [], []
    for x_t in x.unbind():
        if gates:
            activated.append(cell_gates(cell, x_t, h))
        h, c = cell(x_t, (h, c))
        hidden.append(h)
        cells.append(c)
    all_gates = (torch.stack(activated).unsqueeze(2),) if gates else None
    return LSTMStates((torch.stack(hidden),), (torch.stack(cells),), all_gates)


def cell_gates(cell: nn.LSTMCell, x: Tensor, h: Tensor) -> Tensor:
    """The activated gates i, f, g, o of one step, (N, 4, H)."""
    a = linear(x, cell.weight_ih, cell.bias_ih) + linear(h, cell.weight_hh, cell.bias_hh)
    i, f, g, o = a.chunk(4, 1)
    return torch.stack([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1)


def loop_gradient_flow(cell: nn.LSTMCell, x: Tensor) -> memory.GradientFlow:
    """The norms by autograd through the loop; the highway by multiplying the forget gates."""
    h = c = x.new_zeros(x.shape[1], cell.hidden_size)
    hidden, cells, forget = [], [], []
    for x_t in x.unbind():
        with torch.no_grad():
            *_, f, _, o = cell_gates(cell, x_t, h).unbind(1)
        forget.append(f)
        h, c = cell(x_t, (h, c))
        hidden.append(h)
        cells.append(c)
    value = last_step(torch.stack(hidden))
    grad_h, grad_c = (
        torch.stack(torch.autograd.grad(value, states, retain_graph=kept))
        for states, kept in ((hidden, True), (cells, False))
    )
    highway = [grad_h[-1] * o * (1 - c.detach().tanh().square())]
    for f in reversed(forget[1:]):
        highway.append(highway[-1] * f)
    along = torch.stack(highway[::-1])
    hidden_norm, cell_norm, highway_norm, other_norm = (
        (torch.linalg.vector_norm(g, dim=(1, 2), dtype=torch.float64).unsqueeze(0),)
        for g in (grad_h, grad_c, along, grad_c - along)
    )
    return memory.GradientFlow(
        hidden_norm, cell_norm, highway_norm, other_norm, float(value.detach())
    )


def loop_ablate(cell: nn.LSTMCell, x: Tensor, step: int, unit: int) -> memory.Ablation:
    """The loop twice, the second time with both states of a unit set to zero before a step."""
    outputs = []
    for changed in (False, True):
        h = c = x.new_zeros(x.shape[1], cell.hidden_size)
        hidden = []
        for t, x_t in enumerate(x.unbind()):
            if changed and t == step:
                h, c = h.clone(), c.clone()
                h[:, unit] = c[:, unit] = 0
            h, c = cell(x_t, (h, c))
            hidden.append(h)
        outputs.append(torch.stack(hidden))
    baseline, output = outputs
    return memory.Ablation(baseline, output, None, None)
