"""What the GPU benchmark decides without a GPU: its cases, its model, its tables."""

import contextlib
import gc
import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from benchmarks import gpu, gpu_floor, gpu_sanitize, gpu_tests
from benchmarks.cases import Case
from benchmarks.gpu_cases import questions
from benchmarks.tables import RESULTS, gpu_bounds, gpu_lines

ROOT = Path(__file__).parents[2]
QUESTIONS = {question.name: question for question in questions()}
# Microseconds of a step for batches of 1, 16 and 64, as the model was first worked out by hand.
FLOORS = {
    ("bfloat16", 256): (0.81, 0.81, 0.81),
    ("bfloat16", 512): (1.04, 1.04, 1.04),
    ("bfloat16", 768): (1.43, 1.49, 1.57),
    ("bfloat16", 1024): (1.53, 1.65, 2.55),
    ("tf32", 256): (0.92, 0.92, 0.92),
    ("tf32", 512): (1.48, 1.48, 1.48),
    ("tf32", 768): (1.66, 1.79, 2.89),
    ("tf32", 1024): (1.87, 2.21, 4.79),
}


@pytest.fixture(autouse=True)
def _switches_as_installed():
    """Rows set torch's switches of precision, which are those of the process."""
    yield
    gpu.set_precisions(QUESTIONS["float32 as installed"], Case(1, 1, 1))


@pytest.mark.parametrize(("dtype", "H"), FLOORS, ids=str)
def test_the_floor_is_that_of_the_model(dtype, H):
    for N, expected in zip((1, 16, 64), FLOORS[dtype, H], strict=True):
        found = gpu_floor.floor_microseconds(Case(512, N, H, dtype=dtype))
        assert found == pytest.approx(expected, rel=0.03)


def test_the_floor_rises_with_the_work_and_with_slower_parts():
    case = Case(512, 16, 512, dtype="bfloat16")
    floor = gpu_floor.floor_microseconds
    assert floor(Case(512, 256, 512, dtype="bfloat16")) > floor(case)
    assert floor(Case(512, 16, 512, dtype="bfloat16", bidirectional=True)) >= floor(case)
    assert floor(Case(512, 16, 2048, dtype="tf32")) > floor(Case(512, 16, 1024, dtype="tf32"))
    slower = replace(gpu_floor.PUBLISHED, cluster=2.0, grid=2.0)
    assert floor(case, slower) > floor(case)
    for no_floor in ({"cell": True}, {"packed": True}, {"layers": 2}):
        assert floor(Case(512, 16, 512, dtype="bfloat16", **no_floor)) is None
    assert floor(Case(512, 16, 512)) is None  # no rate is known of products of float32 in full


def test_every_target_has_its_cases():
    def cases(name, **wanted):
        return [
            c for c in QUESTIONS[name].cases if all(getattr(c, k) == v for k, v in wanted.items())
        ]

    for dtype in ("bfloat16", "tf32"):
        for H in (256, 512, 1024):
            found = cases("one layer", dtype=dtype, H=H, T=512)
            assert {(c.N, c.training) for c in found} == {
                (n, t) for n in (1, 16, 64) for t in (0, 1)
            }
    assert all(c.H % 128 == 0 and c.N % 8 == 0 for c in cases("fp16 where cuDNN is persistent"))
    shapes = QUESTIONS["directions, packed, layers"].cases
    assert {(c.bidirectional, c.packed, c.layers) for c in shapes} == {
        (True, False, 1), (False, True, 1), (False, False, 2), (False, False, 4),
    }  # fmt: skip
    assert {c.H for c in cases("large products", N=256)} == {1024, 2048}
    assert QUESTIONS["states of every step"].target == 20
    assert QUESTIONS["states cost little"].target == 0.97
    assert all(c.cell and c.N == 1 for c in QUESTIONS["single step in a graph"].cases)
    grid = QUESTIONS["never slower"]
    assert grid.target == 1
    assert {c.N for c in grid.cases} == {1, 4, 8, 63, 64, 256}
    assert {40, 129, 160, 192, 2048} <= {c.H for c in grid.cases}
    assert {c.dtype for c in grid.cases} == {"bfloat16", "float16", "tf32", "float32"}
    installed = QUESTIONS["float32 as installed"]
    assert installed.as_installed
    assert {c.dtype for c in installed.cases} == {"float32"}
    assert [q.name for q in questions() if q.last] == ["against torch.compile"]
    for name in ("published peers' shape", "against torch.compile"):
        assert {(c.T, c.N, c.H) for c in QUESTIONS[name].cases} == {(1024, 16, 768)}


