"""Plants bugs in the persistent kernels, one at a time, and shows which check finds each.

    python tests/cuda_on_cpu/mutants.py [words of a name ...]

Small layers are run on the mutated sources: plainly under 8 schedules, and where all values come
out right, under ThreadSanitizer and AddressSanitizer. Exits 1 where a bug is not found.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import build_module
import sanitize

FORWARD = "csrc/cuda/persistent_forward.cuh"
BACKWARD = "csrc/cuda/persistent_backward.cuh"
SHARED = "csrc/cuda/persistent.cuh"
CELL = "csrc/cuda/cell.cuh"
PTX = "shim/ptx_on_cpu.h"

# Name, file, what stands there (once), what is put in its place.
MUTANTS = [
    ("forward: no barrier after the wait", FORWARD,
     "__syncthreads();  // [h of the step before is there]", ""),
    ("forward: only a warp waits", FORWARD,
     "__syncthreads();  // [h of the step before is there]", "__syncwarp();"),
    ("forward: no barrier before the partial sums are read", FORWARD,
     "__syncthreads();  // [partial sums are there]", ""),
    ("forward: no barrier before the arrival", FORWARD,
     "__syncthreads();  // [h stored, partial sums used up]", ""),
    ("forward: no barrier before the arrival of h0", FORWARD,
     "__syncthreads();  // [h0 stored]", ""),
    ("forward: barrier in divergent code", FORWARD,
     "__syncthreads();  // [partial sums are there]",
     "if (threadIdx.x < 32) __syncthreads(); else\n __syncthreads();"),
    ("forward: waits for the step before the last", FORWARD,
     "unsigned(plan.slices) * unsigned(step + 1)", "unsigned(plan.slices) * unsigned(step)"),
    ("forward: waits for one block too few", FORWARD,
     "unsigned(plan.slices) * unsigned(step + 1)", "unsigned(plan.slices * (step + 1) - 1)"),
    ("forward: waits for one block too many", FORWARD,
     "unsigned(plan.slices) * unsigned(step + 1)", "unsigned(plan.slices * (step + 1) + 1)"),
    ("forward: arrives before all threads have stored", FORWARD,
     "__syncthreads();  // [h stored, partial sums used up]\n"
     "      if (one_thread) exchange.arrive(tile);",
     "if (one_thread) exchange.arrive(tile);\n__syncthreads();"),
    ("forward: h of ended sequences not handed on", FORWARD,
     "publish(step + 1, tile, i,", "if (marks >> i & 1) publish(step + 1, tile, i,"),
    ("forward: reset keeps h", FORWARD, "if (is_reset) recurrent =", "if (false) recurrent ="),
    ("forward: reset keeps c", FORWARD, "is_reset ? 0.f : state.x", "state.x"),
    ("forward: columns of W_hh read beyond the end", FORWARD,
     "column + e < H ? __ldg(w + e) : narrow<E>(0)", "__ldg(w + e)"),
    ("forward: rows of W_hh read beyond the end", FORWARD,
     "w_unit >= H || column >= H", "column >= H"),
    ("forward: second direction reads forward in time", FORWARD,
     "direction ? T - 1 - step : step", "step"),
    ("backward: no barrier after the wait", BACKWARD,
     "__syncthreads();  // [gradients of the step after are there]", ""),
    ("backward: only a warp waits", BACKWARD,
     "__syncthreads();  // [gradients of the step after are there]", "__syncwarp();"),
    ("backward: no barrier before the partial sums are read", BACKWARD,
     "__syncthreads();  // [partial sums are there]", ""),
    ("backward: no barrier before the arrival", BACKWARD,
     "__syncthreads();  // [gradients stored, partial sums used up]", ""),
    ("backward: waits for the round before the last", BACKWARD,
     "unsigned(plan.slices) * unsigned(round)", "unsigned(plan.slices) * unsigned(round - 1)"),
    ("backward: waits for one block too few", BACKWARD,
     "unsigned(plan.slices) * unsigned(round)", "unsigned(plan.slices) * unsigned(round) - 1"),
    ("backward: waits for one block too many", BACKWARD,
     "unsigned(plan.slices) * unsigned(round)", "unsigned(plan.slices) * unsigned(round) + 1"),
    ("backward: arrives before all threads have stored", BACKWARD,
     "__syncthreads();  // [gradients stored, partial sums used up]\n"
     "      if (one_thread) exchange.arrive(tile);",
     "if (one_thread) exchange.arrive(tile);\n__syncthreads();"),
    ("backward: reads the wrong slot", BACKWARD,
     "exchange.tile(round - 1, tile)", "exchange.tile(round, tile)"),
    ("backward: gradient of h passes a reset", BACKWARD, "!(cut >> i & 1)", "true"),
    ("backward: gradient of c passes a reset", BACKWARD,
     "is_reset ? 0.f : grad[i].c_prev", "grad[i].c_prev"),
    ("backward: c before the first step of a sequence", BACKWARD,
     "step > 0 && takes_part(call.rows, t_before, n)", "step > 0"),
    ("backward: grad_h_n lost in sequences that have ended", BACKWARD,
     "state.y = dh;", "state.y = 0;"),
    ("backward: gates' columns not padded", BACKWARD, "q * gate_columns + unit", "q * H + unit"),
    ("backward: rows of W_hh read beyond the end", BACKWARD,
     "to < H && from + e < H ?", "to < H ?"),
    ("backward: columns of W_hh read beyond the end", BACKWARD,
     "to < H && from + e < H ?", "from + e < H ?"),
    ("backward: second direction reads backward in time", BACKWARD,
     "t = direction ? round : step", "t = step"),
    ("release made relaxed", PTX, "__ATOMIC_RELEASE", "__ATOMIC_RELAXED"),
    ("acquire made relaxed", PTX, "__ATOMIC_ACQUIRE", "__ATOMIC_RELAXED"),
    ("one look at the counter instead of a wait", SHARED,
     "while (int(ld_acquire(counter(tile))", "if (int(ld_acquire(counter(tile))"),
    ("both directions on one counter", SHARED,
     "(int64_t(direction_) * plan_.tiles + tile) * kCounterBytes", "int64_t(tile) * kCounterBytes"),
    ("counters not zeroed", SHARED,
     "cudaMemsetAsync(call.workspace, 0,", "cudaMemsetAsync(call.workspace, 0, 0 *"),
    ("slots not zeroed", SHARED, "size_t(plan.workspace_bytes)",
     "size_t(call.size.D * plan.tiles * kCounterBytes)"),
    ("rows beyond the batch", SHARED, "sequence(tile, i) < N_ &&", "sequence(tile, i) < N_ + 1 &&"),
    ("units beyond the layer", SHARED, "< N_ && unit_ < H_;", "< N_ && unit_ < H_ + 1;"),
    ("one slot instead of two", SHARED, "slot & 1", "slot & 0"),
    ("fragment rows swapped", SHARED, "low.x, high.x, low.y", "high.x, low.x, low.y"),
    ("sum written to the wrong row", SHARED, "(r >> 1) * 8", "(1 - (r >> 1)) * 8"),
    ("a chain of sums dropped", SHARED, "chain < kChains;", "chain < kChains - 1;"),
    ("a pair dropped", SHARED, "if (pair(batch * kLoads) >= pairs_) break;",
     "if (pair(batch * kLoads) >= pairs_ - 1) break;"),
    ("spilled weights swapped", SHARED,
     "return spilled_[spilled_offset(j, m, half)]", "return spilled_[spilled_offset(j, m, 1)]"),
    ("h not rounded to TF32", SHARED,
     "column % kVector<E>, operand<E>(value)", "column % kVector<E>, value"),
    ("lengths include one step more", SHARED,
     "t < __ldg(rows.lengths + n)", "t <= __ldg(rows.lengths + n)"),
    ("slope of tanh", CELL, "(A(1) - g * g)", "(A(1) - g)"),
]  # fmt: skip


def plant(folder, name, file, old, new):
    """Writes a mutated copy of the sources into the folder."""
    shutil.copytree(build_module.KERNELS, folder / "csrc" / "cuda")
    shutil.copy(build_module.KERNELS.parent / "lstm.h", folder / "csrc")
    shutil.copytree(build_module.SHIM, folder / "shim")
    text = (folder / file).read_text()
    if text.count(old) != 1:
        raise SystemExit(f"{name}: {text.count(old)} places in {file} read {old!r}")
    (folder / file).write_text(text.replace(old, new))


def found_by(mutant):
    """Which check finds the bug and what it says, or None."""
    for sanitizer, seeds in ((None, range(1, 9)), ("thread", [1]), ("address", [1])):
        folder = build_module.build(sanitizer, mutant)
        try:
            done = sanitize.run(sanitizer, folder, *seeds)
        except subprocess.TimeoutExpired:
            return f"{sanitizer or 'values'}: does not end"
        if done.returncode == 0:
            continue
        if sanitizer and done.returncode == sanitize.REPORTED:
            report = next(line for line in done.stderr.splitlines() if "Sanitizer" in line)
            return f"{sanitizer}: {report.split('Sanitizer: ')[-1].split(' (pid')[0][:50]}"
        last = done.stderr.strip().splitlines()
        if done.returncode < 0:
            return f"values: killed by signal {-done.returncode}"
        words = next((line for line in reversed(last) if "Error" in line), last[-1] if last else "")
        return f"values: {words[:70]}"
    return None


def main(*words):
    chosen = [m for m in MUTANTS if all(w in m[0] for w in words)]
    missed = 0
    for number, (name, *edit) in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory() as folder:
            mutant = Path(folder)
            plant(mutant, name, *edit)
            found = found_by(mutant)
        missed += found is None
        print(f"{number:2} {name:54} {found or 'NOT FOUND'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} planted bugs found")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
