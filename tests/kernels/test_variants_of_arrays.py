"""Variants on every instruction set: forward by the equations, backward as the lowest one does.

tests/unit/test_variant_kernels.py compares gradients with autograd, on the instruction set in use.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import variant_oracle
from layers import EPS, Layer, load, store

NAMES = list(variant_oracle.ACTIVATIONS)  # in the order of ActivationKind of csrc/cpu/kernels.h
PLAIN = ("sigmoid", "tanh", "tanh")
VARIANTS = {
    "peephole": {"arrays": ["peephole"]},
    "i = 1 - f": {"coupled": "input", "arrays": ["peephole", "zoneout_cell"]},
    "f = 1 - i, clip": {"coupled": "forget", "clip": 0.5, "cell_clip": 0.4},
    "input gate, masks": {"arrays": ["input_gate", "hidden_mask", "zoneout_hidden"]},
    "masks of gates": {"arrays": ["gate_masks"]},
    "masks of gates by step": {"arrays": ["gate_masks_by_step", "zoneout_hidden"]},
    "masks of gates, norms": {"arrays": ["gate_masks", "norm_gates_2"]},
    "zoneout": {"arrays": ["zoneout_cell", "zoneout_hidden", "candidate_mask"]},
    "zoneout in evaluation": {"zoneout_cell": 0.2, "zoneout_hidden": 0.3},
    "softsign, softplus": {"activations": ("hardsigmoid", "softsign", "softplus")},
    "elu, scaled tanh": {"activations": ("sigmoid", "elu", "scaledtanh"), "arrays": ["peephole"]},
    "relus": {"activations": ("sigmoid", "leakyrelu", "relu")},
    "affine, thresholded relu": {"activations": ("softsign", "affine", "thresholdedrelu")},
    "joint norm": {"arrays": ["norm_gates"]},
    "norms, carried": {"cell_norm": "carried", "arrays": ["norm_gates_2", "norm_cell", "peephole"]},
    "norm of the cell state": {"cell_norm": "output", "arrays": ["norm_cell", "zoneout_cell"]},
}
SHAPES = {
    "one row": {"T": 5, "N": 1, "I": 7, "H": 33},
    "panels, odd sizes": {"T": 6, "N": 7, "I": 9, "H": 19, "ragged": "lengths", "D": 2},
    "packed, projected": {"T": 9, "N": 5, "I": 8, "H": 21, "P": 5, "ragged": "packed", "D": 2},
    "resets, threads": {"T": 12, "N": 9, "I": 16, "H": 40, "resets": True, "threads": 2},
}
# The array of each dropout_on
MASKS = {"hidden": "hidden_mask", "gates": "gate_masks", "candidate": "candidate_mask"}
NUMBERS = {"affine": (0.7, 0.1), "leakyrelu": (0.2, 0), "thresholdedrelu": (0.3, 0)}
NUMBERS |= {"scaledtanh": (0.8, 0.9), "hardsigmoid": (0.25, 0.5), "elu": (0.6, 0)}


class VariantLayer(Layer):
    """A layer with a variant: its options by the names of lstm_kernels.Variant, and its arrays."""

    def __init__(self, shape, dtype, activations=PLAIN, arrays=(), **options):
        super().__init__(**shape, dtype=dtype)
        self.options = SimpleNamespace(
            **{"coupled": None, "clip": None, "cell_clip": None}
            | {"zoneout_cell": 0.0, "zoneout_hidden": 0.0, "cell_norm": None, "norm_eps": 0.01}
            | options,
            activations=[(name, *NUMBERS.get(name, (0, 0))) for name in activations],
            input_gate="input_gate" in arrays,
            layer_norm={"norm_gates": "joint", "norm_gates_2": "separate"}.get(
                next((name for name in arrays if name.startswith("norm_gates")), None)
            ),
        )
        T, N, H, P, D = self.T, self.N, self.H, self.P, self.D
        bits = lambda *shape: (self.rng.random(shape) < 0.5).astype(float)  # noqa: E731
        drawn = {
            "peephole": lambda: self.random(D, 3, H),
            "norm_gates": lambda: self.random(D, 1, 4 * H),
            "norm_gates_2": lambda: self.random(D, 2, 4 * H),
            "norm_cell": lambda: self.random(D, 2, H),
            "input_gate": lambda: self.rounded(self.rng.random((T, N, D * H))),
            "hidden_mask": lambda: self.rounded(bits(1, N, D * P) * 1.25),
            "gate_masks": lambda: self.rounded(bits(1, N, D, 4, P) * 1.25),
            "gate_masks_by_step": lambda: self.rounded(bits(T, N, D, 4, P) * 1.25),
            "candidate_mask": lambda: self.rounded(bits(T, N, D * H) * 1.25),
            "zoneout_cell": lambda: bits(T, N, D * H),
            "zoneout_hidden": lambda: bits(T, N, D * P),
        }
        self.arrays = {
            name.removesuffix("_2").removesuffix("_by_step"): drawn[name]() for name in arrays
        }
        self.options.dropout_on = next((on for on in MASKS if MASKS[on] in self.arrays), None)

    def arguments(self):
        o = self.options
        numbers = [[None, "input", "forget"].index(o.coupled), o.clip or 0, o.cell_clip or 0]
        numbers += [o.zoneout_cell, o.zoneout_hidden, o.cell_norm == "carried", o.norm_eps]
        for name, *of in o.activations:
            numbers += [NAMES.index(name), *of]
        arrays = {name: store(value, self.dtype) for name, value in self.arrays.items()}
        return super().arguments() | {"variant": arrays | {"options": list(map(float, numbers))}}

    def run(self, kernels, isa):
        """Forward, and backward from what it saved; in float64."""
        only = SimpleNamespace(
            sequence_forward=kernels.variant_forward, sequence_backward=kernels.variant_backward
        )
        return self.forward(only, isa), self.backward(only, isa)

    def at(self, name, t, n, d):
        """An array's numbers of one step, sequence and direction."""
        array = self.arrays.get(MASKS.get(self.options.dropout_on) if name == "recurrent" else name)
        if array is None:
            return None
        shape = (4, self.P) if name == "recurrent" and self.options.dropout_on == "gates" else (-1,)
        return array[t if len(array) > 1 else 0, n].reshape(self.D, *shape)[d]

    def expected(self):
        T, N, H, P, D = self.T, self.N, self.H, self.P, self.D
        out = {
            "output": np.zeros((T, N, D, P)),
            "cell": np.zeros((T, N, D, H)),
            "gates": np.zeros((T, N, D, 4, H)),
            "h_n": self.h0.copy(),
            "c_n": self.c0.copy(),
        }
        for (d, w), n in itertools.product(enumerate(self.weights), range(N)):
            times = np.arange(self.lengths[n])[:: -1 if d else 1]
            if not len(times):
                continue
            names = ("peephole", "norm_gates", "norm_cell")
            own = {k: self.arrays[k][d] if k in self.arrays else None for k in names}
            found = variant_oracle.run(
                self.options,
                self.x[times, n],
                self.h0[d, n],
                self.c0[d, n],
                w | own,
                lambda name, s, n=n, d=d, times=times: self.at(name, times[s], n, d),
                None if self.reset is None else self.reset[times, n],
            )
            for name, value in zip(("output", "cell", "gates"), found, strict=False):
                out[name][times, n, d] = value
            out["h_n"][d, n], out["c_n"][d, n] = found[3:]
        out["output"] = out["output"].reshape(T, N, D * P)
        out["cell"] = out["cell"].reshape(T, N, D * H)
        if self.ragged == "packed":
            out = {k: v[self.valid] if v.shape[:2] == (T, N) else v for k, v in out.items()}
        return out


