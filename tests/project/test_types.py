"""A type checker knows what a call returns: how many results, and of which kind."""

import re
from pathlib import Path

import pytest

mypy = pytest.importorskip("mypy.api", reason="mypy comes with the extra `lint`")

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".mypy_cache"
PLAIN = "tuple[Tensor, tuple[Tensor, Tensor]]"
STATES = "tuple[Tensor, tuple[Tensor, Tensor], LSTMStates[Tensor]]"
PACKED = "tuple[PackedSequence, tuple[Tensor, Tensor]]"
PACKED_STATES = "tuple[PackedSequence, tuple[Tensor, Tensor], LSTMStates[PackedSequence]]"
STEP, STEP_GATES = "tuple[Tensor, Tensor]", "tuple[Tensor, Tensor, Tensor]"

# What a caller writes, and the type of that.
CALLS = {
    "module(x)": PLAIN,
    "module(x, (x, x), lengths=x, reset=x)": PLAIN,
    "module(x, return_states=False, return_gates=False)": PLAIN,
    "module(x, return_states=True)": STATES,
    "module(x, return_gates=True)": STATES,
    "module(x, return_states=flag)": f"{PLAIN} | {STATES}",
    "module(packed)": PACKED,
    "module(packed, return_states=True, return_gates=flag)": PACKED_STATES,
    "module(either)": f"{PLAIN} | {PACKED}",
    "module(parameter)": PLAIN,
    "module.forward(x, return_gates=True)": STATES,
    "subclass(packed, return_states=True)": PACKED_STATES,
    "own(x)": "Tensor",
    "cell(x)": STEP,
    "cell(x, (x, x), return_gates=True)": STEP_GATES,
    "cell(x, return_gates=flag)": f"{STEP} | {STEP_GATES}",
    "cell.forward(x)": STEP,
    "subclass_cell(x, return_gates=True)": STEP_GATES,
    "lstm(x, None, [x, x], num_layers=1, variant=None)": PLAIN,
    "lstm(x, None, [x, x], return_gates=True)": STATES,
    "lstm(packed, (x, x), [x, x], recompute=True)": PACKED,
    "lstm(packed, None, [x, x], return_states=True)": PACKED_STATES,
    "lstm_cell(x, None, x, x)": STEP,
    "lstm_cell(x, None, x, x, x, x, return_gates=True)": STEP_GATES,
    "module(x, return_states=True)[2].cell": "tuple[Tensor, ...]",
    "module(packed, return_gates=True)[2].gates": "tuple[PackedSequence, ...] | None",
}

# What a type checker must refuse.
MISTAKES = [
    "output, last, states = module(x)",
    "output, last = module(x, return_states=True)",
    "h, c, gates = cell(x)",
    "module(x, length=x)",
    "lstm(x, None, [x, x], layers=2)",
    "module(packed)[0].mean()",
]

HEAD = """
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import assert_type
from lstm_kernels import LSTM, LSTMCell, LSTMStates, lstm, lstm_cell
from lstm_kernels import nn as subclasses

class Own(LSTM):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]

def calls(
    x: Tensor, packed: PackedSequence, either: Tensor | PackedSequence, parameter: nn.Parameter,
    flag: bool, module: LSTM, own: Own, cell: LSTMCell, subclass: subclasses.LSTM,
    subclass_cell: subclasses.LSTMCell,
) -> None:
"""


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """The lines of which mypy --strict has something to say, and the lines of the file."""
    asserted = [f"    assert_type({call}, {result})" for call, result in CALLS.items()]
    lines = [*HEAD.splitlines(), *asserted, *(f"    {mistake}" for mistake in MISTAKES)]
    file = tmp_path_factory.mktemp("types") / "calls.py"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # The cache of `make lint`: reading torch takes mypy a minute, once.
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(CACHE)]
    printed, failed, _ = mypy.run([*config, str(file)])
    assert not failed, printed
    found = re.findall(r"^.*calls\.py:(\d+): error: (.*)$", printed, re.MULTILINE)
    return {lines[int(number) - 1].strip(): message for number, message in found}


@pytest.mark.slow
def test_a_call_has_the_type_of_its_result(problems):
    assert {line: said for line, said in problems.items() if line not in MISTAKES} == {}


@pytest.mark.slow
def test_a_wrong_use_of_a_result_is_refused(problems):
    assert [mistake for mistake in MISTAKES if mistake not in problems] == []
