"""torch.export, AOTInductor and ONNX."""

import io

import onnxruntime
import pytest
import torch
from support import H, I, N, T, assert_same, gradients, twins
from torch import nn
from torch.export import Dim

import lstm_kernels

DYNAMIC = {0: Dim("T", max=10_000), 1: Dim("N", max=10_000)}
SHAPES = [(5, 3), (11, 2), (2, 7)]


class Tagger(nn.Module):
    """An LSTM inside a model, with everything it returns."""

    def __init__(self, **options):
        super().__init__()
        self.lstm, _ = twins(num_layers=2, bidirectional=True, **options)
        self.head = nn.Linear(2 * H, 3)

    def forward(self, x):
        output, states, every = self.lstm(x, return_gates=True)
        return self.head(output), states, every


def _exported(strict):
    model = Tagger().eval()
    x = torch.randn(T, N, I)
    return model, torch.export.export(model, (x,), dynamic_shapes=(DYNAMIC,), strict=strict)


def _assert_runs_as(run, model):
    for shape in SHAPES:
        x = torch.randn(*shape, I)
        assert_same(run(x), model(x))


def _ops(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("strict", [False, True])
def test_exports_saves_loads_and_runs_with_dynamic_sizes(strict):
    model, program = _exported(strict)
    assert sum(op.startswith("lstm_kernels.") for op in _ops(program)) == 2
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    _assert_runs_as(torch.export.load(file).module(), model)


def test_decompositions_keep_the_op():
    model, program = _exported(strict=False)
    program = program.run_decompositions()
    assert sum("lstm_kernels.sequence_forward" in op for op in _ops(program)) == 2
    _assert_runs_as(program.module(), model)


def test_an_exported_program_can_be_trained():
    model, program = _exported(strict=False)
    run = program.module()
    x = torch.randn(7, 2, I)
    actual = gradients(run(x), list(run.parameters()))
    assert_same(actual, gradients(model(x), list(model.parameters())))


def test_exports_lengths():
    lstm, _ = twins(bidirectional=True)
    batch = DYNAMIC[1]
    program = torch.export.export(
        lstm,
        (torch.randn(T, N, I),),
        {"lengths": torch.tensor([T, 0, 2])},
        dynamic_shapes={"input": DYNAMIC, "lengths": {0: batch}},
    )
    x, lengths = torch.randn(7, 4, I), torch.tensor([0, 7, 3, 1])
    assert_same(program.module()(x, lengths=lengths), lstm(x, lengths=lengths))
    with pytest.raises(RuntimeError, match="lengths must lie between 0"):
        program.module()(x, lengths=lengths + 1)


def test_exports_cell():
    cell = lstm_kernels.LSTMCell(I, H)
    batch = DYNAMIC[1]
    states = (torch.randn(N, H), torch.randn(N, H))
    program = torch.export.export(
        cell,
        (torch.randn(N, I), states),
        dynamic_shapes={"input": {0: batch}, "hx": ({0: batch}, {0: batch})},
    )
    arguments = torch.randn(8, I), (torch.randn(8, H), torch.randn(8, H))
    run, native = program.module(), cell.to_native()
    assert_same(run(*arguments), native(*arguments))
    assert_same(
        gradients(run(*arguments), list(run.parameters())),
        gradients(native(*arguments), list(native.parameters())),
    )


@pytest.mark.builds
def test_aot_inductor_package_runs(tmp_path):
    model, program = _exported(strict=False)
    path = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "tagger.pt2")
    )
    _assert_runs_as(torch._inductor.aoti_load_package(path), model)


def _run_onnx(program, *arguments):
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    named = zip(session.get_inputs(), arguments, strict=True)
    results = session.run(None, {known.name: value.numpy() for known, value in named})
    return [torch.from_numpy(result) for result in results]


def _to_onnx(model, *arguments, dynamic_shapes, **options):
    return torch.onnx.export(
        model, arguments, dynamo=True, verbose=False, dynamic_shapes=dynamic_shapes, **options
    )


def _lstm_nodes(program):
    return [node for node in program.model_proto.graph.node if node.op_type == "LSTM"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"bias": False, "bidirectional": True}], ids=str)
def test_onnx_holds_one_standard_lstm_node_per_layer(options):
    lstm, _ = twins(num_layers=2, **options)
    program = _to_onnx(
        lstm.eval(),
        torch.randn(T, N, I),
        dynamic_shapes=(DYNAMIC,),
        custom_translation_table=lstm_kernels.onnx.translation_table(),
    )
    assert len(_lstm_nodes(program)) == 2
    for shape in SHAPES:
        x = torch.randn(*shape, I)
        assert_same(_run_onnx(program, x), lstm(x))


