"""The gradients of weights and input against NumPy in float64: each instruction set, each dtype."""

import numpy as np
import pytest
from layers import EPS, Layer
from test_kernels import DTYPES, LAYERS, identify, of

# What else there is of paths: several chunks of rows, and more sums than are kept at a time.
MORE = [
    Layer(130, 9, 30, 20, D=2, threads=2),
    Layer(70, 5, 1, 3, ragged="packed", D=2, threads=2),
    Layer(50, 7, 90, 33, ragged="lengths", resets=True, threads=3),
    Layer(3, 2, 600, 70, threads=2),
    Layer(3, 60, 1000, 200, threads=2, states=False),
]
EVERY = [*LAYERS, *MORE]
MASKED = [*MORE, Layer(20, 5, 9, 33, P=7, ragged="packed", D=2)]


def assert_sums_close(got, expected, dtype, terms, rounds=False):
    """Sums of `terms` products of numbers up to 1, in float32 or better, rounded once to dtype.

    A partial sum of k such products is of order sqrt(k) / 3, and each is rounded: the error of the
    whole has a standard deviation of 0.24 `terms` units. Twice as many units as terms is 8 of
    these, which leaves room for the largest of 10,000s of sums.

    Where a kernel `rounds` factors to bfloat16, each product is off by 0.2 units of that type, root
    mean square, and their sum by sqrt(terms) as much: 2 units are again 8 of these and more.
    """
    assert got.shape == expected.shape
    assert np.isfinite(got).all(), "not written, or not a number"
    summed = EPS["float64" if dtype == "float64" else "float32"]
    bound = 2 * summed * (terms + 16) + EPS[dtype] * np.abs(expected)
    if rounds or dtype == "rounded":
        bound = bound + 2 * EPS["bfloat16"] * (terms + 16) ** 0.5
    assert (np.abs(got - expected) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", range(len(EVERY)), ids=[identify(x) for x in EVERY])
def test_gradients_of_the_weights(kernels, isa, index, dtype):
    layer = of(EVERY[index], dtype)
    for direction in range(layer.D):
        got = layer.weight_gradients(kernels, isa, direction)
        expected = layer.expected_weight_gradients(direction)
        assert set(got) == set(expected)
        for name in expected:
            assert_sums_close(got[name], expected[name], dtype, layer.T * layer.N)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("each_step", [False, True])
@pytest.mark.parametrize("index", range(len(MASKED)), ids=[identify(x) for x in MASKED])
def test_gradients_of_the_weights_with_a_mask_for_each_gate(kernels, isa, index, each_step, dtype):
    layer = of(MASKED[index], dtype)
    drawn = layer.rng.random((layer.T if each_step else 1, layer.N, layer.D, 4, layer.P))
    masks = (drawn < 0.5) * 1.25
    for direction in range(layer.D):
        got = layer.weight_gradients(kernels, isa, direction, masks=masks)
        expected = layer.expected_weight_gradients(direction, masks)
        for name in expected:  # h times a mask is rounded, as in the forward pass
            terms = layer.T * layer.N
            assert_sums_close(got[name], expected[name], dtype, terms, dtype == "bfloat16")
        again = layer.weight_gradients(kernels, isa, direction, masks=masks, threads=5)
        for name in expected:
            assert np.array_equal(again[name], got[name])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", range(len(EVERY)), ids=[identify(x) for x in EVERY])
def test_gradient_of_the_input(kernels, isa, index, dtype):
    layer = of(EVERY[index], dtype)
    got, expected = layer.input_gradient(kernels, isa), layer.expected_input_gradient()
    assert_sums_close(got, expected, dtype, 4 * layer.H * layer.D)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(kernels, isa, dtype):
    layer = Layer(60, 9, 33, 40, D=2, dtype=dtype)
    weights = [layer.weight_gradients(kernels, isa, d) for d in (0, 1)]
    inputs = layer.input_gradient(kernels, isa)
    for threads in (2, 3, 7):
        assert np.array_equal(layer.input_gradient(kernels, isa, threads=threads), inputs)
        for d in (0, 1):
            again = layer.weight_gradients(kernels, isa, d, threads=threads)
            assert all(np.array_equal(again[name], weights[d][name]) for name in again)


@pytest.mark.parametrize("threads", [2, 3, 8, 64])
def test_late_threads_change_no_bit(kernels, isa, threads):
    layer = Layer(40, 33, 9, 40, D=2)
    expected = layer.weight_gradients(kernels, isa, 1, threads=1)
    inputs = layer.input_gradient(kernels, isa, threads=1)
    try:
        for chance in (0, 20, 60):
            kernels.hold_up_threads(chance)
            got = layer.weight_gradients(kernels, isa, 1, threads=threads)
            assert np.array_equal(layer.input_gradient(kernels, isa, threads=threads), inputs)
            assert all(np.array_equal(got[name], expected[name]) for name in expected)
    finally:
        kernels.hold_up_threads(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_input(kernels, isa, dtype):
    layer = Layer(6, 5, 7, 20, dtype=dtype)
    expected = layer.weight_gradients(kernels, isa, 0)
    plain = layer.as_given(layer.x)
    batch_first = np.ascontiguousarray(plain.swapaxes(0, 1)).swapaxes(0, 1)
    spread = np.zeros((12, 10, 9), plain.dtype)
    spread[::2, ::2, :7] = plain
    for x in (batch_first, spread[::2, ::2, :7]):
        got = layer.weight_gradients(kernels, isa, 0, x=x)
        assert all(np.array_equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_numbers_stay_where_they_belong(kernels, isa, bad):
    """One input at one step touches its column of dW_ih and nothing else."""
    layer = Layer(6, 5, 7, 20)
    clean = layer.weight_gradients(kernels, isa, 0)
    layer.x[2, 3, 1] = bad
    got = layer.weight_gradients(kernels, isa, 0)
    assert not np.isfinite(got["grad_w_ih"][:, 1]).any()
    got["grad_w_ih"][:, 1] = clean["grad_w_ih"][:, 1]
    assert all(np.array_equal(got[name], clean[name]) for name in clean)
