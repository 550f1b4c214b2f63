"""Plants bugs in the persistent kernels, one at a time, and shows which check finds each.

    python tests/cuda_on_cpu/mutants.py [--jobs N] [--first NUMBER] [words of a name ...]

Small layers are run on the mutated sources: plainly under 8 schedules, and where all values come
out right, under ThreadSanitizer and AddressSanitizer. Exits 1 where a bug is not found.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build_module
import sanitize

FORWARD = "csrc/cuda/persistent_forward.cuh"
BACKWARD = "csrc/cuda/persistent_backward.cuh"
SHARED = "csrc/cuda/persistent.cuh"
EXCHANGE = "csrc/cuda/exchange.cuh"
CELL = "csrc/cuda/cell.cuh"
PTX = "shim/ptx_on_cpu.h"

# Name, file, what stands there (once), what is put in its place.
MUTANTS = [
    ("no barrier after the wait", EXCHANGE,
     "__syncthreads();  // [operands of the step are there]", ""),
    ("only a warp waits", EXCHANGE,
     "__syncthreads();  // [operands of the step are there]", "__syncwarp();"),
    ("no barrier before the arrival", EXCHANGE,
     "__syncthreads();  // [operands stored, partial sums used up]", ""),
    ("arrives before all threads have stored", EXCHANGE,
     "__syncthreads();  // [operands stored, partial sums used up]\n"
     "    if (at_.one_thread) red_release_add(counter(tile), 1);",
     "if (at_.one_thread) red_release_add(counter(tile), 1);\n__syncthreads();"),
    ("waits for the step before the last", EXCHANGE,
     "unsigned(at_.plan.slices) * unsigned(step + 1)",
     "unsigned(at_.plan.slices) * unsigned(step)"),
    ("waits for one block too few", EXCHANGE,
     "unsigned(at_.plan.slices) * unsigned(step + 1)",
     "unsigned(at_.plan.slices * (step + 1) - 1)"),
    ("waits for one block too many", EXCHANGE,
     "unsigned(at_.plan.slices) * unsigned(step + 1)",
     "unsigned(at_.plan.slices * (step + 1) + 1)"),
    ("moving factor read through the cache of constants", EXCHANGE,
     "raw = ld_exchange(first_", "raw = __ldg(first_"),
    ("tags are not looked at", EXCHANGE, "return other == 0;", "return true;"),
    ("the tag of a word is not looked at", EXCHANGE,
     " | (a.w ^ tag_)", ""),
    ("the tag of half a chunk is not looked at", EXCHANGE,
     " | ((b.y ^ tag_) | (b.w ^ tag_))", ""),
    ("any later tag will do", EXCHANGE,
     "return other == 0;", "return int(raw[0].half[0].y) != 0;"),
    ("one tag for all steps", EXCHANGE,
     "st_tagged(place + further, data, unsigned(step + 1))",
     "st_tagged(place + further, data, 1u)"),
    ("tag of the step before", EXCHANGE,
     "st_tagged(place + further, data, unsigned(step + 1))",
     "st_tagged(place + further, data, unsigned(step))"),
    ("words of neighbours swapped", EXCHANGE, "% 4 == 0;", "% 4 != 0;"),
    ("tagged rows beyond the batch are waited for", EXCHANGE,
     "group * 8 < rows_ ? pairs_written_ >> j : 0;", "pairs_written_ >> j;"),
    ("tagged columns beyond the layer are waited for", EXCHANGE,
     "if (column % gates < written) pairs_written_", "pairs_written_"),
    ("tagged rows of the batch are not read", EXCHANGE,
     "if (group * 8 >= rows_) return;", "if (group * 8 + 1 >= rows_) return;"),
    ("tagged rows of the batch are not waited for", EXCHANGE,
     "group * 8 < rows_ ? pairs_written_", "group * 8 + 1 < rows_ ? pairs_written_"),
    ("operands of another row", EXCHANGE, "return down % 8 * 4;", "return down % 8 * 2;"),
    ("operands of another gate", EXCHANGE, "plan.gate_columns / kPairColumns<E>", "plan.pairs / 8"),
    ("tagged partial sums overwritten", "csrc/cuda/choose.h",
     "if (tagged) plan.partials_turn = partial_bytes(g, tile_rows) / 4;", ""),
    ("input of the next step read too early", FORWARD,
     "next = ask(last ? step + 1 : step,", "next = ask(last ? step : step,"),
    ("input of another tile", FORWARD,
     "last ? first_tile : tile + plan.groups);", "first_tile);"),
    ("biases beyond the layer", FORWARD, "= unit < H ? load_or_zero", "= true ? load_or_zero"),
    ("forward: no barrier before the partial sums are read", FORWARD,
     "__syncthreads();  // [partial sums are there]", ""),
    ("forward: barrier in divergent code", FORWARD,
     "__syncthreads();  // [partial sums are there]",
     "if (threadIdx.x < 32) __syncthreads(); else\n __syncthreads();"),
    ("forward: h of ended sequences not handed on", FORWARD,
     "h = state.y;\n", "h = marks >> i & 1 ? state.y : 0.f;\n"),
    ("forward: reset keeps h", FORWARD, "if (is_reset) recurrent =", "if (false) recurrent ="),
    ("forward: reset keeps c", FORWARD, "is_reset ? 0.f : state.x", "state.x"),
    ("forward: columns of W_hh read beyond the end", FORWARD,
     "column + e < H ? read_only(w + e) : narrow<E>(0)", "read_only(w + e)"),
    ("forward: rows of W_hh read beyond the end", FORWARD,
     "w_unit >= H || column >= H", "column >= H"),
    ("forward: second direction reads forward in time", FORWARD,
     "direction ? T - 1 - step : step", "step"),
    ("backward: no barrier before the partial sums are read", BACKWARD,
     "__syncthreads();  // [partial sums are there]", ";"),
    ("backward: reads the wrong slot", BACKWARD,
     "exchange.moving(round - 1, tile)", "exchange.moving(round, tile)"),
    ("backward: gradient of h passes a reset", BACKWARD, "!inputs.is(Inputs::kCut, i)", "true"),
    ("backward: gradient of c passes a reset", BACKWARD,
     "is_reset ? 0.f : grad[i].c_prev", "grad[i].c_prev"),
    ("backward: c before the first step of a sequence", BACKWARD,
     "step > 0 && sequences.takes_part(t_before, n)", "step > 0"),
    ("backward: grad_h_n lost in sequences that have ended", BACKWARD,
     "state.y = dh;", "state.y = 0;"),
    ("backward: rows of W_hh read beyond the end", BACKWARD,
     "to < H && from + e < H ?", "to < H ?"),
    ("backward: columns of W_hh read beyond the end", BACKWARD,
     "to < H && from + e < H ?", "from + e < H ?"),
    ("backward: second direction reads backward in time", BACKWARD,
     "direction ? round : T - 1 - round", "T - 1 - round"),
    ("release made relaxed", PTX, "__ATOMIC_RELEASE", "__ATOMIC_RELAXED"),
    ("acquire made relaxed", PTX, "__ATOMIC_ACQUIRE", "__ATOMIC_RELAXED"),
    ("one look at the counter instead of a wait", EXCHANGE,
     "while (int(ld_acquire(counter(tile))", "if (int(ld_acquire(counter(tile))"),
    ("both directions on one counter", EXCHANGE,
     "int64_t(at_.direction) * at_.plan.tiles + tile;", "int64_t(tile);"),
    ("counters not zeroed", SHARED,
     "cudaMemsetAsync(call.workspace, 0,", "cudaMemsetAsync(call.workspace, 0, 0 *"),
    ("slots not zeroed", SHARED, "size_t(plan.workspace_bytes)",
     "size_t(call.size.D * plan.tiles * kCounterBytes)"),
    ("rows beyond the batch", SHARED, "tile, i) < N_;", "tile, i) < N_ + 1;"),
    ("units beyond the layer", SHARED, "&& unit_ < H_;", "&& unit_ < H_ + 1;"),
    ("one slot instead of two", EXCHANGE, "slot & 1", "slot & 0"),
    ("fragment rows swapped", SHARED, "low.x, high.x, low.y", "high.x, low.x, low.y"),
    ("sum written to the wrong row", SHARED, "(r >> 1) * 8", "(1 - (r >> 1)) * 8"),
    ("a chain of sums dropped", SHARED, "chain < kChains;", "chain < kChains - 1;"),
    ("a pair dropped", SHARED, "if (pair(batch * kLoads) >= pairs_) break;",
     "if (pair(batch * kLoads) >= pairs_ - 1) break;"),
    ("spilled weights swapped", SHARED,
     "return spilled_[spilled_offset(j, m, tile)]", "return spilled_[spilled_offset(j, m, 1)]"),
    ("h not rounded to TF32", EXCHANGE,
     "chunks * kVector<E>, operand<E>(value)", "chunks * kVector<E>, value"),
    ("tagged h not rounded to TF32", EXCHANGE,
     "operand<E>(exists ? value : narrow<E>(0))", "exists ? value : narrow<E>(0)"),
    ("lengths include one step more", SHARED,
     "t < __ldg(rows_.lengths + n)", "t <= __ldg(rows_.lengths + n)"),
    ("resets looked at in no layer", SHARED,
     "!plain_ && rows_.reset &&", "plain_ && rows_.reset &&"),
    ("a cell left out", SHARED,
     "return row(i) < plan_.tile_rows; }", "return row(i) < plan_.tile_rows - 8; }"),
    ("biases read before they are there", FORWARD, "__syncthreads();  // [biases are there]", ""),
    ("float32: the low half of h left out", SHARED,
     "a[3].high, b0.low, b1.low);", "a[3].high, 0, 0);"),
    ("float32: the low half of W_hh left out", SHARED,
     "mma<float>(d, a[0].low, a[1].low, a[2].low, a[3].low, b0.high, b1.high);", ""),
    ("slope of tanh", CELL, "(A(1) - g * g)", "(A(1) - g)"),
]  # fmt: skip


def plant(folder, name, file, old, new):
    """Writes a mutated copy of the sources into the folder."""
    shutil.copytree(build_module.KERNELS.parent, folder / "csrc")
    shutil.copytree(build_module.SHIM, folder / "shim")
    text = (folder / file).read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{name}: {text.count(old)} places in {file} read {old!r}")
    (folder / file).write_text(text.replace(old, new))


def found_by(mutant):
    """Which check finds the bug and what it says, or None."""
    # Without a bug the 8 schedules take 10 s of a processor.
    for sanitizer, seeds, seconds in (
        (None, range(1, 9), 60), ("thread", [1], 300), ("address", [1], 300),
    ):  # fmt: skip
        folder = build_module.build(sanitizer, mutant)
        done = sanitize.run(sanitizer, folder, *seeds, seconds=seconds)
        if done.returncode == 0:
            continue
        if done.returncode == -signal.SIGXCPU:
            return f"{sanitizer or 'values'}: does not end"
        if sanitizer and done.returncode == sanitize.REPORTED:
            report = next(line for line in done.stderr.splitlines() if "Sanitizer" in line)
            return f"{sanitizer}: {report.split('Sanitizer: ')[-1].split(' (pid')[0][:50]}"
        last = done.stderr.strip().splitlines()
        if done.returncode < 0:
            return f"values: killed by signal {-done.returncode}"
        words = next((line for line in reversed(last) if "Error" in line), last[-1] if last else "")
        return f"values: {words[:70]}"
    return None


def check(mutant):
    """Plants one of MUTANTS; returns its name and what found_by() says."""
    name, *edit = mutant
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), name, *edit)
        return name, found_by(Path(folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="bugs looked for at a time")
    parser.add_argument("--first", type=int, default=1, help="number of the first one to look for")
    parser.add_argument("words", nargs="*", help="only bugs with all of these in their name")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if all(word in m[0] for word in options.words)]
    chosen = chosen[options.first - 1 :]
    for sanitizer in (None, "thread", "address"):
        build_module.build(sanitizer)  # what all of them share, once
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for number, (name, found) in enumerate(pool.map(check, chosen), options.first):
            missed += found is None
            print(f"{number:2} {name:54} {found or 'NOT FOUND'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} planted bugs found")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
