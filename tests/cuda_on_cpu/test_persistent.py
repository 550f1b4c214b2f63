"""The persistent CUDA kernels, run on the CPU under random schedules, are the LSTM equations."""

import numpy as np
import pytest
import torch
from cases import SIGNALS, Case, backward, forward, operand, rounded, run_backward, run_forward

TYPES = ["float16", "bfloat16", "tf32", "float32"]

# Sizes that are no multiple of any tile; more columns (H > 128, of 16 bits) than registers hold in
# the small geometry; several tiles per block (few multiprocessors) and several groups of 8 rows.
SHAPES = [
    {"T": 1, "N": 1, "H": 1},
    {"T": 4, "N": 3, "H": 5},
    {"T": 5, "N": 13, "H": 37},
    {"T": 4, "N": 9, "H": 33, "D": 2},
    {"T": 3, "N": 21, "H": 150, "tile_rows": 16, "multiprocessors": 40},
    {"T": 3, "N": 35, "H": 18, "D": 2, "tile_rows": 32, "multiprocessors": 10},
]
RAGGED = [
    {"T": 6, "N": 11, "H": 20, "D": 2, "ragged": "packed"},
    {"T": 6, "N": 11, "H": 20, "D": 2, "ragged": "lengths"},
    {"T": 6, "N": 11, "H": 20, "ragged": "reset"},
]
# The geometries that are compiled for devices.
DEVICE = [
    {"T": 3, "N": 3, "H": 70, "geometry": "wide"},
    {"T": 4, "N": 19, "H": 40, "D": 2, "geometry": "wide", "tile_rows": 24},
    {"T": 3, "N": 3, "H": 300, "geometry": "wide"},
]
NARROW = [
    {"T": 3, "N": 3, "H": 70, "geometry": "narrow"},
    {"T": 4, "N": 19, "H": 24, "D": 2, "geometry": "narrow", "tile_rows": 24},
]


def named(shape):
    return "-".join(f"{k}{v}" if isinstance(v, int) else v for k, v in shape.items())


@pytest.fixture(params=["counter", "tagged"])
def exchange(request):
    """How blocks hand each other what a step gives, see csrc/cuda/exchange.cuh."""
    return request.param


@pytest.fixture(params=range(1, 5))
def schedule(request, machine):
    """Seeds 1 to 4 favour threads, warps, blocks and threads again, see machine.h."""
    machine.set_seed(request.param)
    return request.param


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES + RAGGED, ids=named)
def test_forward(dtype, shape, exchange, schedule):
    run_forward(Case(dtype, **shape, exchange=exchange, seed=schedule))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES + RAGGED, ids=named)
def test_backward(dtype, shape, exchange, schedule):
    run_backward(Case(dtype, **shape, exchange=exchange, seed=schedule))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", DEVICE + NARROW, ids=named)
def test_forward_as_compiled_for_devices(dtype, shape, exchange, machine):
    machine.set_seed(3)
    run_forward(Case(dtype, **shape, exchange=exchange))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", DEVICE, ids=named)
def test_backward_as_compiled_for_devices(dtype, shape, exchange, machine):
    machine.set_seed(3)
    run_backward(Case(dtype, **shape, exchange=exchange))


@pytest.mark.parametrize(("dtype", "H"), [("bfloat16", 1090), ("tf32", 530), ("float32", 530)])
def test_weights_beyond_the_registers_of_a_device(dtype, H, machine):
    machine.set_seed(3)
    run_forward(Case(dtype, T=2, N=2, H=H, geometry="wide"))
    run_backward(Case(dtype, T=2, N=2, H=H, geometry="wide"))


@pytest.mark.parametrize(
    "given", [(), ("h0",), ("c0",), ("b_ih",), ("b_hh",), ("cell",), ("gates",)], ids=str
)
def test_forward_with_only_some_of_the_optional_arrays(given, machine):
    machine.set_seed(2)
    run_forward(Case("float16", T=4, N=5, H=12, D=2, given=given))


