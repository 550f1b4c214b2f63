"""float32 on the CPU where torch lets its RNNs round the factors of products to bfloat16.

On a CPU whose kernels multiply bfloat16 no faster, the switch changes nothing. All of this holds
there as well.
"""

import copy
import itertools

import pytest
import torch
from support import assert_equal, precision_of_rnns, tensors, twins, weigh
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_kernels import LSTM, LSTMCell, Variant, _ops, _variant_ops

T, I = 7, 9
UNIT = 2**-8  # the largest relative error of a number that is rounded to bfloat16
STACKS = {
    "one layer": {},
    "bidirectional": {"bidirectional": True},
    "two layers": {"num_layers": 2},
    "all": {"num_layers": 2, "bidirectional": True},
}
CASES = {
    f"{kind}, {name}": (kind, options)
    for kind in ("padded", "packed", "lengths", "reset")
    for name, options in STACKS.items()
    if kind != "reset" or "bidirectional" not in options
}


def lengths_of(batch):
    return torch.arange(batch) * 5 % T + 1


def run(module, kind, x, h, c):
    """Output, padded, h_n and c_n of one of our LSTMs or an nn.LSTM."""
    batch = x.shape[1]
    lengths = lengths_of(batch)
    ours = isinstance(module, LSTM)
    if kind == "packed" or (kind == "lengths" and not ours):
        packed, states = module(pack_padded_sequence(x, lengths, enforce_sorted=False), (h, c))
        return pad_packed_sequence(packed, total_length=T)[0], *states
    if kind != "reset":
        output, states = module(x, (h, c), **({"lengths": lengths} if kind == "lengths" else {}))
        return output, *states
    reset = (torch.arange(T)[:, None] + torch.arange(batch)) % 4 == 0
    if ours:
        output, states = module(x, (h, c), reset=reset)
        return output, *states
    outputs = []
    for t in range(T):
        keep = ~reset[t, :, None]
        output, (h, c) = module(x[t : t + 1], (h * keep, c * keep))
        outputs.append(output)
    return torch.cat(outputs), h, c


def case(hidden_size, batch, **options):
    """Twins, ours in float32, and an input and states for them."""
    lstm, native = twins(I, hidden_size, **options)
    rows = lstm.num_layers * (1 + lstm.bidirectional)
    sizes = (T, batch, I), (rows, batch, lstm.proj_size or hidden_size), (rows, batch, hidden_size)
    return lstm, native.double(), [torch.randn(size) for size in sizes]


def with_all_gradients(module, kind, given):
    inputs = [value.clone().requires_grad_() for value in given]
    results = run(module, kind, *inputs)
    return list(results), list(torch.autograd.grad(weigh(results), [*inputs, *module.parameters()]))


