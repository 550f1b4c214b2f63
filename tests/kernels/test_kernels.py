"""The CPU kernels against the LSTM equations in float64: each instruction set, each dtype."""

import dataclasses
import functools

import numpy as np
import oracle
import pytest
from layers import EPS, Layer, load, store

DTYPES = ["float32", "float64", "bfloat16", "float16", "rounded"]

# One of each kind of path: single rows, partial vectors and panels, chunks of several steps, steps
# with more rows than a chunk, batch and hidden splits, more threads than there is work for.
LAYERS = [
    Layer(1, 1, 1, 1),
    Layer(3, 2, 5, 7, biases=False),
    Layer(9, 1, 3, 100, threads=3),
    Layer(5, 7, 33, 16, states=False),
    Layer(70, 3, 4, 8, threads=2),
    Layer(4, 65, 6, 40, threads=2),
    Layer(2, 130, 3, 24, D=2, threads=3),
    Layer(6, 4, 8, 33, D=2, threads=5),
    Layer(7, 5, 9, 20, P=6, threads=3),
    Layer(5, 40, 7, 36, P=17, D=2, threads=4),
    Layer(8, 6, 5, 17, ragged="packed", D=2, threads=3),
    Layer(9, 33, 4, 40, ragged="packed", threads=2),
    Layer(8, 7, 5, 17, ragged="lengths", D=2, states=False),
    Layer(6, 50, 3, 33, P=9, ragged="lengths", D=2, threads=2),
    Layer(12, 6, 4, 20, resets=True, threads=2),
    Layer(7, 9, 4, 30, P=8, resets=True, ragged="lengths"),
    Layer(3, 0, 4, 5),
    # The same again with enough rows for packed weights.
    Layer(140, 1, 5, 36, D=2, threads=2),
    Layer(130, 1, 7, 20, P=6),
    Layer(20, 9, 5, 17, ragged="packed", D=2, threads=3),
    Layer(40, 6, 4, 20, resets=True, threads=2),
]


def identify(layer):
    plain = Layer(1, 1, 1, 1)
    parts = [f"{f.name}{getattr(layer, f.name)}" for f in dataclasses.fields(Layer) if f.init]
    defaults = {f"{f.name}{getattr(plain, f.name)}" for f in dataclasses.fields(Layer) if f.init}
    return "-".join(p for p in parts if p[0] in "TNIH" or p not in defaults)


@functools.cache
def answer(index, dtype):
    """What LAYERS[index] should return: the same for every instruction set."""
    return of(LAYERS[index], dtype).expected()


def of(layer, dtype):
    """The same layer in another dtype."""
    given = {f.name: getattr(layer, f.name) for f in dataclasses.fields(Layer) if f.init}
    given["P"] = layer.P if layer.projects else 0
    return Layer(**given | {"dtype": dtype})


def assert_close(got, expected, dtype, steps):
    """Errors of EPS arise in each of the steps, in gates and cells of order 1.

    The states of 16-bit types are stored rounded, and gradients start from those. Gates squash
    errors, so that 40 EPS with a slow growth over the steps bounds what was measured (under half
    of this).
    """
    assert set(got) <= set(expected)
    for name, value in got.items():
        assert value.shape == expected[name].shape, name
        assert np.isfinite(value).all(), f"{name}: not written, or not a number"
        scale = max(1, np.abs(expected[name]).max(initial=0))
        bound = (40 + 4 * steps) * EPS[dtype] * scale
        assert np.abs(value - expected[name]).max(initial=0) <= bound, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", range(len(LAYERS)), ids=[identify(x) for x in LAYERS])
def test_follows_the_equations(kernels, isa, index, dtype):
    """Outputs, states, gates and all gradients, every element of them written."""
    layer, expected = of(LAYERS[index], dtype), answer(index, dtype)
    assert_close(layer.forward(kernels, isa), expected, dtype, layer.T)
    assert_close(layer.backward(kernels, isa), expected, dtype, layer.T)


@pytest.mark.parametrize("absent", ["output", "h_n", "c_n", "cell", "gates"])
def test_absent_gradient_is_zero(kernels, isa, absent):
    layer = Layer(5, 4, 3, 20, D=2, dtype="float64")
    layer.forward(kernels, isa)
    assert_close(layer.backward(kernels, isa, [absent]), layer.expected([absent]), "float64", 5)


