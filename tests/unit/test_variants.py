"""Variants: every option and all combinations, against equations in NumPy and in closed form."""

import copy
import pickle
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import variant_oracle
from hypothesis import assume, given, settings
from support import assert_equal, assert_same, rounding, tensors, weigh
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import (
    LSTM,
    LSTMCell,
    Masks,
    Variant,
    VariantWeights,
    _variants,
    lstm,
    lstm_cell,
)
from lstm_kernels._variants import ACTIVATIONS

T, N, I, H, P = 5, 3, 4, 6, 2
DROPPED = ("recurrent_dropout", "weight_dropout", "zoneout_cell", "zoneout_hidden")


@st.composite
def variants(draw):
    """Any variant that does not contradict itself."""
    activation = st.sampled_from(list(ACTIVATIONS))
    smooth = st.sampled_from(["sigmoid", "tanh", "hardsigmoid", "softsign"])
    probability = st.sampled_from([0.0, 0.3])
    coupled = draw(st.sampled_from([None, None, "input", "forget"]))
    return Variant(
        peephole=draw(st.booleans()),
        coupled=coupled,
        clip=draw(st.sampled_from([None, 0.5])),
        cell_clip=draw(st.sampled_from([None, 0.3])),
        # Gates beyond 1 would let the cell state grow without bound.
        activations=(draw(smooth), draw(activation), draw(activation)),
        layer_norm=draw(st.sampled_from([None, "joint", "separate"])),
        cell_norm=draw(st.sampled_from([None, "carried", "output"])),
        norm_eps=draw(st.sampled_from([1e-5, 0.1])),
        recurrent_dropout=draw(probability),
        dropout_on=draw(st.sampled_from(["hidden", "gates", "candidate"])),
        dropout_per_step=draw(st.booleans()),
        weight_dropout=draw(probability),
        zoneout_cell=draw(probability),
        zoneout_hidden=draw(probability),
        input_gate=coupled != "input" and draw(st.booleans()),
    )


