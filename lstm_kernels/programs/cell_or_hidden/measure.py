"""Trains one contender on one task from one seed, and measures it before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lstm_kernels import LSTM, memory
from lstm_kernels.memory import GradientFlow
from lstm_kernels.memory._record import find

from .knowledge import PROBES, Knowledge
from .tasks import Task
from .training import Contender, train

SEQUENCES = 1000  # held out, for the measurements
_HELD = 10  # steps for which "hold" keeps the state as it was
_FEW = 200  # sequences, where more would not change a mean
BEFORE, AFTER = "untrained", "trained"


@dataclass(frozen=True)
class Run:
    """One contender on one task from one seed: plain numbers, as they stand in memory.json.

    Attributes:
        units, parameters: of the recurrent module.
        steps: of training.
        score: on held-out sequences; learnt: it is good enough.
        curve: (training step, score).
        gradient: untrained and trained, per kind ("hidden", "cell", "highway") the norm at every
            step for the loss of the last one.
        reach: untrained and trained, per kind for how many steps back it stays above 1%.
        growth: untrained and trained, the mean logarithm of its factor per step going back, over
            the half of the sequence that lies farther back.
        lyapunov: untrained and trained, the largest exponent per step, median over sequences.
        half_life: untrained and trained, of every cell; empty for an RNN, as is all that follows.
        knowledge: what probes find of the past.
        overlap: R2 of one state from the other, median over units, by state and probe.
        ablation: what a change of a state costs, as a part of the way from the score to guessing.
    """

    task: str
    contender: str
    seed: int
    units: int
    parameters: int
    steps: int
    score: float
    learnt: bool
    curve: list[tuple[int, float]]
    gradient: dict[str, dict[str, list[float]]]
    reach: dict[str, dict[str, int]]
    growth: dict[str, float]
    lyapunov: dict[str, float]
    half_life: dict[str, list[float]]
    knowledge: Knowledge | None
    overlap: dict[str, float]
    ablation: dict[str, float]


def run(
    task: Task,
    contender: Contender,
    steps: int,
    seed: int,
    sequences: int,
    step_done: Callable[[], None],
) -> Run:
    """Trains and measures, on this number of sequences that were not trained on."""
    x, target = task.held_out(sequences, torch.Generator().manual_seed(seed + 2))
    model = contender.model(task, seed)
    recurrent = find(model, None, (LSTM, nn.RNN))
    stages: dict[str, _Stage] = {BEFORE: _Stage.of(task, model, x, target)}
    curve = train(task, model, steps, seed, step_done)
    stages[AFTER] = _Stage.of(task, model, x, target)
    with torch.no_grad():
        score = task.score(model(x), target)
    only_lstm: dict[str, Any] = {"knowledge": None, "overlap": {}, "ablation": {}}
    if contender.is_lstm:
        recording = memory.record(model, x, gates=False)
        only_lstm = {
            "knowledge": task.knowledge(recording, x),
            "overlap": _overlap(recording),
            "ablation": _ablation(task, model, x, target),
        }
    return Run(
        task.name,
        contender.name,
        seed,
        recurrent.hidden_size,
        sum(weight.numel() for weight in recurrent.parameters()),
        curve[-1][0],
        score,
        task.learnt(score),
        curve,
        {stage: found.gradient for stage, found in stages.items()},
        {stage: found.reach for stage, found in stages.items()},
        {stage: found.growth for stage, found in stages.items()},
        {stage: found.lyapunov for stage, found in stages.items()},
        {stage: found.half_life for stage, found in stages.items() if found.half_life},
        **only_lstm,
    )


@dataclass(frozen=True)
class _Stage:
    """What is measured before training and after."""

    gradient: dict[str, list[float]]
    reach: dict[str, int]
    growth: float
    lyapunov: float
    half_life: list[float]

    @classmethod
    def of(cls, task: Task, model: nn.Module, x: Tensor, target: Tensor) -> _Stage:
        some, wanted = x[:, :_FEW], target[..., :_FEW]
        flow = memory.gradient_flow(model, [(some, wanted)], task.last, progress=False)
        exponents = memory.lyapunov(model, some, progress=False).exponents[-1]
        kinds = [kind for kind in ("hidden", "cell", "highway") if getattr(flow, kind) is not None]
        half_life = []
        if flow.cell is not None:
            kept = memory.retention(memory.record(model, some))
            half_life = kept.half_life[-1].tolist()
        return cls(
            {kind: getattr(flow, kind)[-1][0].tolist() for kind in kinds},
            {kind: flow.reach(kind)[-1] for kind in kinds},
            _growth(flow),
            float(exponents.median()),
            half_life,
        )


def _growth(flow: GradientFlow) -> float:
    """Per step back, of the state that carries most: the cell, or the RNN's hidden state."""
    norms = (flow.hidden if flow.cell is None else flow.cell)[-1][0]
    half = len(norms) // 2
    ends = norms[[0, half]].clamp(min=1e-300).log()
    return float((ends[0] - ends[1]) / half)


def _overlap(recording: memory.Recording) -> dict[str, float]:
    found = {}
    for probe in PROBES:
        both = memory.overlap(recording, probe=probe, max_steps=4000)
        found[f"h from c, {probe}"] = float(both.hidden_from_cell[-1].median())
        found[f"c from h, {probe}"] = float(both.cell_from_hidden[-1].median())
    return found


def _ablation(task: Task, model: nn.Module, x: Tensor, target: Tensor) -> dict[str, float]:
    """Each state zeroed, held, swapped with that of another sequence, and moved by one norm."""
    at = task.changed_at
    h = memory.record(model, x, gates=False).hidden[-1][at - 1]
    norm = float(h.norm(dim=1).median())
    with torch.no_grad():
        whole = task.score_after(model(x), target)
    found = {}
    for name, steps, options in (
        ("zeroed", at, {"change": "zero"}),
        (f"held for {_HELD} steps", range(at, at + _HELD), {"change": "hold"}),
        ("swapped", at, {"change": "swap"}),
        ("moved by |h|", at, {"change": "swap", "norm": norm}),
    ):
        for state, letter in (("cell", "c"), ("hidden", "h")):
            changed = memory.ablate(model, x, steps, state=state, **options)  # type: ignore[arg-type]
            lost = task.score_after(changed.output, target) - whole
            found[f"{letter} {name}"] = lost / (task.guessing - whole)
    return found
