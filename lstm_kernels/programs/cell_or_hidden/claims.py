"""What is said about cell and hidden state, and in how many of the seeds it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from lstm_kernels.memory._wording import NOTABLE

from .measure import AFTER, BEFORE, Run
from .summary import headline, knows
from .tasks import Task


@dataclass(frozen=True)
class Claim:
    """A sentence, and in how many of the seeds where it can be judged it is true."""

    text: str
    holds: int
    of: int

    @property
    def sentence(self) -> str:
        if self.of == 0:
            return f"Nothing to judge it by: {self.text}"
        return f"In {self.holds} of {self.of} seeds: {self.text}"


@dataclass(frozen=True)
class _Seed:
    """The runs of one seed: the plain RNN, the LSTMs by forget bias, and the one of the page."""

    rnn: Run
    lstms: list[Run]  # forget bias 0, 1, 3
    best: Run


def claims(task: Task, runs: list[Run]) -> list[Claim]:
    """Each claim of the list below, judged on every seed.

    What the states carry is judged only where the LSTM has learnt the task.
    """
    name = headline(task, runs)
    seeds = []
    for seed in sorted({r.seed for r in runs}):
        rnn, *lstms = (r for r in runs if r.seed == seed)
        seeds.append(_Seed(rnn, lstms, next(r for r in lstms if r.contender == name)))
    learnt = [s for s in seeds if s.best.learnt]
    judged = [
        Claim(text, sum(map(holds, among)), len(among))
        for among, listed in ((seeds, _OF_ALL), (learnt, _OF_LEARNT))
        for text, holds in listed
    ]
    return [*(_learning(task, runs)), *judged]


def _learning(task: Task, runs: list[Run]) -> list[Claim]:
    """How often each contender learnt; or, without a threshold, how often the LSTM was ahead."""
    if task.enough is not None:
        names = dict.fromkeys(r.contender for r in runs)
        own = {name: [r for r in runs if r.contender == name] for name in names}
        return [
            Claim(f"the {name} learns the task.", sum(r.learnt for r in of), len(of))
            for name, of in own.items()
        ]
    name = headline(task, runs)
    pairs = [
        (r, next(b for b in runs if b.seed == r.seed and b.contender == name))
        for r in runs
        if r.contender == "RNN"
    ]
    ahead = sum(
        best.score > rnn.score if task.higher_is_better else best.score < rnn.score
        for rnn, best in pairs
    )
    return [Claim("the best LSTM ends with a better score than the RNN.", ahead, len(pairs))]


def _reach(stage: str, lstm: Callable[[_Seed], Run]) -> Callable[[_Seed], bool]:
    return lambda s: lstm(s).reach[stage]["cell"] > s.rnn.reach[stage]["hidden"]


def _tells_more(probe: str) -> Callable[[_Seed], bool]:
    def holds(s: _Seed) -> bool:
        known = s.best.knowledge
        assert known is not None
        return knows(known, "cell", probe) > knows(known, "hidden", probe) + NOTABLE

    return holds


def _costs_more(change: str) -> Callable[[_Seed], bool]:
    return lambda s: s.best.ablation[f"c {change}"] > s.best.ablation[f"h {change}"]


def _read_from(probe: str) -> Callable[[_Seed], bool]:
    return lambda s: s.best.overlap[f"h from c, {probe}"] > s.best.overlap[f"c from h, {probe}"]


def _lives_longer(s: _Seed) -> bool:
    none, one, three = (median(r.half_life[AFTER]) for r in s.lstms)
    return none < one < three


def _signs_agree(stage: str) -> Callable[[_Seed], bool]:
    def agree(r: Run) -> bool:
        return (r.lyapunov[stage] > 0) == (r.growth[stage] > 0)

    return lambda s: all(map(agree, (s.rnn, *s.lstms)))


_OF_ALL: list[tuple[str, Callable[[_Seed], bool]]] = [
    (
        "before training, the gradient reaches farther back in c of the LSTM with forget bias 1 "
        "than in h of the RNN.",
        _reach(BEFORE, lambda s: s.lstms[1]),
    ),
    (
        "the higher the forget bias, the longer the half-life of the median cell after training.",
        _lives_longer,
    ),
    (
        "before training, a positive Lyapunov exponent goes with a gradient that grows backwards, "
        "a negative one with a gradient that vanishes, in the RNN and in every LSTM.",
        _signs_agree(BEFORE),
    ),
    ("after training, the signs agree in the same way.", _signs_agree(AFTER)),
]

_OF_LEARNT: list[tuple[str, Callable[[_Seed], bool]]] = [
    (
        "after training, the gradient reaches farther back in c of the LSTM than in h of the RNN.",
        _reach(AFTER, lambda s: s.best),
    ),
    ("a linear probe finds more of the past in c than in h.", _tells_more("linear")),
    ("a small network finds more of the past in c than in h.", _tells_more("mlp")),
    ("a linear probe reads more of h from c than of c from h.", _read_from("linear")),
    ("a small network reads more of h from c than of c from h.", _read_from("mlp")),
    ("to zero c costs more than to zero h.", _costs_more("zeroed")),
    ("to hold c for ten steps costs more than to hold h.", _costs_more("held for 10 steps")),
    (
        "to swap c with that of another sequence costs more than to swap h.",
        _costs_more("swapped"),
    ),
    ("a change as large as h costs more in c than in h.", _costs_more("moved by |h|")),
]