UNLIKE = ("single step in a graph", "variants")


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name not in UNLIKE])
def test_contenders_compute_the_same(name, monkeypatch):
    """On the CPU, at a small size; torch.compile is left to the machine with the GPU."""
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(torch, "compile", lambda cell: cell)
    question = QUESTIONS[name]
    for case in {
        (c.layers, c.bidirectional, c.packed, c.training): c for c in question.cases
    }.values():
        small = replace(case, T=4, N=3, H=8, dtype="float32")
        calls = gpu.contenders(question, small)
        ours, theirs = calls["ours"](), calls[question.peer]()
        if question.peer in ("LSTMCell loop", "compiled LSTMCell loop"):
            ours = ours[2].hidden[0], ours[2].cell[0]
        elif not small.training:
            ours, theirs = ours[1], theirs[1]
        for got, wanted in zip(ours, theirs, strict=True):
            assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", QUESTIONS["variants"].cases, ids=str)
def test_a_variant_stands_beside_the_plain_layer(case, monkeypatch):
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    calls = gpu.contenders(QUESTIONS["variants"], replace(case, T=4, N=3, H=8, dtype="float32"))
    variant, plain = calls["ours"](), calls["our plain LSTM"]()
    values = (variant, plain) if case.training else (variant[0], plain[0])
    assert values[0][0].shape == values[1][0].shape
    assert not torch.equal(values[0][0], values[1][0])


class Graph:
    """As a CUDA graph, but what it captures runs at once, and a replay runs nothing."""

    def replay(self):
        pass


def test_a_graph_of_steps_starts_from_zero_and_keeps_what_it_reads(monkeypatch):
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    question = QUESTIONS["single step in a graph"]
    case = replace(question.cases[0], H=8, dtype="float32")
    started = []

    class Cell(torch.nn.LSTMCell):
        def forward(self, input, state):
            if not started:
                started.extend(map(weakref.ref, (input, *state)))
            return super().forward(input, state)

    cell = Cell(case.input_size, case.H)
    replay = gpu.graph_call(case, cell)
    gc.collect()
    x, h, c = (reference() for reference in started)
    assert h is not None
    assert not h.any()
    assert not c.any()
    with torch.no_grad():
        for _ in range(gpu.GRAPH_STEPS):
            h, c = torch.nn.LSTMCell.forward(cell, x, (h, c))
    for got, wanted in zip(replay()[-2:], (h, c), strict=True):
        assert torch.equal(got, wanted)


def test_the_sanitizers_see_every_type_and_exchange(monkeypatch, capsys):
    """On the CPU: what would run on a GPU, and that it runs at all."""
    runs = gpu_sanitize.RUNS
    persistent = [run for run in runs if run.path == "persistent"]
    seen = {(run.dtype, run.precision, run.plan.split(",")[2]) for run in persistent}
    float32, bfloat16 = torch.float32, torch.bfloat16
    kinds = {(bfloat16, "tf32"), (float32, "tf32"), (float32, "ieee")}
    assert seen == {(*kind, by) for kind in kinds for by in ("tagged", "counter")}
    assert {run.plan.split(",")[0] for run in persistent} == {"8", "16"}
    assert all(run.small == (run.precision == "ieee") for run in runs)
    assert {run.dtype for run in runs if run.path == "step"} == {float32, bfloat16}

    monkeypatch.setattr(gpu_sanitize, "DEVICE", "cpu")
    for name in ("PATH", "PLAN"):  # what main() sets is taken back
        monkeypatch.setenv(f"LSTM_KERNELS_CUDA_{name}", "")
    sizes = []
    layers = gpu_sanitize.layers
    monkeypatch.setattr(
        gpu_sanitize, "layers", lambda run, large: (sizes.append(large), layers(run, large))
    )
    for arguments in ([], ["--odd"]):
        monkeypatch.setattr(sys, "argv", ["gpu_sanitize", *arguments])
        gpu_sanitize.main()
    assert capsys.readouterr().out.splitlines()[-1] == "done"
    assert set(sizes) == {128, 125}


