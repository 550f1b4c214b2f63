"""The ops of variants on the CPU against the equations in plain torch, results and gradients."""

import contextlib
import dataclasses

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings
from support import assert_same, rounding, weigh
from variant_cases import both, calls, variants

from lstm_kernels import (
    LSTM,
    Variant,
    _ops,
    _variant_autograd,
    _variant_ops,
    _variants_reference,
    _weight_gradients,
    lstm,
)
from lstm_kernels._layer import Layer
from lstm_kernels._variants import LayerTensors

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def fused(layer, variant, tensors, wanted):
    """Whether there are kernels for this; a layer with states to reset to runs as episodes."""
    without = tensors._replace(reset_h=None, reset_c=None)
    return _variant_autograd.has_kernel(layer, variant, without, wanted)


def by_ops(layer, tensors, variant):
    """Results and gradients from the ops, and from plain torch."""
    assert fused(layer, variant, tensors, True)

    def compute(*arguments):
        return _variant_autograd.sequence(*arguments, True, True)

    return both(compute, layer, tensors, variant)


@contextlib.contextmanager
def threads_of_torch(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@given(data=st.data(), variant=variants())
@settings(max_examples=300, deadline=None)
def test_results_and_gradients_are_those_of_plain_torch(data, variant):
    layer, tensors = data.draw(calls(variant))
    assert_same(*by_ops(layer, tensors, variant), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("threads", [1, 2])
@given(data=st.data(), variant=variants(), shape=st.sampled_from([(12, 40, 33), (3, 8, 96)]))
@settings(max_examples=15, deadline=None)
def test_large_layers_on_one_thread_and_on_two(data, variant, shape, threads):
    """Weights in panels; the work split by sequences, and by hidden units."""
    T, N, H = shape
    with threads_of_torch(threads):
        layer, tensors = data.draw(calls(variant, torch.float64, T, N, H))
        assert_same(*by_ops(layer, tensors, variant), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@given(data=st.data(), variant=variants())
@settings(max_examples=40, deadline=None)
def test_every_dtype_is_as_exact_as_its_rounding(data, variant, dtype):
    """Results alone: where a slope jumps, rounding may fall on the other side of it.

    Of thresholdedrelu the value jumps. A norm of few units makes an error larger: by 1 / deviation.
    """
    assume(all(activation.name != "thresholdedrelu" for activation in variant.each_activation))
    layer, tensors = data.draw(calls(variant, dtype))
    assert fused(layer, variant, tensors, False)
    with torch.no_grad():
        found = _variant_autograd.sequence(layer, variant, tensors, True, True)
    assert all(value.dtype is dtype for value in found)
    wide = [None if v is None else v.double() for v in tensors]
    exact = _variants_reference.sequence_forward(
        layer._replace(
            input=layer.input.double(),
            h0=None if layer.h0 is None else layer.h0.double(),
            c0=None if layer.c0 is None else layer.c0.double(),
            weights=[w.double() for w in layer.weights],
        ),
        variant,
        LayerTensors(*wide),
    )
    normalises = variant.layer_norm is not None or variant.cell_norm is not None
    tolerance = rounding(dtype, 80 if normalises else 40)
    assert_same([value.double() for value in found], exact, **tolerance)


SMOOTH = {
    "peephole": Variant(peephole=True),
    "coupled": Variant(coupled="input", zoneout_cell=0.2),
    "zoneout": Variant(zoneout_cell=0.3, zoneout_hidden=0.3),
    "dropout": Variant(recurrent_dropout=0.3),
    "dropout of gates": Variant(recurrent_dropout=0.3, dropout_on="gates"),
    "activations": Variant(activations=("sigmoid", "softsign", ("elu", 0.5))),
    "separate norms": Variant(layer_norm="separate", cell_norm="carried", norm_eps=0.1),
    "joint norm": Variant(layer_norm="joint", cell_norm="output", norm_eps=0.1, peephole=True),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", SMOOTH.values(), ids=SMOOTH)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_gradients_of_every_dtype(data, variant, dtype):
    layer, tensors = data.draw(calls(variant, dtype))
    (found, gradients), (expected, exact) = by_ops(layer, tensors, variant)
    tolerance = rounding(dtype, 40)
    assert_same(found, expected, **tolerance)
    for one, other in zip(gradients, exact, strict=True):
        assert one.dtype is dtype
        scale = other.abs().max().clamp(min=1).double()
        assert_same(one.double() / scale, other.double() / scale, **tolerance)


def test_a_variant_without_effect_is_the_plain_lstm():
    """Their products have the same bits; the compiler may fuse other additions in the cells."""
    torch.manual_seed(0)
    for H, N in ((48, 5), (7, 3)):
        layer = Layer(
            torch.randn(9, N, 6),
            None,
            None,
            [torch.randn(4 * H, 6), torch.randn(4 * H, H)],
            False,
            False,
            None,
            None,
            None,
        )
        nothing = LayerTensors(*[None] * 9)
        plain = _ops.sequence_forward(layer, True, True)
        *found, products = _variant_ops.forward(layer, Variant(), nothing, True, True)
        assert products.numel() == 0
        assert_same(found, plain, **rounding(torch.float32, 9))


NORMS = [
    Variant(layer_norm=gates, cell_norm=cell)
    for gates in (None, "joint", "separate")
    for cell in (None, "carried", "output")
    if gates or cell
]


def normed(variant, T=5, N=3, H=6, dtype=torch.float64, scale=1.0):
    """A layer with a norm, and the tensors of its variant."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *size: torch.randn(size, generator=generator, dtype=dtype)  # noqa: E731
    weights = [scale * random(4 * H, 4), scale * random(4 * H, H), random(4 * H), random(4 * H)]
    layer = Layer(random(T, N, 4), None, None, weights, True, False, None, None, None)
    gains = 1 + (variant.layer_norm == "separate")
    tensors = LayerTensors(
        None,
        random(1, gains, 4 * H) if variant.layer_norm else None,
        random(1, 2, H) if variant.cell_norm else None,
        *[None] * 6,
    )
    return layer, tensors


@pytest.mark.parametrize("variant", NORMS[2:], ids=str)
def test_a_norm_of_constants_leaves_the_biases(variant):
    """Without weights all products are zero, and so is their norm."""
    layer, tensors = normed(variant, scale=0.0)
    found = _variant_ops.forward(layer, variant, tensors, True, True)
    without = dataclasses.replace(variant, layer_norm=None)
    tensors = tensors._replace(norm_gates=None)
    assert_same(found[:5], _variant_ops.forward(layer, without, tensors, True, True)[:5])


@pytest.mark.parametrize("variant", NORMS[2:], ids=str)
def test_norms_take_away_what_all_gates_share(variant):
    """A column added to all rows of a matrix moves the mean alone, a thousand deviations here."""
    layer, tensors = normed(variant)
    w_ih, *rest = layer.weights
    moved = layer._replace(weights=[w_ih + 1000 * torch.ones(4, dtype=torch.float64), *rest])
    expected = _variant_ops.forward(layer, variant, tensors, True, True)[:5]
    found = _variant_ops.forward(moved, variant, tensors, True, True)[:5]
    assert_same(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("variant", NORMS, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stay_in_their_sequence(variant, value, threads):
    layer, tensors = normed(variant, T=4, N=5, H=33, dtype=torch.float32)
    poisoned = layer.input.clone()
    poisoned[1, 2] = value
    with threads_of_torch(threads):
        expected = _variant_ops.forward(layer, variant, tensors, True, True)
        found = _variant_ops.forward(layer._replace(input=poisoned), variant, tensors, True, True)
    others = [0, 1, 3, 4]
    assert torch.equal(found[0][:, others], expected[0][:, others])
    assert torch.equal(found[0][0], expected[0][0])
    if variant.layer_norm:
        assert found[0][1:, 2].isnan().all()


def test_one_hidden_unit_normalises_to_the_bias():
    variant = Variant(cell_norm="carried")
    layer, tensors = normed(variant, H=1)
    _, _, _, cell, _, _ = _variant_ops.forward(layer, variant, tensors, True, True)
    assert torch.equal(cell, tensors.norm_cell[0, 1].expand_as(cell))


@pytest.mark.parametrize("variant", NORMS, ids=str)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (3, 0), (130, 2)], ids=str)
def test_few_and_many_rows(variant, sizes):
    T, N = sizes
    assert_same(*by_ops(*normed(variant, T, N, H=9), variant), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("variant", NORMS, ids=str)
def test_a_row_has_the_same_bits_on_any_number_of_threads(variant):
    layer, tensors = normed(variant, T=6, N=9, H=70, dtype=torch.float32)
    found = []
    for threads in (1, 2, 3):
        with threads_of_torch(threads):
            found.append(_variant_ops.forward(layer, variant, tensors, True, True))
    for one in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one, found[0], strict=True))


GATED = Variant(recurrent_dropout=0.3, dropout_on="gates")
GATED_SIZES = [(1, 1, 7), (1, 7, 100), (4, 0, 7), (5, 1, 1), (6, 1, 100), (4, 7, 7), (3, 60, 100)]


def gated(sizes, per_step=False, dtype=torch.float64, projects=False):
    """A layer in both directions, and masks for each of its gates."""
    (T, N, H), P = sizes, 3 if projects else sizes[2]
    generator = torch.Generator().manual_seed(0)
    random = lambda *size: torch.randn(size, generator=generator, dtype=dtype)  # noqa: E731
    shapes = [(4 * H, 5), (4 * H, P), (4 * H,), (4 * H,)] + [(P, H)] * projects
    weights = [random(*shape) / H**0.5 for _ in range(2) for shape in shapes]
    states = random(2, N, P), random(2, N, H)
    layer = Layer(random(T, N, 5), *states, weights, True, True, None, None, None)
    masks = (random(T if per_step else 1, N, 2, 4, P) > 0).to(dtype) / 0.7
    return layer, LayerTensors(*[None] * 4, masks, *[None] * 4)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("projects", [False, True])
@pytest.mark.parametrize("sizes", GATED_SIZES, ids=str)
def test_a_mask_for_each_gate(sizes, projects, per_step, threads):
    """One row or panel at a time and two; the batch split, and the units."""
    with threads_of_torch(threads):
        found, expected = by_ops(*gated(sizes, per_step, projects=projects), GATED)
    assert_same(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("N", [1, 9])
def test_a_row_with_masks_of_gates_has_the_same_bits_on_any_number_of_threads(N):
    layer, tensors = gated((6, N, 100), dtype=torch.float32)
    found = []
    for threads in (1, 2, 3):
        with threads_of_torch(threads):
            found.append(_variant_ops.forward(layer, GATED, tensors, True, True))
    for one in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one, found[0], strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("H", [7, 40])
def test_equal_masks_of_gates_are_one_mask(H, dtype):
    layer, tensors = gated((4, 3, H), True, dtype)
    one = tensors.recurrent[..., :1, :]
    of_gates = tensors._replace(recurrent=one.expand(-1, -1, -1, 4, -1))
    of_hidden = tensors._replace(recurrent=one.flatten(2))
    found = by_ops(layer, of_gates, GATED)[0]
    expected = by_ops(layer, of_hidden, Variant(recurrent_dropout=0.3))[0]
    assert_same(found[0], expected[0], **rounding(dtype, 20))
    assert_same(found[1], expected[1], **rounding(dtype, 200))


def test_weight_gradients_of_masked_gates_by_products_of_torch(monkeypatch):
    """As for 16-bit types that the CPU multiplies itself."""
    monkeypatch.setattr(_weight_gradients, "_MULTIPLIED", [torch.float64])
    for projects in (False, True):
        found, expected = by_ops(*gated((5, 3, 7), True, projects=projects), GATED)
        assert_same(found, expected, rtol=1e-9, atol=1e-9)


def test_a_reset_row_takes_nothing_from_a_masked_state():
    """Not even what is not a number."""
    layer, tensors = gated((4, 3, 6), True)
    one = layer._replace(
        h0=layer.h0[:1], c0=layer.c0[:1], weights=layer.weights[:4], bidirectional=False
    )
    one.h0[0, 1] = float("nan")
    reset = torch.zeros(4, 3, dtype=torch.bool)
    reset[0, 1] = True
    masks = tensors._replace(recurrent=tensors.recurrent[:, :, :1])
    results = _variant_ops.forward(one._replace(reset=reset), GATED, masks, True, True)
    assert not any(value.isnan().any() for value in results)


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("masks", ["all steps", "each step", "too many"])
def test_resets_to_given_states_run_by_kernels(masks, wanted, monkeypatch):
    """But where masks of each step, of one long episode and many short ones, would be too many."""
    T, N, H = 30, 4, 5
    layer, tensors = gated((T, N, H), masks != "all steps")
    reset = torch.zeros(T, N, dtype=torch.bool)
    reset[2::3, : 2 if masks != "too many" else 3] = True
    if masks != "too many":
        reset[15] = True
    one = layer._replace(
        input=layer.input.requires_grad_(wanted),
        h0=layer.h0[:1],
        c0=layer.c0[:1],
        weights=layer.weights[:4],
        bidirectional=False,
        reset=reset,
    )
    states = [torch.full((1, N, H), value, dtype=torch.float64) for value in (0.5, -0.5)]
    tensors = tensors._replace(recurrent=tensors.recurrent[:, :, :1])
    tensors = tensors._replace(reset_h=states[0], reset_c=states[1])
    expected = _variants_reference.sequence_forward(one, GATED, tensors)
    called = []
    plain = _variants_reference.sequence_forward
    monkeypatch.setattr(
        _variants_reference, "sequence_forward", lambda *a: called.append(a) or plain(*a)
    )
    for saved in (True, False):
        found = _variant_autograd.sequence(one, GATED, tensors, saved, saved)
        present = slice(5 if found[3].numel() else 3)  # what is not saved may be there
        assert_same(found[present], expected[present], rtol=1e-9, atol=1e-9)
    assert len(called) == (2 if masks == "too many" else 0)


def test_input_gate_of_ones_and_mask_of_ones():
    variant = Variant(input_gate=True, recurrent_dropout=0.5)
    torch.manual_seed(0)
    module = LSTM(4, 6, variant=variant).eval()
    plain = LSTM(4, 6)
    plain.load_state_dict(module.state_dict())
    x = torch.randn(5, 3, 4)
    gates = plain(x, return_gates=True)[2].gates[0]
    output = module(x, input_gate=gates[:, :, 0, 0])[0]
    assert_same(output, plain(x)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variant", SMOOTH.values(), ids=SMOOTH)
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_ops_are_what_their_schemas_say(data, variant):
    layer, tensors = data.draw(calls(variant, torch.float32))
    numbers = variant.numbers
    of_variant = _variant_ops.given_tensors(variant, tensors)
    arguments = (*layer, *of_variant, numbers, True, True, False)
    torch.library.opcheck(
        _variant_ops._forward, arguments, test_utils=("test_schema", "test_faketensor")
    )
    results = _variant_ops.forward(layer, variant, tensors, True, True)
    output, h_n, c_n, cell, gates, products = results
    ragged = (layer.batch_sizes, layer.lengths, layer.reset)
    torch.library.opcheck(
        _variant_ops._backward,
        (
            output,
            h_n,
            c_n,
            cell,
            gates,
            layer.c0,
            layer.weights,
            layer.has_biases,
            layer.bidirectional,
            *ragged,
            *of_variant,
            numbers,
            cell,
            gates,
            products,
            False,
        ),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.slow
def test_torch_compile_keeps_the_op():
    variant = Variant(peephole=True, clip=1.5, zoneout_hidden=0.1)
    module = LSTM(4, 6, variant=variant).eval()
    x = torch.randn(5, 3, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = module(x)
    found = compiled(x)
    assert_same(found, expected)
    parameters = [*module.parameters()]
    assert_same(
        torch.autograd.grad(weigh(found), parameters),
        torch.autograd.grad(weigh(expected), parameters),
    )
    with torch.no_grad():
        assert_same(compiled(x), module(x))


def test_a_graph_may_make_its_variant():
    x, weights = torch.randn(5, 3, 4), [torch.randn(24, 4), torch.randn(24, 6)]

    def call(x):
        return lstm(x, None, weights, variant=Variant(coupled="input", clip=0.5))[0]

    assert_same(torch.compile(call, fullgraph=True, backend="aot_eager")(x), call(x))
