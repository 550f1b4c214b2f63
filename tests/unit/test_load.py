"""A library that does not load: one sentence says why, and what to do."""

import subprocess

import pytest
import torch

from lstm_kernels import _load

REBUILD = "build it again: pip install --no-build-isolation"
REINSTALL = "install the right one: pip install --force-reinstall"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Where the package looks for a library named `other`."""
    monkeypatch.setattr(_load, "__file__", str(tmp_path / "_load.py"))
    monkeypatch.setattr(_load, "_SUFFIX", ".so")
    return tmp_path / "lstm_kernels_other.so"


def sentence():
    with pytest.raises(ImportError) as caught:
        _load._load("lstm_kernels_other")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_library_that_is_missing(library):
    assert f"{library} is missing: the kernels were not built" in sentence()


@pytest.mark.parametrize("content", [b"", b"MZ not of this system", b"\x7fELF cut short"])
def test_a_library_of_another_system(library, content):
    library.write_bytes(content)
    message = sentence()
    assert message.startswith(f"{library} does not load with torch {torch.__version__}")
    assert "it is no library for " in message
    assert REINSTALL in message


@pytest.mark.builds
def test_a_library_for_another_processor(library):
    """The number of the machine in an ELF header; 183 is 64-bit Arm, 62 x86-64."""
    build(library, "")
    content = bytearray(library.read_bytes())
    content[18] = 183 if content[18] == 62 else 62
    library.write_bytes(content)
    message = sentence()
    assert "it is no library for " in message
    assert REINSTALL in message


@pytest.mark.builds
def test_a_library_that_wants_what_torch_lacks(library):
    build(library, "extern int torch_of_the_future(); int value = torch_of_the_future();")
    message = sentence()
    assert "it was built for another torch (undefined symbol: " in message
    assert "torch_of_the_future" in message
    assert REBUILD in message


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        ("/lib/libc.so.6: version `GLIBC_2.38' not found", "a newer system", "build it here: pip"),
        ("[WinError 127] The specified procedure could not be found", "another torch", REBUILD),
        ("[WinError 193] %1 is not a valid Win32 application", "is no library for", REINSTALL),
        ("dlopen(x.so): Symbol not found: _aoti_x\n Referenced from", "another torch", REBUILD),
        ("(mach-o file, but is an incompatible architecture)", "is no library for", REINSTALL),
        ("out of memory", "loader refused it (out of memory)", REBUILD),
        ("", "loader refused it (no reason given)", REBUILD),
    ],
)
def test_what_loaders_say(tmp_path, said, cause, remedy):
    message = _load._explain(tmp_path / "lstm_kernels_cpu.so", said)
    assert cause in message
    assert remedy in message
    assert len(message.splitlines()) == 1


def build(library, source):
    command = ["c++", "-shared", "-fPIC", "-Wl,-z,now", "-x", "c++", "-", "-o", library]
    subprocess.run(command, input=source, text=True, check=True)
