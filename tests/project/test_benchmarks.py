"""The benchmarks: all contenders compute the same, costs are counted right, results are kept."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence
from torch.testing import assert_close

from benchmarks import (
    analysis,
    bound,
    contenders,
    cpu,
    deployed,
    footprint,
    gpu,
    isolated,
    report,
    results_folder,
    rows,
    suite,
    variable,
    variants,
)
from benchmarks.busy import spinning
from benchmarks.cases import Case
from benchmarks.groups import groups
from benchmarks.timing import alternate, compare
from benchmarks.workload import Unavailable, Workload

PLAIN = Case(5, 3, 8, I=6)
RAGGED = [
    Case(6, 3, 8, packed=True),
    Case(6, 3, 8, bidirectional=True),
    Case(6, 3, 8, proj_size=4),
    Case(6, 3, 8, layers=2, packed=True, bidirectional=True),
    Case(6, 3, 8, dtype="float64"),
]
# The compiled loop is left out: compiling takes half a minute, and it is the same loop.
CONTENDERS = [
    contenders.native,
    contenders.cell_loop,
    contenders.cell_loop_with_states,
    contenders.ours,
    contenders.ours_with_states,
    contenders.op_alone,
    contenders.onnx_runtime,
]


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def expected(workload):
    with torch.set_grad_enabled(workload.case.training):
        output = workload.native(workload.input)[0]
    return output.data if isinstance(output, PackedSequence) else output


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.__name__)
def test_every_contender_computes_the_same_output(contender):
    workload = Workload(PLAIN, threads=1)
    output = contender(workload)()
    if contender is contenders.onnx_runtime:
        output = torch.from_numpy(output[0])[:, 0]
    # Float32, sums of 14 products: a few units in the last place.
    assert_close(output, expected(workload), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("contender", CONTENDERS[:-2], ids=lambda contender: contender.__name__)
def test_every_contender_computes_the_same_gradients(contender):
    workload = Workload(Case(5, 3, 8, I=6, training=True), threads=1)
    output = expected(workload)
    leaves = [workload.input, *workload.native.parameters()]
    gradients = torch.autograd.grad(output, leaves, torch.ones_like(output))
    for ours, theirs in zip(contender(workload)(), gradients, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # native
@pytest.mark.parametrize("case", RAGGED, ids=str)
def test_the_ragged_cases_are_the_same_for_both(case):
    workload = Workload(case, threads=1)
    assert_close(contenders.ours(workload)(), expected(workload), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_contenders_for_unequal_lengths_compute_the_same(training):
    workload = Workload(Case(9, 4, 8, packed=True, training=training), threads=1)
    ours, native = variable.ours_with_lengths(workload)(), variable.native_packing(workload)()
    assert_close(ours, native, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_contenders_for_episodes_compute_the_same(training, monkeypatch):
    monkeypatch.setattr(variable, "RESET_SHARE", 0.3)
    workload = Workload(Case(9, 4, 8, training=training), threads=1)
    assert variable.resets(workload).any()
    ours = variable.ours_with_resets(workload)()
    assert_close(ours, variable.native_splitting(workload)(), rtol=1e-4, atol=1e-5)
    assert_close(ours, variable.cell_loop_with_resets(workload)(), rtol=1e-4, atol=1e-5)


def test_recomputing_computes_the_same():
    workload = Workload(Case(5, 3, 8, training=True), threads=1)
    recomputed, kept = variable.ours_recomputing(workload)(), contenders.ours(workload)()
    assert_close(recomputed, kept, rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", variants.VARIANTS)
def test_contenders_for_variants_compute_the_same(name, training):
    """With the same seed, so that they draw the same masks."""
    workload = Workload(Case(5, 3, 8, I=6, training=training, variant=name), threads=1)
    found = []
    for contender in (variants.ours_variant, variants.eager_loop):
        call = contender(workload)
        torch.manual_seed(1)
        found.append(call())
    assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["peephole", "coupled", "clip"])
def test_onnx_runtime_computes_the_variants_that_it_has(name):
    workload = Workload(Case(5, 3, 8, I=6, variant=name), threads=1)
    output = torch.from_numpy(variants.onnx_runtime(workload)()[0])[:, 0]
    assert_close(output, variants.ours_variant(workload)(), rtol=1e-4, atol=1e-5)
    with pytest.raises(Unavailable, match="for inference"):
        variants.onnx_runtime(Workload(Case(5, 3, 8, variant=name, training=True), threads=1))


@needs("keras")
@pytest.mark.parametrize("training", [False, True])
def test_keras_computes_dropout_per_gate(training):
    """The contender compares its output with ours, of the same masks."""
    case = Case(5, 3, 8, I=6, variant="dropout per gate", training=training)
    results = variants.keras(Workload(case, threads=1))()
    shapes = [(5, 3, 8)]
    if training:  # the gradients of the input and of Keras' weights
        shapes = [(5, 3, 6), (6, 32), (8, 32), (32,)]
    assert [tuple(value.shape) for value in (results if training else [results])] == shapes
    with pytest.raises(Unavailable, match="has dropout per gate"):
        variants.keras(Workload(Case(5, 3, 8, variant="clip"), threads=1))


@needs("torchaudio")
@pytest.mark.parametrize("training", [False, True])
def test_torchaudio_computes_a_joint_layer_norm(training):
    case = Case(5, 3, 8, I=6, variant="joint layer norm", training=training)
    workload = Workload(case, threads=1)
    theirs, ours = variants.torchaudio(workload)(), variants.ours_variant(workload)()
    if training:  # the gradient of the input: the parameters have other names and shapes
        theirs, ours = theirs[0], ours[0]
    assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    with pytest.raises(Unavailable, match="has a joint layer norm"):
        variants.torchaudio(Workload(Case(5, 3, 8, variant="clip"), threads=1))


@pytest.mark.parametrize("name", analysis.ANALYSES)
def test_contenders_for_analyses_find_the_same(name):
    """Steps enough for the longest lag, and sequences enough for the probes' five folds."""
    workload = Workload(Case(40, 6, 8, analysis=name), threads=1)
    ours, loop = analysis.ours(workload)(), analysis.cell_loop(workload)()
    if name == "match":
        assert [(m.sequence, m.start) for m in ours] == [(m.sequence, m.start) for m in loop]
        ours, loop = ({"distance": [m.distance for m in found]} for found in (ours, loop))
    else:
        ours, loop = vars(ours), vars(loop)
        for words in ("metric", "probe"):
            assert ours.pop(words, None) == loop.pop(words, None)
        for found in (ours, loop):  # units equal to rounding may come in another order
            found.pop("order" if name == "retention" else "best", None)
    # Float32 states; the norms of the last steps back are small differences of them.
    assert_close(ours, loop, rtol=1e-3, atol=1e-5)