@pytest.mark.parametrize("signals", [(), *([s] for s in SIGNALS)], ids=str)
def test_backward_with_only_some_of_the_gradients(signals, machine):
    machine.set_seed(2)
    given = ("c0",) if len(signals) else ()
    run_backward(Case("float16", T=4, N=5, H=12, D=2, given=given), signals)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("run", [run_forward, run_backward])
def test_every_schedule_and_exchange_gives_the_same_bits(dtype, run, machine):
    results = []
    for seed in range(6):
        machine.set_seed(seed)
        exchange = ("counter", "tagged")[seed % 2]
        results.append(run(Case(dtype, T=4, N=13, H=37, D=2, exchange=exchange)))
    for name in results[0]:
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][name], other[name], err_msg=name)


@pytest.mark.parametrize("steps", [1, 499, 500, 1201])
def test_offsets_are_the_sums_of_the_batch_sizes(steps, machine):
    sizes = np.sort(np.random.default_rng(steps).integers(1, 100, steps))[::-1].copy()
    offsets = np.full(steps + 1, -1)
    machine.pack_offsets(sizes, offsets)
    np.testing.assert_array_equal(offsets, np.concatenate([[0], np.cumsum(sizes)]))


@pytest.mark.parametrize("ragged", [None, "packed"])
def test_the_equations_are_those_of_nn_lstm(ragged):
    """What the kernels are compared with agrees with torch's LSTM and its gradients in float64."""
    case = Case("float32", T=5, N=4, H=3, D=2, ragged=ragged)
    N, H, D, rows = case.N, case.H, case.D, case.rows
    lstm = torch.nn.LSTM(2, H, bidirectional=True, dtype=torch.float64)
    x = torch.randn(rows.total, 2, dtype=torch.float64)
    h0, c0 = (torch.randn(D, N, H, dtype=torch.float64, requires_grad=True) for _ in "hc")
    packed = torch.nn.utils.rnn.PackedSequence(x, torch.from_numpy(np.diff(rows.offsets)))
    output, (h_n, c_n) = lstm(packed, (h0, c0))
    weights = [[p.detach().numpy() for p in layer] for layer in lstm.all_weights]
    x_gates = np.stack([(x.numpy() @ w[0].T).reshape(-1, 4, H) for w in weights])
    w_hh = np.stack([w[1].reshape(4, H, H) for w in weights])
    bias = np.stack([(w[2] + w[3]).reshape(4, H) for w in weights])
    ours = forward(rows, x_gates, w_hh, bias, h0.detach().numpy(), c0.detach().numpy())
    for name, theirs in {"output": output.data, "h_n": h_n, "c_n": c_n}.items():
        np.testing.assert_allclose(
            ours[name].reshape(theirs.shape), theirs.detach().numpy(), rtol=0, atol=1e-12
        )

    signals = [torch.randn_like(v) for v in (output.data, h_n, c_n)]
    torch.autograd.backward([output.data, h_n, c_n], signals)
    grads = {
        "grad_output": signals[0].numpy().reshape(rows.total, D, H),
        "grad_h_n": signals[1].numpy(),
        "grad_c_n": signals[2].numpy(),
        "grad_cell": np.zeros((rows.total, D, H)),
        "grad_gates": np.zeros((rows.total, D, 4, H)),
    }
    ours = backward(rows, w_hh, c0.detach().numpy(), ours["cell"], ours["gates"], grads)
    grad_bias = ours["grad_preactivations"].sum(0).reshape(D, 4 * H)
    for d in range(D):
        np.testing.assert_allclose(grad_bias[d], lstm.all_weights[d][2].grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(ours["grad_h0"], h0.grad.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours["grad_c0"], c0.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("ragged", ["lengths", "reset"])
@pytest.mark.parametrize("D", [1, 2])
def test_the_gradient_equations_are_the_slope_of_the_equations(ragged, D):
    """Along a random direction through everything that is differentiable, to second order."""
    case = Case("float32", T=5, N=4, H=3, D=D, ragged=ragged)
    T, N, H, rows, rng = case.T, case.N, case.H, case.rows, case.rng
    shapes = {"x_gates": (D, T * N, 4, H), "w_hh": (D, 4, H, H), "h0": (D, N, H), "c0": (D, N, H)}
    at = {k: rng.normal(size=s) for k, s in shapes.items()}
    to = {k: rng.normal(size=s) * (k != "w_hh") for k, s in shapes.items()}

    def run(by):
        v = {k: at[k] + by * to[k] for k in at}
        return forward(rows, v["x_gates"], v["w_hh"], np.zeros((D, 4, H)), v["h0"], v["c0"])

    here = run(0)
    signals = {k: rng.normal(size=v.shape) for k, v in here.items()}
    present = rows.present().reshape(T * N, 1, 1)
    for k in ("output", "cell"):
        signals[k] = signals[k] * present
    signals["gates"] = signals["gates"] * present[..., None]
    grads = {f"grad_{k}": v for k, v in signals.items()}
    back = backward(rows, at["w_hh"], at["c0"], here["cell"], here["gates"], grads)
    by = 1e-4
    ahead, behind = run(by), run(-by)
    slope = sum((signals[k] * (ahead[k] - behind[k])).sum() / (2 * by) for k in signals)
    grad_x = back["grad_preactivations"].transpose(1, 0, 2, 3)
    ours = (
        (grad_x * to["x_gates"]).sum()
        + (back["grad_h0"] * to["h0"]).sum()
        + (back["grad_c0"] * to["c0"]).sum()
    )
    assert abs(ours - slope) < 1e-6 * max(1, abs(slope))


def test_the_references_rounding_is_that_of_the_types():
    values = np.concatenate([np.random.default_rng(1).normal(size=10000), [1 + 2.0**-8, 0, 6e4]])
    for dtype in ("float16", "bfloat16", "float32"):
        theirs = torch.from_numpy(values).float().to(getattr(torch, dtype)).double().numpy()
        np.testing.assert_array_equal(rounded(values.astype(np.float32), dtype), theirs)
    values = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, -1 - 2.0**-11, 0.0])
    np.testing.assert_array_equal(
        operand("tf32")(values), [1 + 2.0**-10, 1 + 2.0**-9, -1 - 2.0**-10, 0]
    )


