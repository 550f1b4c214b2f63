"""Runs Python for 64-bit Arm on any machine: Debian's, under qemu, with torch's own wheel.

Everything lies in one folder; nothing is installed into the system, whose list of packages is left
alone. Needs Debian's apt-get, qemu-user and g++-aarch64-linux-gnu.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from absent_cuda import write_stand_ins

COMPILER = "aarch64-linux-gnu-gcc"


def _fetch_python(folder: Path) -> None:
    """Unpack Debian's Python and all that it needs into folder/root."""
    state, cache = folder / "state", folder / "cache"
    for made in (state / "lists/partial", cache / "archives/partial"):
        made.mkdir(parents=True)
    (state / "status").touch()  # nothing is installed, so apt-get fetches every dependency
    options = ["APT::Architecture=arm64", "APT::Architectures=arm64", "APT::Sandbox::User="]
    options += [f"Dir::State={state}", f"Dir::State::status={state}/status", f"Dir::Cache={cache}"]
    apt = ["apt-get", "-qq", *(part for option in options for part in ("-o", option))]
    subprocess.run([*apt, "update"], check=True)
    wanted = ["--yes", "--download-only", "--no-install-recommends", "python3", "libstdc++6"]
    subprocess.run([*apt, "install", *wanted], check=True, stdout=subprocess.DEVNULL)
    for package in (cache / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, folder / "root"], check=True)
    shutil.rmtree(cache)


def _fetch_packages(site: Path, version: str, requirements: tuple[str, ...]) -> None:
    """Unpack wheels for that Python; what runs at their installation would not run here."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--no-compile", "--no-deps", "--only-binary=:all:", f"--python-version={version}"]
    pip += [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
    subprocess.run([*pip, f"--target={site}", *requirements], check=True)


class Machine:
    """A Python for 64-bit Arm, with torch and what else a program needs of packages."""

    def __init__(
        self, folder: Path, torch: str, requirements: tuple[str, ...], tools: tuple[str, ...]
    ) -> None:
        self.root, self.bytecode = folder / "root", folder / "bytecode"
        if not self.root.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _fetch_python(folder)
        (library,) = self.root.glob("usr/lib/python3.*")
        self.version = library.name.removeprefix("python")
        site = self._packages(folder / f"site-{torch}", (f"torch=={torch}", *requirements))
        self.sites = (site, self._packages(folder / "tools", tools))
        self.absent = write_stand_ins(site, folder / f"absent-{torch}", COMPILER)

    def _packages(self, site: Path, requirements: tuple[str, ...]) -> Path:
        """Packages in a folder of that name, fetched unless they are there."""
        partial = site.with_name("partial")
        if not site.exists():
            shutil.rmtree(partial, ignore_errors=True)
            _fetch_packages(partial, self.version, requirements)
            partial.rename(site)
        return site

    def run(self, arguments: list[str | Path], wheel: Path, folder: Path) -> None:
        """Run Python with these arguments and an unpacked wheel, in a folder."""
        libraries = (self.absent, self.root / "usr/lib/aarch64-linux-gnu")
        variables = {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": ":".join(map(str, (wheel, *self.sites))),
            # To compile torch's Python anew takes an emulator a minute.
            "PYTHONPYCACHEPREFIX": str(self.bytecode),
        }
        command: list[str | Path] = ["qemu-aarch64", "-L", self.root]
        for name, value in variables.items():
            command += ["-E", f"{name}={value}"]
        command += ["-U", "PYTHONDONTWRITEBYTECODE", self.root / "usr/bin/python3", *arguments]
        # Each emulated thread that spins takes a core from the others.
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        subprocess.run(command, check=True, cwd=folder, env=environment)