def tolerance(dtype):
    """A state's error grows by a few roundings of numbers around one in each step."""
    return {"rtol": 200 * EPS[dtype], "atol": 200 * EPS[dtype]}


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_what_the_equations_say(kernels, isa, variant, shape, dtype):
    layer = VariantLayer(SHAPES[shape], dtype, **VARIANTS[variant])
    found, _ = layer.run(kernels, isa)
    for name, expected in layer.expected().items():
        np.testing.assert_allclose(found[name], expected, **tolerance(dtype), err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_backward_is_that_of_the_lowest_instruction_set(kernels, isa, variant, shape, dtype):
    layer = VariantLayer(SHAPES[shape], dtype, **VARIANTS[variant])
    _, expected = layer.run(kernels, "baseline")
    # On what the lowest one saved, so that a bound is reached in both or in none.
    only = SimpleNamespace(sequence_backward=kernels.variant_backward)
    found = layer.backward(only, isa)
    assert found.keys() == expected.keys()
    for name in expected:
        scale = max(1, np.abs(expected[name]).max())
        limit = 200 * EPS[dtype] * scale
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", ["peephole", "input gate, masks", "zoneout", "masks of gates"])
def test_sixteen_bits_backward_are_near_float64(kernels, isa, variant, shape):
    """bfloat16 multiplies pairs of numbers where the instruction set does."""
    layer = VariantLayer(SHAPES[shape], "bfloat16", **VARIANTS[variant])
    _, found = layer.run(kernels, isa)
    wide = VariantLayer(SHAPES[shape], "bfloat16", **VARIANTS[variant])
    wide.dtype = "float64"
    wide.saved = {k: load(v, "bfloat16") for k, v in layer.saved.items()}
    only = SimpleNamespace(sequence_backward=kernels.variant_backward)
    expected = wide.backward(only, isa)
    for name in expected:
        scale = max(1, np.abs(expected[name]).max())
        limit = 50 * EPS["bfloat16"] * scale
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=limit, err_msg=name)