class Layer:
    """A layer of a variant with all that its call needs, in float64."""

    def __init__(self, variant, *, directions=1, projects=False, bias=True, masks=True, seed=0):
        self.variant, self.directions = variant, directions
        self.h_size = P if projects else H
        generator = torch.Generator().manual_seed(seed)
        self.random = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)
        self.bits = lambda *size: (self.random(*size) > 0).double()
        self.x = self.random(T, N, I)
        self.hx = self.random(directions, N, self.h_size), self.random(directions, N, H)
        shapes = [(4 * H, I), (4 * H, self.h_size)]
        shapes += [(4 * H,), (4 * H,)] if bias else []
        shapes += [(self.h_size, H)] if projects else []
        self.weights = [self.random(*shape) for _ in range(directions) for shape in shapes]
        self.extra = [
            VariantWeights(
                **{name: self.random(*s) for name, s in variant.weight_shapes(H).items()}
            )
            for _ in range(directions if variant.weight_shapes(H) else 0)
        ]
        self.input_gate = (
            self.random(T, N, directions * H).sigmoid() if variant.input_gate else None
        )
        self.masks = self.draw_masks() if masks else None

    def draw_masks(self):
        D, F = self.directions, self.h_size
        size = {"hidden": (N, D * F), "gates": (N, D, 4, F), "candidate": (N, D * H)}
        shape = size[self.variant.dropout_on]
        shape = (T, *shape) if self.variant.dropout_per_step else shape
        return Masks(
            recurrent=self.bits(*shape) / 0.7 if self.variant.recurrent_dropout else None,
            zoneout_cell=self.bits(T, N, D * H) if self.variant.zoneout_cell else None,
            zoneout_hidden=self.bits(T, N, D * F) if self.variant.zoneout_hidden else None,
            weight=[self.bits(4 * H, F) for _ in range(D)] if self.variant.weight_dropout else None,
        )

    def bind(self, **given):
        masks = None if self.masks is None else [self.masks]
        return self.variant.bind(self.extra, masks=masks, input_gate=self.input_gate, **given)

    def run(self, x=None, reset_state=None, **options):
        return lstm(
            self.x if x is None else x,
            self.hx,
            self.weights,
            bidirectional=self.directions == 2,
            variant=self.bind(reset_state=reset_state),
            return_gates=True,
            **options,
        )

    def expected(self, lengths=(T,) * N, reset=None, reset_state=None):
        """The same from the oracle, padded: output, h_n, c_n, cell and gates."""
        D = self.directions
        each = len(self.weights) // D
        output, cell = np.zeros((T, N, D, self.h_size)), np.zeros((T, N, D, H))
        gates = np.zeros((T, N, D, 4, H))
        h_n, c_n = (state.numpy().copy() for state in self.hx)
        masks = self.masks or Masks()
        for d in range(D):
            own = [w.numpy() for w in self.weights[d * each : (d + 1) * each]]
            w_ih, w_hh, *rest = own
            b_ih, b_hh, *w_hr = rest if each >= 4 else (None, None, *rest)
            if masks.weight is not None:
                w_hh = w_hh * masks.weight[d].numpy()
            extra = self.extra[d]._asdict() if self.extra else VariantWeights()._asdict()
            w = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
            w["w_hr"] = w_hr[0] if w_hr else None
            w.update({k: None if v is None else v.numpy() for k, v in extra.items()})
            for n, length in enumerate(lengths):
                times = list(range(length))[:: -1 if d else 1]
                if not times:
                    continue

                def at(name, s, n=n, d=d, times=times):
                    return self.at(name, times[s], n, d, masks, reset_state)

                h, c, of_gates, h_n[d, n], c_n[d, n] = variant_oracle.run(
                    self.variant,
                    self.x.numpy()[times, n],
                    h_n[d, n],
                    c_n[d, n],
                    w,
                    at,
                    None if reset is None else reset.numpy()[times, n],
                )
                output[times, n, d], cell[times, n, d], gates[times, n, d] = h, c, of_gates
        return [
            torch.from_numpy(value)
            for value in (output.reshape(T, N, -1), h_n, c_n, cell.reshape(T, N, -1), gates)
        ]

    def at(self, name, t, n, d, masks, reset_state):
        if name.startswith("reset"):
            if reset_state is None:
                return None
            state = reset_state[name == "reset_c"]
            return state.numpy()[t, d, n] if state.dim() == 4 else state.numpy()[d, n]
        value = self.input_gate if name == "input_gate" else getattr(masks, name)
        if value is None:
            return None
        gates = name == "recurrent" and self.variant.dropout_on == "gates"
        if value.dim() == (5 if gates else 3):
            value = value[t]
        value = value[n]
        return (value[d] if gates else value.unflatten(0, (self.directions, -1))[d]).numpy()


def assert_as_the_oracle(found, layer, *call, dtype=torch.float64):
    """What was found is what the oracle says of the same call, if that is determined.

    A norm of values that hardly differ enlarges every rounding, step after step. Where norms of
    values that are one unit in the last place off move the oracle by a tenth of the tolerance, a
    call, which rounds many times as often, may differ by all of it: hypothesis draws again.
    """
    norm, unit = variant_oracle.normalised, torch.finfo(dtype).eps
    generator = np.random.default_rng(0)

    def norm_of_moved(z, eps):
        return norm(z * (1 + unit * generator.integers(-1, 2, z.shape)), eps)

    exact = layer.expected(*call)
    with mock.patch.object(variant_oracle, "normalised", norm_of_moved):
        moved = [layer.expected(*call) for _ in range(4)]
    # In a narrower type norms divide by deviations of the size of its rounding.
    tolerance = rounding(dtype, (20 if dtype is torch.float64 else 40) * T)
    tenth = {name: value / 10 for name, value in tolerance.items()}
    for other in moved:
        assume(all(torch.allclose(*pair, **tenth) for pair in zip(other, exact, strict=True)))
    assert_same(found, exact, **tolerance)


def results(returned):
    """Output, h_n, c_n, cell and gates of what lstm() returned of one layer."""
    output, (h_n, c_n), states = returned
    return output, h_n, c_n, states.cell[0], states.gates[0]


@settings(max_examples=120, deadline=None)
@given(
    variant=variants(),
    directions=st.sampled_from([1, 2]),
    projects=st.booleans(),
    bias=st.booleans(),
    gradients=st.booleans(),
)
def test_every_combination_is_what_the_equations_say(
    variant, directions, projects, bias, gradients
):
    layer = Layer(variant, directions=directions, projects=projects, bias=bias)
    with torch.set_grad_enabled(gradients):
        found = results(layer.run())
    assert_as_the_oracle(found, layer)


