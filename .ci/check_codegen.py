"""Checks the machine code of the hot loops: no stack traffic in them, and FMA where the ISA has it.

The tiles of csrc/cpu/panels.h, direct.h and quantized.h run at their peak only while their sums,
weights and operands all stay in registers. One spilled register costs 10 to 30% and no test of
values notices, so this looks at the innermost loops of every `tile`, `tile_pair`, `direct_tile` and
`accumulate_pair` of quantized panels in the given object files.

    python .ci/check_codegen.py build/**/kernels_*.dir/**/kernels.cpp.o

Exits with 1 and names each offending loop; needs binutils' objdump.
"""

import re
import subprocess
import sys
from collections.abc import Iterator

Instruction = tuple[int, str, str]  # address, mnemonic, operands

FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{vex\} )?(\S+)\s*(.*)$")
BRANCH_TARGET = re.compile(r"^([0-9a-f]+)")
# rbp with an index is no frame pointer but one of the operands'.
STACK = re.compile(r"\((%[er]?sp|%rbp\))|\[sp|\[x29")
FMA = re.compile("vfmadd|fmla|vdpbf16ps")
PRODUCT = re.compile("vfmadd|v?mulp|fmla|vdpbf16ps|bfdot")
PRODUCT_OF_BYTES = re.compile("v?pmadd|vpdpbusd|sdot|smull")
HOT = re.compile(r"\b(direct_)?tile(_pair)?<|QuantizedPanels::accumulate_pair\(")


def functions(path: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Yields demangled name and instructions of each function in the object file."""
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", path]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name: str | None = None
    body: list[Instruction] = []
    for line in listing.splitlines():
        if match := FUNCTION.match(line):
            if name:
                yield name, body
            name, body = match[1], []
        elif match := INSTRUCTION.match(line):
            body.append((int(match[1], 16), match[2], match[3]))
    if name:
        yield name, body


def innermost_loops(body: list[Instruction]) -> list[list[Instruction]]:
    """The instructions from a backward jump's target to it, where no other such pair is inside."""
    spans = []
    for address, mnemonic, operands in body:
        if mnemonic.startswith(("j", "b.")) and (match := BRANCH_TARGET.match(operands)):
            target = int(match[1], 16)
            if body[0][0] <= target <= address:
                spans.append((target, address))
    inner = [s for s in spans if not any(s != o and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [[i for i in body if first <= i[0] <= last] for first, last in inner]


def check(path: str) -> tuple[int, list[str]]:
    """Returns (number of hot loops, list of complaints) of one object file."""
    loops, complaints = 0, list[str]()
    for name, body in functions(path):
        if not HOT.search(name):
            continue
        # That of x86 is compiled to be small.
        small = "baseline" in name and any("%" in operands for _, _, operands in body)
        for loop in innermost_loops(body):
            of_bytes = any(PRODUCT_OF_BYTES.match(m) for _, m, _ in loop)
            if not of_bytes and not any(PRODUCT.match(m) for _, m, _ in loop):
                continue  # pointer setup
            loops += 1
            if small:
                continue
            fused = of_bytes or any(FMA.match(m) for _, m, _ in loop)
            if "baseline" not in name and not fused:
                complaints.append(f"{path}: {name}: multiplies and adds separately")
            for address, mnemonic, operands in loop:
                if STACK.search(operands):
                    complaints.append(f"{path}: {name}: {address:x}: {mnemonic} {operands}")
    return loops, complaints


def main(paths: list[str]) -> None:
    if not paths:
        sys.exit(__doc__)
    failed = False
    for path in paths:
        loops, complaints = check(path)
        print(f"{path}: {loops} hot loops, {len(complaints)} stack accesses in them")
        print("\n".join(complaints[:20]))
        if loops == 0:
            print(f"{path}: no hot loop found: has the code been renamed?")
        failed |= bool(complaints) or loops == 0
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1:])
