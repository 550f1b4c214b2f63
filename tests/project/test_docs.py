"""What the documentation says is true: its examples run and print what the pages show."""

import contextlib
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import geometric_mean, median

import pytest
import torch

import lstm_kernels
from benchmarks.tables import README_RESULTS, RESULTS, load
from lstm_kernels import convert, memory, nn, onnx
from lstm_kernels.programs.cell_or_hidden.summary import Interval
from lstm_kernels.programs.cell_or_hidden.tables import tables

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
VARIANT_RESULTS = RESULTS / "intel-xeon-family-6-model-207-2-cores"
VARIANT_PAGES = (
    ("layer-norm", "layer norm"),
    ("layer-norm", "joint layer norm"),
    ("recurrent-dropout", "dropout"),
    ("zoneout", "zoneout"),
    ("peepholes", "peephole"),
    ("coupled-gates", "coupled"),
    ("clipping-and-activations", "clip"),
)
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = [
    page for page in PAGES if "```python" in TEXTS[page] and page.parent.name != "tutorials"
]


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = module_of(DOCS / "tutorials/execute.py")


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize("page", EXAMPLES, ids=name_of)
@pytest.mark.slow
def test_the_examples_of_a_page_run_and_print_what_it_shows(page, tmp_path, monkeypatch):
    """In their order, in one namespace; a block `text` after one of `python` is its output."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    printed = ""
    for language, code in FENCE.findall(TEXTS[page]):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, str(page), "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert printed == code


def test_every_public_name_is_in_the_reference():
    text = "".join(text for page, text in TEXTS.items() if page.parent.name == "reference")
    shown = set(re.findall(r"^::: lstm_kernels\.([\w.]+)$", text, re.MULTILINE))
    public = {name for name in lstm_kernels.__all__ if not name.startswith("__")}
    for module in (convert, memory, nn, onnx):
        public |= {f"{module.__name__.split('.')[1]}.{name}" for name in module.__all__}
    assert public == shown


def test_every_public_name_is_used_in_an_example():
    code = "".join(code for text in TEXTS.values() for kind, code in FENCE.findall(text) if kind)
    for name in [*lstm_kernels.__all__, *memory.__all__]:
        if not (isinstance(getattr(memory, name, None), type)):  # results: nobody makes them
            assert re.search(rf"\b{name}\b", code), name


def commands(text):
    """The commands that a page names: make and python -m, in blocks or backquotes."""
    for found in re.findall(r"(?:^ {4}|^|`)((?:make|python -m) [^`\n#]*)", text, re.MULTILINE):
        yield found.strip()


DOCUMENTS = {**TEXTS, **{path: path.read_text(encoding="utf-8") for path in ROOT.glob("*.md")}}
COMMANDS = sorted({command for text in DOCUMENTS.values() for command in commands(text)})


def test_every_make_target_that_a_page_names_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [shlex.split(command)[1] for command in COMMANDS if command.startswith("make ")]
    assert len(named) > 5
    assert set(named) <= {*targets, "gpu"}


PROGRAMS = sorted({c.split()[2] for c in COMMANDS if c.startswith("python -m ")} - {"pip"})


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.slow
def test_every_program_that_a_page_names_runs(program):
    result = subprocess.run(
        [sys.executable, "-m", program, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr


def test_pip_extras_that_a_page_names_exist():
    extras_of_the_project = re.search(
        r"^\[project\.optional-dependencies\]\n(.*?)^\[",
        (ROOT / "pyproject.toml").read_text(),
        re.M | re.S,
    )
    present = set(re.findall(r"^(\w+) = \[", extras_of_the_project[1], re.M))
    for text in DOCUMENTS.values():
        for extras in re.findall(r"pip install[^\n`]*\.\[([\w,]+)\]", text):
            assert set(extras.split(",")) <= present


def ratios(group, peer):
    """(geometric mean, worst) of the results that README and pages speak of."""
    (found,) = (p for p in load(README_RESULTS)[group]["summary"] if p["peer"] == peer)
    return found["mean"], found["worst"]


def costs(*analyses):
    """The range of what analyses cost, in times of a forward and backward pass, on one thread."""
    rows = [r for r in load(README_RESULTS)["analysis"]["rows"] if r["threads"] == 1]
    chosen = [r["ratios"] for r in rows if r["case"]["analysis"] in analyses]
    each = [1 / ratio["ours, forward and backward"]["median"] for ratio in chosen]
    return f"{min(each):.1f} to {max(each):.1f}"


def cost_of_variant(variant):
    """What a variant costs, in times of the plain LSTM; means over the shapes."""
    rows = load(VARIANT_RESULTS)["variants"]["rows"]
    in_inference, in_training = (
        geometric_mean(
            1 / row["ratios"]["ours, plain LSTM"]["median"]
            for row in rows
            if row["case"]["variant"] == variant and row["case"]["training"] == training
        )
        for training in (False, True)
    )
    return (
        f"Inference takes {in_inference:.2f} times as long as with the plain LSTM, "
        f"a training step {in_training:.2f} times."
    )


def measured():
    """(page, what it says with the numbers of the committed results)."""
    loop, packing = "nn.LSTMCell loop", "nn.LSTM, packing and padding"
    states, splitting = "ours, without states", "nn.LSTM, splitting and padding"
    yield "states.md", f"costs about {1 / ratios('states', states)[0] - 1:.0%} of a call"
    yield "states.md", f"`nn.LSTMCell` takes {ratios('states', loop)[0]:.1f} times as long"
    mean_, worst = ratios("lengths", packing)
    yield "ragged.md", f"is {mean_:.1f} times as fast (geometric mean, worst case {worst:.2f};"
    mean_, worst = ratios("reset", splitting)
    yield "ragged.md", f"it is {mean_:.1f} times as fast (worst case {worst:.2f};"
    parts = {5: "fifth", 4: "quarter", 3: "third"}
    yield "inference.md", f"about a {parts[round(ratios('single', 'nn.LSTM')[0])]} of the time"
    characters = json.loads((RESULTS / "errors/characters.json").read_text())
    bits = characters["bits_per_character"]["lstm_kernels.LSTM"]
    with_int8 = characters["bits_per_character_with_int8_weights"]
    assert with_int8 - bits < 0.01
    ends = f"ends at {bits:.4f} bits per character, and at {with_int8:.4f} with int8 weights"
    yield "inference.md", ends
    errors = (RESULTS / "errors/errors.md").read_text()
    yield "inference.md", " ".join(errors.split())
    rows = [[cell.strip() for cell in line.split("|")] for line in errors.splitlines()]
    ours = sorted((row[3] for row in rows[2:]), key=lambda cell: float(cell.removesuffix("%")))
    assert rows[0][3] == "ours, int8"
    yield "faq.md", f"the output by {ours[0]} to {ours[-1]} of its size, over eight cases"
    assert len(ours) == 8
    yield "faq.md", f"ends at {with_int8:.4f} bits per character instead of {bits:.4f}"
    extra = 1 / (1 / ratios("recompute", "ours, recompute=False")[0] - 1)
    yield "compile.md", f"takes about a {parts[round(extra)]} longer"
    cheap = costs("match", "saturation", "ablate", "retention", "gradient_flow")
    yield "memory.md", f"`retention`, `gradient_flow` | {cheap} |"
    for page, variant in VARIANT_PAGES:
        yield f"variants/{page}.md", cost_of_variant(variant)
    yield "memory.md", f"`label` | {costs('label')} |"
    yield "memory.md", f"`horizon` | {costs('horizon')} |"


@pytest.mark.parametrize(("page", "sentence"), [*measured()])
def test_the_numbers_in_a_page_are_those_of_committed_results(page, sentence):
    assert sentence in " ".join(TEXTS[DOCS / page].split())


TUTORIALS = sorted(path.stem for path in (DOCS / "tutorials").glob("*.py"))
TUTORIALS.remove("execute")


@pytest.mark.parametrize("tutorial", TUTORIALS)
def test_the_page_of_a_tutorial_has_its_cells(tutorial):
    """Output and pictures apart, which differ a little from machine to machine."""
    source = (DOCS / f"tutorials/{tutorial}.py").read_text(encoding="utf-8")
    page = tutorial_page(tutorial)
    for kind, cell in execute.cells(source):
        assert (f"```python\n{cell}\n```" if kind == "code" else cell) in page
    for picture in re.findall(r"\]\(([\w-]+\.png)\)", page):
        assert (DOCS / "tutorials" / picture).exists()


@pytest.mark.parametrize("tutorial", TUTORIALS)
@pytest.mark.slow
def test_a_tutorial_runs_and_what_it_asserts_holds(tutorial, tmp_path):
    threads = torch.get_num_threads()
    try:
        page = execute.execute(tutorial, tmp_path)
    finally:
        torch.set_num_threads(threads)
    shown, made = (re.findall(r"\]\(([\w-]+\.png)\)", p) for p in (tutorial_page(tutorial), page))
    assert shown == made == sorted(made, key=lambda name: int(re.findall(r"\d+", name)[0]))


def tutorial_page(tutorial):
    return TEXTS[DOCS / f"tutorials/{tutorial}.md"]


def test_what_the_states_carry_is_a_committed_result():
    results = RESULTS / "memory"
    numbers = json.loads((results / "memory.json").read_text())
    written = (results / "memory.md").read_text()
    assert tables(numbers) == written.splitlines()
    # The sentences of docs/cell-and-hidden.md.
    claims = {
        name: {claim["text"]: (claim["holds"], claim["of"]) for claim in task["claims"]}
        for name, task in numbers["tasks"].items()
    }
    for change in ("to zero c", "to hold c", "to swap c", "a change as large as h"):
        for task, of, judged in (("adding", 4, 4), ("copying", 4, 4), ("text", 0, 5)):
            (text,) = (text for text in claims[task] if text.startswith(change))
            assert claims[task][text] == (of, judged)
    assert claims["text"]["a linear probe finds more of the past in c than in h."] == (5, 5)
    assert claims["text"]["the best LSTM ends with a better score than the RNN."] == (0, 5)
    for bias, adding, copying in ((0, 4, 0), (3, 4, 4)):
        text = f"the LSTM, forget bias {bias} learns the task."
        assert (claims["adding"][text], claims["copying"][text]) == ((adding, 5), (copying, 5))
    before = (
        "before training, the gradient reaches farther back in c of the LSTM with forget bias 1"
    )
    signs = "after training, the signs agree in the same way."
    for task, agree in (("adding", 0), ("copying", 2), ("text", 4)):
        assert claims[task][signs] == (agree, 5)
        (text,) = (text for text in claims[task] if text.startswith(before))
        assert claims[task][text] == (5, 5)


def test_the_answers_that_the_page_quotes_are_those_of_the_results():
    """docs/cell-and-hidden.md, where the popular answer holds: medians and ranges over seeds."""
    tasks = json.loads((RESULTS / "memory/memory.json").read_text())["tasks"]
    page = " ".join(TEXTS[DOCS / "cell-and-hidden.md"].split())

    def best(key):
        """What the best LSTM of adding, copying and text has."""
        found = (tasks[name]["summary of the headline"][key] for name in tasks)
        return [str(Interval(**interval)) for interval in found]

    (c_adding, c_copying, c_text), zeroed_h = best("cost of c zeroed"), best("cost of h zeroed")
    h_adding, h_copying = (of.split()[0] for of in zeroed_h[:2])
    known_c, known_h = best("c knows, mlp"), best("h knows, mlp")
    assert f"costs {c_adding} and {c_copying}; `h`, {h_adding} and {h_copying}." in page
    assert f"Not in text: `c` {c_text}, `h` {zeroed_h[2]}." in page
    assert f"finds {known_h[0]} of it in adding, where `c` has {known_c[0]}." in page
    assert known_h[1].split()[0] == known_c[1].split()[0] == "1"
    for source, key in (("`h` from `c`", "h from c"), ("`c` from `h`", "c from h")):
        adding, copying, text = best(f"R2 of {key}, mlp")
        assert f"R2 of {source} is {adding}, {copying} and {text}" in page

    claim = (
        "after training, the gradient reaches farther back in c of the LSTM than in h of the RNN."
    )
    reaches = [
        f"{of['holds']} of {of['of']}"
        for task in tasks.values()
        for of in task["claims"]
        if of["text"] == claim
    ]
    seeds = "{} seeds of adding, {} of copying, {} of text.".format(*reaches)
    assert f"in {seeds}" in page


def test_the_curve_that_the_page_quotes_is_that_of_the_results():
    """Bits per character of the RNN and of the best LSTM, on the way and at the end of training."""
    text = json.loads((RESULTS / "memory/memory.json").read_text())["tasks"]["text"]
    page = " ".join(TEXTS[DOCS / "cell-and-hidden.md"].split())
    for name, contender in (("The RNN", "RNN"), ("The best LSTM", text["headline"])):
        curves = [dict(r["curve"]) for r in text["runs"] if r["contender"] == contender]
        bits = [f"{median(of[step] for of in curves):.3g}" for step in (200, 500, 800)]
        bits.append(f"{text['summary'][contender]['bits per character']['median']:.3g}")
        assert "{} has {}, {}, {} and {}".format(name, *bits) in page
