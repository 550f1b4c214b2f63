"""Builds the kernels with CMake and packs them into one wheel for every Python.

If a requirement is missing, the build stops with one message that ends in the command to run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
TORCH_FLOOR = (2, 11)
CMAKE_FLOOR = (3, 26)
INSTALL = f"{sys.executable} -m pip install"
WHEELS = (
    "Linux with glibc 2.28 on x86-64 and 64-bit Arm,\n"
    "macOS 11 on Apple silicon, Windows on x86-64; and what is newer"
)
INSTALL_COMPILER = {
    "apt-get": "apt-get install g++",
    "dnf": "dnf install gcc-c++",
    "zypper": "zypper install gcc-c++",
    "pacman": "pacman -S gcc",
    "apk": "apk add g++",
}


def stop(problem, command):
    """End the build with one message, not a traceback."""
    sys.exit(f"\nlstm_kernels cannot be built: {problem}\nRun:\n    {command}\n")


try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ModuleNotFoundError:
    stop("it needs setuptools 70.1 or newer.", f'{INSTALL} "setuptools>=77"')


def release(text):
    """The leading (major, minor) of a version."""
    return tuple(int(number) for number in re.search(r"(\d+)\.(\d+)", text).groups())


def find_tool(name):
    """A program's path; a virtual environment's own comes first, activated or not."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    return shutil.which(name, path=path)


def check_torch():
    """Stop unless there is a torch to compile against; one of another platform needs no checks."""
    if "-DTORCH_DIR=" in os.environ.get("CMAKE_ARGS", ""):
        return
    floor = ".".join(map(str, TORCH_FLOOR))
    build = f"{INSTALL} --no-build-isolation ."
    try:
        found = version("torch")
        folder = Path(find_spec("torch").submodule_search_locations[0])
    except (PackageNotFoundError, AttributeError):
        stop(
            "it compiles against the installed torch, and finds none here.\n"
            "(pip hides an installed one unless told --no-build-isolation.)",
            f'{INSTALL} "torch>={floor}" setuptools cmake ninja && {build}',
        )
    if release(found) < TORCH_FLOOR:
        stop(
            f"it needs torch {floor} or newer, and {found} is installed.",
            f'{INSTALL} --upgrade "torch>={floor}" && {build}',
        )
    if not (folder / "include/torch/csrc/stable/library.h").exists():
        stop(
            f"torch {found} in {folder} was packed without its C++ headers.",
            f"{INSTALL} --force-reinstall torch==2.13.0 && {build}",
        )


def compiler_command():
    """The command that installs a C++ compiler on this system."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    if sys.platform == "win32":
        return "winget install LLVM.LLVM"
    for program, command in INSTALL_COMPILER.items():
        if shutil.which(program):
            return command
    return INSTALL_COMPILER["apt-get"]


def check_compiler():
    """Stop unless there is a C++ compiler; CMakeLists.txt judges which one."""
    wanted = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(wanted[0]) is None:
        stop(
            f"the C++ compiler {wanted[0]} was not found.\n"
            f"No compiler is needed where a wheel fits: {WHEELS}.\n"
            f"This is Python {sys.version.split()[0]} on {sysconfig.get_platform()}.",
            compiler_command(),
        )


def find_build_tools():
    """The paths of a recent enough CMake and of ninja."""
    floor = ".".join(map(str, CMAKE_FLOOR))
    install = f'{INSTALL} "cmake>={floor}" ninja'
    cmake, ninja = tools = [find_tool("cmake"), find_tool("ninja")]
    for name, path in zip(("cmake", "ninja"), tools, strict=True):
        if path is None:
            stop(f"{name} was not found.", install)
    found = subprocess.run([cmake, "--version"], stdout=subprocess.PIPE, text=True).stdout
    if release(found) < CMAKE_FLOOR:
        stop(f"it needs cmake {floor} or newer; {cmake} is {found.split()[2]}.", install)
    return cmake, ninja


def run(*command):
    """Run one step of the build."""
    if subprocess.call(command):
        sys.exit("\nlstm_kernels was not built: the messages above say why.")


class CMakeBuild(build_ext):
    """Drives CMakeLists.txt and installs the libraries into the package.

    Objects are kept in build/cmake, so that every build after the first is incremental. CMAKE_ARGS
    (further options), CXX and MAX_JOBS are taken from the environment.
    """

    def run(self):
        self.in_place = self.editable_mode or self.inplace  # the base class clears inplace
        super().run()

    def build_extension(self, ext):
        check_torch()
        check_compiler()
        cmake, ninja = find_build_tools()

        package = (ROOT if self.in_place else Path(self.build_lib).resolve()) / "lstm_kernels"
        build = ROOT / "build/cmake"
        configure = [
            *(cmake, "-S", ROOT, "-B", build, "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            # Warnings stop the developer, not a user with a newer compiler.
            f"-DCMAKE_COMPILE_WARNING_AS_ERROR={'ON' if self.in_place else 'OFF'}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        jobs = os.environ.get("MAX_JOBS")
        run(*configure)
        run(cmake, "--build", build, *(["--parallel", jobs] if jobs else []))
        for stale in [*package.glob("lstm_kernels_*.so"), *package.glob("lstm_kernels_*.dll")]:
            stale.unlink()  # it may be mapped by a running program, or be another build's
        run(cmake, "--install", build, "--prefix", package)

    def copy_extensions_to_source(self):
        """Nothing to copy: CMake installs an editable build straight into the package."""

    def get_ext_filename(self, name):
        return str(Path(*name.split("."))) + (".dll" if self.plat_name == "win-amd64" else ".so")


class AnyPythonWheel(bdist_wheel):
    """The libraries use torch's stable ABI and no Python, so any Python >= 3.10 can load them."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(
    license="Apache-2.0",
    ext_modules=[Extension("lstm_kernels.lstm_kernels_cpu", [])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": AnyPythonWheel},
)
