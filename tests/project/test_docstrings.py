"""Every public name has a docstring whose example runs and prints what it shows."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
import torch

import lstm_kernels
from lstm_kernels import convert, memory, nn, onnx
from lstm_kernels.memory import plot

PACKAGE = Path(lstm_kernels.__file__).parent
# Those that return a matplotlib Axes; plot has no __all__ for its colours to be in.
PICTURES = ("states", "retention", "saturation", "gradient_flow", "horizon", "text")


def public():
    """(name, object) of every function and class that a user may call."""
    modules = (lstm_kernels, convert, memory, nn, onnx)
    listed = [(module, name) for module in modules for name in module.__all__]
    for module, name in [*listed, *((plot, name) for name in PICTURES)]:
        found = getattr(module, name)
        if callable(found):
            yield f"{module.__name__}.{name}", found


PUBLIC = dict(public())


def methods():
    """(name, function) of the public methods of public classes, which pages show with them."""
    for name, found in PUBLIC.items():
        for method, function in vars(found).items() if inspect.isclass(found) else ():
            function = inspect.unwrap(getattr(function, "__func__", function))
            if not method.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{method}", function


def examples():
    """Every docstring of the package that has an example, also of a module or a private name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            name = ".".join(parts).removesuffix(".__init__")
            for test in finder.find(importlib.import_module(name), name, globs={}):
                if test.examples:
                    yield test


EXAMPLES = {test.name: test for test in examples()}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_with_an_example(name):
    found = PUBLIC[name]
    own = vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__
    assert own
    assert ">>> " in own


def test_every_method_has_a_docstring():
    without = [name for name, of in methods() if not of.__doc__ and not name.endswith("extra_repr")]
    assert without == []


def test_what_takes_arguments_says_what_it_refuses():
    """Classes of results apart, which nobody makes, and what refuses nothing."""
    refuses_nothing = {"lstm_kernels.show_config"}
    for name, found in PUBLIC.items():
        if inspect.isfunction(found) and found.__module__ != plot.__name__:
            assert name in refuses_nothing or "Raises:" in found.__doc__, name


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_shows(name, tmp_path, monkeypatch):
    """Each in a namespace of its alone, as a reader would paste it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    threads = torch.get_num_threads()
    try:
        result = runner.run(EXAMPLES[name], out=said.append)
    finally:
        torch.set_num_threads(threads)
        close_pictures()
    assert result.failed == 0, "".join(said)


def close_pictures():
    from matplotlib import pyplot

    pyplot.close("all")
