"""The LSTM equations in float64 NumPy, forward and backward, one step and one sequence at a time.

Written for reading, not for speed, and sharing nothing with the kernels: their oracle.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run(w, x, h, c, reset=None):
    """One sequence in one direction.

    Args:
        w: dict of w_ih (4*H, I), w_hh (4*H, P), b_ih and b_hh (4*H) or None, w_hr (P, H) or None.
        x: (T, I); h: (P,); c: (H,), the initial states.
        reset: (T,) bool, or None.

    Returns:
        dict of h (T, P), c (T, H), gates (T, 4, H), and before: the (h, c) each step began with.
    """
    H = c.shape[0]
    steps = {"h": [], "c": [], "gates": [], "before": []}
    for t in range(x.shape[0]):
        if reset is not None and reset[t]:
            h, c = np.zeros_like(h), np.zeros_like(c)
        steps["before"].append((h, c))
        a = w["w_ih"] @ x[t] + w["w_hh"] @ h
        for name in ("b_ih", "b_hh"):
            a = a if w[name] is None else a + w[name]
        i, f, g, o = a.reshape(4, H)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        h = h if w["w_hr"] is None else w["w_hr"] @ h
        for name, value in (("h", h), ("c", c), ("gates", np.stack((i, f, g, o)))):
            steps[name].append(value)
    return steps


def gradients(w, steps, grad_h, grad_c, grad_gates, grad_h_n, grad_c_n, reset=None):
    """The gradients of a loss whose gradients with respect to all that `run` returned are given.

    Args:
        grad_h: (T, P), grad_c: (T, H), grad_gates: (T, 4, H); grad_h_n: (P,), grad_c_n: (H,).

    Returns:
        dict of preactivations (T, 4, H), h0 (P,), c0 (H,), and hidden (T, P): all of dL/dh_t.
    """
    T = len(steps["h"])
    dh, dc = grad_h_n, grad_c_n
    out = {"preactivations": [None] * T, "hidden": [None] * T}
    for t in reversed(range(T)):
        i, f, g, o = steps["gates"][t]
        c_before = steps["before"][t][1]
        squashed = np.tanh(steps["c"][t])
        dh = dh + grad_h[t]
        out["hidden"][t] = dh
        dm = dh if w["w_hr"] is None else w["w_hr"].T @ dh
        dc = dc + grad_c[t] + dm * o * (1 - squashed**2)
        di, df, dg, do = np.stack((dc * g, dc * c_before, dc * i, dm * squashed)) + grad_gates[t]
        a = np.stack((di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)))
        out["preactivations"][t] = a
        dh, dc = w["w_hh"].T @ a.reshape(-1), dc * f
        if reset is not None and reset[t]:
            dh, dc = np.zeros_like(dh), np.zeros_like(dc)
    out["h0"], out["c0"] = dh, dc
    return out