@pytest.mark.parametrize(("kind", "stack"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("hidden_size", [1, 20, 70])
def test_results_and_gradients_are_off_by_the_rounding_of_factors_alone(hidden_size, kind, stack):
    """The error of a gate is about one unit, since weights are at most 1 / sqrt(H).

    In these cases, an LSTM in float64 that rounds the factors of all products, forward and
    backward, is off by up to 1.8 units in results. Its gradients are off by up to 5.8 units of
    their largest number, an error that grows with the steps back.
    """
    for batch, projects in itertools.product((1, 5, 17), (False, True)):
        options = {**stack, "proj_size": hidden_size // 2 if projects else 0}
        lstm, native, given = case(hidden_size, batch, **options)
        expected, expected_gradients = with_all_gradients(
            native, kind, [value.double() for value in given]
        )
        with precision_of_rnns("bf16"):
            results, gradients = with_all_gradients(lstm, kind, given)
            with torch.no_grad():
                inference = run(lstm, kind, *given)
        for one, other in zip((*results, *inference), 2 * expected, strict=True):
            assert (one - other).abs().max() < 4 * UNIT
        for one, other in zip(gradients, expected_gradients, strict=True):
            assert (one - other).abs().max() <= 2 * T * UNIT * other.abs().max()


@pytest.mark.parametrize(("kind", "stack"), CASES.values(), ids=CASES)
def test_last_state_is_the_last_output(kind, stack):
    """States are not rounded: h_n has the bits of the output that it is."""
    for hidden_size, batch in itertools.product((1, 20, 70), (1, 5, 17)):
        lstm, _, given = case(hidden_size, batch, **stack)
        ends = lengths_of(batch) if kind in ("packed", "lengths") else torch.full((batch,), T)
        with precision_of_rnns("bf16"):
            results = run(lstm, kind, *given)
            with torch.no_grad():
                inference = run(lstm, kind, *given)
        for output, h_n, _ in (results, inference):
            each = output.unflatten(-1, (1 + lstm.bidirectional, -1)).unbind(2)
            last = [each[0][ends - 1, torch.arange(batch)], *(own[0] for own in each[1:])]
            assert_equal(h_n[-len(last) :], torch.stack(last))


def prepacked(**options):
    return LSTM(I, 20, **options).requires_grad_(False).prepack()


@pytest.mark.parametrize("weight_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_owned_weights_follow_the_switch_as_it_was_when_they_were_laid_out(stack, weight_dtype):
    """With rows enough, they give the bits of a plain call with the switch."""
    for batch, projects in itertools.product((5, 17), (False, True)):
        lstm, _, (x, h, c) = case(70, batch, **stack, proj_size=20 if projects else 0)
        with torch.no_grad():
            for name, weight in lstm.named_parameters():
                if weight_dtype is not None and name.startswith("weight"):
                    weight.copy_(weight.to(weight_dtype))
        plain, loaded = (lstm.for_inference(weight_dtype) for _ in range(2))
        exact = run(plain, "padded", x, h, c)
        with precision_of_rnns("bf16"):
            made, copied = lstm.for_inference(weight_dtype), copy.deepcopy(plain)
            loaded.load_state_dict(plain.state_dict())
            assert_equal(run(plain, "padded", x, h, c), exact)
            with torch.no_grad():
                expected = run(lstm, "padded", x, h, c)
        for module in (made, copied, loaded):
            assert_equal(run(module, "padded", x, h, c), expected)
            assert_equal(list(module.state_dict().values()), list(plain.state_dict().values()))


@pytest.mark.parametrize("weight_dtype", [None, torch.bfloat16])
def test_owned_weights_with_the_switch_are_off_by_the_rounding_of_factors_alone(weight_dtype):
    """Steps of few rows too, of cells and streams, whose weights have one form for all."""
    for hidden_size, batch in itertools.product((1, 20, 70), (1, 2, 5)):
        lstm, native, (x, h, c) = case(hidden_size, batch, num_layers=2)
        cell = LSTMCell(I, hidden_size)
        with precision_of_rnns("bf16"):
            module, step = (made.for_inference(weight_dtype) for made in (lstm, cell))
        expected, _ = native(x.double(), (h.double(), c.double()))
        stream = module.stream(batch, (h, c))
        for got in (module(x, (h, c))[0], torch.stack([stream(x_t) for x_t in x])):
            assert (got - expected).abs().max() < 4 * UNIT
        for one, other in zip(step(x[0], (h[0], c[0])), cell(x[0], (h[0], c[0])), strict=True):
            assert (one - other).abs().max() < 4 * UNIT


@pytest.mark.parametrize("weight_dtype", [torch.float16, torch.int8])
def test_owned_weights_that_ignore_the_switch(weight_dtype):
    lstm, _, (x, h, c) = case(20, 17)
    plain = lstm.for_inference(weight_dtype)
    with precision_of_rnns("bf16"):
        made = lstm.for_inference(weight_dtype)
    assert_equal(made(x, (h, c)), plain(x, (h, c)))


IGNORE_IT = {
    "float64": lambda: LSTM(I, 20, 2, dtype=torch.float64),
    "bfloat16": lambda: LSTM(I, 20, dtype=torch.bfloat16),
    "variant": lambda: LSTM(I, 20, 2, proj_size=7, variant=Variant(peephole=True)),
    "layer norm": lambda: LSTM(I, 20, variant=Variant(layer_norm="separate")),
    "masked gates": lambda: LSTM(I, 20, variant=Variant(recurrent_dropout=0.5, dropout_on="gates")),
    "prepacked": prepacked,
    "prepacked, both directions": lambda: prepacked(num_layers=2, bidirectional=True),
    "for inference": lambda: LSTM(I, 20, 2).for_inference(),
    "cell": lambda: LSTMCell(I, 20),
    "cell for inference": lambda: LSTMCell(I, 20).for_inference(),
}


def bits(module, precision, steps, batch):
    """Results, and gradients where there are any, with torch's switch at `precision`."""
    torch.manual_seed(1)
    parameters = [p for p in module.parameters() if p.requires_grad]
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    is_cell = "Cell" in type(module).__name__
    x = torch.randn(*(() if is_cell else (steps,)), batch, I, dtype=dtype)
    with precision_of_rnns(precision):
        results = tensors(module(x.requires_grad_(bool(parameters))))
        if not parameters:
            return results
        return [*results, *torch.autograd.grad(weigh(results), [x, *parameters])]


@pytest.mark.parametrize("make", IGNORE_IT.values(), ids=IGNORE_IT)
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (3, 2), (T, 17)])
def test_switch_is_for_plain_calls_in_float32(make, steps, batch):
    torch.manual_seed(0)
    module = make()
    assert_equal(bits(module, "bf16", steps, batch), bits(module, "none", steps, batch))


@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
def test_default_is_full_precision(before):
    """Bits are those from before the switch was used, which no other setting of it changes."""
    module = LSTM(I, 20, 2, bidirectional=True)
    first = bits(module, "none", T, 17)
    bits(module, "bf16", T, 17)
    assert_equal(bits(module, before, T, 17), first)


OF_TRAINING = ("_sequence_forward", "_sequence_backward", "_weight_gradients", "_input_gradient")


def spied(monkeypatch, module, names):
    """What each of these ops of a module is told from now on."""
    told = {}
    for name in names:
        op = getattr(module, name)

        def spy(*arguments, name=name, op=op):
            index = [argument.name for argument in op._schema.arguments].index("reduced_precision")
            told.setdefault(name, set()).add(arguments[index] if index < len(arguments) else False)
            return op(*arguments)

        monkeypatch.setattr(module, name, spy)
    return told


@pytest.mark.parametrize("precision", ["none", "bf16"])
def test_each_op_of_a_training_step_is_told(monkeypatch, precision):
    told = spied(monkeypatch, _ops, OF_TRAINING)
    bits(LSTM(I, 20, 2, bidirectional=True, proj_size=7), precision, T, 5)
    assert told == {name: {precision == "bf16"} for name in OF_TRAINING}


def test_in_eager_mode_each_pass_asks_for_itself(monkeypatch):
    told = spied(monkeypatch, _ops, OF_TRAINING)
    x = torch.randn(T, 5, I, requires_grad=True)
    with precision_of_rnns("bf16"):
        loss = weigh(LSTM(I, 20)(x))
    with precision_of_rnns("none"):
        loss.backward()
    assert told.pop("_sequence_forward") == {True}
    assert told == {name: {False} for name in OF_TRAINING[1:]}


def exported(precision, **options):
    """A program that was recorded with this precision."""
    module = LSTM(I, 20, 2, **options)
    with precision_of_rnns(precision):
        return torch.export.export(module, (torch.randn(T, 5, I),)).module()


RECORDED = [("none", "bf16"), ("bf16", "none")]


@pytest.mark.parametrize(("precision", "other"), RECORDED)
@pytest.mark.parametrize("recompute", [False, True])
def test_each_op_of_a_graph_is_told_what_it_was_recorded_with(
    monkeypatch, precision, other, recompute
):
    program = exported(precision, bidirectional=True, proj_size=7, recompute=recompute)
    told = spied(monkeypatch, _ops, OF_TRAINING)
    bits(program, other, T, 5)
    assert told == {name: {precision == "bf16"} for name in OF_TRAINING}


@pytest.mark.parametrize(("precision", "other"), RECORDED)
@pytest.mark.parametrize("recompute", [False, True])
def test_a_graph_under_transforms_keeps_what_it_was_recorded_with(
    monkeypatch, precision, other, recompute
):
    """But for products that may be differentiated again, which are those of plain torch."""
    program = exported(precision, recompute=recompute)
    weights = dict(program.named_parameters())
    several = {name: torch.stack([weight, weight]) for name, weight in weights.items()}
    x = torch.randn(2, T, 5, I)

    def loss(weights, x):
        return weigh(torch.func.functional_call(program, weights, (x,)))

    gradient = torch.func.grad(loss, (0, 1))
    ops = OF_TRAINING[:2]
    for transformed, *given in (
        (torch.func.vmap(gradient, (None, 0)), weights, x),
        (torch.func.vmap(gradient), several, x),
        (torch.func.jacrev(lambda x: program(x)[0][-1, 0]), x[0]),
    ):
        with monkeypatch.context() as patch, precision_of_rnns(other):
            told = spied(patch, _ops, ops)
            transformed(*given)
        assert told == {name: {precision == "bf16"} for name in ops}


@pytest.mark.parametrize(("precision", "other"), RECORDED)
def test_variants_ops_are_told_what_the_graph_was_recorded_with(monkeypatch, precision, other):
    """They matter on CUDA alone; so do products, which on the CPU stay in full precision."""
    program = exported(precision, variant=Variant(peephole=True))
    told = spied(monkeypatch, _variant_ops, ("_forward", "_backward"))
    products = spied(monkeypatch, _ops, OF_TRAINING[2:])
    bits(program, other, T, 5)
    assert told == {name: {precision == "bf16"} for name in ("_forward", "_backward")}
    assert products == {name: {False} for name in OF_TRAINING[2:]}


def test_inference_without_states_is_told(monkeypatch):
    """The shortest call of the op leaves its defaults out."""
    calls = []
    op = _ops._sequence_forward
    monkeypatch.setattr(_ops, "_sequence_forward", lambda *a: calls.append(a) or op(*a))
    module, x = LSTM(I, 20), torch.randn(T, 2, I)
    with torch.no_grad():
        for precision in ("none", "bf16"):
            with precision_of_rnns(precision):
                module(x)
    assert [len(call) for call in calls] == [6, 12]
    assert calls[1][-1] is True
