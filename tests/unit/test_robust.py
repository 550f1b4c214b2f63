"""The same answer every time, from every thread and process, at every length."""

import concurrent.futures
import gc
import multiprocessing
import subprocess
import sys

import pytest
import torch
from support import assert_equal, assert_same, rounding, tensors, weigh
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset

import lstm_kernels
from lstm_kernels import LSTM, LSTMCell, _ops
from lstm_kernels._layer import Layer, LayerBackward


@pytest.fixture
def threads():
    """Set the number of threads, and put it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def results_and_gradients(module, x, **kwargs):
    results = tensors(module(x, **kwargs))
    return [*results, *torch.autograd.grad(weigh(results), list(module.parameters()))]


@pytest.mark.parametrize(("steps", "batch", "hidden_size"), [(9, 1, 64), (7, 5, 33), (5, 64, 96)])
def test_repeated_runs_are_bitwise_equal(steps, batch, hidden_size):
    module = LSTM(16, hidden_size, 2, bidirectional=True)
    x = torch.randn(steps, batch, 16)
    first = results_and_gradients(module, x, return_gates=True)
    for _ in range(5):
        assert_equal(results_and_gradients(module, x, return_gates=True), first)


@pytest.mark.parametrize(("steps", "batch", "hidden_size"), [(9, 1, 64), (7, 5, 33), (5, 64, 96)])
def test_results_do_not_depend_on_the_number_of_threads(steps, batch, hidden_size, threads):
    """1, 2 and more threads than there are processors: equal to rounding."""
    module = LSTM(16, hidden_size, 2, bidirectional=True)
    x = torch.randn(steps, batch, 16)
    expected = None
    for count in (1, 2, 2 * multiprocessing.cpu_count() + 1):
        threads(count)
        actual = results_and_gradients(module, x)
        # Gradients of weights are sums over steps and sequences, of that many rounded terms.
        expected = expected or actual
        assert_same(actual, expected, **rounding(torch.float32, steps * batch, hidden_size))


def test_many_python_threads_at_once():
    module, cell = LSTM(16, 48, 2, bidirectional=True), LSTMCell(16, 48)
    inputs = [torch.randn(7, n, 16) for n in (1, 3, 20, 3, 1, 20, 8, 8)]
    expected = [results_and_gradients(module, x) for x in inputs]
    steps = [cell(x[0]) for x in inputs]

    def work(k):
        for _ in range(5):
            assert_equal(results_and_gradients(module, inputs[k]), expected[k])
            assert_equal(cell(inputs[k][0]), steps[k])
        return k

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))


class _Encoded(Dataset):
    """Runs an LSTM in the worker, as feature extractors do."""

    def __init__(self, module, x):
        self.module, self.x = module, x

    def __len__(self):
        return self.x.shape[1]

    def __getitem__(self, n):
        with torch.no_grad():
            return self.module(self.x[:, n])[0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python's, of any fork
def test_inside_forked_data_loader_workers():
    """After this process used its own threads; a hang fails by the loader's time limit."""
    module, x = LSTM(16, 64), torch.randn(20, 6, 16)
    expected = module(x)[0].detach()
    loader = DataLoader(
        _Encoded(module, x), batch_size=3, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    torch.testing.assert_close(torch.cat(list(loader)).transpose(0, 1), expected)


def test_a_very_long_sequence():
    """65,536 steps: results equal nn.LSTM's; gradients equal those of two halves in turn."""
    module = LSTM(2, 3, dtype=torch.float64)
    x = torch.randn(65536, 1, 2, dtype=torch.float64)
    output, last, states = module(x, return_states=True)
    with torch.no_grad():
        expected, expected_last = module.to_native()(x)
    assert_same((output, *last), (expected, *expected_last), rtol=1e-9, atol=1e-10)
    assert torch.equal(states.cell[0][-1], last[1][0])
    first, middle = module(x[:30000])
    second, _ = module(x[30000:], middle)
    parameters = list(module.parameters())
    actual = torch.autograd.grad(output.sin().sum(), parameters)
    wanted = torch.autograd.grad(torch.cat([first, second]).sin().sum(), parameters)
    assert_same(actual, wanted, rtol=1e-9, atol=1e-8)


@pytest.mark.slow
def test_no_memory_is_kept_after_a_training_step():
    module, x = LSTM(8, 16, 2), torch.randn(50, 4, 8)

    def living():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    module(x, return_gates=True)[0].sum().backward()
    before = living()
    for _ in range(3):
        module(x, return_gates=True)[0].sum().backward()
    assert living() <= before


OPS = {
    "padded": (torch.randn(4, 3, 5), None, None, None),
    "packed": (torch.randn(6, 5), torch.tensor([3, 2, 1]), None, None),
    "lengths": (torch.randn(4, 3, 5), None, torch.tensor([4, 0, 2]), None),
    "reset": (torch.randn(4, 3, 5), None, None, torch.rand(4, 3) < 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "bidirectional", "proj_size"),
    [
        ("padded", False, 0),
        ("packed", True, 0),
        ("lengths", True, 2),
        ("reset", False, 0),
    ],
)
def test_registration_of_the_sequence_ops(kind, bidirectional, proj_size):
    """Schemas, shapes under fake tensors, no aliasing and no mutation, by torch's own check."""
    x, *ragged = OPS[kind]
    module = LSTM(5, 4, bidirectional=bidirectional, proj_size=proj_size)
    weights = [p.detach() for p in module.parameters()]
    h, c = torch.randn(1 + bidirectional, 3, proj_size or 4), torch.randn(1 + bidirectional, 3, 4)
    layer = Layer(x, h, c, weights, True, bidirectional, *ragged)
    for save in (False, True):
        _check("sequence_forward", *layer, save, save, save)
    output, h_n, c_n, cell, gates = _ops.sequence_forward(layer, True, True)
    for grads in ((output, h_n, c_n, cell, gates), (output, None, c_n, None, None)):
        _check("sequence_backward", *LayerBackward.of_layer(layer, grads, cell, gates), True)
    for direction in range(1 + bidirectional):
        _check("weight_gradients", gates, x, h, output, direction, *ragged, None, True)
    w_ih = [w for w in weights if w.shape == (16, 5)]
    _check("input_gradient", gates, w_ih, ragged[1], True)


def test_registration_of_the_cell_ops():
    weights = [p.detach() for p in LSTMCell(5, 4).parameters()]
    x, h, c = torch.randn(3, 5), torch.randn(3, 4), torch.randn(3, 4)
    for save in (False, True):
        _check("cell_forward", x, h, c, *weights, save)
    h1, c1, gates = _ops.cell_forward(x, h, c, *weights, True)
    for grads in ((h1, c1, gates), (None, c1, None)):
        _check("cell_backward", *grads, c, gates)


def _check(op, *arguments):
    """The op of eager calls; and that of graphs, on tensors that want a gradient."""
    torch.library.opcheck(getattr(torch.ops.lstm_kernels, f"_{op}").default, arguments)
    wanting = tree_map_only(
        torch.Tensor,
        lambda t: t.clone().requires_grad_() if t.is_floating_point() else t,
        arguments,
    )
    torch.library.opcheck(getattr(torch.ops.lstm_kernels, op).default, wanting)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "words"),
    [("baseline", "CPU kernels: baseline"), ("nonsense", "ImportError: LSTM_KERNELS_CPU_ISA")],
)
def test_a_forced_instruction_set(setting, words):
    """A lower one is used; one that is not there is refused at import."""
    run = subprocess.run(
        [sys.executable, "-c", "import lstm_kernels; lstm_kernels.show_config()"],
        env={"LSTM_KERNELS_CPU_ISA": setting, "PYTHONPATH": lstm_kernels.__path__[0] + "/.."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert words in run.stdout + run.stderr
