"""Builds the wheels of every platform on this one Linux machine, and looks into each.

    python .ci/wheels.py [PLATFORM ...]    # default: all of them

The files go to dist/, and the source distribution too. zig compiles, for it carries clang and the
C and C++ libraries of every platform; of torch's wheel for the platform only headers and libraries
are read. The CUDA kernels are left out: see docs/platforms.md. wheel_check.py runs the wheels that
this machine can run.
"""

import argparse
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import lief  # type: ignore[import-not-found]
import ziglang  # type: ignore[import-not-found]
import zopfli.zlib  # type: ignore[import-not-found]
from absent_cuda import symbols

ROOT = Path(__file__).parent.parent.resolve()
WORK = ROOT / "build/wheels"
TORCH = "2.11.0"  # the oldest one supported
MOST_BYTES = 2_000_000
Command = list[str | Path]


class Platform(NamedTuple):
    """What zig and CMake call it, the libraries that ours may need there, further options."""

    zig: str
    system: str
    processor: str
    libraries: tuple[str, ...]
    options: tuple[str, ...] = ()


# libc.so.6 and its parts: zig puts the C++ library into ours.
GLIBC = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux")
PLATFORMS = {
    "manylinux_2_28_x86_64": Platform(
        "x86_64-linux-gnu.2.28",
        *("Linux", "x86_64"),
        ("libtorch_cpu.so", *GLIBC),
    ),
    "manylinux_2_28_aarch64": Platform(
        "aarch64-linux-gnu.2.28",
        *("Linux", "aarch64"),
        ("libtorch_cpu.so", *GLIBC),
    ),
    "macosx_11_0_arm64": Platform(
        "aarch64-macos.11.0",
        *("Darwin", "arm64"),
        ("@rpath/libtorch_cpu.dylib", "@rpath/lstm_kernels_cpu.so", "/usr/lib/libSystem.B.dylib"),
        ("-DCMAKE_INSTALL_NAME_TOOL=true",),
    ),
    "win_amd64": Platform(
        "x86_64-windows-gnu",
        *("Windows", "AMD64"),
        ("torch_cpu.dll", "api-ms-win-", "KERNEL32.dll", "ntdll.dll"),
        ("-DCMAKE_RC_COMPILER=true",),
    ),
}


def unpacked_torch(platform: str) -> Path:
    """The headers and CPU libraries of torch for a platform, fetched unless they are there."""
    there = WORK / f"torch-{TORCH}-{platform}"
    if not there.exists():
        fetched, partial = WORK / "fetched", WORK / "partial"
        for folder in (fetched, partial):
            shutil.rmtree(folder, ignore_errors=True)
        command: Command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version=3.12", f"--platform={platform}"]
        subprocess.run([*command, f"--dest={fetched}", f"torch=={TORCH}"], check=True)
        (path,) = fetched.glob("torch-*.whl")
        wanted = re.compile(r"torch/(include/.*|lib/(lib)?torch_cpu\.(so|dylib|dll|lib))$")
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(partial, [n for n in wheel.namelist() if wanted.match(n)])
        shutil.rmtree(fetched)
        partial.rename(there)
    return there / "torch"


def setup_py(tree: Path, folder: Path, *arguments: str, environment: dict[str, str]) -> Path:
    """Run a command of setup.py that writes one file into an empty folder; return the file."""
    shutil.rmtree(folder, ignore_errors=True)
    command: Command = [sys.executable, "-W", "ignore", "setup.py", "--quiet", *arguments]
    subprocess.run([*command, "--dist-dir", folder], cwd=tree, check=True, env=environment)
    (made,) = folder.iterdir()
    return made


def build_sdist() -> Path:
    return setup_py(ROOT, WORK / "sdist", "sdist", environment=dict(os.environ))


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack the source distribution; of a tree that is there only what is compiled stays."""
    tree = folder / sdist.name.removesuffix(".tar.gz")
    for old in (*folder.glob("*"), *tree.glob("*"), *tree.glob("build/*")):
        if old not in (tree, tree / "build", tree / "build/cmake"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return tree


class _Zopfli:
    """Deflate's format, some 4 % smaller than zlib makes it, as zipfile calls a compressor."""

    def __init__(self) -> None:
        self._data = bytearray()

    def compress(self, data: bytes) -> bytes:
        self._data += data
        return b""

    def flush(self) -> bytes:
        packed: bytes = zopfli.zlib.compress(bytes(self._data), numiterations=5)
        return packed[2:-4]  # without what zlib puts around it


