"""The LSTM equations in float64 NumPy, forward and backward, one step and one sequence at a time.

Written for reading, not for speed, and sharing nothing with the kernels of any device: their
oracle.

A kernel may round: `store` rounds what is fed back from step to step, `operand` the factors of the
recurrent product. Left out, the equations are exact.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def exact(values):
    return values


def input_part(w, x):
    """What the input adds to the pre-activations: (T, 4, H).

    Args:
        w: dict of w_ih (4*H, I), b_ih and b_hh (4*H) or None.
        x: (T, I).
    """
    a = x @ w["w_ih"].T
    for name in ("b_ih", "b_hh"):
        a = a if w[name] is None else a + w[name]
    return a.reshape(len(x), 4, len(w["w_ih"]) // 4)


def forward(a, w_hh, h, c, w_hr=None, reset=None, store=exact, operand=exact):
    """One sequence in one direction.

    Args:
        a: (T, 4, H), from `input_part`.
        w_hh: (4*H, P).
        h: (P,); c: (H,), the initial states.
        w_hr: (P, H), or None.
        reset: (T,) bool, or None.

    Returns:
        dict of h (T, P), c (T, H), gates (T, 4, H), and the last states h_n (P,), c_n (H,).
    """
    w_hh, P, H = operand(w_hh), len(h), len(c)
    steps = {"h": np.zeros((len(a), P)), "c": np.zeros((len(a), H)), "gates": np.zeros(a.shape)}
    for t in range(len(a)):
        if reset is not None and reset[t]:
            h, c = np.zeros(P), np.zeros(H)
        i, f, g, o = a[t] + (w_hh @ operand(h)).reshape(4, H)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        unprojected = o * np.tanh(c)
        h = unprojected if w_hr is None else w_hr @ unprojected
        steps["h"][t], steps["c"][t], steps["gates"][t] = h, c, (i, f, g, o)
        h = store(h)
    return steps | {"h_n": h, "c_n": c}


def backward(steps, w_hh, c0, grads, w_hr=None, reset=None, store=exact, operand=exact):
    """The gradients of a loss, from its gradients with respect to all that `forward` returned.

    Args:
        steps: dict of c (T, H) and gates (T, 4, H), as `forward` returned them.
        c0: (H,), the initial cell state.
        grads: dict of h (T, P), c (T, H), gates (T, 4, H), h_n (P,), c_n (H,).

    Returns:
        dict of preactivations (T, 4, H), hidden (T, P): all of dL/dh_t, and h0 (P,), c0 (H,).
    """
    w_hh, dh, dc = operand(w_hh), grads["h_n"], grads["c_n"]
    out = {"preactivations": np.zeros(grads["gates"].shape), "hidden": np.zeros(grads["h"].shape)}
    for t in reversed(range(len(steps["c"]))):
        is_reset = reset is not None and reset[t]
        i, f, g, o = steps["gates"][t]
        c_before = steps["c"][t - 1] if t > 0 else c0
        if is_reset:
            c_before = np.zeros_like(c0)
        squashed = np.tanh(steps["c"][t])
        dh = dh + grads["h"][t]
        out["hidden"][t] = dh
        dm = dh if w_hr is None else w_hr.T @ dh
        dc = dc + grads["c"][t] + dm * o * (1 - squashed**2)
        through = np.stack((dc * g, dc * c_before, dc * i, dm * squashed))
        di, df, dg, do = through + grads["gates"][t]
        a = np.stack((di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)))
        out["preactivations"][t] = a
        dh, dc = w_hh.T @ operand(store(a)).reshape(-1), dc * f
        if is_reset:
            dh, dc = np.zeros_like(dh), np.zeros_like(dc)
    return out | {"h0": dh, "c0": dc}
