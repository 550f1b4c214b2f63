"""The equations of every variant in NumPy, sequence by sequence and gate by gate.

Written from the papers' equations, not from the library's: the tests of variants compare with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

ACTIVATIONS = {
    "sigmoid": lambda z, a, b: 1 / (1 + np.exp(-z)),
    "tanh": lambda z, a, b: np.tanh(z),
    "relu": lambda z, a, b: np.maximum(z, 0),
    "affine": lambda z, a, b: a * z + b,
    "leakyrelu": lambda z, a, b: np.where(z >= 0, z, a * z),
    "thresholdedrelu": lambda z, a, b: np.where(z > a, z, 0),
    "scaledtanh": lambda z, a, b: a * np.tanh(b * z),
    "hardsigmoid": lambda z, a, b: np.minimum(np.maximum(a * z + b, 0), 1),
    "elu": lambda z, a, b: np.where(z >= 0, z, a * (np.exp(np.minimum(z, 0)) - 1)),
    "softsign": lambda z, a, b: z / (1 + np.abs(z)),
    "softplus": lambda z, a, b: np.log1p(np.exp(z)),
}


def normalised(z: Array, eps: float) -> Array:
    centred = z - z.mean()
    return centred / math.sqrt((centred**2).mean() + eps)


def run(
    variant: Any,
    x: Array,
    h: Array,
    c: Array,
    weights: dict[str, Array | None],
    at: Any,
    reset: Any = None,
) -> tuple[Array, Array, Array, Array, Array]:
    """One sequence in one direction: hidden, cell and gates of every step, and the last states.

    Args:
        x: (T, I), in the order of the direction. h: (P). c: (H).
        weights: w_ih, w_hh, b_ih, b_hh, w_hr, peephole, norm_gates, norm_cell; None if absent.
        at: at(name, t) is a mask, the input gate or a reset state of step t of the direction, or
            None.
        reset: (T) of bool, or None.
    """
    hidden, cell, gates = [], [], []
    for t, x_t in enumerate(x):
        if reset is not None and reset[t]:
            h = np.zeros_like(h) if at("reset_h", t) is None else at("reset_h", t)
            c = np.zeros_like(c) if at("reset_c", t) is None else at("reset_c", t)
        h, c, of_step = step(variant, x_t, h, c, weights, lambda name, t=t: at(name, t))
        hidden.append(h), cell.append(c), gates.append(of_step)
    return np.array(hidden), np.array(cell), np.array(gates), h, c


def step(v: Any, x: Array, h: Array, c: Array, w: Any, at: Any) -> tuple[Array, Array, Array]:
    H = len(c)
    mask = at("recurrent")
    recurrent = np.empty(4 * H)
    for gate in range(4):
        rows = w["w_hh"][gate * H : (gate + 1) * H]
        seen = h
        if mask is not None and v.dropout_on == "hidden":
            seen = h * mask
        elif mask is not None and v.dropout_on == "gates":
            seen = h * mask[gate]
        recurrent[gate * H : (gate + 1) * H] = rows @ seen
    z = w["w_ih"] @ x
    if v.layer_norm == "joint":
        z = normalised(z + recurrent, v.norm_eps) * w["norm_gates"][0]
    elif v.layer_norm == "separate":
        z = normalised(z, v.norm_eps) * w["norm_gates"][0]
        z = z + normalised(recurrent, v.norm_eps) * w["norm_gates"][1]
    else:
        z = z + recurrent
    if w["b_ih"] is not None:
        z = z + w["b_ih"] + w["b_hh"]
    z_i, z_f, z_g, z_o = z.reshape(4, H)

    def act(which: int, value: Array) -> Array:
        name, alpha, beta = v.activations[which]
        if v.clip is not None and which < 2:
            value = np.clip(value, -v.clip, v.clip)
        return ACTIVATIONS[name](value, alpha, beta)

    peephole = np.zeros((3, H)) if w["peephole"] is None else w["peephole"]
    i = at("input_gate") if v.input_gate else act(0, z_i + peephole[0] * c)
    f = act(0, z_f + peephole[1] * c)
    if v.coupled == "input":
        i = 1 - f
    if v.coupled == "forget":
        f = 1 - i
    g = act(1, z_g)
    dropped = g if mask is None or v.dropout_on != "candidate" else g * mask
    new = f * c + i * dropped
    if v.cell_clip is not None:
        new = np.clip(new, -v.cell_clip, v.cell_clip)
    shown = new
    if v.cell_norm is not None:
        shown = normalised(new, v.norm_eps) * w["norm_cell"][0] + w["norm_cell"][1]
    if v.cell_norm == "carried":
        new = shown
    o = act(0, z_o + peephole[2] * new)
    out = o * act(2, shown)
    if w["w_hr"] is not None:
        out = w["w_hr"] @ out
    states = []
    for value, old, name in ((out, h, "zoneout_hidden"), (new, c, "zoneout_cell")):
        keep = at(name)
        if keep is None:
            keep = getattr(v, name)
        states.append(keep * old + (1 - keep) * value)
    return states[0], states[1], np.stack([i, f, g, o])
