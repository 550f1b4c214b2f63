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
    """A Python for 64-bit Arm, with torch."""

    def __init__(self, folder: Path, torch: str, requirements: tuple[str, ...]) -> None:
        self.root, self.site = folder / "root", folder / f"site-{torch}"
        partial = folder / "partial"
        if not self.root.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _fetch_python(folder)
        (library,) = self.root.glob("usr/lib/python3.*")
        if not self.site.exists():
            shutil.rmtree(partial, ignore_errors=True)
            version = library.name.removeprefix("python")
            _fetch_packages(partial, version, (f"torch=={torch}", *requirements))
            partial.rename(self.site)
        self.absent = write_stand_ins(self.site, folder / f"absent-{torch}", COMPILER)

    def run(self, program: Path, *wheels: Path) -> None:
        """Run a program with the packages of these folders."""
        libraries = (self.absent, self.root / "usr/lib/aarch64-linux-gnu")
        variables = {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": ":".join(map(str, (*wheels, self.site))),
        }
        command: list[str | Path] = ["qemu-aarch64", "-L", self.root]
        for name, value in variables.items():
            command += ["-E", f"{name}={value}"]
        command += [self.root / "usr/bin/python3", program]
        # Each emulated thread that spins takes a core from the others.
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
