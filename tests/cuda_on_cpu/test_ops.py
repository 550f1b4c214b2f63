"""The CUDA ops from arguments to results, run on the CPU against the equations in float64.

That is unpacking, the choice of path, the order of kernels and products, and the kernels of a step.

Only the matrix products, the device and the stream are stand-ins (ops/device_on_cpu.cpp). The
persistent kernels have tests of their own; here they show that the ops hand them what they need.
"""

import sys
from pathlib import Path

import pytest
import torch

from lstm_kernels import _reference
from lstm_kernels._layer import Layer, LayerBackward

sys.path.insert(0, str(Path(__file__).parent / "ops"))
import library

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# What is fed back is rounded to the type at every step, and a gradient sums up to 4*H such numbers:
# some units in the last place, and in 16 bits most of them where the reference rounds nothing.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
NAMES = ("output", "h_n", "c_n", "cell", "gates")
GRAD_NAMES = ("grad_preactivations", "grad_h0", "grad_c0", "grad_hidden")


@pytest.fixture(scope="module")
def ops():
    return library.load()


class Case:
    """A random layer and input; every third one without biases, every fourth without states."""

    def __init__(self, dtype, T, N, inputs, H, P=None, D=1, ragged=None, seed=0):
        draw = torch.Generator().manual_seed(seed)

        def uniform(*size):
            return (torch.rand(*size, generator=draw, dtype=torch.float64) * 2 - 1).to(dtype)

        self.uniform, self.dtype = uniform, dtype
        has_biases, h_size = seed % 3 > 0, P or H
        weights = []
        for _ in range(D):
            weights += [uniform(4 * H, inputs), uniform(4 * H, h_size)]
            weights += [uniform(4 * H), uniform(4 * H)] if has_biases else []
            weights += [uniform(P, H)] if P else []
        batch_sizes = lengths = reset = None
        self.x = uniform(T, N, inputs)
        if ragged == "packed":
            last = torch.randint(1, T + 1, (N,), generator=draw).sort(descending=True).values
            last[0] = T
            batch_sizes = (torch.arange(T)[:, None] < last).sum(1)
            self.x = uniform(int(batch_sizes.sum()), inputs)
        elif ragged == "lengths":
            lengths = torch.randint(0, T + 1, (N,), generator=draw)
        elif ragged == "reset":
            reset = torch.rand(T, N, generator=draw) < 0.3
        given = seed % 4 > 0
        self.h0 = uniform(D, N, h_size) if given else None
        self.c0 = uniform(D, N, H) if given else None
        self.layer = (weights, has_biases, D == 2, batch_sizes, lengths, reset)

    def forward(self, ops, reduced_precision=False):
        return ops._sequence_forward(
            self.x, self.h0, self.c0, *self.layer, True, True, reduced_precision
        )

    def gradients(self, results, absent=()):
        return [None if k in absent else self.uniform(*t.shape) for k, t in enumerate(results)]

    def backward(self, ops, gradients, cell, gates, reduced_precision=False):
        return ops._sequence_backward(
            *gradients, self.c0, *self.layer, cell, gates, reduced_precision
        )


def exact(value):
    """In float64, lists and all."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(exact, value))
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floating else value


def assert_agree(results, expected, names, dtype):
    for got, wanted, name in zip(results, expected, names, strict=True):
        assert got.dtype == dtype
        tolerance = TOLERANCE[dtype] * max(1, wanted.abs().max().item()) if wanted.numel() else 0
        torch.testing.assert_close(
            got.double(), wanted, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def check(ops, case, absent=(), reduced_precision=False):
    results = case.forward(ops, reduced_precision)
    layer = Layer(*exact((case.x, case.h0, case.c0)), *exact(list(case.layer)))
    expected = _reference.sequence_forward(layer)
    assert_agree(results, expected, NAMES, case.dtype)
    cell, gates = results[3:]
    gradients = case.gradients(results, absent)
    got = case.backward(ops, gradients, cell, gates, reduced_precision)
    call = LayerBackward.of_layer(layer, exact(gradients), *exact((cell, gates)))
    expected = _reference.sequence_backward(call)
    assert_agree(got, expected, GRAD_NAMES, case.dtype)


# N, input size, H, P: one sequence, few, more than the fused kernel takes, with projection
SIZES = (
    (1, 3, 5, None),
    (3, 8, 8, None),
    (9, 2, 4, None),
    (17, 5, 6, None),
    (3, 3, 6, 2),
    (18, 4, 5, 3),
)


@pytest.mark.parametrize("ragged", [None, "packed", "lengths", "reset"])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_a_layer_step_by_step(ops, monkeypatch, dtype, ragged):
    """Every result and gradient equals the equations', for any size, direction and raggedness."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    seed = 0
    for D in (1,) if ragged == "reset" else (1, 2):
        for size in SIZES:
            for T in (1, 5):
                seed += 1
                check(ops, Case(dtype, T, *size, D, ragged, seed), absent={seed % 7})