def repack(wheel: Path) -> None:
    """Compress the files of a wheel as far as their format allows."""
    with zipfile.ZipFile(wheel) as archive:
        files = [(info, archive.read(info)) for info in archive.infolist()]
    with (
        patch("zipfile._get_compressor", lambda *_: _Zopfli()),
        zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for info, data in files:
            archive.writestr(info, data)


def build(platform: str, sdist: Path) -> Path:
    """Build a platform's wheel from the source distribution, warnings as errors."""
    about = PLATFORMS[platform]
    source = WORK / platform
    tree = unpack(sdist, source)
    options = [
        f"-DTORCH_DIR={unpacked_torch(platform)}",
        f"-DCMAKE_SYSTEM_NAME={about.system}",
        f"-DCMAKE_SYSTEM_PROCESSOR={about.processor}",
        "-DLSTM_KERNELS_CUDA=OFF",
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
        *about.options,
    ]
    environment = {
        **os.environ,
        "ZIG": str(Path(ziglang.__file__).with_name("zig")),
        "ZIG_TARGET": about.zig,
        "CXX": str(ROOT / ".ci/zig_cxx.sh"),
        "CMAKE_ARGS": " ".join(options),
    }
    wheel = setup_py(
        tree, source / "dist", "bdist_wheel", "--plat-name", platform, environment=environment
    )
    if not wheel.name.endswith(f"-py3-none-{platform}.whl"):
        sys.exit(f"{wheel.name}: the tag is not py3-none-{platform}")
    repack(wheel)
    return wheel


def check_manylinux(wheel: Path) -> None:
    """Stop unless the tag is true: auditwheel finds no newer symbol and no other library."""
    show = (sys.executable, "-m", "auditwheel", "show", "--json", wheel)
    said = json.loads(subprocess.run(show, check=True, stdout=subprocess.PIPE).stdout)
    versions = [version for names in said["versioned_symbols"].values() for version in names]
    newer = [v for v in versions if tuple(map(int, re.findall(r"\d+", v))) > (2, 28)]
    foreign = sorted(set(said["external_libs"]) - {"libtorch_cpu.so"})
    if newer or foreign or not versions:
        sys.exit(f"{wheel.name} needs {', '.join([*newer, *foreign])}: the tag is not true")


def torch_symbols(platform: str) -> set[str]:
    """What torch's CPU library exports."""
    (path,) = (
        path
        for path in (unpacked_torch(platform) / "lib").iterdir()
        if path.suffix in {".so", ".dylib", ".dll"}
    )
    if path.suffix == ".so":  # lief takes minutes
        return symbols(path, "--defined-only")
    if path.suffix == ".dll":
        torch = lief.PE.parse(path)  # owns the entries
        return {str(entry.name) for entry in torch.get_export().entries}
    architectures = lief.MachO.parse(path)  # owns the one binary in it
    return {str(s.name).removeprefix("_") for s in architectures.at(0).exported_symbols}


def inspect(platform: str, wheel: Path) -> str:
    """Stop unless the wheel is small, holds what it should, and needs only what is there."""
    if PLATFORMS[platform].system == "Linux":
        check_manylinux(wheel)
    size = wheel.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{wheel.name} has {size} bytes, more than {MOST_BYTES}")
    ours = "lstm_kernels/lstm_kernels_cpu" + (".dll" if platform.startswith("win") else ".so")
    lief.logging.disable()  # it speaks of absent sections, which are there for debuggers
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        library = lief.parse(archive.read(ours))
    expected = re.compile(r"lstm_kernels/[\w/]+\.(py|typed)$|lstm_kernels-[\w.]+\.dist-info/")
    strays = [name for name in names if name != ours and not expected.match(name)]
    if strays:
        sys.exit(f"{wheel.name} holds what it should not: {', '.join(strays)}")
    needed = [getattr(entry, "name", entry) for entry in library.libraries]
    strangers = [n for n in needed if not n.startswith(PLATFORMS[platform].libraries)]
    if strangers:
        sys.exit(f"{wheel.name}: the library needs {', '.join(strangers)}")
    if isinstance(library, lief.PE.Binary):
        wanted = {
            str(entry.name)
            for source in library.imports
            if source.name == "torch_cpu.dll"
            for entry in source.entries
        }
    else:
        # The rest are the system's, and the linker has found them in the stubs of its libraries.
        wanted = {str(s.name).removeprefix("_") for s in library.imported_symbols}
        wanted = {n for n in wanted if re.match(r"aoti_|torch_|_?Z|_?Py", n)}
    # Only torch's C shims are stable; a mangled name would tie the wheel to one release.
    tied = sorted(n for n in wanted if not n.startswith(("aoti_", "torch_")))
    if tied or not wanted:
        sys.exit(f"{wheel.name} is tied to one torch or Python by {', '.join(tied)}")
    unknown = wanted - torch_symbols(platform)
    if unknown:
        sys.exit(f"{wheel.name}: torch {TORCH} does not export {', '.join(sorted(unknown))}")
    return f"{size / 1e6:.2f} MB, {len(wanted)} symbols of torch {TORCH}, all there"


def build_all(platforms: list[str]) -> dict[str, tuple[Path, str]]:
    """Build and inspect; the files go to dist/. What inspect says comes with each wheel."""
    WORK.mkdir(parents=True, exist_ok=True)
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    sdist = build_sdist()
    made = {}
    for platform in platforms:
        wheel = build(platform, sdist)
        made[platform] = (Path(shutil.copy(wheel, dist)), inspect(platform, wheel))
        print(f"{wheel.name}: {made[platform][1]}", flush=True)
    shutil.copy(sdist, dist)
    twine = (sys.executable, "-m", "twine", "check", "--strict")
    subprocess.run([*twine, *sorted(dist.iterdir())], check=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help=", ".join(PLATFORMS))
    parser.add_argument("--tag", help="stop unless this is the version, after a v")
    given = parser.parse_args()
    version = runpy.run_path(str(ROOT / "lstm_kernels/_version.py"))["__version__"]
    if given.tag not in (None, f"v{version}"):
        sys.exit(f"the tag is {given.tag}, and lstm_kernels/_version.py says {version}")
    unknown = sorted(set(given.platforms) - set(PLATFORMS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(PLATFORMS)}")
    build_all(given.platforms or list(PLATFORMS))


if __name__ == "__main__":
    main()