def test_the_oracle_agrees_with_finite_differences():
    """oracle.backward differentiates oracle.forward, resets and projection included."""
    rng = np.random.default_rng(0)
    T, I, H, P = 4, 3, 5, 2
    w = {"w_ih": rng.normal(size=(4 * H, I)), "w_hh": rng.normal(size=(4 * H, P))}
    w |= {"b_ih": rng.normal(size=4 * H), "b_hh": None, "w_hr": rng.normal(size=(P, H))}
    x, h0, c0 = rng.normal(size=(T, I)), rng.normal(size=P), rng.normal(size=H)
    reset = np.array([False, False, True, False])
    shapes = {"h": (T, P), "c": (T, H), "gates": (T, 4, H), "h_n": (P,), "c_n": (H,)}
    g = {name: rng.normal(size=shape) for name, shape in shapes.items()}

    def run(bias, h, c):
        a = oracle.input_part(w | {"b_ih": bias}, x)
        return oracle.forward(a, w["w_hh"], h, c, w["w_hr"], reset)

    def loss(*arguments):
        results = run(*arguments)
        return sum((results[name] * g[name]).sum() for name in g)

    back = oracle.backward(run(w["b_ih"], h0, c0), w["w_hh"], c0, g, w["w_hr"], reset)
    exact = (np.sum(back["preactivations"], axis=0).reshape(-1), back["h0"], back["c0"])
    arguments = (w["b_ih"], h0, c0)
    for which, gradient in enumerate(exact):
        for k in range(gradient.size):
            step = np.zeros(gradient.size)
            step[k] = 1e-6
            up = loss(*(a + step if j == which else a for j, a in enumerate(arguments)))
            down = loss(*(a - step if j == which else a for j, a in enumerate(arguments)))
            # Central differences at 1e-6 are good to about 1e-9 here.
            assert (up - down) / 2e-6 == pytest.approx(gradient[k], abs=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_strided_input(kernels, isa, dtype):
    """Any step and row strides, repeated rows included, give the numbers of a contiguous input."""
    layer = Layer(6, 5, 7, 19, dtype=dtype)
    plain = layer.as_given(layer.x)
    expected = layer.forward(kernels, isa)
    batch_first = np.ascontiguousarray(plain.swapaxes(0, 1)).swapaxes(0, 1)
    spread = np.zeros((12, 10, 9), plain.dtype)
    spread[::2, ::2, :7] = plain
    for x in (batch_first, spread[::2, ::2, :7], plain[::-1].copy()[::-1]):
        got = layer.forward(kernels, isa, x=x)
        assert all(np.array_equal(got[name], expected[name]) for name in expected)
    layer.x = np.broadcast_to(layer.x[:1, :1], layer.x.shape)
    expected = layer.forward(kernels, isa)
    repeated = np.broadcast_to(plain[:1, :1], plain.shape)
    got = layer.forward(kernels, isa, x=repeated)
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("projection", [0, 9])
def test_bits_do_not_depend_on_batch_or_threads(kernels, isa, dtype, projection):
    """A row's results are the same alone, among others, and for any number of threads.

    T is large enough for every one of these calls to pack its weights: see csrc/cpu/direct.h.
    """
    layer = Layer(130, 70, 6, 40, P=projection, dtype=dtype)
    together, back = layer.forward(kernels, isa), layer.backward(kernels, isa)
    for threads in (2, 3, 7):
        again = layer.forward(kernels, isa, threads=threads)
        assert all(np.array_equal(again[name], together[name]) for name in together)
        again = layer.backward(kernels, isa, threads=threads)
        assert all(np.array_equal(again[name], back[name]) for name in back)
    few = (slice(0, 1), slice(3, 5))
    if isa in ("amx", "software_amx") and dtype in ("bfloat16", "rounded"):
        few = (slice(0, 3), slice(3, 7))  # AMX is for three rows and more
    for rows in (*few, slice(60, 70)):
        part = of(layer, dtype)
        part.N = rows.stop - rows.start
        part.x, part.h0, part.c0 = layer.x[:, rows], layer.h0[:, rows], layer.c0[:, rows]
        part.lengths, part.valid = layer.lengths[rows], layer.valid[:, rows]
        # (T, N, ...) and (D, N, ...) alike
        part.grads = {name: grad[:, rows] for name, grad in layer.grads.items()}
        alone = part.forward(kernels, isa)
        assert all(np.array_equal(alone[name], together[name][:, rows]) for name in together)
        alone = part.backward(kernels, isa)
        assert all(np.array_equal(alone[name], back[name][:, rows]) for name in back)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(119, 21, 0), (1203, 21, 0), (1203, 601, 0), (100, 601, 35)])
