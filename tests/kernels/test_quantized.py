"""Products of 8-bit numbers: each step against the equations, from the state that went before."""

import numpy as np
import oracle
import pytest
from layers import Layer, store

# Partial vectors, panels and quads; one row, pairs of panels, and rows beyond a tile.
LAYERS = [
    Layer(4, 1, 3, 5),
    Layer(5, 1, 40, 70, D=2),
    Layer(3, 7, 9, 20, P=6),
    Layer(3, 33, 5, 24, P=17, D=2, biases=False),
    Layer(4, 6, 5, 17, ragged="packed", D=2),
    Layer(4, 50, 3, 33, ragged="lengths", D=2),
    Layer(8, 6, 4, 40, resets=True),
    Layer(2, 130, 70, 64, states=False),
    Layer(1, 1, 1, 1, P=1),
]


def quantized(w):
    """Rows of a matrix as integers up to 127, and their scales."""
    scale = (np.abs(w).max(1) / 127).astype(np.float32)
    q = np.round(w / np.where(scale > 0, scale, np.inf)[:, None]).clip(-127, 127)
    return q.astype(np.int8), scale


def rounded(x):
    """Each row as the kernel rounds it, and how far it may be from that where a number is a tie."""
    x = x.astype(np.float32)
    least, most = np.minimum(x.min(-1), 0), np.maximum(x.max(-1), 0)
    scale = most / np.float32(255) - least / np.float32(255)
    inverse = np.where(scale > 1e-37, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    zero = np.floor(-least * inverse + np.float32(0.5))[..., None].astype(np.float64)
    steps = x.astype(np.float64) * inverse[..., None]
    u = (np.rint(steps) + zero).clip(0, 255) - zero
    ties = (np.abs(np.abs(steps - np.floor(steps)) - 0.5) < 1e-3).sum(-1)
    scale = scale.astype(np.float64)
    return u * scale[..., None], ties * scale


def product(x, q, scale):
    """x @ w.T, and how far off it may be."""
    x, doubt = rounded(x)
    w = q.astype(np.float64) * scale[:, None].astype(np.float64)
    most = np.abs(w).max()
    return x @ w.T, (doubt * most + 1e-6 * np.abs(x).max(-1, initial=0) * most)[..., None]


class Quantized(Layer):
    """A layer whose matrices are int8."""

    def arguments(self):
        a = super().arguments()
        for given, w in zip(a["weights"], self.weights, strict=True):
            for name in ("w_ih", "w_hh", "w_hr"):
                if w[name] is not None:
                    given[name], given[f"{name} scales"] = quantized(w[name])
        return a


def of(layer, **changes):
    names = ["T", "N", "I", "H", "D", "ragged", "resets", "biases", "states"]
    kept = {name: getattr(layer, name) for name in names}
    return Quantized(P=layer.P if layer.projects else 0, **(kept | changes))


def padded(layer, rows):
    """(T, N, ...) of what a kernel returns in the layer's layout; zeros where there is nothing."""
    if layer.ragged != "packed":
        return rows
    whole = np.zeros((layer.T, layer.N, *rows.shape[1:]))
    whole[layer.valid] = rows
    return whole


def check_steps(layer, got):
    """Every step is what the equations make of the state that the kernel returned before it."""
    T, N, H, P, D = layer.T, layer.N, layer.H, layer.P, layer.D
    output = padded(layer, got["output"]).reshape(T, N, D, P)
    cell = padded(layer, got["cell"]).reshape(T, N, D, H)
    gates = padded(layer, got["gates"])
    for d, w in enumerate(layer.weights):
        matrices = {name: quantized(w[name]) for name in ("w_ih", "w_hh")}
        for n, length in enumerate(layer.lengths):
            h = layer.h0[d, n] if layer.states else np.zeros(P)
            c = layer.c0[d, n] if layer.states else np.zeros(H)
            for t in np.arange(length)[::-1] if d else np.arange(length):
                if layer.reset is not None and layer.reset[t, n]:
                    h, c = np.zeros(P), np.zeros(H)
                from_x, doubt_x = product(layer.x[t, n], *matrices["w_ih"])
                from_h, doubt_h = product(h, *matrices["w_hh"])
                z = from_x + from_h + (w["b_ih"] + w["b_hh"] if layer.biases else 0)
                i, f, g, o = z.reshape(4, H)
                expected = np.stack(
                    [oracle.sigmoid(i), oracle.sigmoid(f), np.tanh(g), oracle.sigmoid(o)]
                )
                doubt = 2e-6 + (doubt_x + doubt_h).max()
                np.testing.assert_allclose(gates[t, n, d], expected, rtol=0, atol=doubt)
                i, f, g, o = gates[t, n, d]
                c = f * c + i * g
                np.testing.assert_allclose(cell[t, n, d], c, rtol=1e-5, atol=1e-6)
                h, doubt = o * np.tanh(cell[t, n, d]), 1e-6
                if layer.projects:
                    h, doubt = product(h, *quantized(w["w_hr"]))
                    doubt = doubt.max() + 1e-6
                np.testing.assert_allclose(output[t, n, d], h, rtol=1e-5, atol=doubt)
                h, c = output[t, n, d], cell[t, n, d]
            np.testing.assert_array_equal(got["h_n"][d, n], h)
            np.testing.assert_array_equal(got["c_n"][d, n], c)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("index", range(len(LAYERS)))
def test_steps(kernels, isa, index, threads):
    layer = of(LAYERS[index])
    check_steps(layer, layer.forward(kernels, isa, prepack="int8", threads=threads))


@pytest.mark.parametrize("index", range(len(LAYERS)))
def test_threads_do_not_change_a_bit(kernels, isa, index):
    layer = of(LAYERS[index])
    expected = layer.forward(kernels, isa, prepack="int8", threads=1)
    for threads in (2, 3, 8):
        got = layer.forward(kernels, isa, prepack="int8", threads=threads)
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("size", [30, 1 << 16])
def test_the_largest_sums_do_not_overflow(kernels, isa, size):
    """All factors at their limits, of one sign and of two; float32 would round the sums."""
    layer = of(Layer(1, 3, size, 2, states=False, biases=False))
    (w,) = layer.weights
    w["w_ih"] = np.ones((8, size))
    w["w_ih"][1::2] = -1
    w["w_ih"][2::4, ::2] = -1
    w["w_ih"] *= 2.0**-20
    layer.x = np.ones((1, 3, size)) * np.array([1, -1, 0.5])[None, :, None]
    layer.x[0, 2, ::2] = -0.5
    check_steps(layer, layer.forward(kernels, isa, prepack="int8"))


@pytest.mark.parametrize("N", [1, 5])
def test_rows_that_are_not_finite(kernels, isa, N):
    """They become NaN, and no others do."""
    for bad in (np.nan, np.inf, -np.inf):
        layer = of(Layer(3, N, 9, 20))
        expected = layer.forward(kernels, isa, prepack="int8")
        layer.x[1, 0, 4] = bad
        got = layer.forward(kernels, isa, prepack="int8")
        np.testing.assert_array_equal(got["output"][0], expected["output"][0])
        np.testing.assert_array_equal(got["output"][:, 1:], expected["output"][:, 1:])
        assert np.isnan(got["output"][1:, 0]).all()
        assert np.isnan(got["c_n"][0, 0]).all()


def test_numbers_that_are_nearly_zero_or_nearly_infinite(kernels, isa):
    for factor in (0, 1e-45, 1e-38, 1e38):
        layer = of(Layer(1, 2, 9, 20, states=False))
        layer.x = store(layer.x * factor, "float32").astype(np.float64)
        got = layer.forward(kernels, isa, prepack="int8")
        assert np.isfinite(got["output"]).all()
        if factor < 1e-30:
            nothing = of(Layer(1, 2, 9, 20, states=False))
            nothing.x = np.zeros_like(layer.x)
            expected = nothing.forward(kernels, isa, prepack="int8")
            np.testing.assert_allclose(got["output"], expected["output"], rtol=0, atol=1e-30)


def test_no_rows_at_all(kernels, isa):
    for layer in (Layer(3, 0, 4, 5), Layer(40, 0, 4, 5, D=2)):
        assert of(layer).forward(kernels, isa, prepack="int8")["output"].size == 0
