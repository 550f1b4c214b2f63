"""Plants bugs in the CUDA code of variants, one at a time, and shows which test finds each.

    python tests/cuda_on_cpu/variant_mutants.py [words of a name ...]

The tests are those of test_variant_ops.py. Exits 1 where a bug is not found. mutants.py does
the same for the persistent kernels.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mutants

HERE = Path(__file__).parent.resolve()
sys.path.insert(0, str(HERE / "ops"))

STEP, CELL = "csrc/cuda/variant_step.cu", "csrc/cuda/variant_cell.cuh"
PATH = "csrc/cuda/variant_step_path.cpp"
ONE_LAUNCH = "csrc/cuda/persistent_variant.cuh"
ONE_PATH = "csrc/cuda/persistent_path.cpp"
FORWARD, BACKWARD = "csrc/cuda/persistent_forward.cuh", "csrc/cuda/persistent_backward.cuh"
# Name, file, what stands there (once), what is put in its place.
MUTANTS = [
    ("sums begin before all have handed in", STEP,
     "  __syncthreads();\n  for (unsigned half", "  for (unsigned half"),
    ("sums are used up before all have read them", STEP,
     "  const A sum = values[0];\n  __syncthreads();", "  const A sum = values[0];"),
    ("sums do not wait for each other", STEP,
     "values[threadIdx.x + half];\n    __syncthreads();", "values[threadIdx.x + half];"),
    ("gradient past a norm counted twice", STEP, "if (!v.norm_cell) to.updated", "to.updated"),
    ("carried norm has no gradient", STEP,
     "if (v.carries_norm) to.seen += to.updated, to.updated = A(0);", ""),
    ("reset keeps the recurrent product", STEP,
     "if (reset || !p.recurrent_product)", "if (!p.recurrent_product)"),
    ("reset keeps c", STEP, "given(unit, reset ? A(0) : cell", "given(unit, cell"),
    ("zoneout keeps h of before a reset", STEP,
     "before = reset ? A(0) : at_or_zero<E>(step.h_before, i);",
     "before = at_or_zero<E>(step.h_before, i);"),
    ("zoneout keeps projected h of before a reset", STEP,
     "row.keep_hidden(unit), reset ? A(0) : before, h", "row.keep_hidden(unit), before, h"),
    ("gradient of h0 passes a reset", STEP,
     "grad_h0, i, cut ? A(0) : from_later(unit)", "grad_h0, i, from_later(unit)"),
    ("gradient of c0 passes a reset", STEP,
     "grad_c0, i, cut ? A(0) : at<A>", "grad_c0, i, at<A>"),
    ("gradient that zoneout passes by is lost", STEP,
     "return v.zones_out_hidden() ? grad + at<A>(p.passed, i) : grad;", "return grad;"),
    ("mask of this step in the place of the next", STEP,
     "grad *= widen(next.of(", "grad *= widen(row.of("),
    ("gradient of the input's product left as it was", STEP,
     "if (p.grad_input_product) put<E>(p.grad_input_product, of_gate(gate, unit), 0);", ""),
    ("gradient of the input gate left as it was", STEP,
     "if (p.grad_input_gate) put<E>(p.grad_input_gate, n * step.cell_row + unit, 0);", ""),
    ("one mask for all steps", STEP, "at.time * array.step", "array.step"),
    ("one mask for both directions", STEP,
     "(n * at.directions + at.direction) * F", "n * at.directions * F"),
    ("parameters of the first sequence alone", STEP, "n < p.N; n++) sum", "n < 1; n++) sum"),
    ("masks of gates of the first unit", STEP,
     "(gate * p.N + n) * P + unit,", "(gate * p.N + n) * P,"),
    ("variance without eps", STEP, "squares / count + eps", "squares / count"),
    ("norm's gradient without its mean", STEP, "(g - mean - of", "(g - of"),
    ("i = 1 - f has no gradient", CELL,
     "if (variant.coupled == Coupled::kInput) df -= di, di = A(0);", ""),
    ("f = 1 - i has no gradient", CELL,
     "if (variant.coupled == Coupled::kForget) di -= df, df = A(0);", ""),
    ("zoneout of c has no gradient", CELL,
     "if (zones_out_cell()) to.c_prev += from.keep_cell * dc;", ""),
    ("gradient passes the bound of c", CELL,
     "cell_clip > 0 && magnitude(updated) >=", "cell_clip < 0 && magnitude(updated) >="),
    ("dropout of g has no gradient", CELL,
     "if (variant.candidate_mask.data) dg *= from.candidate_mask;", ""),
    ("peephole of o from c before", CELL,
     "from.peephole[2] * updated;", "from.peephole[2] * from.c_before;"),
    ("sums of parameters begin anywhere", PATH,
     "zero(*sums_, wide(layer.dtype), device);", ""),
    ("one product for all masks of gates", PATH,
     "part * N * columns),", "0),"),
    ("in one launch: mask of this step in the place of the next", FORWARD,
     "exists ? t_next : 0", "exists ? t : 0"),
    ("in one launch: h0 without its mask", FORWARD,
     "h0 = lstm.first_operand(", "lstm.first_operand("),
    ("in one launch: h without its mask", FORWARD,
     "lstm.operand(h, inputs.asked[i])", "h"),
    ("in one launch: zoneout keeps h of before a reset", FORWARD,
     "is_reset ? 0.f : state.y", "state.y"),
    ("in one launch: masks of the first sequence", FORWARD,
     "exists ? n : 0", "0"),
    ("in one launch: masks of one direction", ONE_LAUNCH,
     "call_.size.D + direction();", "call_.size.D;"),
    ("in one launch: peepholes of one direction", ONE_LAUNCH,
     "(direction() * kPeepholes + k)", "k"),
    ("in one launch: gradient of the mask of this step", BACKWARD,
     "exists && round > 0 ? t_after : 0", "now ? t : 0"),
    ("in one launch: gradient of h past its mask", BACKWARD,
     "lstm.from_later(recurrent, inputs.asked[i])", "recurrent"),
    ("in one launch: gradient passes by a reset", BACKWARD,
     "is_reset ? 0.f : grad[i].h_prev", "grad[i].h_prev"),
    ("in one launch: zoneout passes no gradient", BACKWARD,
     "is_reset ? 0.f : grad[i].h_prev", "0.f"),
    ("in one launch: zoneout passes all of the gradient", ONE_LAUNCH, "dh -= passed;", ""),
    ("in one launch: no gradient of the input gate", BACKWARD,
     "lstm.store_row(at * H + cells.unit(), grad[i]);", ""),
    ("in one launch: gradients of peepholes of one group", BACKWARD,
     "lstm.finish(first_tile * plan.tile_rows +", "lstm.finish("),
    ("in one launch: gradients of peepholes of one direction", ONE_LAUNCH,
     "(int64_t(arrays_.direction()) * call_.rows_of_sums + row)", "row"),
    ("in one launch: gradient of the peephole of o from c before", ONE_LAUNCH,
     "to.preactivation[kOutputGate] * updated;", "to.preactivation[kOutputGate] * c_prev;"),
    ("in one launch: gradients of peepholes begin anywhere", ONE_LAUNCH,
     "of_peephole(k) = 0;", "of_peephole(k) = 1;"),
    ("in one launch: masks of the first step", FORWARD,
     "lstm.ask(exists ? t : 0,", "lstm.ask(0,"),
    ("in one launch: gradient of masks of the first step", BACKWARD,
     "lstm.ask(now ? t : 0,", "lstm.ask(0,"),
    ("in one launch: sums begin anywhere", ONE_PATH,
     "zero(*sums, wide(layer.dtype), device);", ""),
]  # fmt: skip


def found(mutant):
    """Which test finds the bug, or None."""
    import library

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mutants.plant(folder, *mutant)
        built = library.build(kernels=folder / "csrc/cuda")
        tests = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*tests, HERE / "test_variant_ops.py"],
            env={**os.environ, "CUDA_ON_CPU_OPS": str(built)},
            capture_output=True,
            text=True,
        )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if failed:
        return failed[0].split("::")[1].split(" ")[0]
    return None if done.returncode == 0 else f"exit status {done.returncode}"


def main():
    chosen = [m for m in MUTANTS if all(word in m[0] for word in sys.argv[1:])]
    missed = 0
    for number, mutant in enumerate(chosen, 1):
        by = found(mutant)
        missed += by is None
        print(f"{number:2} {mutant[0]:48} {by or 'NOT FOUND'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} planted bugs found")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