def test_unpacked_weights(kernels, isa, dtype, sizes):
    """One step of 1 to 48 rows follows the equations, with bits that the other rows do not change.

    Of few rows and of many, where the latter are packed: see csrc/cpu/direct.h. Rows of
    weights so long that the products pass one after the other, and shorter ones: see
    csrc/cpu/kernels.h for which calls leave their weights unpacked.
    """
    I, H, P = sizes
    layer = Layer(1, 48 if I + (P or H) >= 512 else 16, I, H, P=P, dtype=dtype)
    exact = layer.expected()
    # Sums of I + H products instead of few: their errors grow with the square root.
    depth = int((I + H) ** 0.5)

    def of_rows(rows, threads=1):
        part = of(layer, dtype)
        part.N = rows.stop - rows.start
        part.x, part.h0, part.c0 = layer.x[:, rows], layer.h0[:, rows], layer.c0[:, rows]
        part.lengths, part.valid = layer.lengths[rows], layer.valid[:, rows]
        return part.forward(kernels, isa, threads=threads)

    packs_operands = isa not in ("baseline", "avx2") and dtype not in ("bfloat16", "float16")
    few = (slice(0, 1), slice(5, 6), slice(1, 3), slice(2, 6), slice(0, 6))
    many = (slice(0, 16), slice(3, 16))
    for rows, parts in (
        (slice(0, 6), few),
        (slice(0, layer.N), many if packs_operands else many + few),
    ):
        together = of_rows(rows)
        assert_close(together, {name: exact[name][:, rows] for name in together}, dtype, depth)
        again = of_rows(rows, threads=2)
        assert all(np.array_equal(again[name], together[name]) for name in together)
        for part in parts:
            alone = of_rows(part)
            assert all(np.array_equal(alone[name], together[name][:, part]) for name in together)


def test_bits_do_not_depend_on_what_is_saved(kernels, isa):
    layer = Layer(5, 7, 6, 20, D=2, threads=2)
    plain, saving = layer.forward(kernels, isa, save=False), layer.forward(kernels, isa)
    assert all(np.array_equal(plain[name], saving[name]) for name in plain)


def test_going_on_from_returned_states_gives_the_same_bits(kernels, isa):
    """h is fed back as it is returned: a sequence can be cut anywhere."""
    whole = Layer(9, 5, 4, 20)
    expected = whole.forward(kernels, isa)
    first, second = Layer(4, 5, 4, 20), Layer(5, 5, 4, 20)
    first.weights = second.weights = whole.weights
    first.x, second.x = whole.x[:4], whole.x[4:]
    first.h0, first.c0 = whole.h0, whole.c0
    begun = first.forward(kernels, isa)
    second.h0, second.c0 = begun["h_n"], begun["c_n"]
    ended = second.forward(kernels, isa)
    assert np.array_equal(np.concatenate((begun["output"], ended["output"])), expected["output"])
    assert np.array_equal(ended["c_n"], expected["c_n"])


