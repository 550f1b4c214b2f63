"""On a GPU this library computes what nn.LSTM does, no less exactly, on either path."""

import pytest
import torch
from gpu_support import FLOATING, ON_PATHS, PATHS, TF32, error, leaves, pair, random, run, take
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_kernels

pytestmark = pytest.mark.cuda

# sizes at and off the tiles of the kernels; T, N, I, H, options
CASES = (
    (1, 1, 3, 5, {}),
    (7, 1, 16, 64, {}),
    (5, 3, 8, 40, {"num_layers": 2}),
    (12, 8, 32, 129, {"bidirectional": True}),
    (9, 17, 20, 100, {"bias": False}),
    (6, 63, 64, 192, {"num_layers": 2, "bidirectional": True}),
    (5, 64, 256, 512, {}),
    (4, 9, 33, 300, {"bidirectional": True, "proj_size": 70}),
    (4, 2, 40, 48, {"num_layers": 3, "proj_size": 16, "batch_first": True}),
    (3, 256, 64, 256, {"batch_first": True}),
)
# Rounding differs in order, not in kind, so errors are of the same size; the floor is a few units
# in the last place, for cases where nn.LSTM happens to be nearly exact.
FLOOR = {
    torch.float64: 1e-13,
    torch.float32: 4e-6,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}


def floor(dtype, path):
    """TF32 has the mantissa of float16."""
    return FLOOR[torch.float16 if path == TF32 else dtype]


def no_less_exact(dtype, path, T, N, inputs, hidden, options):
    ours, native = pair(dtype, inputs, hidden, **options)
    exact = nn.LSTM(inputs, hidden, device="cuda", dtype=torch.float64, **options)
    exact.load_state_dict({k: v.double() for k, v in native.state_dict().items()})
    first = options.get("batch_first", False)
    x = random(*((N, T) if first else (T, N)), inputs, dtype=dtype)
    layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    h_size = options.get("proj_size", 0) or hidden
    states = random(layers, N, h_size, dtype=dtype), random(layers, N, hidden, dtype=dtype, seed=2)
    with torch.no_grad():
        shapes = [t.shape for t in (lambda r: (r[0], *r[1]))(ours(x, states))]
    upstream = [random(*s, dtype=dtype, seed=3 + k) for k, s in enumerate(shapes)]
    got, grads = run(ours, x, states, upstream)
    theirs, their_grads = run(native, x, states, upstream)
    wanted, wanted_grads = run(
        exact, x.double(), [s.double() for s in states], [g.double() for g in upstream]
    )
    bound = max(floor(dtype, path), 3 * error(theirs, wanted))
    assert error(got, wanted) <= bound
    bound = max(4 * floor(dtype, path), 3 * error(their_grads, wanted_grads))
    assert error(grads, wanted_grads) <= bound


