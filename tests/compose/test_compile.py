"""torch.compile: one graph, forward and backward, for every length and batch size."""

import pytest
import torch
from support import (
    H,
    I,
    N,
    T,
    assert_equal,
    assert_same,
    gradients,
    precision_of_rnns,
    tensors,
    twins,
)
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_kernels

SHAPES = [(5, 3), (12, 4), (3, 9)]


def _assert_compiles(call, parameters, backend="aot_eager", shapes=SHAPES):
    """`call(x)` compiles to one graph, with the first shape, and gives what it gives uncompiled."""
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    compilations = []
    for steps, batch in shapes:
        x = torch.randn(steps, batch, I, requires_grad=True)
        inputs = (x, *parameters)
        expected, actual = call(x), compiled(x)
        assert_same(actual, expected)
        assert_same(gradients(actual, inputs), gradients(expected, inputs))
        compilations.append(counter.frame_count)
    assert len(set(compilations)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "proj_size": 2, "batch_first": True},
    ],
    ids=str,
)
def test_forward_and_backward_are_one_graph(options):
    lstm, _ = twins(**options)
    _assert_compiles(lstm, list(lstm.parameters()))


@pytest.mark.slow
def test_states_and_gates_are_part_of_the_graph():
    lstm, _ = twins(num_layers=2)
    _assert_compiles(lambda x: lstm(x, return_gates=True), list(lstm.parameters()))


def test_given_states_may_be_one_tensor():
    """The usual `zeros = ...; lstm(x, (zeros, zeros))`."""
    lstm, _ = twins()

    def call(x):
        zeros = x.new_zeros(1, x.shape[1], H)
        return lstm(x, (zeros, zeros))

    _assert_compiles(call, list(lstm.parameters()))


def test_lengths_and_resets_are_part_of_the_graph():
    lstm, _ = twins()

    def call(x):
        lengths = torch.arange(x.shape[1]) % (x.shape[0] + 1)
        reset = torch.arange(x.shape[0])[:, None] % 2 == torch.arange(x.shape[1]) % 2
        return lstm(x, lengths=lengths), lstm(x, reset=reset)

    _assert_compiles(call, list(lstm.parameters()))


def test_compiled_lengths_out_of_range_raise():
    lstm, _ = twins()
    compiled = torch.compile(lstm, fullgraph=True, backend="aot_eager")
    x = torch.randn(T, N, I)
    compiled(x, lengths=torch.tensor([0, 2, T]))
    with pytest.raises(RuntimeError, match="lengths must lie between 0 and the number of steps"):
        compiled(x, lengths=torch.tensor([0, 2, T + 1]))


@pytest.mark.slow
def test_small_sizes_are_compiled_once_more():
    """torch.compile compiles sizes of 1 apart: here T or N."""
    lstm, _ = twins()
    for training in (True, False):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(lstm, fullgraph=True, dynamic=True, backend=counter)
        for shape, count in (((5, 3), 1), ((2, 3), 1), ((7, 4), 1), ((1, 3), 2), ((5, 1), 3)):
            x = torch.randn(*shape, I, requires_grad=training)
            with torch.set_grad_enabled(training):
                expected, actual = lstm(x), compiled(x)
            assert_same(actual, expected)
            if training:
                assert_same(gradients(actual, (x,)), gradients(expected, (x,)))
            assert counter.frame_count == count, shape


# torch's tracer, about the data of any PackedSequence that is not a leaf.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_packed_input_is_computed_outside_the_graph():
    """Its sizes are data: fullgraph=True says so, and says what to do."""
    lstm, _ = twins()
    packed = pack_padded_sequence(torch.randn(T, N, I), torch.tensor([T, 2, 1]))

    def call(packed):
        return lstm(packed)[0].data.tanh()

    with pytest.raises(torch._dynamo.exc.Unsupported, match="Pass a padded tensor and lengths="):
        torch.compile(call, fullgraph=True, backend="aot_eager")(packed)
    compiled = torch.compile(call, backend="aot_eager")
    assert_same(compiled(packed), call(packed))
    actual, expected = (gradients(f(packed), tuple(lstm.parameters())) for f in (compiled, call))
    assert_same(actual, expected)