@settings(max_examples=40, deadline=None)
@given(
    variant=variants(),
    directions=st.sampled_from([1, 2]),
    lengths=st.lists(st.integers(0, T), min_size=N, max_size=N),
)
def test_sequences_of_different_lengths(variant, directions, lengths):
    layer = Layer(variant, directions=directions)
    got = results(layer.run(lengths=torch.tensor(lengths)))
    assert_as_the_oracle(got, layer, lengths)


@settings(max_examples=40, deadline=None)
@given(variant=variants(), directions=st.sampled_from([1, 2]), lengths=st.permutations([T, 2, 3]))
def test_packed_sequences(variant, directions, lengths):
    layer = Layer(variant, directions=directions)
    packed = pack_padded_sequence(layer.x, torch.tensor(lengths), enforce_sorted=False)
    output, h_n, c_n, cell, gates = results(layer.run(packed))
    padded = [pad_packed_sequence(value)[0] for value in (output, cell, gates)]
    got = padded[0], h_n, c_n, *padded[1:]
    assert_as_the_oracle(got, layer, lengths)


@pytest.mark.parametrize("per_step", [None, False, True], ids=["zeros", "one state", "per step"])
@settings(max_examples=40, deadline=None)
@given(variant=variants())
def test_resets_to_zeros_and_to_given_states(variant, per_step):
    layer = Layer(variant)
    reset = layer.random(T, N) > 0
    states = None
    if per_step is not None:
        steps = (T,) if per_step else ()
        states = layer.random(*steps, 1, N, H), layer.random(*steps, 1, N, H)
    got = results(layer.run(reset=reset, reset_state=states))
    assert_as_the_oracle(got, layer, (T,) * N, reset, states)


def test_a_plain_lstm_resets_to_given_states_too():
    layer = Layer(Variant())
    reset = torch.zeros(T, N, dtype=torch.bool)
    reset[2] = True
    state = layer.random(1, N, H), layer.random(1, N, H)
    output, _, _ = layer.run(reset=reset, reset_state=state)
    start = lstm(layer.x[2:], state, layer.weights)
    assert_close(output[2:], start[0])


