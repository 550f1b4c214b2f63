"""Weights packed before the call, and the fingerprint that tells whether they changed since."""

import copy

import numpy as np
import pytest
from layers import Layer, load, store

DTYPES = ["float32", "float64", "bfloat16", "float16"]
# Enough rows for the plain call to pack its weights too; partial vectors and panels.
LAYERS = [
    Layer(40, 1, 3, 36, D=2),
    Layer(20, 1, 1, 1),
    Layer(20, 7, 9, 20, P=6),
    Layer(9, 33, 5, 24, P=17, D=2, biases=False),
    Layer(8, 6, 5, 17, ragged="packed", D=2),
    Layer(6, 50, 3, 33, ragged="lengths", D=2),
    Layer(12, 6, 4, 40, resets=True),
    Layer(2, 130, 70, 64),
]


def of(layer, dtype):
    """The same layer in another dtype."""
    return Layer(
        *(getattr(layer, name) for name in "TNIH"),
        P=layer.P if layer.projects else 0,
        D=layer.D,
        ragged=layer.ragged,
        resets=layer.resets,
        biases=layer.biases,
        dtype=dtype,
    )


def assert_equal(got, expected):
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("dtype", [*DTYPES, "rounded"])
@pytest.mark.parametrize("index", range(len(LAYERS)))
def test_prepacked_weights_give_the_bits_of_weights_packed_in_the_call(kernels, isa, index, dtype):
    layer = of(LAYERS[index], dtype)
    expected = layer.forward(kernels, isa)
    for threads in (1, 2, 5):
        assert_equal(layer.forward(kernels, isa, prepack="own", threads=threads), expected)


@pytest.mark.parametrize("dtype", ["float32", "rounded"])
@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
@pytest.mark.parametrize("index", range(len(LAYERS)))
def test_narrow_weights_are_those_of_a_rounded_layer(kernels, isa, index, narrow, dtype):
    layer = of(LAYERS[index], dtype)
    rounded = copy.deepcopy(layer)
    if narrow == "float16":  # products with it round no factor
        rounded.dtype = "float32"
    for w in rounded.weights:
        for name in ("w_ih", "w_hh", "w_hr"):
            if w[name] is not None:
                w[name] = load(store(w[name], narrow), narrow)
    expected = rounded.forward(kernels, isa)
    for threads in (1, 2, 5):
        assert_equal(layer.forward(kernels, isa, prepack=narrow, threads=threads), expected)


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_narrow_weights_for_no_rows_at_all(kernels, isa, narrow):
    for layer in (Layer(3, 0, 4, 5), Layer(40, 0, 4, 5, D=2)):
        assert layer.forward(kernels, isa, prepack=narrow)["output"].size == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_fingerprint_tells_every_change_of_a_bit(kernels, isa, dtype):
    layer = Layer(1, 1, 5, 7, P=3, D=2, dtype=dtype)
    arguments = layer.arguments()
    arrays = [a for w in arguments["weights"] for a in w.values()]
    seen = {kernels.fingerprint(isa, dtype, 1, arguments)}
    changes = 0
    for array in arrays:
        data = array.reshape(-1).view(np.uint8)
        for byte in range(data.size):
            data[byte] ^= 1 << byte % 8
            seen.add(kernels.fingerprint(isa, dtype, 1, arguments))
            data[byte] ^= 1 << byte % 8
            changes += 1
    assert len(seen) == changes + 1
    assert kernels.fingerprint(isa, dtype, 1, arguments) in seen


def test_fingerprint_tells_what_is_where(kernels, isa):
    """The same numbers in another place, by words, rows, arrays, and slices of 64 KiB."""
    layer = Layer(1, 1, 128, 96)
    arguments = layer.arguments()
    (w,) = arguments["weights"]
    original = {name: a.copy() for name, a in w.items() if a is not None}
    half = w["w_ih"].reshape(-1)
    slices = half[: 2 * 16384].reshape(2, -1)
    exchanges = [
        (half[:1], half[1:2]),
        (half[:2], half[2:4]),
        (half[:8], half[8:16]),
        (half[16:32], half[:16]),
        (w["w_ih"][3], w["w_ih"][90]),
        (w["w_hh"][3], w["w_hh"][4]),
        (w["b_ih"], w["b_hh"]),
        (slices[0], slices[1]),
    ]
    seen = {kernels.fingerprint(isa, "float32", 1, arguments)}
    for one, other in exchanges:
        one[:], other[:] = other.copy(), one.copy()
        seen.add(kernels.fingerprint(isa, "float32", 1, arguments))
        for name, a in original.items():
            w[name][:] = a
    assert len(seen) == len(exchanges) + 1


def test_fingerprint_tells_shapes_dtypes_and_biases(kernels, isa):
    """Zeros alone, of as many bytes."""
    seen, layers = (
        set(),
        [
            Layer(1, 1, 4, 8),
            Layer(1, 1, 12, 4),
            Layer(1, 1, 8, 8, biases=False),
            Layer(1, 1, 4, 8, P=4),
            Layer(1, 1, 4, 8, D=2),
            Layer(1, 1, 4, 8, dtype="bfloat16"),
            Layer(1, 1, 4, 8, dtype="float16"),
        ],
    )
    for layer in layers:
        for w in layer.weights:
            w.update({name: a if a is None else 0 * a for name, a in w.items()})
        seen.add(kernels.fingerprint(isa, layer.dtype, 1, layer.arguments()))
    assert len(seen) == len(layers)


def test_fingerprint_does_not_depend_on_threads(kernels, isa):
    layer = Layer(1, 1, 400, 300, P=170, D=2)
    arguments = layer.arguments()
    found = {kernels.fingerprint(isa, "float32", n, arguments) for n in (1, 2, 3, 8)}
    assert len(found) == 1
