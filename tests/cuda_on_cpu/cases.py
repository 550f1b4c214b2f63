"""Runs a persistent kernel on random arrays and checks it against the oracle."""

from dataclasses import dataclass, field

import numpy as np
import oracle


def module():
    """The module built by build_module.py, which the caller has put on sys.path."""
    import cuda_on_cpu

    return cuda_on_cpu


def to_storage(values, dtype):
    """float64 array -> the bits that a kernel of that type reads; bfloat16 as uint16."""
    if dtype != "bfloat16":
        return np.array(values, "float32" if dtype == "tf32" else dtype)
    values = np.array(values, np.float32)
    bits = values.view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16  # ties to even
    return np.where(np.isnan(values), 0x7FC0, nearest).astype(np.uint16)


def from_storage(bits, dtype):
    if dtype == "bfloat16":
        bits = (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.astype(np.float64)


def rounded(values, dtype):
    return from_storage(to_storage(values, dtype), dtype)


def to_tf32(values):
    """To 10 bits of mantissa, ties away from zero."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def operand(dtype):
    """What a product makes of its factors. "tf32" is float32 where that is allowed."""
    return to_tf32 if dtype == "tf32" else lambda values: values


def poisoned(shape, dtype):
    """An array of NaNs: what a kernel leaves unwritten is seen."""
    return to_storage(np.full(shape, np.nan), dtype)


def tolerance(dtype, expected):
    """One unit in the last place of the stored type.

    Half of it is the rounding of the result. Rounding what is fed back may fall to the other side
    of a tie than in the reference, which moves later steps by less than the other half. With TF32
    it is that which is fed back, so there the unit is TF32's. A product of float32 is exact to
    2^-21 of itself, and those of a sum here come to 16 at most, in absolute values.
    """
    unit = {"float16": 2**-10, "bfloat16": 2**-7, "tf32": 2**-11, "float32": 2**-17}[dtype]
    return unit * np.maximum(1, np.abs(expected))


@dataclass
class Rows:
    """Which of N sequences take part in which of T steps, and in which rows they lie."""

    T: int
    N: int
    batch_sizes: np.ndarray | None = None  # (T): packed
    lengths: np.ndarray | None = None  # (N)
    reset: np.ndarray | None = None  # (T, N)
    offsets: np.ndarray = field(init=False)

    def __post_init__(self):
        sizes = self.batch_sizes if self.batch_sizes is not None else np.full(self.T, self.N)
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @property
    def total(self):
        return int(self.offsets[-1])

    def present(self):
        """(T, N) bool: who takes part."""
        if self.lengths is not None:
            return np.arange(self.T)[:, None] < self.lengths
        return np.arange(self.N) < np.diff(self.offsets)[:, None]

    def sequences(self, D):
        """Of each direction and sequence: d, n, its rows in the order of the steps, its resets."""
        present = self.present()
        for d in range(D):
            for n in range(self.N):
                times = np.flatnonzero(present[:, n])[:: -1 if d else 1]
                reset = None if self.reset is None else self.reset[times, n]
                yield d, n, self.offsets[times] + n, reset


def forward(rows, x_gates, w_hh, bias, h0, c0, store=oracle.exact, operand=oracle.exact):
    """The oracle's results, in the layouts of csrc/cuda/kernels.h.

    x_gates (D, R, 4, H), w_hh (D, 4, H, H), bias (D, 4, H), h0 and c0 (D, N, H).
    """
    D, R, _, H = x_gates.shape
    shapes = {"output": (R, D, H), "cell": (R, D, H), "gates": (R, D, 4, H)}
    out = {name: np.zeros(shape) for name, shape in shapes.items()}
    out |= {"h_n": np.zeros(h0.shape), "c_n": np.zeros(c0.shape)}
    for d, n, row, reset in rows.sequences(D):
        a = x_gates[d, row] + bias[d]
        steps = oracle.forward(
            a, w_hh[d].reshape(4 * H, H), h0[d, n], c0[d, n], None, reset, store, operand
        )
        out["output"][row, d], out["cell"][row, d] = steps["h"], steps["c"]
        out["gates"][row, d] = steps["gates"]
        out["h_n"][d, n], out["c_n"][d, n] = steps["h_n"], steps["c_n"]
    return out


def backward(rows, w_hh, c0, cell, gates, grads, store=oracle.exact, operand=oracle.exact):
    """The same from saved cell (R, D, H) and gates (R, D, 4, H); grads has all of SIGNALS."""
    D, H = cell.shape[1:]
    out = {"grad_preactivations": np.zeros(gates.shape)}
    out |= {"grad_h0": np.zeros(c0.shape), "grad_c0": np.zeros(c0.shape)}
    for d, n, row, reset in rows.sequences(D):
        steps = {"c": cell[row, d], "gates": gates[row, d]}
        given = {"h": grads["grad_output"][row, d], "c": grads["grad_cell"][row, d]}
        given |= {"gates": grads["grad_gates"][row, d]}
        given |= {"h_n": grads["grad_h_n"][d, n], "c_n": grads["grad_c_n"][d, n]}
        back = oracle.backward(
            steps, w_hh[d].reshape(4 * H, H), c0[d, n], given, None, reset, store, operand
        )
        out["grad_preactivations"][row, d] = back["preactivations"]
        out["grad_h0"][d, n], out["grad_c0"][d, n] = back["h0"], back["c0"]
    return out


@dataclass
class Case:
    """One layer. `ragged`: None, "packed", "lengths" or "reset"; `given` names optional inputs."""

    dtype: str
    T: int
    N: int
    H: int
    D: int = 1
    ragged: str | None = None
    tile_rows: int = 8
    geometry: str = "small"
    exchange: str = "counter"
    multiprocessors: int = 132
    given: tuple = ("b_ih", "b_hh", "h0", "c0", "cell", "gates")
    seed: int = 1

    def __post_init__(self):
        rng = self.rng = np.random.default_rng([self.seed, self.T, self.N, self.H])
        T, N = self.T, self.N
        lengths = np.sort(rng.integers(1, T + 1, N))[::-1].copy()
        lengths[0] = T
        self.rows = Rows(T, N)
        if self.ragged == "packed":
            sizes = np.array([(lengths > t).sum() for t in range(T)])
            self.rows = Rows(T, N, batch_sizes=sizes)
        elif self.ragged == "lengths":  # in any order, and none at all
            self.rows = Rows(T, N, lengths=rng.permutation(lengths - (lengths == 1)))
        elif self.ragged == "reset":
            self.rows = Rows(T, N, reset=rng.random((T, N)) < 0.3)

    def random(self, shape, scale):
        return rounded(scale * self.rng.uniform(-1, 1, shape), self.dtype)

    def plan(self, which):
        plan = module().plan(
            which, self.geometry, self.exchange, self.tile_rows, self.multiprocessors, self.dtype,
            self.T, self.N, self.H, self.D,
        )  # fmt: skip
        assert plan.persistent
        return plan

    def run(self, which, plan, arrays):
        rows = self.rows
        offsets = None
        if rows.batch_sizes is not None:
            offsets = np.full(self.T + 1, -1)
            module().pack_offsets(rows.batch_sizes, offsets)
            np.testing.assert_array_equal(offsets, rows.offsets)
        kernel = getattr(module(), f"persistent_{which}")
        before = {k: np.copy(v) for k, v in arrays.items() if v is not None}
        outputs = OUTPUTS[which]
        workspace = np.full(plan.workspace_bytes, 0xFF, np.uint8)
        kernel(
            plan, self.geometry == "small", self.dtype, self.T, self.N, self.H, self.D,
            offsets=offsets, lengths=rows.lengths, reset=rows.reset, workspace=workspace,
            **arrays,
        )  # fmt: skip
        for name, array in before.items():
            if name not in outputs:
                np.testing.assert_array_equal(arrays[name], array, err_msg=f"{name} was written to")
        return {k: arrays[k] for k in outputs if arrays[k] is not None}

    def check(self, results, expected):
        for name, bits in results.items():
            actual = from_storage(bits, self.dtype)
            error = np.abs(actual - expected[name])
            bound = tolerance(self.dtype, expected[name])
            wrong = ~(error <= bound)
            assert not wrong.any(), (
                f"{name}: {wrong.sum()} of {wrong.size} wrong, first at {np.argwhere(wrong)[0]}, "
                f"largest error {np.nanmax(error):.2e}, NaNs {np.isnan(actual).sum()}, {self}"
            )


OUTPUTS = {
    "forward": ("output", "h_n", "c_n", "cell", "gates"),
    "backward": ("grad_preactivations", "grad_h0", "grad_c0"),
}
SIGNALS = ("grad_output", "grad_h_n", "grad_c_n", "grad_cell", "grad_gates")


def run_forward(case):
    """Runs the kernel, checks it against the oracle, returns the bits it wrote."""
    R, N, H, D, dtype = case.rows.total, case.N, case.H, case.D, case.dtype
    x_gates = case.random((D, R, 4, H), 2)
    w_hh = case.random((D, 4, H, H), 2 / np.sqrt(H))
    values = {
        "b_ih": case.random((D, 4, H), 1),
        "b_hh": case.random((D, 4, H), 1),
        "h0": case.random((D, N, H), 1),
        "c0": case.random((D, N, H), 2),
    }
    values = {k: v if k in case.given else 0 * v for k, v in values.items()}
    expected = forward(
        case.rows, x_gates, w_hh, values["b_ih"] + values["b_hh"], values["h0"], values["c0"],
        lambda v: rounded(v, dtype), operand(dtype),
    )  # fmt: skip
    bits = {k: to_storage(v, dtype) if k in case.given else None for k, v in values.items()}
    arrays = {
        "x_gates": to_storage(x_gates, dtype),
        "w_hh": to_storage(w_hh, dtype),
        "b_ih": bits["b_ih"] if bits["b_ih"] is not None else np.full(D, None),
        "b_hh": bits["b_hh"] if bits["b_hh"] is not None else np.full(D, None),
        "h0": bits["h0"],
        "c0": bits["c0"],
        "output": poisoned((R, D, H), dtype),
        "h_n": poisoned((D, N, H), dtype),
        "c_n": poisoned((D, N, H), dtype),
        "cell": poisoned((R, D, H), dtype) if "cell" in case.given else None,
        "gates": poisoned((R, D, 4, H), dtype) if "gates" in case.given else None,
    }
    results = case.run("forward", case.plan("forward"), arrays)
    case.check(results, expected)
    return results


def run_backward(case, signals=SIGNALS):
    """As run_forward; `signals` names the gradients that come in."""
    R, N, H, D, dtype = case.rows.total, case.N, case.H, case.D, case.dtype
    w_hh = case.random((D, 4, H, H), 2 / np.sqrt(H))
    c0 = case.random((D, N, H), 1) * ("c0" in case.given)
    cell = case.random((R, D, H), 1)
    gates = case.random((R, D, 4, H), 0.5)
    gates[:, :, [0, 1, 3]] = rounded(gates[:, :, [0, 1, 3]] + 0.5, dtype)
    if case.ragged == "lengths":  # the rows of sequences that have ended are zero
        ended = ~case.rows.present().reshape(-1)
        cell[ended] = gates[ended] = 0
    shapes = {
        "grad_output": (R, D, H), "grad_h_n": (D, N, H), "grad_c_n": (D, N, H),
        "grad_cell": (R, D, H), "grad_gates": (R, D, 4, H),
    }  # fmt: skip
    grads = {k: case.random(shape, 0.5) * (k in signals) for k, shape in shapes.items()}
    expected = backward(
        case.rows, w_hh, c0, cell, gates, grads, lambda v: rounded(v, dtype), operand(dtype)
    )
    arrays = {
        "w_hh": to_storage(w_hh, dtype),
        "c0": to_storage(c0, dtype) if "c0" in case.given else None,
        "cell": to_storage(cell, dtype),
        "gates": to_storage(gates, dtype),
        **{k: to_storage(v, dtype) if k in signals else None for k, v in grads.items()},
        "grad_preactivations": poisoned((R, D, 4, H), dtype),
        "grad_h0": poisoned((D, N, H), dtype),
        "grad_c0": poisoned((D, N, H), dtype),
    }
    results = case.run("backward", case.plan("backward"), arrays)
    case.check(results, expected)
    return results