def test_cell_loop_is_one_graph():
    cell = lstm_kernels.LSTMCell(I, H)

    def call(x):
        states, gates = None, None
        for x_t in x.unbind()[:2]:
            *states, gates = cell(x_t, states, return_gates=True)
        return states, gates

    _assert_compiles(call, list(cell.parameters()), shapes=[(2, batch) for batch in (3, 9)])


@pytest.mark.builds
def test_inductor_compiles_forward_and_backward():
    lstm, _ = twins(num_layers=2, bidirectional=True)
    cell = lstm_kernels.LSTMCell(2 * H, H)

    def call(x):
        output, states, every = lstm(x.tanh(), return_gates=True)
        return output, states, every, cell(output[-1])

    parameters = [*lstm.parameters(), *cell.parameters()]
    _assert_compiles(call, parameters, "inductor", SHAPES[:2])


def test_nothing_is_compiled_for_training_without_gradients():
    """Under no_grad the op of the graph saves neither cells nor gates."""
    lstm, native = twins()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lstm, fullgraph=True, backend=backend)
    x = torch.randn(T, N, I)
    with torch.no_grad():
        assert_same(compiled(x), native(x))
    (call,) = [node for node in graphs[0].graph.nodes if "sequence_forward" in str(node.target)]
    assert not any(call.args[9:11])


@pytest.mark.parametrize("precision", ["none", "bf16"])
def test_graph_keeps_the_precision_that_it_was_recorded_with(precision):
    """What torch's switch for RNNs says is asked once, without leaving the graph."""
    lstm, _ = twins()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    x = torch.randn(T, N, I)
    compiled = torch.compile(lstm, fullgraph=True, backend=backend)
    with precision_of_rnns(precision):
        recorded = compiled(x)
        torch.compile(lstm, fullgraph=True, backend="aot_eager")(x)[0].sum().backward()
        exported = torch.export.export(lstm, (x,)).graph
    assert_equal(compiled(x), recorded)
    assert len(graphs) == 1
    for graph in (graphs[0].graph, exported):
        (call,) = [node for node in graph.nodes if "sequence_forward" in str(node.target)]
        reduced = call.args[11] if len(call.args) > 11 else False
        assert reduced is (precision == "bf16")


RECORDERS = {
    "compiled": lambda lstm, x: torch.compile(lstm, fullgraph=True, backend="eager"),
    "compiled with its gradients": lambda lstm, x: torch.compile(
        lstm, fullgraph=True, backend="aot_eager"
    ),
    "exported": lambda lstm, x: torch.export.export(lstm, (x,)).module(),
    "traced": torch.jit.trace,
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("record", RECORDERS.values(), ids=RECORDERS)
def test_graph_keeps_the_precision_of_its_gradients(record, recompute):
    """Bits are those of when it was recorded, with the switch the other way in both passes."""
    torch.manual_seed(0)
    lstm = lstm_kernels.LSTM(I, 70, 2, bidirectional=True, proj_size=20, recompute=recompute)
    x = torch.randn(7, 17, I, requires_grad=True)

    def bits(run, precision):
        with precision_of_rnns(precision):
            results = tensors(run(x))
            return [*results, *gradients(results, [x, *run.parameters()])]

    expected = {precision: bits(lstm, precision) for precision in ("none", "bf16")}
    isa = torch.ops.lstm_kernels._cpu_isa().split()[0]
    if isa in ("amx", "avx512_bf16"):
        pairs = zip(*expected.values(), strict=True)
        assert not any(torch.equal(one, other) for one, other in pairs)
    for precision, other in (("none", "bf16"), ("bf16", "none")):
        torch._dynamo.reset()
        with precision_of_rnns(precision):
            run = record(lstm, x)
            run(x)
        assert_equal(bits(run, other), expected[precision])


def test_compiles_under_autocast():
    lstm, _ = twins()

    def call(x):
        with torch.autocast("cpu", torch.bfloat16):
            return lstm(x)

    x = torch.randn(T, N, I)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x), call(x))
    assert compiled(x)[0].dtype is torch.bfloat16
