"""Builds the kernels with CMake and packs them into one wheel for every Python."""

import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Drives CMakeLists.txt and installs the libraries into the package."""

    def build_extension(self, ext):
        in_place = self.editable_mode or self.inplace
        package = (ROOT if in_place else Path(self.build_lib).resolve()) / "lstm_kernels"
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = ["cmake", "-S", ROOT, "-B", build, "-G", "Ninja"]
        configure += [f"-DPython3_EXECUTABLE={sys.executable}", f"-DCMAKE_INSTALL_PREFIX={package}"]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", build], check=True)
        subprocess.run(["cmake", "--install", build], check=True)

    def copy_extensions_to_source(self):
        """Nothing to copy: CMake installs an editable build straight into the package."""

    def get_ext_filename(self, name):
        return str(Path(*name.split("."))) + ".so"


class AnyPythonWheel(bdist_wheel):
    """The libraries use torch's stable ABI and no Python, so any Python >= 3.10 can load them."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("lstm_kernels.lstm_kernels_cpu", [])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": AnyPythonWheel},
)
