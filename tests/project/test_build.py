"""What the build says where something is missing: one message, and the command to run."""

import platform
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]


class Machine:
    """A Python with nothing installed but setuptools, and a PATH of chosen programs."""

    def __init__(self, folder):
        self.packages = folder / "packages"
        self.programs = folder / "programs"
        self.python = folder / "venv/bin/python"
        for made in (self.packages, self.programs):
            made.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        site = Path(setuptools.__file__).parents[1]
        for name in ("setuptools", "_distutils_hack"):
            (self.packages / name).symlink_to(site / name)

    def add_torch(self, version, *, headers=True):
        info = self.packages / f"torch-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        stable = self.packages / "torch/include/torch/csrc/stable"
        stable.mkdir(parents=True)
        (self.packages / "torch/__init__.py").touch()
        if headers:
            (stable / "library.h").touch()

    def add_program(self, name, output=""):
        program = self.programs / name
        program.write_text(f"#!/bin/sh\necho '{output}'\n")
        program.chmod(0o755)

    def build(self, **environment):
        """The message with which `setup.py build_ext` ends."""
        ran = subprocess.run(
            [self.python, "setup.py", "build_ext", "--inplace"],
            cwd=ROOT,
            env={"PATH": str(self.programs), "PYTHONPATH": str(self.packages), **environment},
            capture_output=True,
            text=True,
        )
        assert ran.returncode != 0
        assert "Traceback" not in ran.stderr
        return ran.stderr


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def assert_ends_in_command(message, command):
    """The last line of the message is the command, for this very Python."""
    assert message.count("Run:\n") == 1
    assert message.rstrip().splitlines()[-1].strip().endswith(command), message


def test_without_torch(machine):
    message = machine.build()
    assert "it compiles against the installed torch, and finds none here" in message
    assert f'{machine.python} -m pip install "torch>=2.11"' in message
    assert_ends_in_command(message, f"{machine.python} -m pip install --no-build-isolation .")


@pytest.mark.parametrize("version", ["1.13.1", "2.9.0", "2.10.0+cpu"])
def test_torch_too_old(machine, version):
    machine.add_torch(version)
    message = machine.build()
    assert f"it needs torch 2.11 or newer, and {version} is installed" in message
    assert 'pip install --upgrade "torch>=2.11" && ' in message
    assert_ends_in_command(message, "pip install --no-build-isolation .")


@pytest.mark.parametrize("version", ["2.11.0+cpu", "2.12.0a0+git1234567", "3.0.0"])
def test_torch_without_headers(machine, version):
    machine.add_torch(version, headers=False)
    message = machine.build()
    assert f"torch {version} in {machine.packages}/torch was packed without its C++ head" in message
    assert_ends_in_command(message, "pip install --no-build-isolation .")


@pytest.mark.parametrize("environment", [{}, {"CXX": "ccache clang++-99"}, {"CXX": "/no/g++"}])
def test_without_a_compiler(machine, environment):
    machine.add_torch("2.13.0")
    message = machine.build(**environment)
    assert "C++ compiler" in message
    assert "No compiler is needed where a wheel fits: Linux with glibc 2.28" in message
    assert f"This is Python {platform.python_version()} on {sysconfig.get_platform()}." in message
    assert_ends_in_command(message, "apt-get install g++")


@pytest.mark.parametrize(
    ("program", "command"),
    [("dnf", "dnf install gcc-c++"), ("pacman", "pacman -S gcc"), ("apk", "apk add g++")],
)
def test_a_compiler_comes_from_the_package_manager_that_is_there(machine, program, command):
    machine.add_torch("2.13.0")
    machine.add_program(program)
    assert_ends_in_command(machine.build(), command)


@pytest.mark.parametrize(
    ("system", "command"),
    [("darwin", "xcode-select --install"), ("win32", "winget install LLVM.LLVM")],
)
def test_a_compiler_for_other_systems(monkeypatch, system, command):
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    compiler_command = runpy.run_path(str(ROOT / "setup.py"))["compiler_command"]
    monkeypatch.setattr(sys, "platform", system)
    assert compiler_command() == command


def test_without_cmake(machine):
    machine.add_torch("2.13.0")
    machine.add_program("c++")
    message = machine.build()
    assert "cmake was not found" in message
    assert_ends_in_command(message, 'pip install "cmake>=3.26" ninja')


def test_without_ninja(machine):
    machine.add_torch("2.13.0")
    machine.add_program("c++")
    machine.add_program("cmake", "cmake version 4.0.1")
    message = machine.build()
    assert "ninja was not found" in message
    assert_ends_in_command(message, 'pip install "cmake>=3.26" ninja')


def test_cmake_too_old(machine):
    machine.add_torch("2.13.0")
    for name in ("c++", "ninja"):
        machine.add_program(name)
    machine.add_program("cmake", "cmake version 3.25.1")
    message = machine.build()
    assert f"it needs cmake 3.26 or newer; {machine.programs}/cmake is 3.25.1" in message
    assert_ends_in_command(message, 'pip install "cmake>=3.26" ninja')


def test_setuptools_too_old(machine):
    """Before 70.1 it had no bdist_wheel."""
    old = machine.packages / "setuptools"
    old.unlink()
    (old / "command").mkdir(parents=True)
    (old / "__init__.py").write_text("Extension = setup = None\n")
    (old / "command/__init__.py").touch()
    (old / "command/build_ext.py").write_text("build_ext = object\n")
    message = machine.build()
    assert "it needs setuptools 70.1 or newer" in message
    assert_ends_in_command(message, 'pip install "setuptools>=77"')


def configure(folder, compiler):
    """The message with which CMake refuses a compiler, a shell script in front of g++."""
    wrapper = folder / "c++"
    wrapper.write_text(f"#!/bin/sh\n{compiler}\n")
    wrapper.chmod(0o755)
    path = f"{sysconfig.get_path('scripts')}:{Path(shutil.which('g++')).parent}:/usr/bin:/bin"
    ran = subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder / "build", f"-DPython3_EXECUTABLE={sys.executable}"],
        env={"PATH": path, "CXX": str(wrapper), "CMAKE_GENERATOR": "Ninja"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode != 0
    return " ".join(ran.stderr.split())


@pytest.mark.builds
@pytest.mark.parametrize(
    "compiler",
    ["-D__clang__ -D__clang_major__=15 -D__clang_minor__=0", "-U__GNUC__ -D__GNUC__=10"],
)
def test_an_older_compiler(tmp_path, compiler):
    message = configure(tmp_path, f'exec g++ {compiler} "$@"')
    assert "lstm_kernels needs GCC 11, clang 16 or Xcode 15, or newer" in message
    assert "Run: apt-get install g++ && CXX=g++ pip install --no-build-isolation ." in message
