"""Random layers as the kernels take them, number formats, and the oracle's answer for a layer."""

from dataclasses import dataclass, field

import numpy as np
import oracle

# Half a unit in the last place of 1. "rounded" is float32 whose products may round their factors to
# bfloat16.
EPS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
EPS["rounded"] = EPS["bfloat16"]


def store(a, dtype):
    """float64 -> what the kernels are given; bfloat16 as uint16."""
    if a is None:
        return None
    if dtype != "bfloat16":
        return np.ascontiguousarray(a.astype("float32" if dtype == "rounded" else dtype))
    bits = a.astype(np.float32).view(np.uint32)
    return np.ascontiguousarray(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))


def load(a, dtype):
    """What the kernels return -> float64."""
    if dtype != "bfloat16":
        return a.astype(np.float64)
    return (a.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@dataclass
class Layer:
    """A layer, its input and the gradients of its results, in float64 after rounding to `dtype`.

    ragged: "" uniform, "packed", or "lengths": padded, with lengths from 0 to T.
    """

    T: int
    N: int
    I: int
    H: int
    P: int = 0
    D: int = 1
    threads: int = 1
    ragged: str = ""
    resets: bool = False
    biases: bool = True
    states: bool = True
    dtype: str = "float32"
    seed: int = 0
    weights: list = field(init=False)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        T, N, I, H, D = self.T, self.N, self.I, self.H, self.D
        self.projects = self.P > 0
        self.P = P = self.P or H
        bound = 1 / np.sqrt(H)
        self.weights = [
            {
                "w_ih": self.random(4 * H, I) * bound,
                "w_hh": self.random(4 * H, P) * bound,
                "b_ih": self.random(4 * H) if self.biases else None,
                "b_hh": self.random(4 * H) if self.biases else None,
                "w_hr": self.random(P, H) * bound if self.projects else None,
            }
            for _ in range(D)
        ]
        for w in self.weights:
            w.update({k: self.rounded(v) for k, v in w.items()})
        self.x = self.random(T, N, I)
        self.h0 = self.random(D, N, P) if self.states else None
        self.c0 = self.random(D, N, H) if self.states else None
        self.lengths = np.full(N, T)
        if self.ragged:
            self.lengths = self.rng.integers(0 if self.ragged == "lengths" else 1, T + 1, N)
            self.lengths[N // 2] = T
        if self.ragged == "packed":
            self.lengths = np.sort(self.lengths)[::-1]
        self.reset = self.rng.random((T, N)) < 0.3 if self.resets else None
        # The valid rows of (T, N) in the order of the packed layout.
        self.valid = np.arange(T)[:, None] < self.lengths
        self.grads = {
            "output": self.random(T, N, D * P),
            "h_n": self.random(D, N, P),
            "c_n": self.random(D, N, H),
            "cell": self.random(T, N, D * H),
            "gates": self.random(T, N, D, 4, H),
        }

    def rounded(self, a):
        return None if a is None else load(store(a, self.dtype), self.dtype)

    def random(self, *shape):
        return self.rounded(self.rng.uniform(-1, 1, shape))

    def as_given(self, a):
        """(T, N, ...) in the kernels' layout and type: packed where the layer is."""
        return store(a[self.valid] if self.ragged == "packed" else a, self.dtype)

    def arguments(self):
        """What forward and backward both take."""
        a = {name: getattr(self, name) for name in "TNIHPD"}
        a["c0"] = store(self.c0, self.dtype)
        a["weights"] = [{k: store(v, self.dtype) for k, v in w.items()} for w in self.weights]
        a["reset"] = self.reset
        if self.ragged:
            order = np.argsort(-self.lengths, kind="stable")
            a["counts"] = self.valid.sum(1)
            a["lengths"] = np.ascontiguousarray(self.lengths[order])
            if self.ragged == "packed":
                a["offsets"] = np.concatenate(([0], a["counts"].cumsum()[:-1]))
            else:
                a["order"] = order
        return a

    def forward(self, kernels, isa, *, x=None, save=True, threads=None, prepack=None):
        """Runs the kernel, on prepacked weights with `prepack`; returns its results in float64."""
        a = self.arguments() | {"h0": store(self.h0, self.dtype), "save": save}
        if prepack:
            a["prepack"] = prepack
        a["x"] = self.as_given(self.x) if x is None else x
        out = kernels.sequence_forward(isa, self.dtype, threads or self.threads, a)
        self.saved = {k: out[k] for k in ("cell", "gates", "products") if save and k in out}
        return {k: load(v, self.dtype) for k, v in out.items()}

    def backward(self, kernels, isa, absent=(), *, threads=None):
        """Runs the backward kernel on what the last forward pass saved."""
        a = self.arguments() | self.saved
        for name, grad in self.grads.items():
            given = store(grad, self.dtype) if name in ("h_n", "c_n") else self.as_given(grad)
            a[f"grad_{name}"] = None if name in absent else given
        out = kernels.sequence_backward(isa, self.dtype, threads or self.threads, a)
        return {k: load(v, self.dtype) for k, v in out.items()}

    # The matrix products of a backward pass take any numbers: those of grads serve.

    def _products(self):
        """Their arguments, not a number in the rows that nobody may read."""
        rows = {"grad_preactivations": self.grads["gates"], "output": self.grads["output"]}
        rows["x"] = self.x
        unread = ~self.valid
        for name, a in rows.items():
            rows[name] = np.where(unread.reshape(unread.shape + (1,) * (a.ndim - 2)), np.nan, a)
        a = self.arguments() | {name: self.as_given(value) for name, value in rows.items()}
        return a | {"h0": store(self.h0, self.dtype)}

    def weight_gradients(self, kernels, isa, direction, *, threads=None, x=None, masks=None):
        a = self._products() | ({} if x is None else {"x": x})
        a["gate_masks"] = store(masks, self.dtype)
        threads = threads or self.threads
        out = kernels.weight_gradients(isa, self.dtype, threads, direction, a)
        return {k: load(v, self.dtype) for k, v in out.items()}

    def input_gradient(self, kernels, isa, *, threads=None):
        out = kernels.input_gradient(isa, self.dtype, threads or self.threads, self._products())
        return load(out["grad_input"], self.dtype)

    def expected_weight_gradients(self, direction, masks=None):
        """masks: of h for each gate, (1 or T, N, D, 4, P)."""
        shape = (self.T, self.N, self.D, self.P)
        h = self.grads["output"].reshape(shape)[:, :, direction]
        before = np.zeros_like(h)
        for n, length in enumerate(self.lengths):
            times = np.arange(length)[::-1] if direction else np.arange(length)
            before[times[1:], n] = h[times[:-1], n]
            if length and self.states:
                before[times[0], n] = self.h0[direction, n]
        if self.reset is not None:
            before[self.reset] = 0
        g = self.grads["gates"][:, :, direction][self.valid].reshape(-1, 4 * self.H)
        before = np.broadcast_to(before[:, :, None], (self.T, self.N, 4, self.P))
        if masks is not None:
            before = before * masks[:, :, direction]
        of_gates = zip(np.split(g, 4, axis=1), np.moveaxis(before[self.valid], 1, 0), strict=True)
        return {
            "grad_w_ih": g.T @ self.x[self.valid],
            "grad_w_hh": np.concatenate([own.T @ h for own, h in of_gates]),
            "grad_bias": g.sum(0),
        }

    def expected_input_gradient(self):
        g = np.where(self.valid[:, :, None, None, None], self.grads["gates"], 0)
        g = g.reshape(self.T, self.N, self.D * 4 * self.H)
        dx = g @ np.concatenate([w["w_ih"] for w in self.weights])
        return dx[self.valid] if self.ragged == "packed" else dx

    def expected(self, absent=()):
        """What forward and backward should return, by the equations."""
        T, N, H, P, D = self.T, self.N, self.H, self.P, self.D
        shapes = {
            "output": (T, N, D, P),
            "cell": (T, N, D, H),
            "gates": (T, N, D, 4, H),
            "h_n": (D, N, P),
            "c_n": (D, N, H),
            "grad_preactivations": (T, N, D, 4, H),
            "grad_hidden": (T, N, D, P),
            "grad_h0": (D, N, P),
            "grad_c0": (D, N, H),
        }
        out = {name: np.zeros(shape) for name, shape in shapes.items()}
        grads = {k: v * (k not in absent) for k, v in self.grads.items()}
        grads["output"] = grads["output"].reshape(T, N, D, P)
        grads["cell"] = grads["cell"].reshape(T, N, D, H)
        for d, w in enumerate(self.weights):
            for n, length in enumerate(self.lengths):
                times = np.arange(length)[::-1] if d else np.arange(length)
                h = self.h0[d, n] if self.states else np.zeros(P)
                c = self.c0[d, n] if self.states else np.zeros(H)
                reset = None if self.reset is None else self.reset[times, n]
                a = oracle.input_part(w, self.x[times, n])
                steps = oracle.forward(a, w["w_hh"], h, c, w["w_hr"], reset)
                out["h_n"][d, n], out["c_n"][d, n] = steps["h_n"], steps["c_n"]
                given = {
                    "h": grads["output"][times, n, d],
                    "c": grads["cell"][times, n, d],
                    "gates": grads["gates"][times, n, d],
                    "h_n": grads["h_n"][d, n],
                    "c_n": grads["c_n"][d, n],
                }
                back = oracle.backward(steps, w["w_hh"], c, given, w["w_hr"], reset)
                out["grad_h0"][d, n], out["grad_c0"][d, n] = back["h0"], back["c0"]
                out["output"][times, n, d] = steps["h"]
                out["cell"][times, n, d] = steps["c"]
                out["gates"][times, n, d] = steps["gates"]
                out["grad_preactivations"][times, n, d] = back["preactivations"]
                out["grad_hidden"][times, n, d] = back["hidden"]
        for name in ("output", "cell", "grad_hidden"):
            out[name] = out[name].reshape(T, N, D * out[name].shape[-1])
        if self.ragged == "packed":
            out = {k: v[self.valid] if v.shape[:2] == (T, N) else v for k, v in out.items()}
        return out
