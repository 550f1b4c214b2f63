"""The LSTM equations and their gradient in float64 NumPy, with the roundings a kernel may make.

All arrays have the layouts of csrc/cuda/kernels.h. `store` rounds to the storage type what is fed
back from step to step, `operand` what enters the recurrent product; identity functions give the
exact equations.
"""

from dataclasses import dataclass, field

import numpy as np


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


@dataclass
class Steps:
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
    def rows(self):
        return int(self.offsets[-1])

    def active(self, t):
        """(n,): the sequences that take part in step t."""
        if self.lengths is not None:
            return np.flatnonzero(t < self.lengths)
        return np.arange(self.offsets[t + 1] - self.offsets[t])

    def row(self, t, n):
        return self.offsets[t] + n

    def resets(self, t, n):
        """(n, 1), true where the state is zeroed before step t."""
        return (np.zeros(len(n), bool) if self.reset is None else self.reset[t, n])[:, None]


def forward(steps, x_gates, w_hh, bias, h0, c0, store, operand):
    """x_gates (D, R, 4, H), w_hh (D, 4, H, H), bias (D, 4, H), h0 and c0 (D, N, H)."""
    D, _, _, H = x_gates.shape
    out = {
        "output": np.zeros((steps.rows, D, H)),
        "cell": np.zeros((steps.rows, D, H)),
        "gates": np.zeros((steps.rows, D, 4, H)),
        "h_n": h0.copy(),
        "c_n": c0.copy(),
    }
    for d in range(D):
        w, h, c = operand(w_hh[d]), out["h_n"][d], out["c_n"][d]
        for t in range(steps.T) if d == 0 else reversed(range(steps.T)):
            n = steps.active(t)
            row, reset = steps.row(t, n), steps.resets(t, n)
            h_prev, c_prev = np.where(reset, 0, h[n]), np.where(reset, 0, c[n])
            a = x_gates[d, row] + bias[d] + np.einsum("nk,quk->nqu", operand(h_prev), w)
            i, f, g, o = sigmoid(a[:, 0]), sigmoid(a[:, 1]), np.tanh(a[:, 2]), sigmoid(a[:, 3])
            c[n] = f * c_prev + i * g
            h_exact = o * np.tanh(c[n])
            h[n] = store(h_exact)
            out["output"][row, d], out["cell"][row, d] = h_exact, c[n]
            out["gates"][row, d] = np.stack([i, f, g, o], 1)
    return out


def backward(steps, w_hh, c0, cell, gates, grads, store, operand):
    """From saved cell (R, D, H) and gates (R, D, 4, H); grads maps names to arrays, all present."""
    D = cell.shape[1]
    out = {
        "grad_preactivations": np.zeros(gates.shape),
        "grad_h0": grads["grad_h_n"].copy(),
        "grad_c0": grads["grad_c_n"].copy(),
    }
    for d in range(D):
        w, dh, dc = operand(w_hh[d]), out["grad_h0"][d], out["grad_c0"][d]
        order = list(range(steps.T)) if d == 0 else list(reversed(range(steps.T)))
        for step in reversed(range(steps.T)):
            t = order[step]
            n = steps.active(t)
            row, reset = steps.row(t, n), steps.resets(t, n)
            c_prev = c0[d, n].copy()
            if step > 0:
                before = np.isin(n, steps.active(order[step - 1]))
                c_prev[before] = cell[steps.row(order[step - 1], n[before]), d]
            c_prev = np.where(reset, 0, c_prev)
            i, f, g, o = (gates[row, d, q] for q in range(4))
            tanh_c = np.tanh(cell[row, d])
            grad_h = dh[n] + grads["grad_output"][row, d]
            grad_c = dc[n] + grads["grad_cell"][row, d] + grad_h * o * (1 - tanh_c**2)
            grad_gate = grads["grad_gates"][row, d]
            a = np.stack(
                [
                    (grad_c * g + grad_gate[:, 0]) * i * (1 - i),
                    (grad_c * c_prev + grad_gate[:, 1]) * f * (1 - f),
                    (grad_c * i + grad_gate[:, 2]) * (1 - g**2),
                    (grad_h * tanh_c + grad_gate[:, 3]) * o * (1 - o),
                ],
                1,
            )
            out["grad_preactivations"][row, d] = a
            through_w = np.einsum("nqu,quk->nk", operand(store(a)), w)
            dh[n] = np.where(reset, 0, through_w)
            dc[n] = np.where(reset, 0, grad_c * f)
    return out