def test_the_cost_of_an_analysis_is_judged_by_a_training_step():
    workload = Workload(Case(5, 3, 8, analysis="retention"), threads=1)
    gradients = analysis.forward_and_backward(workload)()
    shapes = [tuple(gradient.shape) for gradient in gradients]
    assert shapes == [(5, 3, 8), (32, 8), (32, 8), (32,), (32,)]


@pytest.mark.parametrize("contender", [contenders.ours_cell_step, contenders.cell_op_alone])
def test_all_cells_compute_the_same_step(contender):
    workload = Workload(Case(1, 3, 8, cell=True), threads=1)
    torch.manual_seed(1)
    expected = contenders.native_cell_step(workload)()
    torch.manual_seed(1)
    assert_close(contender(workload)()[:2], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("contender", "least", "most"),
    [
        (deployed.owned, 0, 1e-6),
        (deployed.owned_bfloat16, 1e-5, 0.005),
        (deployed.owned_int8, 1e-3, 0.015),
        (deployed.onnx_runtime_uint8, 1e-3, 0.03),
        (deployed.onnx_runtime_int8, 1e-3, 0.5),  # saturates without VNNI
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_errors_of_rounded_weights(contender, least, most):
    assert least <= deployed.errors(Case(20, 3, 48, I=40), 1, contender) <= most


def test_int8_is_no_further_off_than_onnx_runtimes():
    for case in (Case(32, 1, 64), Case(32, 8, 96)):
        for weight_scale in deployed.WEIGHT_SCALES:
            ours, *theirs = (
                deployed.errors(case, weight_scale, contender)
                for contender in (
                    deployed.owned_int8,
                    deployed.onnx_runtime_int8,
                    deployed.onnx_runtime_uint8,
                )
            )
            assert ours <= min(theirs)


def test_streams_and_modules_take_the_same_step():
    workload = Workload(Case(1, 3, 8, cell=True), threads=1)
    expected = workload.native(workload.padded)[0]
    assert_close(deployed.native_step(workload)(), expected)
    assert_close(deployed.stream(workload)(), expected[0])
    assert_close(deployed.stream_int8(workload)(), expected[0], rtol=0.1, atol=0.02)


def test_who_cannot_compute_a_case_says_why(monkeypatch):
    with pytest.raises(Unavailable, match="one plain layer"):
        contenders.cell_loop(Workload(RAGGED[1], threads=1))
    with pytest.raises(Unavailable, match="for inference"):
        contenders.onnx_runtime(Workload(Case(5, 3, 8, training=True), threads=1))
    with pytest.raises(Unavailable, match="one plain float32 layer"):
        contenders.onnx_runtime(Workload(RAGGED[0], threads=1))

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(Unavailable, match="onnx is not installed"):
        contenders.onnx_runtime(Workload(PLAIN, threads=1))


def test_operations_and_bytes_are_counted_by_hand():
    # 5 * 3 rows, 4 gates of 8 units, each a product over 6 inputs and 8 units, 2 per multiply-add.
    assert PLAIN.flops == 15 * 32 * 14 * 2
    assert Case(5, 3, 8, I=6, training=True).flops == 3 * PLAIN.flops
    assert Case(5, 3, 8, I=6, bidirectional=True).flops == 2 * PLAIN.flops
    # The second layer's input is both directions of the first.
    assert Case(1, 1, 8, bidirectional=True, layers=2).flops == 2 * 32 * 2 * ((8 + 8) + (16 + 8))
    # h_t of 4 units, and the projection of 8 units onto them.
    assert Case(1, 1, 8, proj_size=4).flops == 32 * 12 * 2 + 8 * 4 * 2
    assert Case(8, 3, 8, packed=True).lengths == [8, 5, 2]
    assert PLAIN.recurrent_bytes == 32 * 8 * 4
    assert Case(5, 3, 8, dtype="bfloat16", proj_size=4).recurrent_bytes == 32 * 4 * 2
    assert Case(5, 3, 8, layers=2, bidirectional=True, training=True).recurrent_reads == 40


def test_the_bound_is_the_larger_of_arithmetic_and_reading():
    rates = bound.Bound([1000, 100_000], {1: 1e9}, {1: 1e8}, {1: [1e9, 1e8, 1e7]})
    many, one = Case(10, 1000, 32), Case(10, 1, 32)  # W_hh: 16,384 bytes
    assert rates.seconds(many, 1) == pytest.approx(many.flops / 1e9)
    # Of them 1000 from the first cache, the rest from the second.
    assert rates.seconds(one, 1) == pytest.approx(10 * (1000 / 1e9 + 15384 / 1e8))
    wide = Case(10, 1000, 32, dtype="float64")
    assert rates.seconds(wide, 1) == pytest.approx(wide.flops / 1e8)


@pytest.mark.builds
def test_the_machine_is_measured_within_reason(monkeypatch):
    monkeypatch.setattr(bound, "SECONDS", 0.005)
    isa = torch.ops.lstm_kernels._cpu_isa().split()[0]
    measured = bound.measure([1], isa)
    assert len(measured.read[1]) == len(measured.caches) + 1
    assert 1e9 < measured.float64[1] < measured.float32[1] < 1e13
    assert all(1e8 < rate < 1e13 for rate in measured.read[1])


def test_contenders_take_turns_and_ratios_come_from_the_same_round():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    samples = alternate(calls, seconds=0)
    assert len(samples["a"]) == len(samples["b"]) == 4
    assert set(order) == {"a", "b"}
    ratio = compare([1.0, 2.0, 4.0], [2.0, 2.0, 16.0])
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.5, 3.0)


def test_every_group_has_cases_that_someone_else_computes_too():
    for full in (False, True):
        for name, group in groups(full).items():
            assert name in suite.GROUPS
            assert all(any(group.takes_part(p, case) for p in group.peers) for case in group.cases)


def test_rows_are_measured_summed_up_printed_drawn_and_saved(tmp_path, monkeypatch):
    group = suite.Group("Who is faster?", [PLAIN, Case(2, 1, 4)], {"nn.LSTM": contenders.native})
    monkeypatch.setitem(group.peers, "nobody", pytest.fail)
    rates = bound.Bound([10**6], {1: 1e9}, {1: 1e9}, {1: [1e9, 1e9]})
    found = list(rows.measure(group, ["nn.LSTM"], [1], 0.01, rates))
    assert [row.case for row in found] == group.cases
    for row in found:
        assert row.gigaflops == pytest.approx(row.case.flops / row.seconds["ours"] / 1e9)
        assert row.fraction == pytest.approx(rates.seconds(row.case, 1) / row.seconds["ours"])
    (summary,) = rows.summarize(found)
    ratios = [row.ratios["nn.LSTM"].median for row in found]
    assert summary.mean == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert summary.worst == min(ratios)

    with report.CONSOLE.capture() as printed:
        report.print_table(group.question, found, [summary])
    assert "T=5 N=3 H=8 I=6" in printed.get()
    assert f"geometric mean {summary.mean:.2f}x of 2 rows" in printed.get()
    report.save(tmp_path / "a.json", group.question, found, [summary], machine={"cpu": "x"})
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["rows"][0]["ratios"]["nn.LSTM"]["median"] == ratios[0]
    assert saved["machine"] == {"cpu": "x"}
    report.draw_ratios(tmp_path / "a.png", group.question, "cpu", found, ["nn.LSTM"])
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_processes_spin_beside_a_measurement_and_end_with_it():
    with spinning(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert all(process.returncode is not None for process in processes)


def test_growth_is_the_power_of_the_size(tmp_path):
    cases = [Case(t, 2, 4, sweep="T") for t in (10, 20, 80)]
    found = [
        rows.Row(case, 1, {"ours": 3.0 * case.T**1.5}, {}, {}, fraction=None) for case in cases
    ]
    assert report.growth(found) == pytest.approx({"T, threads 1": 1.5})
    report.draw_scaling(tmp_path / "a.png", "How?", "cpu", found)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_the_footprint_counts_what_is_saved_for_backward():
    """nn.Linear as the yardstick: it saves its input and weight, which are not counted."""
    layer = torch.nn.Linear(4, 4)
    x = torch.randn(8, 4, requires_grad=True)
    assert footprint.saved_for_backward(layer, x) == 0
    # tanh saves its own output: 8 * 4 floats.
    assert footprint.saved_for_backward(torch.nn.Sequential(layer, torch.nn.Tanh()), x) == 128


def test_the_footprint_is_summed_up_as_ratios():
    sizes = [{"saved": 2, "peak": 10}, {"saved": 0, "peak": 8}, {"saved": 6, "peak": 20}]
    row = dict(zip(footprint.MODULES, sizes, strict=True))
    summaries = {s["peer"]: s["mean"] for s in footprint.summarize([row, row])}
    assert summaries == pytest.approx(
        {
            "nn.LSTM, saved for backward": 3.0,
            "nn.LSTM, at its peak": 2.0,
        }
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group", "nothing"], "invalid choice: 'nothing'"),
        (["--threads", "0"], "--threads 0: at least one"),
        (["--threads", "many"], "invalid int value: 'many'"),
        (["--seconds", "0"], "--seconds 0.0: must be more than 0"),
        (["--group", "cell", "--peer", "nn.LSTM"], "--peer 'nn.LSTM': choose from 'nn.LSTMCell'"),
        (["--output", "/proc/none"], "cannot make /proc/none: No such file"),
        (["--isa", "sse9"], "invalid choice: 'sse9'"),
    ],
)
def test_bad_options_end_before_anything_is_measured(arguments, message, capsys):
    with pytest.raises(SystemExit):
        cpu.main(arguments)
    assert message in capsys.readouterr().err


def test_every_group_and_instruction_set_is_offered(capsys):
    with pytest.raises(SystemExit) as ended:
        cpu.main(["--help"])
    assert ended.value.code == 0
    shown = "".join(capsys.readouterr().out.split())
    assert f"--group{{{','.join(suite.GROUPS)}}}" in shown
    assert "--isa{avx2,avx512}" in shown
    assert set(bound.TARGETS) == {
        "baseline",
        "avx2",
        "avx2_vnni",
        "avx512",
        "avx512_vnni",
        "avx512_bf16",
        "amx",
        "dotprod",
        "neon_bf16",
    }
    assert bound.TARGETS["avx2"] == ["-march=x86-64-v3"]


def git(folder, *command):
    identity = ["-c", "user.name=A Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *command], check=True, capture_output=True)


@pytest.fixture
def dirty(tmp_path, monkeypatch):
    """The root of a tree with a file that is in no revision, in place of this one."""
    git(tmp_path, "init")
    (tmp_path / "a.py").touch()
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "A revision")
    results = tmp_path / "benchmarks" / "results"
    for module in (results_folder, suite):
        monkeypatch.setattr(module, "RESULTS", results)
    monkeypatch.setattr(results_folder, "ROOT", tmp_path)
    (tmp_path / "b.py").touch()
    return tmp_path


def test_a_tree_differs_from_its_revision_in_all_but_results(dirty):
    assert results_folder.uncommitted(dirty) == ["b.py"]
    (dirty / "a.py").write_text("changed")
    assert results_folder.uncommitted(dirty) == ["a.py", "b.py"]
    git(dirty, "add", ".")
    assert results_folder.uncommitted(dirty) == ["a.py", "b.py"]
    git(dirty, "commit", "-m", "Another revision")
    (dirty / "benchmarks/results/machine").mkdir(parents=True)
    (dirty / "benchmarks/results/machine/cell.json").touch()
    assert results_folder.uncommitted(dirty) == []
    assert results_folder.uncommitted(dirty / "nowhere") == []


def commands(dirty, monkeypatch):
    """Every command that leaves results where they are committed, without a machine for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(gpu, "RESULTS", results_folder.RESULTS)
    inside = str(results_folder.RESULTS / "elsewhere")
    yield lambda: cpu.main(["--group", "cell"])
    yield lambda: cpu.main(["--group", "cell", "--output", inside])
    for main in (isolated.main, gpu.main):
        for arguments in ([], ["--output", inside]):
            monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
            yield main
    monkeypatch.setattr("sys.argv", ["benchmarks", inside])
    yield results_folder.main


def test_results_of_a_tree_without_a_revision_are_not_committed(dirty, monkeypatch, capsys):
    for command in commands(dirty, monkeypatch):
        with pytest.raises(SystemExit) as ended:
            command()
        said = capsys.readouterr().err + str(ended.value.code)
        assert "differs from its own in b.py: commit first, or give another folder" in said
        assert ended.value.code != 0
        assert not results_folder.RESULTS.exists()


def test_a_tree_without_a_revision_may_leave_results_elsewhere(dirty, tmp_path_factory):
    results_folder.check(tmp_path_factory.mktemp("elsewhere"))
    results_folder.check(dirty / "benchmarks")
    git(dirty, "add", ".")
    git(dirty, "commit", "-m", "Another revision")
    results_folder.check(results_folder.RESULTS / "machine")


def test_isolated_calls_are_compared_over_starts_and_by_their_tail():
    """Medians over the starts; the 99th percentile of all calls; the whole time of the peers."""
    samples = {
        "ours 1": [[4.0, 4.0, 4.0]] * 3,
        "ours 2": [[2.0, 2.0, 2.0], [1.0, 1.0, 8.0], [2.0, 2.0, 2.0]],
        "nn.LSTM 1": [[6.0] * 3] * 3,
        "nn.LSTM 2": [[3.0] * 3] * 3,
        "ONNX Runtime 1": [[9.0] * 3] * 3,
        "ONNX Runtime 2": [[1.0] * 3] * 3,
    }
    found = isolated.summarize({"sleep 1 ms": {"T1 N1 H1": samples}}, [1, 2])
    row = found["sleep 1 ms"]["shapes"]["T1 N1 H1"]
    assert row["best"] == 1.0  # ours with two threads is the best of both libraries
    assert row["p99"] == 4 / 8
    assert row["whole"] == 1 / 2
    assert found["sleep 1 ms"]["ratios"]["whole"] == {"geomean": 0.5, "worst": 0.5}