@settings(max_examples=40, deadline=None)
@given(variant=variants())
def test_without_masks_nothing_is_drawn_in_eval(variant):
    layer = Layer(variant, masks=False)
    before = torch.get_rng_state()
    got = results(layer.run(training=False))
    assert torch.equal(before, torch.get_rng_state())
    assert_as_the_oracle(got, layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@settings(max_examples=40, deadline=None)
@given(variant=variants())
def test_narrower_dtypes_are_as_exact_as_they_can_be(variant, dtype):
    layer = Layer(variant)
    narrow = copy.copy(layer)
    to = lambda value: None if value is None else value.to(dtype)  # noqa: E731
    back = lambda value: None if value is None else value.to(dtype).double()  # noqa: E731
    for chosen, change in ((narrow, to), (layer, back)):
        chosen.x, chosen.input_gate = change(layer.x), change(layer.input_gate)
        chosen.hx = tuple(change(state) for state in layer.hx)
        chosen.weights = [change(0.2 * w) for w in Layer(variant).weights]
        chosen.extra = [VariantWeights(*map(change, extra)) for extra in Layer(variant).extra]
        masks = layer.masks
        chosen.masks = Masks(*map(change, masks[:3]), masks.weight)
    got = results(narrow.run())
    assert all(value.dtype is dtype for value in got)
    assert_as_the_oracle([value.double() for value in got], layer, dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(variant=variants(), directions=st.sampled_from([1, 2]), projects=st.booleans())
def test_gradients_are_those_of_the_equations(variant, directions, projects):
    layer = Layer(variant, directions=directions, projects=projects)
    leaves, run = as_function(layer)
    found = torch.autograd.grad(weigh(run(*leaves)), leaves, allow_unused=True)
    direction = [layer.random(*leaf.shape) for leaf in leaves]
    exact = sum((g * d).sum() for g, d in zip(found, direction, strict=True) if g is not None)

    def difference(length):
        """A central difference: exact to about 1e-6, unless a kink lies within its length."""
        step = [length * d for d in direction]
        with torch.no_grad():
            moved = [run(*(v + s * d for v, d in zip(leaves, step, strict=True))) for s in (1, -1)]
        return (weigh(moved[0]) - weigh(moved[1])) / (2 * length)

    differences = [difference(length) for length in (1e-6, 1e-7, 1e-8)]
    nearest = min(differences, key=lambda numeric: abs(numeric - exact).item())
    assert_close(exact, nearest, rtol=1e-3, atol=1e-2)


def as_function(layer):
    """The layer's differentiable tensors, and its results as a function of them."""
    names = [name for name in VariantWeights._fields if name in layer.variant.weight_shapes(H)]
    values = [layer.x, *layer.hx, *layer.weights]
    values += [getattr(extra, name) for extra in layer.extra for name in names]
    values += [] if layer.input_gate is None else [layer.input_gate]

    def run(x, h, c, *rest):
        other = copy.copy(layer)
        rest = list(rest)
        other.x, other.hx = x, (h, c)
        other.weights = [rest.pop(0) for _ in layer.weights]
        other.extra = [VariantWeights(**{n: rest.pop(0) for n in names}) for _ in layer.extra]
        other.input_gate = rest.pop(0) if rest else None
        return results(other.run())

    return [value.clone().requires_grad_() for value in values], run


SOME = {
    "peephole, clip": Variant(peephole=True, clip=1.5, cell_clip=1.0),
    "CIFG, zoneout": Variant(coupled="input", zoneout_cell=0.2, zoneout_hidden=0.3),
    "f = 1 - i, hard sigmoid": Variant(
        coupled="forget", activations=("HardSigmoid", "softsign", "tanh")
    ),
    "layer norm": Variant(layer_norm="separate", cell_norm="carried"),
    "joint layer norm": Variant(layer_norm="joint", cell_norm="output"),
    "dropout": Variant(recurrent_dropout=0.3, weight_dropout=0.2),
    "dropout of gates": Variant(recurrent_dropout=0.3, dropout_on="gates", dropout_per_step=True),
    "dropout of g, input gate": Variant(
        recurrent_dropout=0.3, dropout_on="candidate", input_gate=True
    ),
}
each_variant = pytest.mark.parametrize("variant", SOME.values(), ids=SOME)


@each_variant
def test_second_derivatives(variant):
    leaves, run = as_function(Layer(variant))
    few = [0, 1, 2, 4, len(leaves) - 1]

    def of_few(*values):
        every = [leaf.detach() for leaf in leaves]
        for k, value in zip(few, values, strict=True):
            every[k] = value
        return run(*every)

    chosen = [leaves[k].detach().requires_grad_() for k in few]
    assert torch.autograd.gradcheck(of_few, chosen, fast_mode=True)
    assert torch.autograd.gradgradcheck(of_few, chosen, fast_mode=True)


@each_variant
def test_transforms_of_functions(variant):
    """grad, vmap, jvp and jacrev agree with what a loop and backward() say."""
    layer = Layer(variant)
    leaves, run = as_function(layer)
    values = [leaf.detach() for leaf in leaves]
    loss = lambda *given: weigh(run(*given))  # noqa: E731
    everything = tuple(range(len(values)))
    by_backward = torch.autograd.grad(loss(*leaves), leaves, allow_unused=True)
    by_backward = [
        torch.zeros_like(v) if g is None else g for v, g in zip(leaves, by_backward, strict=True)
    ]
    assert_same(torch.func.grad(loss, everything)(*values), by_backward)
    tangents = [layer.random(*value.shape) for value in values]
    _, forward = torch.func.jvp(loss, tuple(values), tuple(tangents))
    assert_close(forward, sum((g * t).sum() for g, t in zip(by_backward, tangents, strict=True)))
    inputs = layer.random(2, *layer.x.shape)
    mapped = torch.func.vmap(lambda x: run(x, *values[1:]))(inputs)
    for b in range(2):
        assert_same([value[b] for value in mapped], run(inputs[b], *values[1:]))


@each_variant
def test_recomputing_gives_the_same_gradients(variant):
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = LSTM(I, H, 2, dropout=0.1, recompute=recompute, variant=variant)
        module = LSTM(I, H, variant=variant) if variant.input_gate else module
        gate = torch.full((N, H), 0.5) if variant.input_gate else None
        x = torch.linspace(-1, 1, T * N * I).view(T, N, I).requires_grad_()
        torch.manual_seed(1)
        output = module(x, input_gate=gate)
        parameters = [*module.parameters(), x]
        gradients = torch.autograd.grad(weigh(output), parameters, allow_unused=True)
        found.append((*tensors(output), *gradients))
    assert_equal(*found)


@each_variant
def test_the_same_seed_draws_the_same_masks(variant):
    if variant.input_gate:
        pytest.skip("several layers have no one input gate")
    module = LSTM(I, H, 2, bidirectional=True, variant=variant).double()
    x = torch.randn(T, N, I, dtype=torch.float64)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(module(x)[0])
    assert_equal(outputs[0], outputs[1])
    random = any(getattr(variant, name) for name in DROPPED)
    assert torch.equal(outputs[0], outputs[2]) is not random
    module.eval()
    assert_equal(module(x), module(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9])
def test_masks_are_as_probable_as_they_should_be(p, dtype):
    """Within five deviations; and from one number to the next, independent of each other."""
    torch.manual_seed(0)
    like, size = torch.empty(0, dtype=dtype), (7, 11, 4001)  # an odd number of them
    ones, factors = _variants._bernoulli(like, size, p), _variants._dropout(like, size, p)
    for drawn, high, of_high in ((ones, 1.0, p), (factors, 1 / (1 - p), 1 - p)):
        assert drawn.shape == size
        assert drawn.dtype is dtype
        is_high = drawn != 0
        assert_same(drawn[is_high], torch.full_like(drawn[is_high], high), rtol=0, atol=0)
        found = is_high.double().flatten()
        count = found.numel()
        deviation = (of_high * (1 - of_high) / count) ** 0.5
        assert abs(found.mean().item() - of_high) < 5 * deviation
        for apart in (1, 2, 4001):
            off = found - of_high
            assert abs((off[apart:] * off[:-apart]).mean().item()) < 5 * deviation**2 * count**0.5


def test_masks_of_probability_one_are_ones():
    assert bool(_variants._bernoulli(torch.empty(0), (3, 5), 1.0).all())


@pytest.mark.parametrize("gradients", [True, False])
@each_variant
def test_cell_is_one_step(variant, gradients):
    layer = Layer(variant, masks=False)
    cell = LSTMCell(I, H, variant=variant).double().eval()
    extra = [value for value in (layer.extra or [()])[0] if value is not None]
    for parameter, value in zip(cell.parameters(), [*layer.weights, *extra], strict=True):
        parameter.data.copy_(value)
    gate = None if layer.input_gate is None else layer.input_gate[0]
    with torch.set_grad_enabled(gradients):
        h, c, gates = cell(
            layer.x[0], (layer.hx[0][0], layer.hx[1][0]), return_gates=True, input_gate=gate
        )
        one = cell(
            layer.x[0, 0],
            (layer.hx[0][0, 0], layer.hx[1][0, 0]),
            input_gate=None if gate is None else gate[0],
        )
        from_zeros = cell(layer.x[0], input_gate=gate)
        zeros = tuple(torch.zeros_like(state[0]) for state in layer.hx)
        assert_equal(from_zeros, cell(layer.x[0], zeros, input_gate=gate))
    output, _, _, cells, all_gates = layer.expected()
    assert_close(h, output[0])
    assert_close(c, cells[0])
    assert_close(gates, all_gates[0, :, 0])
    assert_close(one[0], h[0])


def test_layouts_of_input_and_masks():
    """batch_first and unbatched calls are the same numbers in another layout."""
    variant = Variant(zoneout_cell=0.5, recurrent_dropout=0.3, dropout_on="gates", input_gate=True)
    layer = Layer(variant)
    output = layer.run()[0]
    swap = lambda value: value.transpose(0, 1)  # noqa: E731
    masks = layer.masks._replace(zoneout_cell=swap(layer.masks.zoneout_cell))
    bound = variant.bind(masks=[masks], input_gate=swap(layer.input_gate))
    first = lstm(swap(layer.x), layer.hx, layer.weights, batch_first=True, variant=bound)
    assert_equal(swap(first[0]), output)
    masks = Masks(layer.masks.recurrent[1], layer.masks.zoneout_cell[:, 1])
    bound = variant.bind(masks=[masks], input_gate=layer.input_gate[:, 1])
    hx = tuple(state[:, 1] for state in layer.hx)
    assert_close(lstm(layer.x[:, 1], hx, layer.weights, variant=bound)[0], output[:, 1])


# ---- closed forms -------------------------------------------------------------------------------


def plain_and(variant, dtype=torch.float32):
    torch.manual_seed(0)
    plain = LSTM(I, H, dtype=dtype)
    module = LSTM(I, H, dtype=dtype, variant=variant)
    module.load_state_dict(plain.state_dict(), strict=False)
    return plain, module, torch.randn(T, N, I, dtype=dtype)


def test_a_zoneout_of_one_keeps_the_first_states_and_of_zero_none():
    hx = torch.randn(1, N, H), torch.randn(1, N, H)
    plain, module, x = plain_and(Variant(zoneout_cell=1.0, zoneout_hidden=1.0))
    for training in (True, False):
        module.train(training)
        output, states = module(x, hx)
        assert_equal(states, hx)
        assert_equal(output, hx[0].expand(T, N, H))
    kept = Masks(
        zoneout_cell=torch.zeros(T, N, H, dtype=torch.bool),
        zoneout_hidden=torch.zeros(T, N, H, dtype=torch.bool),
    )
    _, half, _ = plain_and(Variant(zoneout_cell=0.5, zoneout_hidden=0.5))
    assert_same(half(x, hx, masks=[kept]), plain(x, hx))


@pytest.mark.parametrize("on", ["hidden", "gates", "candidate"])
def test_a_dropout_of_zero_changes_nothing(on):
    plain, module, x = plain_and(Variant(recurrent_dropout=0.0, dropout_on=on, weight_dropout=0.0))
    assert_same(module(x), plain(x))


def test_weight_dropout_is_an_lstm_with_fewer_weights():
    plain, module, x = plain_and(Variant(weight_dropout=0.5))
    mask = (torch.rand(4 * H, H) > 0.5).float() * 2
    found = module(x, masks=[Masks(weight=[mask])])
    plain.weight_hh_l0.data *= mask
    assert_equal(found, plain(x))


@pytest.mark.parametrize("coupled", ["input", "forget"])
def test_a_coupled_gate_is_what_the_other_leaves(coupled):
    _, module, x = plain_and(Variant(coupled=coupled))
    gates = module(x, return_gates=True)[2].gates[0]
    i, f = gates[..., 0, :], gates[..., 1, :]
    assert_equal(i if coupled == "input" else f, 1 - (f if coupled == "input" else i))


def test_a_layer_norm_of_a_constant_is_the_bias():
    """All rows of the weights are alike, so that every pre-activation is its own mean."""
    _, module, x = plain_and(Variant(layer_norm="joint"))
    module.weight_ih_l0.data[:] = module.weight_ih_l0.data[0]
    module.weight_hh_l0.data[:] = module.weight_hh_l0.data[0]
    gates = module(x, return_gates=True)[2].gates[0]
    i, f, g, o = (module.bias_ih_l0 + module.bias_hh_l0).unflatten(0, (4, -1))
    expected = torch.stack([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()])
    assert_close(gates, expected.expand_as(gates), rtol=0, atol=1e-4)


# ---- modules ------------------------------------------------------------------------------------


def test_parameters_start_as_they_should_and_are_saved():
    variant = Variant(peephole=True, layer_norm="separate", cell_norm="carried")
    module = LSTM(I, H, 2, bidirectional=True, forget_bias=1.0, variant=variant)
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        bound = H**-0.5
        assert getattr(module, "peephole" + suffix).abs().max() <= bound
        assert_equal(getattr(module, "norm_gates" + suffix), torch.ones(2, 4 * H))
        cell = getattr(module, "norm_cell" + suffix)
        assert_equal(cell, torch.stack([torch.ones(H), torch.zeros(H)]))
        bias = getattr(module, "bias_ih" + suffix) + getattr(module, "bias_hh" + suffix)
        assert_equal(bias.unflatten(0, (4, H))[1], torch.ones(H))
        assert bias.sum() == H
    x = torch.randn(T, N, I)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_equal(other(x), module(x))
        assert other.variant == variant
    other = LSTM(I, H, 2, bidirectional=True, variant=variant)
    other.load_state_dict(module.state_dict())
    assert_equal(other(x), module(x))
    assert "variant=Variant(peephole=True" in repr(module)
    with pytest.raises(RuntimeError, match="peephole_l0"):
        other.load_state_dict(LSTM(I, H, 2, bidirectional=True).state_dict())


def test_modules_train():
    variant = Variant(peephole=True, zoneout_hidden=0.1, recurrent_dropout=0.1, layer_norm="joint")
    torch.manual_seed(0)
    module = LSTM(I, H, variant=variant)
    x = torch.randn(T, N, I)
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (module(x)[0] - 0.3).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_autocast_computes_in_its_dtype():
    _, module, x = plain_and(Variant(peephole=True, layer_norm="joint", recurrent_dropout=0.2))
    with torch.autocast("cpu", torch.bfloat16):
        output, states = module(x)
    assert {value.dtype for value in (output, *states)} == {torch.bfloat16}
    weigh(output.float()).backward()
    assert module.peephole_l0.grad.dtype is torch.float32


# ---- what a caller can get wrong ----------------------------------------------------------------

OPTIONS = {
    "coupled must be": (ValueError, {"coupled": "both"}),
    "layer_norm must be": (ValueError, {"layer_norm": "yes"}),
    "dropout_on must be": (ValueError, {"dropout_on": "cell"}),
    "clip must be positive": (ValueError, {"clip": -1.0}),
    "cell_clip must be positive": (ValueError, {"cell_clip": float("nan")}),
    "clip must be a number": (TypeError, {"clip": "3"}),
    "norm_eps must be positive": (ValueError, {"norm_eps": 0.0}),
    "recurrent_dropout must be a probability": (ValueError, {"recurrent_dropout": 1.0}),
    "weight_dropout must be a probability": (ValueError, {"weight_dropout": -0.1}),
    "zoneout_cell must be a probability": (ValueError, {"zoneout_cell": 1.5}),
    "peephole must be a bool": (TypeError, {"peephole": 1}),
    "activations must be three": (ValueError, {"activations": ("sigmoid", "tanh")}),
    "expected one of": (ValueError, {"activations": ("sigmoid", "tanh", "gelu")}),
    "takes 0 numbers": (ValueError, {"activations": (("sigmoid", 1.0), "tanh", "tanh")}),
    "both say what i is": (ValueError, {"input_gate": True, "coupled": "input"}),
}


@pytest.mark.parametrize("message", OPTIONS)
def test_bad_options(message):
    kind, options = OPTIONS[message]
    with pytest.raises(kind, match=message):
        Variant(**options)


def test_bad_tensors():
    x = torch.zeros(T, N, I)
    peephole = Variant(peephole=True)
    weights = [torch.zeros(4 * H, I), torch.zeros(4 * H, H)]

    def refuses(kind, message, variant, **options):
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients), pytest.raises(kind, match=message):
                lstm(x, None, weights, variant=variant, **options)

    refuses(TypeError, "variant must be a Variant", "peephole")
    refuses(ValueError, "expected 1 VariantWeights", peephole)
    refuses(ValueError, "needs a peephole", peephole.bind([VariantWeights()]))
    refuses(ValueError, "has no peephole", Variant().bind([VariantWeights(torch.zeros(3, H))]))
    refuses(
        RuntimeError,
        r"Expected peephole of size \[3, 6\], got \[3, 7\]",
        peephole.bind([VariantWeights(torch.zeros(3, H + 1))]),
    )
    refuses(
        RuntimeError,
        "same dtype",
        peephole.bind([VariantWeights(torch.zeros(3, H, dtype=torch.float64))]),
    )
    refuses(ValueError, "pass input_gate", Variant(input_gate=True))
    gate = torch.zeros(N, H)
    refuses(ValueError, "needs Variant", Variant().bind(input_gate=gate))
    refuses(RuntimeError, "Expected input_gate", Variant(input_gate=True).bind(input_gate=gate[:1]))
    refuses(ValueError, "needs reset", Variant().bind(reset_state=(gate[None], gate[None])))
    refuses(
        RuntimeError,
        "Expected reset_state, h of size",
        Variant().bind(reset_state=(gate, gate)),
        reset=torch.zeros(T, N, dtype=torch.bool),
    )
    refuses(ValueError, "Masks for each of 1 layers", Variant().bind(masks=[]))
    refuses(
        RuntimeError,
        "Expected masks, recurrent of size",
        Variant(recurrent_dropout=0.5).bind(masks=[Masks(recurrent=torch.zeros(H))]),
    )
    refuses(
        TypeError,
        "masks, zoneout_cell must be a Tensor",
        Variant(zoneout_cell=0.5).bind(masks=[Masks(zoneout_cell=0.5)]),
    )
    with pytest.raises(RuntimeError, match="Expected peephole"):
        lstm_cell(x[0], None, *weights, variant=peephole.bind([VariantWeights(gate[:2])]))
    with pytest.raises(TypeError, match="variant must be a Variant or None"):
        LSTM(I, H, variant="peephole")
    with pytest.raises(ValueError, match="does not compute Variant"):
        LSTM(I, H, variant=peephole).to_native()
    with pytest.raises(NotImplementedError, match="without a variant"):
        LSTM(I, H, variant=peephole).prepack()


def refuses_alike(function, arguments, gradients):
    """With a variant as without one."""
    with torch.set_grad_enabled(gradients):
        with pytest.raises(Exception) as plain:  # noqa: PT011 - whatever it is
            function(*arguments)
        with pytest.raises(plain.type) as of_variant:
            function(*arguments, variant=Variant(clip=3.0))
    assert str(of_variant.value) == str(plain.value)


@pytest.mark.parametrize("gradients", [True, False])
def test_bad_layers(gradients):
    """The arguments that plain layers have, too, are refused in the same words."""
    x, hx = torch.zeros(T, N, I), (torch.zeros(1, N, H), torch.zeros(1, N, H))
    weights = [torch.zeros(4 * H, I), torch.zeros(4 * H, H)]
    for arguments in (
        (x[..., 1:], hx, weights),
        (x[:0], hx, weights),
        (x[0, 0], hx, weights),
        (x.double(), hx, weights),
        (x.to_sparse(), hx, weights),
        (x, (hx[0][:, 1:], hx[1]), weights),
        (x, (hx[0][0], hx[1][0]), weights),
        (x, hx[0], weights),
        (x, hx[:1], weights),
        (x, (hx[0], hx[1].double()), weights),
        (x, hx, weights[:1]),
        (x, hx, [weights[0], weights[1][:, 1:]]),
        (x, hx, [weights[0], weights[1].double()]),
        (x, hx, [weights[0][1:], weights[1][1:]]),
        (x, hx, [*weights, torch.zeros(4 * H), torch.zeros(H)]),
    ):
        refuses_alike(lstm, arguments, gradients)


@pytest.mark.parametrize("gradients", [True, False])
def test_bad_steps(gradients):
    """As bad layers are."""
    x, hx = torch.zeros(N, I), (torch.zeros(N, H), torch.zeros(N, H))
    w_ih, w_hh, bias = torch.zeros(4 * H, I), torch.zeros(4 * H, H), torch.zeros(4 * H)
    for arguments in (
        (x[:, 1:], hx, w_ih, w_hh),
        (x[None], hx, w_ih, w_hh),
        (x.double(), hx, w_ih, w_hh),
        (x, (hx[0][1:], hx[1]), w_ih, w_hh),
        (x, (hx[0][0], hx[1][0]), w_ih, w_hh),
        (x, hx[0], w_ih, w_hh),
        (x, (hx[0], hx[1].double()), w_ih, w_hh),
        (x, hx, w_ih[1:], w_hh),
        (x, hx, w_ih, w_hh[:, 1:]),
        (x, hx, w_ih, w_hh, bias),
        (x, hx, w_ih, w_hh, bias, bias[1:]),
    ):
        refuses_alike(lstm_cell, arguments, gradients)


def test_variants_are_values():
    one = Variant(activations=("HardSigmoid", "Tanh", ("Affine", 2)))
    assert one == eval(repr(one), {"Variant": Variant})
    assert hash(one) == hash(Variant(activations=one.activations))
    assert (
        repr(one)
        == 'Variant(activations=(("hardsigmoid", 0.2, 0.5), "tanh", ("affine", 2.0, 0.0)))'
    )
    assert repr(Variant()) == "Variant()"
    assert lstm_kernels.Variant is Variant