@pytest.mark.parametrize("ragged", [None, "packed", "lengths", "reset"])
@pytest.mark.parametrize("dtype", FLOATING[1:], ids=str)
def test_a_layer_in_one_launch(ops, monkeypatch, dtype, ragged):
    """The persistent kernels get what they need from the ops."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
    D = 1 if ragged == "reset" else 2
    case = Case(dtype, 4, 3, 2, 5, None, D, ragged, seed=5)
    results = case.forward(ops, True)
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    by_step = case.forward(ops)
    # the products of float32 are rounded to TF32: 10 bits
    tolerance = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
    for got, wanted in zip(results, by_step, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)
    gradients = case.gradients(by_step)
    expected = case.backward(ops, gradients, *by_step[3:])
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
    for got, wanted in zip(
        case.backward(ops, gradients, *by_step[3:], True), expected, strict=True
    ):
        torch.testing.assert_close(
            got,
            wanted,
            rtol=0,
            atol=tolerance * max(1, wanted.abs().max().item() if wanted.numel() else 0),
        )


def test_a_projection_to_as_many_features_is_one(ops, monkeypatch):
    """It is told by its weights: the sizes are those of a layer without."""
    case = Case(torch.float32, 4, 3, 2, 5, P=5, seed=5)
    monkeypatch.delenv("LSTM_KERNELS_CUDA_PATH", raising=False)
    check(ops, case)
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
    with pytest.raises(RuntimeError, match="PATH=persistent: the layer projects"):
        case.forward(ops)


def test_where_blocks_find_no_room_steps_run_one_by_one(ops, monkeypatch):
    """Unless the persistent path is forced: then that is an error, and nothing is computed."""
    case = Case(torch.bfloat16, 5, 3, 2, 5, D=2, seed=5)
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    by_step = case.forward(ops)
    gradients = case.gradients(by_step)
    expected = case.backward(ops, gradients, *by_step[3:])
    ops.set_room(1)  # of two directions only one
    try:
        monkeypatch.delenv("LSTM_KERNELS_CUDA_PATH")
        assert all(map(torch.equal, case.forward(ops), by_step))
        assert all(map(torch.equal, case.backward(ops, gradients, *by_step[3:]), expected))
        monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
        with pytest.raises(RuntimeError, match="no room for all blocks"):
            case.forward(ops)
        with pytest.raises(RuntimeError, match="no room for all blocks"):
            case.backward(ops, gradients, *by_step[3:])
    finally:
        ops.set_room(132)
    case.forward(ops)


def to_tf32(tensor):
    """Rounded to 10 bits of mantissa, ties away from zero."""
    return ((tensor.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("path", ["step", "persistent"])
def test_every_product_is_in_tf32_where_that_is_allowed(ops, monkeypatch, path):
    """Factors that are TF32 numbers already give the same bits; float64 knows nothing of it."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", path)
    case = Case(torch.float32, 4, 17, 3, 5, D=2, seed=1)
    in_tf32 = case.forward(ops, True)
    gradients = case.gradients(in_tf32)
    backward = case.backward(ops, gradients, *in_tf32[3:], True)
    weights, *rest = case.layer
    if path == "step":
        assert not torch.equal(case.forward(ops)[0], in_tf32[0])
        assert not torch.equal(case.backward(ops, gradients, *in_tf32[3:])[1], backward[1])
    case.x = to_tf32(case.x)
    case.layer = ([to_tf32(w) if w.dim() == 2 else w for w in weights], *rest)
    assert all(map(torch.equal, case.forward(ops, True), in_tf32))
    assert all(map(torch.equal, case.backward(ops, gradients, *in_tf32[3:], True), backward))
    case = Case(torch.float64, 4, 17, 3, 5, D=2, seed=1)
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    assert all(map(torch.equal, case.forward(ops, True), case.forward(ops)))
    a, b = case.x[0].float(), case.x[1].float().mT
    expected = to_tf32(a).double() @ to_tf32(b).double()
    torch.testing.assert_close(ops._tf32_product(a, b).double(), expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(RuntimeError, match="matrices that fit"):
        ops._tf32_product(a, a)
    with pytest.raises(RuntimeError, match="float32"):
        ops._tf32_product(a.double(), b.double())


def test_offsets_of_packed_steps_are_sums(ops):
    sizes = torch.tensor([5, 3, 3, 1])
    assert ops._pack_offsets(sizes, torch.empty(12)).tolist() == [0, 5, 8, 11, 12]


def test_gradients_that_are_absent_count_as_zero(ops, monkeypatch):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    for k in range(5):
        check(ops, Case(torch.float64, 3, 2, 3, 4, None, 2, None, k), absent=set(range(5)) - {k})


@pytest.mark.parametrize("size", [(1, 3, 5), (3, 8, 8), (17, 5, 6)])
def test_the_layout_of_an_argument_does_not_matter(ops, monkeypatch, size):
    """batch_first, slices and expanded inputs give the bits that a contiguous copy gives."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    for T in (1, 6):
        case = Case(torch.float32, T, *size, seed=1)
        contiguous = case.x
        N, inputs = size[:2]
        layouts = (
            contiguous.transpose(0, 1).contiguous().transpose(0, 1),
            torch.cat([contiguous, contiguous], -1)[..., :inputs],
            torch.stack([contiguous, contiguous], 1)[:, 0],
        )
        expected = case.forward(ops)
        for case.x in layouts:
            for got, wanted in zip(case.forward(ops), expected, strict=True):
                assert torch.equal(got, wanted)
        case.x = contiguous[:, :1].expand(T, N, inputs)
        got = case.forward(ops)
        case.x = case.x.contiguous()
        expected = case.forward(ops)
        assert all(map(torch.equal, got, expected))
        gradients = case.gradients(expected)
        backward = case.backward(ops, gradients, *expected[3:])
        case.x, case.h0, case.c0 = map(spread, (case.x, case.h0, case.c0))
        case.layer = ([*map(spread, case.layer[0])], *case.layer[1:])
        assert all(map(torch.equal, case.forward(ops), expected))
        assert all(map(torch.equal, case.backward(ops, gradients, *expected[3:]), backward))


def spread(tensor):
    """The same values, no two of them side by side."""
    return torch.stack([tensor, tensor], -1)[..., 0]


def test_results_do_not_depend_on_the_schedule_and_arguments_are_left_alone(ops, monkeypatch):
    """Bitwise, over schedules of the threads; a second backward gives the first one's gradients."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    for size in ((3, 8, 8, None), (18, 4, 5, 3)):
        case = Case(torch.float32, 4, *size, 2, "packed", 1)
        results = case.forward(ops)
        gradients = case.gradients(results)
        given = [case.x, case.h0, case.c0, *case.layer[0], *results, *gradients]
        before = [t.clone() for t in given]
        first = case.backward(ops, gradients, *results[3:])
        for seed in range(2, 6):
            ops.set_seed(seed)
            assert all(map(torch.equal, case.forward(ops), results))
            assert all(map(torch.equal, case.backward(ops, gradients, *results[3:]), first))
        assert all(map(torch.equal, given, before))


def test_gradients_in_any_layout(ops, monkeypatch):
    """Autograd hands over expanded and transposed gradients."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    case = Case(torch.float64, 3, 2, 3, 4, seed=1)
    results = case.forward(ops)
    gradients = [torch.ones((), dtype=torch.float64).expand(t.shape) for t in results]
    expanded = case.backward(ops, gradients, *results[3:])
    gradients = [g.contiguous() for g in gradients]
    assert all(map(torch.equal, expanded, case.backward(ops, gradients, *results[3:])))


def test_nan_and_infinity_go_through(ops, monkeypatch):
    """As far as the equations carry them: into their own sequence, and no other."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    for N in (3, 17):
        case = Case(torch.float32, 3, N, 4, 5, seed=2)
        clean = case.forward(ops)
        case.x[1, 1, 0] = float("nan")
        output = case.forward(ops)[0]
        assert output[1:, 1].isnan().all()
        output[1:, 1] = clean[0][1:, 1]
        assert torch.equal(output, clean[0])


def test_no_sequences(ops):
    case = Case(torch.float32, 3, 0, 2, 4, D=2, seed=1)
    results = case.forward(ops)
    assert [tuple(t.shape) for t in results] == [
        (3, 0, 8), (2, 0, 4), (2, 0, 4), (3, 0, 8), (3, 0, 2, 4, 4),
    ]  # fmt: skip
    gradients = case.backward(ops, case.gradients(results), *results[3:])
    assert [tuple(t.shape) for t in gradients] == [(3, 0, 2, 4, 4), (2, 0, 4), (2, 0, 4), (0,)]


@pytest.mark.parametrize("N", [1, 2, 9, 17])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_a_step_on_its_own(ops, dtype, N):
    for seed, (inputs, H) in enumerate([(3, 5), (8, 16), (24, 8)]):
        draw = Case(dtype, 1, N, inputs, H, seed=seed + 1).uniform
        x, h0, c0 = draw(N, inputs), draw(N, H), draw(N, H)
        weights = draw(4 * H, inputs), draw(4 * H, H)
        biases = (draw(4 * H), draw(4 * H)) if seed else (None, None)
        results = ops._cell_forward(x, h0, c0, *weights, *biases, True)
        expected = _reference.cell_forward(*exact((x, h0, c0, *weights, *biases)))
        assert_agree(results, expected, ("h", "c", "gates"), dtype)
        assert ops._cell_forward(x, h0, c0, *weights, *biases, False)[2].numel() == 0
        gates = results[2]
        for absent in (None, 0, 1, 2):
            gradients = [draw(*t.shape) for t in results]
            if absent is not None:
                gradients[absent] = None
            got = ops._cell_backward(*gradients, c0, gates)
            expected = _reference.cell_backward(*exact((*gradients, c0, gates)))
            assert_agree(got, expected, ("grad_preactivations", "grad_c0"), dtype)


def test_what_would_read_beyond_an_array_is_refused(ops):
    """The ops trust nothing that a kernel would turn into an address."""
    case = Case(torch.float32, 3, 2, 3, 4, seed=1)
    weights, has_biases, *rest = case.layer
    good = [case.x, case.h0, case.c0, weights, has_biases, *rest, True, True]

    def refused(position, value, message):
        arguments = list(good)
        arguments[position] = value
        with pytest.raises(RuntimeError, match=message):
            ops._sequence_forward(*arguments)

    refused(0, case.x[0], "input")
    refused(0, case.x.transpose(1, 2), "input")
    refused(0, case.x.int(), "float32, float64, float16 or bfloat16")
    refused(1, case.h0[:, :1], "h0")
    refused(2, case.c0.double(), "c0")
    refused(3, weights[:-1], "weights")
    refused(0, case.x[:0], "at least one step")
    refused(3, [weights[0].T, *weights[1:]], "w_ih")
    refused(6, torch.tensor([2, 2, 2]), "input")
    refused(7, torch.tensor([1, 2, 3]), "lengths")
    refused(7, torch.tensor([1, 2], dtype=torch.int32), "lengths")
    refused(8, torch.zeros(3, 1, dtype=torch.bool), "reset")
    packed = Case(torch.float32, 3, 2, 3, 4, ragged="packed", seed=1)
    rows = packed.x.shape[0]
    for sizes in ([rows], [1, 2, rows - 3], [2, 0, rows - 2], [2, 1]):
        arguments = [packed.x, packed.h0, packed.c0, *packed.layer, True, True]
        arguments[6] = torch.tensor(sizes)
        with pytest.raises(RuntimeError, match=r"batch_sizes|h0"):
            ops._sequence_forward(*arguments)
