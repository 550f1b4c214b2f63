"""Checks the machine code and PTX of the persistent kernels in the CUDA library.

    python .ci/cuda_code.py [FOLDER]    # default: build/link, where link_cuda.py left the library

The CPU's stand-in replaces every instruction of csrc/cuda/ptx.cuh, so it cannot see a wrong one.
And no test sees when a compiler makes loads wait for each other. Exits 1 where a kernel

  * does not have exactly the instructions of its exchange and its type, by their PTX;
  * fences, counts or polls in a step that should do without (TaggedExchange), by its SASS;
  * divides in a step, integers or floats exactly: a chain of 100 clock cycles and more. Functions
    that a variant's step calls, for other activations and under bounds, are not looked at;
  * uses an input of the next step before it has asked for all of them. Those of FullFloat, which
    spill, may put one away.

Needs cuobjdump, from the CUDA toolkit or, if that has none, from PyPI.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.resolve()
PACKAGES = ("nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm")
MMA = {
    "13__nv_bfloat16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "6__half": "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
    "f": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
}
MMA["NS0_9FullFloatE"] = MMA["f"]  # three times
EXCHANGE = {
    "Counter": {
        "ld.acquire.gpu.global.u32",
        "red.release.gpu.global.add.u32",
        "ld.global.cg.v4.u32",
        "st.global.cg.b{bits}",
    },
    "Tagged": {"ld.relaxed.gpu.global.v2.u64", "st.relaxed.gpu.global.u64"},
}
# What only one of the exchanges or types has, so that a kernel with another's would be seen.
TOLD_APART = re.compile(
    r"(?<![\w.])(?:mma\.sync|ld\.acquire|ld\.relaxed|ld\.volatile|st\.relaxed|st\.release|"
    r"st\.volatile|red\.|atom\.|fence|membar|(?:ld|st)\.global\.(?:cg|cv|wt))[\w.:]*"
)
# What only a division has: one of integers starts by converting, one of floats checks its operands.
DIVISION = re.compile(r"\bI2F|\bFCHK")
# Inputs of a step: elements of 16 or 32 bits, by the cache of constants.
INPUT = re.compile(r"LDG\.E(?:\.U16)?\.CONSTANT (R\d+),")
KERNEL = re.compile(
    r"persistent_(?P<which>forward|backward)_kernelI(?P<type>13__nv_bfloat16|6__half|f|NS0_9FullFloatE)N.*?"
    r"(?P<exchange>Counter|Tagged)Exchange"
)


def cuobjdump(folder: Path) -> Path:
    """The tool, fetched unless it is there."""
    toolkit = shutil.which("cuobjdump") or "/usr/local/cuda/bin/cuobjdump"
    if Path(toolkit).exists():
        return Path(toolkit)
    tools = folder / "tools"
    if not tools.exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*install, "--target", str(tools), *PACKAGES], check=True)
    return next(tools.glob("nvidia/*/bin/cuobjdump"))


def ptx_kernels(text: str) -> Iterator[tuple[str, str]]:
    """Name and body of every kernel."""
    for part in text.split(".entry ")[1:]:
        yield part.split("(", 1)[0].strip(), part


def sass_kernels(text: str) -> Iterator[tuple[str, list[str]]]:
    """Architecture with name, and the instructions, of every kernel."""
    architecture = ""
    for part in re.split(r"(?=code for sm_)", text):
        found = re.match(r"code for (sm_\w+)", part)
        architecture = found[1] if found else architecture
        for function in part.split("Function : ")[1:]:
            name = function.split(None, 1)[0]
            yield f"{architecture} {name}", re.findall(r"/\*[0-9a-f]{4,}\*/\s+(.*?) ;", function)


def check_ptx(name: str, body: str) -> str | None:
    """What is wrong with the PTX of a persistent kernel, or None."""
    kernel = KERNEL.search(name)
    if not kernel:
        return None
    bits = 16 if kernel["type"] in ("13__nv_bfloat16", "6__half") else 32
    expected = {i.format(bits=bits) for i in EXCHANGE[kernel["exchange"]]} | {MMA[kernel["type"]]}
    found = set(TOLD_APART.findall(body))
    return f"has {sorted(found)}, expected {sorted(expected)}" if found != expected else None


def check_sass(name: str, code: list[str]) -> str | None:
    """What is wrong with the machine code of a persistent kernel, or None."""
    kernel = KERNEL.search(name)
    if not kernel:
        return None
    products = [i for i, instruction in enumerate(code) if "HMMA" in instruction]
    step = code[products[-1] + 1 :]
    if kernel["exchange"] == "Tagged":
        for word in ("MEMBAR", "REDG", "ATOMG", "CCTL"):
            if any(word in instruction for instruction in code[products[0] :]):
                return f"{word} in a step"
        barriers = sum("BAR.SYNC" in instruction for instruction in step)
        if barriers != 1:
            return f"{barriers} barriers in a step"
    ends = [i for i, instruction in enumerate(code) if i > products[-1] and "EXIT" in instruction]
    for instruction in code[products[0] : ends[0]]:
        if DIVISION.search(instruction):
            return f"a division in a step ({instruction})"
    asked = [(i, found[1]) for i, line in enumerate(step) if (found := INPUT.search(line))]
    least = 4 if kernel["which"] == "forward" else 7  # gates; backward also c, c before and grad_h
    if len(asked) < least:
        return f"only {len(asked)} inputs of the next step are asked for after the products"
    for i, register in asked:
        later = [j for j, _ in asked if i < j < i + 60]
        used = re.compile(rf"\b{register}\b")
        for j in range(i + 1, later[-1] if later else i):
            if not used.search(step[j].split(",", 1)[-1]) or INPUT.search(step[j]):
                continue
            if kernel["type"] == "NS0_9FullFloatE" and "STL" in step[j]:
                break
            return f"an input is used ({step[j]}) before all are asked for"
    return None


def main(folder: Path) -> None:
    library = folder / "cmake" / "lstm_kernels_cuda.so"
    if not library.exists():
        print(f"{library} is not here: the CUDA kernels were not compiled")
        return
    tool = cuobjdump(folder)

    def dump(option: str) -> str:
        done = subprocess.run([tool, option, library], check=True, capture_output=True, text=True)
        return done.stdout

    wrong, checked = [], {"PTX": 0, "SASS": 0}
    for name, body in ptx_kernels(dump("-ptx")):
        checked["PTX"] += KERNEL.search(name) is not None
        if problem := check_ptx(name, body):
            wrong.append(f"{name}: {problem}")
    for name, code in sass_kernels(dump("-sass")):
        checked["SASS"] += KERNEL.search(name) is not None
        if problem := check_sass(name, code):
            wrong.append(f"{name}: {problem}")
    print(f"persistent kernels checked: {checked['PTX']} in PTX, {checked['SASS']} in SASS")
    if not all(checked.values()):
        wrong.append("no persistent kernel was found")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "build" / "link")