def test_onnx_lengths_are_sequence_lens():
    lstm, _ = twins(bidirectional=True, batch_first=True)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm

        def forward(self, x, h, c, lengths):
            return self.lstm(x, (h, c), lengths=lengths)

    h, c, lengths = torch.randn(2, N, H), torch.randn(2, N, H), torch.tensor([T, 2, 1])
    arguments = torch.randn(N, T, I), h, c, lengths
    program = _to_onnx(
        Model().eval(),
        *arguments,
        dynamic_shapes=None,
        custom_translation_table=lstm_kernels.onnx.translation_table(),
    )
    assert_same(_run_onnx(program, *arguments), lstm(arguments[0], (h, c), lengths=lengths))


def test_onnx_refuses_what_its_lstm_does_not_have():
    lstm, _ = twins(proj_size=2)
    with pytest.raises(Exception, match="ONNX's LSTM has no projections"):
        _to_onnx(
            lstm.eval(),
            torch.randn(T, N, I),
            dynamic_shapes=None,
            custom_translation_table=lstm_kernels.onnx.translation_table(),
        )


def test_onnx_export_of_the_native_module():
    lstm, native = twins()
    x = torch.randn(T, N, I)
    program = _to_onnx(native.eval(), x, dynamic_shapes=None)
    assert len(_lstm_nodes(program)) == 1
    assert_same(_run_onnx(program, x), lstm(x))


class Steps(nn.Module):
    """A loop over a cell, with the gates of the last step."""

    def __init__(self, bias, gates):
        super().__init__()
        self.cell, self.gates = lstm_kernels.LSTMCell(I, H, bias), gates

    def forward(self, x, h, c):
        for x_t in x.unbind(0):
            h, c, *gates = self.cell(x_t, (h, c), return_gates=self.gates)
        return h, c, *gates


@pytest.mark.filterwarnings("ignore:# The axis name. N will not be used:UserWarning")
@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_onnx_of_a_cell(bias, gates):
    model = Steps(bias, gates).eval()
    arguments = torch.randn(3, N, I), torch.randn(N, H), torch.randn(N, H)
    program = _to_onnx(
        model,
        *arguments,
        dynamic_shapes=({1: DYNAMIC[1]}, {0: DYNAMIC[1]}, {0: DYNAMIC[1]}),
        custom_translation_table=lstm_kernels.onnx.translation_table(),
    )
    assert len(_lstm_nodes(program)) == (0 if gates else 3)
    for batch in (N, 1, 7):
        given = torch.randn(3, batch, I), torch.randn(batch, H), torch.randn(batch, H)
        assert_same(_run_onnx(program, *given), model(*given))


def _by_older_exporter(model, arguments, axes, grad=True):
    file = io.BytesIO()
    names = [f"argument_{k}" for k in range(len(arguments))]
    with torch.set_grad_enabled(grad):
        torch.onnx.export(
            model,
            arguments,
            file,
            dynamo=False,
            input_names=names,
            dynamic_axes=dict(zip(names, axes, strict=True)),
        )
    return file.getvalue()


def _run_older(model, *arguments):
    session = onnxruntime.InferenceSession(model)
    named = zip(session.get_inputs(), arguments, strict=True)
    results = session.run(None, {known.name: value.numpy() for known, value in named})
    return [torch.from_numpy(result) for result in results]


older_exporter = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning"
)


@older_exporter
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True, "bias": False}, {"batch_first": True}],
    ids=str,
)
def test_the_older_exporter_of_onnx(options, grad):
    lstm, _ = twins(**options)
    model = _by_older_exporter(
        nn.Sequential(lstm.eval()), (torch.randn(T, N, I),), [{0: "a", 1: "b"}], grad
    )
    for shape in SHAPES:
        x = torch.randn(*shape, I)
        assert_same(_run_older(model, x), lstm(x))


@older_exporter
@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_older_exporter_of_onnx_of_a_cell(bias, gates):
    model = Steps(bias, gates).eval()
    arguments = torch.randn(3, N, I), torch.randn(N, H), torch.randn(N, H)
    written = _by_older_exporter(model, arguments, [{1: "n"}, {0: "n"}, {0: "n"}])
    given = torch.randn(3, 7, I), torch.randn(7, H), torch.randn(7, H)
    assert_same(_run_older(written, *given), model(*given))


@older_exporter
def test_the_older_exporter_of_onnx_refuses_what_its_lstm_does_not_have():
    lstm, _ = twins(proj_size=2)
    with pytest.raises(Exception, match="ONNX's LSTM has no projections"):
        _by_older_exporter(nn.Sequential(lstm.eval()), (torch.randn(T, N, I),), [{}])