@pytest.mark.slow
def test_a_test_that_loses_the_device_does_not_fail_the_others(tmp_path, monkeypatch, capfd):
    """The first ends its process, as the watchdog does; after the second no kernel runs there."""
    (tmp_path / "test_some.py").write_text(
        "import os\n"
        "from benchmarks import gpu_tests\n"
        "def test_before(): pass\n"
        "def test_that_hangs(): os._exit(1)\n"
        "def test_that_breaks():\n"
        "    gpu_tests.device_answers = lambda: False\n"
        "    assert False\n"
        "def test_after(): assert gpu_tests.device_answers()\n"
        "def test_last(): pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = ["-p", "no:cacheprovider", "-v", "--rootdir", str(tmp_path), str(tmp_path)]
    assert gpu_tests.run(arguments) == 1
    out = capfd.readouterr().out
    words = ("before PASSED", "that_breaks FAILED", "after PASSED", "last PASSED")
    for word in words:
        assert out.count(f"test_{word}") == 1, out
    assert out.count("ended its process") == 2
    assert gpu_tests.run([*arguments, "-k", "before or last"]) == 0
    assert "ended its process" not in capfd.readouterr().out
    assert gpu_tests.run([*arguments, "-k", "no such test"]) == 1


def entry(question, case, ours, theirs, **more):
    return {
        "question": question, "case": str(case), "T": case.T, "N": case.N, "H": case.H,
        "dtype": case.dtype, "training": case.training, "peer": "nn.LSTM", "target": 3.0,
        "milliseconds": {"ours": ours, "nn.LSTM": theirs}, "ratio": theirs / ours,
        "microseconds_per_step": ours * 1e3 / case.T, **more,
    }  # fmt: skip


def test_precisions_are_those_of_the_question():
    """As installed, float32 is TF32 for nn.LSTM alone."""

    def switches(question, dtype):
        gpu.set_precisions(QUESTIONS[question], Case(1, 1, 1, dtype=dtype))
        return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.rnn.fp32_precision

    assert switches("one layer", "tf32") == ("tf32", "tf32")
    assert switches("one layer", "float32") == ("ieee", "ieee")
    assert switches("float32 as installed", "float32") == ("none", "tf32") == gpu.AS_INSTALLED


def test_a_run_that_hangs_at_its_end_has_left_all_before(tmp_path, monkeypatch):
    """Where a row of torch.compile ends the process, the rest is on disk."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(gpu, "compare_plans", lambda cases: {str(c): {} for c in cases})
    monkeypatch.setattr(gpu, "profiled", lambda *_: {"kernels": {}})

    def row(question, case):
        if question.last:
            raise SystemExit("as the watchdog would")
        return {**entry(question.name, case, 1.0, 2.0), "peer": question.peer}

    monkeypatch.setattr(gpu, "row", row)
    monkeypatch.setattr(sys, "argv", ["gpu", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="watchdog"):
        gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {r["question"] for r in found["rows"]} == set(QUESTIONS) - {"against torch.compile"}
    assert found["rows"][0]["kernels"] == {}
    assert len(found["plans"]) == 18
    assert "never slower" in (tmp_path / "gpu.txt").read_text()
    assert (tmp_path / "gpu.png").exists()


def test_an_error_of_the_device_does_not_end_the_run(monkeypatch):
    """A row says what it was, though giving memory back fails then, too."""

    def fail():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    monkeypatch.setattr(gpu, "contenders", lambda *_: fail())
    question = QUESTIONS["one layer"]
    assert "illegal memory access" in gpu.row(question, question.cases[0])["error"]
    assert "illegal" in gpu.profiled(question, question.cases[0], None)["profiler_error"]
    found = gpu.compare_plans(question.cases[:1])
    assert len(found[str(question.cases[0])]) == 1 + len(gpu.PLANS)


def test_stages_can_be_chosen_and_leave_five_files(tmp_path):
    """With tools that only answer: the script's own doing."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/bash\n"
        'case "$*" in\n'
        "  *get_device_name*) echo '90 A GPU' ;;\n"
        "  *cuda_problem*) echo 'the library does not load' >&2; exit 1 ;;\n"
        '  *benchmarks.gpu*--output*) echo "$*" >&2; touch $4/gpu.{json,png,txt} ;;\n'
        "esac\n"
    )
    for tool in ("nvcc", "cmake", "ninja"):
        (tmp_path / tool).write_text("#!/bin/bash\n")
    for file in tmp_path.iterdir():
        file.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "QUESTION": "never"}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    script = Path(gpu.__file__).with_name("gpu.sh")

    def run(stages):
        return subprocess.run(
            ["bash", script, tmp_path / "out"], env={**environment, "STAGES": stages},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run("step benchmark")
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files == ["gpu.json", "gpu.png", "gpu.txt", "logs.tar.gz", "summary.txt"]
    report = (tmp_path / "out" / "summary.txt").read_text()
    assert [line.split()[0] for line in report.split("\n")[1:3]] == ["step", "benchmark"]
    assert "contract" not in report
    assert "--question never" in done.stdout
    assert "there is no stage parity" in run("parity").stderr
    done = run("build")
    assert done.returncode == 1
    assert "FAILED" in done.stdout.split("A GPU")[0].splitlines()[-1]


def test_rows_are_printed_summed_up_and_drawn(tmp_path):
    case = Case(1000, 16, 512, dtype="bfloat16")
    kernels = [
        {"name": "sgemm", "count": 1, "microseconds": 900.0},
        {"name": "persistent_forward_kernel<bf16>", "count": 2, "microseconds": 2600.0},
    ]
    assert gpu.recurrence(case, kernels) == pytest.approx(1.3)
    assert gpu.recurrence(case, kernels[:1]) is None
    floors = gpu.over_floor(case, kernels, gpu_floor.PUBLISHED)
    assert floors["over_floor"] == floors["over_measured_floor"] == pytest.approx(1.25, rel=0.01)
    more = {**floors, "kernels": {"ours": kernels, "nn.LSTM": [{"name": "their_kernel"}]}}
    rows = [
        entry("one layer", case, 2.0, 8.0, **more),
        entry("one layer", case, 2.0, 2.0),
        entry("published peers' shape", replace(case, training=True), 3.0, 9.0),
        {"question": "broken", "case": "none", "error": "RuntimeError: no"},
    ]
    assert "4.00x nn.LSTM (target 3)" in gpu.line(rows[0])
    assert "MISS" in gpu.line(rows[1])
    assert "RuntimeError" in gpu.line(rows[3])
    assert "1.30 us/step, 1.25x floor, 1.25x with measured rates; nn.LSTM: their_kernel" in (
        gpu.floor_line(rows[0])
    )
    table = gpu.summary(rows, unreached=2)
    assert "1 of   2 at 3x or more; mean 2.00x, least 1.00x" in table
    assert "1 of   1 within 1.5x" in table
    assert "3.00 ms; nn.LSTM float16 5.19 ms" in table
    assert "2 cases were not reached" in table
    gpu.draw(tmp_path / "gpu.png", rows, "a GPU")
    assert (tmp_path / "gpu.png").stat().st_size > 1000
    json.dumps(rows)


def test_the_documents_table_is_that_of_the_results():
    document = ROOT.joinpath("docs", "gpu.md").read_text().splitlines()
    for line in gpu_lines(RESULTS / "nvidia-h200") + gpu_bounds(RESULTS / "nvidia-h200"):
        assert line in document