def test_kernels_that_do_not_fit_together_wait(machine):
    """On streams of different priority each might hold what the other needs, and neither end."""

    def waits(*launches, room=132, capturing=0):
        return machine.residents(launches, room, capturing)

    assert waits((1, 128), (1, 128), (1, 128)) == [[], [], []]  # of one stream: in order anyway
    assert waits((1, 128), (2, 128), (1, 128), (2, 8)) == [[], [(1, 0)], [(2, 0)], [(1, 1)]]
    assert waits((1, 60), (2, 60), (1, 60), (2, 60)) == [[], [], [], []]  # side by side
    assert waits((1, 60), (2, 60), (3, 60), (1, 60)) == [[], [], [(1, 0), (2, 0)], [(2, 0)]]
    assert waits((1, 100), (1, 8), (2, 60)) == [[], [], [(1, 1)]]  # the larger one may still run
    assert waits((1, 128), (2, 60), (3, 60)) == [[], [(1, 0)], [(1, 0)]]
    assert waits((1, 128), (2, 128), capturing=2) == [[], []]


def test_at_no_time_can_kernels_overlap_that_do_not_fit(machine):
    """Over random launches: what is not ordered by streams and waits has room all at once."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        launches = [(int(rng.integers(1, 5)), int(rng.integers(1, 133))) for _ in range(12)]
        of_stream = {
            s: [k for k, (stream, _) in enumerate(launches) if stream == s] for s in range(5)
        }
        before = []  # of each launch: those that have ended when it starts
        for k, waits in enumerate(machine.residents(launches, 132, 0)):
            direct = [of_stream[stream][number] for stream, number in waits]
            direct += [j for j in of_stream[launches[k][0]] if j < k]
            before.append(set(direct).union(*(before[j] for j in direct)))
        for k in range(len(launches)):
            together = [k]  # of which none has ended before another starts
            for j in range(k):
                if all(j not in before[m] and m not in before[j] for m in together):
                    together.append(j)
            assert sum(launches[m][1] for m in together) <= 132, launches
