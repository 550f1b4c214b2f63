"""torch.func: every transform gives what the same transform of nn.LSTM, or a loop, gives."""

import pytest
import torch
from support import H, I, N, T, assert_same, tensors, twins, weigh
from torch import nn
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.testing import assert_close

import lstm_kernels

OPTIONS = [
    {},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"proj_size": 2, "bidirectional": True},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def _draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def _double(*sizes, **options):
    lstm, native = twins(*sizes, dtype=torch.float64, **options)
    return lstm, native, {name: p.detach() for name, p in lstm.named_parameters()}


def _loss(module, *given, **options):
    """weigh(results) as a function of the parameters and the input."""
    return lambda parameters, x: weigh(functional_call(module, parameters, (x, *given), options))


@each_option
def test_grad_and_vjp(options):
    lstm, native, parameters = _double(**options)
    x = _draw(T, N, I)
    both = (0, 1)
    assert_same(
        grad(_loss(lstm), both)(parameters, x)[0].values(),
        grad(_loss(native), both)(parameters, x)[0].values(),
    )
    _, pull = vjp(lstm, x)
    _, pull_native = vjp(native, x)
    cotangents = lambda module: torch.utils._pytree.tree_map(torch.cos, module(x))  # noqa: E731
    assert_same(pull(cotangents(lstm)), pull_native(cotangents(native)))


def test_jacrev():
    lstm, native, parameters = _double()
    x = _draw(T, N, I)
    jacobians = [
        jacrev(lambda p, m=module: functional_call(m, p, (x,))[0][-1])(parameters)
        for module in (lstm, native)
    ]
    assert_same(jacobians[0].values(), jacobians[1].values())


@each_option
def test_vmap_over_the_input_folds_into_one_call(options):
    """One op call per layer, whatever the size of the mapped axis."""
    lstm, native, _ = _double(**options)
    inputs = _draw(7, T, N, I)
    with torch.profiler.profile() as profile:
        actual = vmap(lstm)(inputs)
    calls = [event for event in profile.events() if "_sequence_forward" in event.name]
    assert len(calls) == lstm.num_layers
    expected = [
        torch.stack(rows) for rows in zip(*(tensors(native(x)) for x in inputs), strict=True)
    ]
    assert_same(actual, expected)


def test_vmap_over_other_axes_and_states():
    lstm, native, _ = _double()
    inputs, h0, c0 = _draw(T, N, 7, I), _draw(1, N, H, 7), _draw(1, N, H)
    actual = vmap(lambda x, h: lstm(x, (h, c0)), in_dims=(2, 3), out_dims=(1, 0))
    expected = [native(inputs[:, :, b], (h0[..., b], c0)) for b in range(7)]
    output, states = actual(inputs, h0)
    assert_close(output, torch.stack([result[0] for result in expected], 1))
    assert_close(states[1], torch.stack([result[1][1] for result in expected]))


def test_vmap_over_lengths_and_resets():
    lstm, _, _ = _double()
    x, lengths = _draw(T, N, I), torch.tensor([[0, 2, 5], [1, 5, 3]])
    actual = vmap(lambda n: lstm(x, lengths=n))(lengths)
    assert_same(
        actual,
        [torch.stack(r) for r in zip(*(tensors(lstm(x, lengths=n)) for n in lengths), strict=True)],
    )
    resets = torch.rand(2, T, N) < 0.4
    actual = vmap(lambda r: lstm(x, reset=r))(resets)
    assert_same(
        actual,
        [torch.stack(r) for r in zip(*(tensors(lstm(x, reset=r)) for r in resets), strict=True)],
    )


def test_vmap_over_weights_is_an_ensemble():
    members = [lstm_kernels.LSTM(I, H, num_layers=2) for _ in range(3)]
    parameters, buffers = stack_module_state(members)
    x = torch.randn(T, N, I)
    actual = vmap(lambda p, b: functional_call(members[0], (p, b), (x,))[0])(parameters, buffers)
    assert_close(actual, torch.stack([member.to_native()(x)[0] for member in members]))


@each_option
def test_per_sample_gradients(options):
    """vmap(grad): gradient b is that of sequence b alone."""
    lstm, native, parameters = _double(**options)
    inputs = _draw(4, T, N, I)
    actual = vmap(grad(_loss(lstm)), (None, 0))(parameters, inputs)
    for b, x in enumerate(inputs):
        expected = grad(_loss(native))(parameters, x)
        assert_same([g[b] for g in actual.values()], expected.values())