@pytest.mark.parametrize("threads", [2, 3, 8, 64])
@pytest.mark.parametrize("projection", [0, 5])
@pytest.mark.parametrize(
    "layer",
    [Layer(6, 33, 4, 40), Layer(6, 2, 4, 99, D=2), Layer(9, 1, 33, 80)],
)
def test_late_threads_change_no_bit(kernels, isa, layer, projection, threads):
    """Any thread may compute a phase, however late, with more threads than cores too."""
    layer = dataclasses.replace(layer, P=projection)
    expected = layer.forward(kernels, isa, threads=1), layer.backward(kernels, isa, threads=1)
    try:
        for chance in (0, 20, 60):
            kernels.hold_up_threads(chance)
            got = (
                layer.forward(kernels, isa, threads=threads),
                layer.backward(kernels, isa, threads=threads),
            )
            for one, other in zip(got, expected, strict=True):
                assert all(np.array_equal(one[name], other[name]) for name in other)
    finally:
        kernels.hold_up_threads(0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_row(kernels, isa, bad):
    """NaN spreads over its sequence from its step on; infinity saturates gates, as it should."""
    layer = Layer(6, 5, 4, 20)
    layer.x[2, 3, 1] = bad
    got = layer.forward(kernels, isa)
    clean = np.ones((6, 5), bool)
    clean[2:, 3] = False
    with np.errstate(over="ignore", invalid="ignore"):
        expected = layer.expected()
    assert np.array_equal(np.isnan(got["output"]), np.isnan(expected["output"]))
    assert not np.isnan(got["output"][clean]).any()
    finite = ~np.isnan(expected["output"])
    assert np.abs(got["output"] - expected["output"])[finite].max() < 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("absent", ["", "grad_h", "grad_c", "grad_gates"])
def test_cell_backward(kernels, isa, dtype, absent):
    """One step's elementwise backward is the equations' at T = 1."""
    layer = Layer(1, 5, 3, 21, dtype=dtype)
    layer.forward(kernels, isa)
    for name in ("cell", "c_n"):
        layer.grads[name] = np.zeros_like(layer.grads[name])
    names = {"grad_h": "output", "grad_c": "cell", "grad_gates": "gates"}
    layer.grads["cell"] = layer.random(1, 5, 21)
    layer.grads["h_n"] = np.zeros_like(layer.grads["h_n"])
    expected = layer.expected([names[absent]] if absent else [])
    given = {k: None if k == absent else store(layer.grads[v][0], dtype) for k, v in names.items()}
    given["grad_gates"] = (
        None if absent == "grad_gates" else store(layer.grads["gates"][0, :, 0], dtype)
    )
    given["c0"] = store(layer.c0[0], dtype)
    given["gates"] = np.ascontiguousarray(layer.saved["gates"][0, :, 0])
    got = kernels.cell_backward(isa, dtype, given)
    got = {k: load(v, dtype) for k, v in got.items()}
    assert_close(
        got,
        {
            "grad_preactivations": expected["grad_preactivations"][0, :, 0],
            "grad_c0": expected["grad_c0"][0],
        },
        dtype,
        1,
    )


def test_long_sequence(kernels, isa):
    """T = 65,536 in one call equals 64 calls of 1,024 steps that hand their states on."""
    whole = Layer(65536, 1, 1, 3, dtype="float64", threads=2)
    output, back = whole.forward(kernels, isa)["output"], whole.backward(kernels, isa)
    h, c, pieces = whole.h0, whole.c0, []
    for t in range(0, whole.T, 1024):
        piece = Layer(1024, 1, 1, 3, dtype="float64")
        piece.weights, piece.x, piece.h0, piece.c0 = whole.weights, whole.x[t : t + 1024], h, c
        piece.grads = {
            name: whole.grads[name][t : t + 1024] for name in ("output", "cell", "gates")
        }
        got = piece.forward(kernels, isa)
        h, c = got["h_n"], got["c_n"]
        assert np.array_equal(got["output"], output[t : t + 1024])
        pieces.append((t, piece))
    dh, dc = whole.grads["h_n"], whole.grads["c_n"]
    for t, piece in reversed(pieces):
        piece.grads |= {"h_n": dh, "c_n": dc}
        got = piece.backward(kernels, isa)
        dh, dc = got["grad_h0"], got["grad_c0"]
        # The sum for h at a cut is taken in another order: a rounding error, which then decays.
        same = back["grad_preactivations"][t : t + 1024]
        np.testing.assert_allclose(got["grad_preactivations"], same, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float32, 4), (np.float64, 4)])
def test_activations(kernels, isa, dtype, ulps):
    """sigmoid and tanh to a few units in the last place, near 0 too, and at the special values."""
    small = np.exp(np.linspace(-60, 4.4, 100_001))
    x = np.concatenate((np.linspace(-80, 80, 100_001), small, -small)).astype(dtype)
    wide = x.astype(np.longdouble)
    exact = 1 / (1 + np.exp(-wide)), np.tanh(wide)
    for got, want in zip(kernels.activations(isa, x), exact, strict=True):
        unit = np.spacing(np.abs(want).astype(dtype)).astype(np.longdouble)
        assert float((np.abs(got.astype(np.longdouble) - want) / unit).max()) < ulps
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30], dtype)
    got_sigmoid, got_tanh = kernels.activations(isa, special)
    np.testing.assert_array_equal(got_sigmoid, np.array([0.5, 0.5, 1, 0, np.nan, 1, 0], dtype))
    np.testing.assert_array_equal(got_tanh, np.array([0, -0.0, 1, -1, np.nan, 1, -1], dtype))