@pytest.mark.parametrize(("dtype", "path"), ON_PATHS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_and_gradients(case, dtype, path, monkeypatch):
    if path != "step" and "proj_size" in case[-1]:
        pytest.skip("the persistent path takes no projection")
    take(path, monkeypatch)
    no_less_exact(dtype, path, *case)


@pytest.mark.parametrize(
    ("path", "allowed"), [(path, allowed) for path in PATHS for allowed in ("ieee", "tf32")]
)
def test_tf32_where_torch_allows_it_and_only_there(path, allowed, monkeypatch):
    """`torch.backends.cudnn.rnn.fp32_precision` rules nn.LSTM and this one alike."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", path)
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", allowed)
    ours, native = pair(torch.float32, 64, 256)
    x = random(20, 16, 64)
    exact = native.double()(x.double())[0]
    deviation = (ours(x)[0].double() - exact).abs().max().item()
    if allowed == "ieee":
        assert deviation < 2e-5
    else:
        assert deviation < 4e-3


@pytest.mark.parametrize(("dtype", "path"), ON_PATHS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed(dtype, bidirectional, path, monkeypatch):
    """A packed batch gives each sequence what it gets alone."""
    take(path, monkeypatch)
    ours, native = pair(dtype, 24, 72, bidirectional=bidirectional, num_layers=2)
    lengths = torch.tensor([3, 11, 1, 7, 11, 4, 9])
    x = random(11, 7, 24, dtype=dtype)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, (h_n, c_n) = ours(packed)
    theirs, (their_h, their_c) = native(packed)
    for got, wanted in ((output.data, theirs.data), (h_n, their_h), (c_n, their_c)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=3 * floor(dtype, path))
    gradients = [
        torch.autograd.grad(out.data.double().square().sum(), module.parameters())
        for module, out in ((ours, output), (native, theirs))
    ]
    assert error(gradients[0], [g.double() for g in gradients[1]]) < 6 * floor(dtype, path)
    # the same sequences, padded
    h_before = ours(x, lengths=lengths.cuda())[1][0]
    torch.testing.assert_close(h_before, h_n, rtol=0, atol=3 * floor(dtype, path))


@pytest.mark.parametrize(("dtype", "path"), ON_PATHS)
def test_states_of_every_step(dtype, path, monkeypatch):
    """states.cell[t] is the c_n of the first t + 1 steps, and h = o * tanh(c)."""
    take(path, monkeypatch)
    ours, _ = pair(dtype, 16, 80)
    x = random(6, 5, 16, dtype=dtype)
    output, _, states = ours(x, return_gates=True)
    for t in range(6):
        _, (h, c) = ours(x[: t + 1])
        torch.testing.assert_close(states.hidden[0][t], h[0], rtol=0, atol=floor(dtype, path))
        torch.testing.assert_close(states.cell[0][t], c[0], rtol=0, atol=4 * floor(dtype, path))
    o = states.gates[0][:, :, 0, 3]
    h = (o.double() * states.cell[0].double().tanh()).to(dtype)
    torch.testing.assert_close(h, output, rtol=0, atol=2 * floor(dtype, path))


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize(
    "sizes", [(1, 3, 5), (1, 512, 1024), (5, 64, 64), (16, 40, 129), (64, 256, 256)]
)
def test_cell(dtype, sizes):
    batch, inputs, hidden = sizes
    torch.manual_seed(0)
    native = nn.LSTMCell(inputs, hidden, device="cuda", dtype=dtype)
    ours = lstm_kernels.LSTMCell.from_native(native)
    exact = nn.LSTMCell(inputs, hidden, device="cuda", dtype=torch.float64)
    exact.load_state_dict({k: v.double() for k, v in native.state_dict().items()})
    x, h, c = (random(batch, n, dtype=dtype, seed=n) for n in (inputs, hidden, hidden))

    def results(module, *tensors):
        tensors = [t.detach().clone().requires_grad_() for t in tensors]
        out = module(tensors[0], (tensors[1], tensors[2]))
        grads = torch.autograd.grad(
            sum(t.double().sum() for t in out), [*tensors, *module.parameters()]
        )
        return [t.detach() for t in out], grads

    wanted, wanted_grads = results(exact, x.double(), h.double(), c.double())
    theirs, their_grads = results(native, x, h, c)
    got, grads = results(ours, x, h, c)
    assert error(got, wanted) <= max(FLOOR[dtype], 3 * error(theirs, wanted))
    assert error(grads, wanted_grads) <= max(4 * FLOOR[dtype], 3 * error(their_grads, wanted_grads))


@pytest.mark.parametrize("ragged", [None, "packed", "lengths", "reset"])
def test_gradcheck(ragged):
    """Analytic against numerical gradients, through output, states and gates."""
    torch.manual_seed(0)
    bidirectional = ragged != "reset"
    module = lstm_kernels.LSTM(3, 4, 2, bidirectional=bidirectional, device="cuda").double()
    lengths = torch.tensor([4, 2, 3], device="cuda") if ragged == "lengths" else None
    reset = torch.rand(4, 3, device="cuda") < 0.3 if ragged == "reset" else None
    x = random(4, 3, 3, dtype=torch.float64).requires_grad_()

    def function(x, *parameters):
        given = dict(zip((n for n, _ in module.named_parameters()), parameters, strict=True))
        if ragged == "packed":
            x = pack_padded_sequence(x, torch.tensor([4, 3, 1]))
        output, last, states = torch.func.functional_call(
            module, given, (x,), {"lengths": lengths, "reset": reset, "return_gates": True}
        )
        tensors = [output, *states.cell, *states.gates]
        return [*last, *(t.data if ragged == "packed" else t for t in tensors)]

    assert torch.autograd.gradcheck(function, (x, *module.parameters()))


def test_the_paths_agree_at_sizes_that_matter():
    """The persistent kernels against the step path over many steps, forward and backward."""
    for hidden, batch in (
        (256, 1),
        (256, 64),
        (512, 8),
        (768, 16),
        (1024, 64),
        (1500, 4),
        (2048, 3),
    ):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            if dtype is torch.float32 and hidden > 1024:
                continue  # W_hh does not fit
            ours, _ = pair(dtype, 128, hidden, bidirectional=hidden == 512)
            x = random(64, batch, 128, dtype=dtype)
            seen = {}
            for path in PATHS:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("LSTM_KERNELS_CUDA_PATH", path)
                    patch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
                    output = ours(x)[0]
                    seen[path] = [
                        output.detach(),
                        *torch.autograd.grad(output.double().square().sum(), ours.parameters()),
                    ]
            tolerance = 3 * max(FLOOR[dtype], FLOOR[torch.float16])  # TF32 has float16's mantissa
            assert error(seen["persistent"], [t.double() for t in seen["step"]]) < tolerance


@pytest.mark.parametrize("dtype", FLOATING[1:], ids=str)
@pytest.mark.parametrize("ragged", [None, "packed", "lengths", "reset"])
def test_the_paths_agree_on_everything_that_is_differentiable(ragged, dtype):
    """Results and gradients of output, last states, every cell state and gate; D = 2 but for reset.

    The step path is compared with the equations in float64 (gradcheck), so it is the oracle here.
    """
    T, batch, hidden, D = 9, 11, 72, 1 if ragged == "reset" else 2
    ours, _ = pair(dtype, 20, hidden, bidirectional=D == 2)
    ends = torch.tensor([9, 9, 8, 6, 6, 5, 4, 3, 2, 1, 1])
    lengths = ends.cuda() if ragged == "lengths" else None
    draw = torch.Generator("cuda").manual_seed(5)
    reset = torch.rand(T, batch, generator=draw, device="cuda") < 0.3 if ragged == "reset" else None
    x = random(T, batch, 20, dtype=dtype)
    states = random(D, batch, hidden, dtype=dtype), random(D, batch, hidden, dtype=dtype, seed=2)
    seen = {}
    for path in PATHS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LSTM_KERNELS_CUDA_PATH", path)
            patch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
            inputs = leaves(x, *states)
            given = pack_padded_sequence(inputs[0], ends) if ragged == "packed" else inputs[0]
            output, last, more = ours(
                given, tuple(inputs[1:]), lengths=lengths, reset=reset, return_gates=True
            )
            tensors = [output, *more.cell, *more.gates]
            results = [t.data if ragged == "packed" else t for t in tensors] + [*last]
            upstream = [random(*t.shape, dtype=dtype, seed=k) for k, t in enumerate(results)]
            grads = torch.autograd.grad(results, [*inputs, *ours.parameters()], upstream)
        seen[path] = [t.detach() for t in results], grads
    tolerance = max(FLOOR[dtype], FLOOR[torch.float16])  # TF32 has float16's mantissa
    for k, allowed in enumerate((tolerance, 4 * tolerance)):
        exact = [t.double() for t in seen["step"][k]]
        assert error(seen["persistent"][k], exact) < allowed