def test_per_sample_gradients_with_lengths_and_states():
    lstm, _, parameters = _double()
    inputs, lengths = _draw(4, T, N, I), torch.randint(0, T + 1, (4, N))
    loss = lambda p, x, n: weigh(  # noqa: E731
        functional_call(lstm, p, (x,), {"lengths": n, "return_gates": True})
    )
    actual = vmap(grad(loss), (None, 0, 0))(parameters, inputs, lengths)
    for b in range(4):
        expected = grad(loss)(parameters, inputs[b], lengths[b])
        assert_same([g[b] for g in actual.values()], expected.values())


def test_gradients_batched_by_autograd():
    """is_grads_batched, which vectorize=True asks for, maps the backward alone."""
    lstm, native, _ = _double()
    cell = lstm_kernels.LSTMCell(I, H, dtype=torch.float64)
    x = _draw(T, N, I)
    for ours, theirs in ((lstm, native), (cell, cell.to_native())):
        given = x if ours is lstm else x[0]
        actual, expected = (
            torch.autograd.functional.jacobian(
                lambda x, m=m: tensors(m(x))[-1].sum(-1), given, vectorize=vectorize
            )
            for m, vectorize in ((ours, True), (theirs, False))
        )
        assert_close(actual, expected)
    actual, expected = (
        torch.autograd.functional.hessian(lambda x, m=m: weigh(m(x)), x, vectorize=vectorize)
        for m, vectorize in ((lstm, True), (native, False))
    )
    assert_close(actual, expected)


@each_option
def test_forward_mode_agrees_with_reverse_mode(options):
    """<u, J v> is the same number by jvp as by vjp, to rounding."""
    lstm, _, _ = _double(**options)
    x, tangent = _draw(T, N, I), _draw(T, N, I)
    call = lambda x: tensors(lstm(x, return_gates=True))  # noqa: E731
    outputs, pushed = jvp(call, (x,), (tangent,))
    pulled, pull = vjp(call, x)
    assert_same(outputs, pulled)
    cotangents = [torch.cos(output) for output in outputs]
    assert_close(
        sum((u * t).sum() for u, t in zip(cotangents, pushed, strict=True)),
        (pull(cotangents)[0] * tangent).sum(),
    )


def test_forward_mode_through_weights_and_states():
    lstm, native, parameters = _double(num_layers=2)
    x, states = _draw(T, N, I), (_draw(2, N, H), _draw(2, N, H))
    tangents = {name: torch.randn_like(p) for name, p in parameters.items()}

    def call(module):
        return lambda p, h, c: functional_call(module, p, (x, (h, c)))

    moving = (tangents, *map(torch.randn_like, states))
    _, pushed = jvp(call(lstm), (parameters, *states), moving)
    # nn.LSTM has no forward mode: the derivative along a line, from its reverse mode.
    step = torch.zeros((), dtype=torch.float64)

    def along(s):
        moved = {name: p + s * tangents[name] for name, p in parameters.items()}
        shifted = [v + s * t for v, t in zip(states, moving[1:], strict=True)]
        return call(native)(moved, *shifted)

    assert_same(pushed, jacrev(along)(step))


def test_dual_tensors():
    lstm, native, _ = _double()
    x, tangent = _draw(T, N, I), _draw(T, N, I)
    with torch.autograd.forward_ad.dual_level():
        output = lstm(torch.autograd.forward_ad.make_dual(x, tangent))[0]
        primal, pushed = torch.autograd.forward_ad.unpack_dual(output)
    assert_close(primal, native(x)[0])
    along = jacrev(lambda s: native(x + s * tangent)[0])(torch.zeros((), dtype=torch.float64))
    assert_close(pushed, along)


@pytest.mark.parametrize("weight", ["weight_hh_l0", "bias_ih_l0", "weight_ih_l0_reverse"])
def test_hessian(weight):
    lstm, native, parameters = _double(2, 3, bidirectional=True)
    x = _draw(4, 2, 2)

    def loss(module):
        return lambda w: weigh(functional_call(module, {**parameters, weight: w}, (x,)))

    expected = jacrev(jacrev(loss(native)))(parameters[weight])
    assert_close(hessian(loss(lstm))(parameters[weight]), expected)
    assert_close(jacrev(jacfwd(loss(lstm)))(parameters[weight]), expected)
    assert_close(jacfwd(jacfwd(loss(lstm)))(parameters[weight]), expected)
    assert_close(jacrev(jacrev(loss(lstm)))(parameters[weight]), expected)


def test_hessian_vector_product():
    """Forward over reverse, as recommended, against reverse over reverse of nn.LSTM."""
    lstm, native, parameters = _double()
    x = _draw(T, N, I)
    vector = {name: torch.randn_like(p) for name, p in parameters.items()}
    _, actual = jvp(lambda p: grad(_loss(lstm))(p, x), (parameters,), (vector,))
    _, pull = vjp(lambda p: grad(_loss(native))(p, x), parameters)
    assert_same(actual.values(), pull(vector)[0].values())


def test_cell():
    cell = lstm_kernels.LSTMCell(I, H, dtype=torch.float64)
    native = cell.to_native()
    parameters = {name: p.detach() for name, p in cell.named_parameters()}
    inputs, states = _draw(3, N, I), (_draw(N, H), _draw(N, H))
    actual = vmap(grad(_loss(cell, states)), (None, 0))(parameters, inputs)
    for b, x in enumerate(inputs):
        expected = grad(_loss(native, states))(parameters, x)
        assert_same([g[b] for g in actual.values()], expected.values())
    curved = lambda m: lambda x: weigh(m(x, states))  # noqa: E731
    assert_close(hessian(curved(cell))(inputs[0]), jacrev(jacrev(curved(native)))(inputs[0]))


def test_second_order_meta_learning():
    """MAML: the gradient of the loss after one step of gradient descent."""
    lstm, native, parameters = _double()
    x, y = _draw(T, N, I), _draw(T, N, I)

    def after_one_step(module):
        def loss(p):
            slope = grad(_loss(module))(p, x)
            return _loss(module)({name: v - 0.1 * slope[name] for name, v in p.items()}, y)

        return grad(loss)(parameters)

    assert_same(after_one_step(lstm).values(), after_one_step(native).values())


def test_gradient_penalty():
    """WGAN-GP: backward through the norm of a gradient, which cuDNN's LSTM refuses."""
    lstm, native = twins(dtype=torch.float64)
    x = _draw(T, N, I).requires_grad_()
    found = []
    for module in (lstm, native):
        (slope,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        found.append(torch.autograd.grad(penalty, [x, *module.parameters()]))
    assert_same(*found)


def test_second_derivatives_through_states_and_gates():
    lstm, _ = twins(2, 3, dtype=torch.float64)
    x = _draw(3, 2, 2).requires_grad_()
    h0, c0 = _draw(1, 2, 3).requires_grad_(), _draw(1, 2, 3).requires_grad_()

    def call(x, h0, c0, *weights):
        parameters = dict(zip(lstm._flat_weights_names, weights, strict=True))
        results = functional_call(lstm, parameters, (x, (h0, c0)), {"return_gates": True})
        return tuple(tensors(results))

    inputs = (x, h0, c0, *lstm.parameters())
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


def test_packed_sequences_transform_too():
    """nn.LSTM's packed path fails in torch.func; autograd says what must come out."""
    lstm, native, parameters = _double(bidirectional=True)
    packed = nn.utils.rnn.pack_padded_sequence(_draw(T, N, I), [2, 5, 3], enforce_sorted=False)

    def loss(module, p):
        output, states = functional_call(module, p, (packed,))
        return weigh((output.data, states))

    slope = grad(lambda p: loss(lstm, p))
    weights = list(native.parameters())
    expected = torch.autograd.grad(loss(native, {}), weights, create_graph=True)
    assert_same(slope(parameters).values(), expected)
    curvature = torch.autograd.grad(expected, weights, [w.detach() for w in weights])
    assert_same(jvp(slope, (parameters,), (parameters,))[1].values(), curvature)


def test_mapping_batch_sizes_raises():
    lstm, _, _ = _double()
    weights = list(lstm.parameters())

    def call(sizes):
        packed = nn.utils.rnn.PackedSequence(_draw(4, I), sizes)
        return lstm_kernels.lstm(packed, None, weights)[0].data

    with pytest.raises((ValueError, RuntimeError)):
        vmap(call)(torch.tensor([[2, 1, 1], [2, 2, 0]]))
