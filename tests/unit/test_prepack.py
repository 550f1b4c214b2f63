"""LSTM.prepack: the numbers of the plain call, never those of weights that are no more."""

import copy
import io
import pickle
import threading

import numpy as np
import pytest
import torch
from support import FLOATING, assert_equal, tensors
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import LSTM, _ops

NARROW = [torch.bfloat16, torch.float16]
# More rows than are computed on unpacked weights.
T, N, I, H = 9, 5, 7, 13
MODES = [torch.no_grad, torch.inference_mode]
OPTIONS = [
    {},
    {"bias": False},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "proj_size": 6, "bidirectional": True, "batch_first": True},
    {"proj_size": 3, "bias": False},
]


@pytest.fixture(params=MODES, ids=["no_grad", "inference_mode"])
def mode(request):
    """Both ways to record no gradient."""
    with request.param():
        yield request.param


def plain(module):
    """The same weights in a module that has packed nothing."""
    return copy.deepcopy(module).unpack()


def packs(module):
    return list(module._prepacked._layers)


def assert_current(module, x):
    """The packed module computes what its weights say now, and again on what it kept."""
    expected = plain(module)(x)
    assert_equal(module(x), expected)
    kept = packs(module)
    assert_equal(module(x), expected)
    assert all(a is b for a, b in zip(packs(module), kept, strict=True))


def rounded(module, dtype):
    """A copy whose matrices went through `dtype`, and whose biases did not."""
    copied = plain(module)
    with torch.no_grad():
        for weight in copied.parameters():
            if weight.dim() == 2:
                weight.copy_(weight.to(dtype))
    return copied


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["plain", "packed", "lengths", "states", "unbatched"])
def test_the_bits_are_those_of_the_plain_call(dtype, options, kind, mode):
    lstm = LSTM(I, H, dtype=dtype, **options).prepack()
    batch_first = lstm.batch_first
    x = torch.randn(*((N, 20) if batch_first else (20, N)), I, dtype=dtype)
    arguments, keywords = [x], {}
    if kind == "packed":
        lengths = torch.tensor([20, 3, 11, 1, 8])
        arguments = [pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)]
    elif kind == "lengths":
        keywords = {"lengths": torch.tensor([20, 0, 11, 1, 8])}
    elif kind == "states":
        layers = lstm.num_layers * (2 if lstm.bidirectional else 1)
        h = torch.randn(layers, N, lstm.proj_size or H, dtype=dtype)
        arguments.append((h, torch.randn(layers, N, H, dtype=dtype)))
        keywords = {"return_gates": True}
    elif kind == "unbatched":
        arguments = [torch.randn(30, I, dtype=dtype)]
    assert_equal(lstm(*arguments, **keywords), plain(lstm)(*arguments, **keywords))


@pytest.mark.parametrize("dtype", FLOATING)
def test_resets(dtype, mode):
    lstm = LSTM(I, H, num_layers=2, proj_size=6, dtype=dtype)
    x, reset = torch.randn(20, N, I, dtype=dtype), torch.rand(20, N) < 0.2
    assert_equal(lstm.prepack()(x, reset=reset), plain(lstm)(x, reset=reset))


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("steps", [1, 2, 16, 17, 40, 200])
@pytest.mark.parametrize("batch", [0, 1, 3, 100])
def test_any_length_and_batch(dtype, steps, batch, mode):
    lstm = LSTM(I, 37, bidirectional=True, dtype=dtype).prepack()
    x = torch.randn(steps, batch, I, dtype=dtype)
    assert_equal(lstm(x), plain(lstm)(x))


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (1, 8), (1, 16), (1, 40), (1, 60), (2, 40)])
def test_long_rows_of_weights(steps, batch, mode):
    """Unpacked weights take more rows there: both calls leave them unpacked, or neither does."""
    lstm = LSTM(300, 260).prepack()
    x = torch.randn(steps, batch, 300)
    assert_equal(lstm(x), plain(lstm)(x))


@pytest.mark.parametrize(("steps", "batch"), [(2, 1), (2, 8), (3, 5), (8, 2)])
def test_short_calls_read_what_is_packed_already(steps, batch, mode):
    """A plain call would not pack for them, and takes its sums in another order."""
    lstm = LSTM(300, 260).prepack()
    x = torch.randn(steps, batch, 300)
    for _ in range(2):
        # 560 products of up to 0.2 each, rounded to 2**-24 in either order.
        for one, other in zip(tensors(lstm(x)), tensors(plain(lstm)(x)), strict=True):
            assert_close(one, other, rtol=0, atol=560 * 0.2 * 2**-24)
        lstm.weight_hh_l0.data += 0.02 * torch.randn(1040, 260)
        lstm.weight_ih_l0.data += 0.02 * torch.randn(1040, 300)  # a stale pack would be far off


@pytest.mark.parametrize("weight_dtype", NARROW)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("steps", [1, 4, 60])
@pytest.mark.parametrize("batch", [0, 1, 5, 40])
def test_narrow_weights_are_rounded_and_nothing_else(weight_dtype, options, steps, batch, mode):
    lstm = LSTM(I, 37, **options)
    expected = rounded(lstm, weight_dtype)
    assert lstm.prepack(weight_dtype) is lstm
    x = torch.randn(*((batch, steps) if lstm.batch_first else (steps, batch)), I)
    if steps * batch > 16:
        assert_equal(lstm(x), expected(x))
    else:  # sums on unpacked weights are taken in another order: roundings of float32
        for one, other in zip(tensors(lstm(x)), tensors(expected(x)), strict=True):
            assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight_dtype", [None, *NARROW])
def test_narrow_results_do_not_depend_on_the_length(weight_dtype, mode):
    """One call of 40 steps, and 40 calls of one step that hand their states on."""
    lstm = LSTM(I, H, proj_size=5).prepack(weight_dtype)
    x = torch.randn(40, 1, I)
    whole, state = lstm(x)[0], None
    for t in range(40):
        step, state = lstm(x[t : t + 1], state)
        if weight_dtype is None:
            assert_close(step[0], whole[t], rtol=1e-5, atol=1e-6)
        else:
            assert_equal(step[0], whole[t])


@pytest.mark.parametrize("dtype", NARROW)
def test_a_narrow_module_may_name_its_own_dtype(dtype, mode):
    lstm = LSTM(I, H, dtype=dtype).prepack(dtype)
    x = torch.randn(T, N, I, dtype=dtype)
    assert_equal(lstm(x), plain(lstm)(x))
    x = torch.randn(1, 1, I, dtype=dtype)
    assert_equal(lstm(x), plain(lstm)(x))


# ---- never stale ---------------------------------------------------------------------------------


def in_place(lstm):
    lstm.weight_hh_l1[3, 2] += 1


def one_bit(lstm):
    """The least change there is, in the last number of the last matrix."""
    lstm.weight_hh_l1.view(torch.int32)[-1, -1] ^= 1


def through_data(lstm):
    for weight in lstm.parameters():  # a polyak update
        weight.data.mul_(0.9).add_(0.1)


def through_numpy(lstm):
    lstm.bias_hh_l0.detach().numpy()[5] = 3


def exchanged_rows(lstm):
    """The same numbers elsewhere: hidden units 1 and 9 of the second layer change places."""
    for weight in (lstm.weight_ih_l1, lstm.weight_hh_l1, lstm.bias_ih_l1, lstm.bias_hh_l1):
        gates = weight.view(4, H, *weight.shape[1:])
        gates[:, [1, 9]] = gates[:, [9, 1]]


def exchanged_layers(lstm):
    a, b = lstm.weight_hh_l0.clone(), lstm.weight_hh_l1.clone()
    lstm.weight_hh_l0.copy_(b)
    lstm.weight_hh_l1.copy_(a)


def negative_zero(lstm):
    lstm.weight_hh_l0.zero_()


def loaded(lstm):
    lstm.load_state_dict(LSTM(I, H, num_layers=2).state_dict())


def assigned(lstm):
    lstm.load_state_dict(LSTM(I, H, num_layers=2).state_dict(), assign=True)


def set_attribute(lstm):
    lstm.weight_ih_l0 = nn.Parameter(torch.randn(4 * H, I))


def set_data(lstm):
    lstm.weight_ih_l1.data = torch.randn(4 * H, H)


def initialized(lstm):
    nn.init.orthogonal_(lstm.weight_hh_l0)


def reset_parameters(lstm):
    lstm.reset_parameters()


def parametrized(lstm):
    parametrize.register_parametrization(lstm, "weight_hh_l0", nn.Softsign(), unsafe=True)


def from_vector(lstm):
    vector = torch.randn(sum(weight.numel() for weight in lstm.parameters()))
    nn.utils.vector_to_parameters(vector, lstm.parameters())


CHANGES = [
    in_place,
    one_bit,
    through_data,
    through_numpy,
    exchanged_rows,
    exchanged_layers,
    negative_zero,
    loaded,
    assigned,
    set_attribute,
    set_data,
    initialized,
    reset_parameters,
    parametrized,
    from_vector,
]


@pytest.mark.parametrize("weight_dtype", [None, *NARROW])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_weight_is_noticed(change, weight_dtype, mode):
    lstm = LSTM(I, H, num_layers=2).prepack(weight_dtype)
    x = torch.randn(T, N, I)
    before, kept = lstm(x)[0], packs(lstm)
    change(lstm)
    expected = (
        rounded(lstm, weight_dtype)
        if weight_dtype and change is not parametrized
        else copy.deepcopy(lstm).prepack(weight_dtype)
    )
    assert_equal(lstm(x), expected(x))
    if weight_dtype is None:
        assert_equal(lstm(x), plain(lstm)(x))
        assert not torch.equal(lstm(x)[0], before) or change is one_bit
    again = packs(lstm)
    assert not all(a is b for a, b in zip(again, kept, strict=True))
    lstm(x)
    assert all(a is b for a, b in zip(packs(lstm), again, strict=True))


@pytest.mark.parametrize("other", MODES)
def test_changes_between_modes(other, mode):
    """Packed in one mode, changed and repacked in another, used in the first."""
    lstm, x = LSTM(I, H).prepack(), torch.randn(T, N, I)
    with torch.inference_mode(False), other():
        lstm.weight_hh_l0.data = lstm.weight_hh_l0 * 2
        assert_current(lstm, x)
    assert_current(lstm, x)


def test_weights_of_inference_mode():
    """They have no version to tell a change by."""
    with torch.inference_mode():
        lstm, x = LSTM(I, H).prepack(), torch.randn(T, N, I)
        assert_current(lstm, x)
        lstm.weight_hh_l0.mul_(2)
        assert_current(lstm, x)


@pytest.mark.parametrize("dtype", FLOATING)
def test_only_the_changed_layer_is_packed_again(dtype, mode):
    lstm = LSTM(I, H, num_layers=3, dtype=dtype).prepack()
    x = torch.randn(T, N, I, dtype=dtype)
    before = packs(lstm)
    lstm.weight_hh_l1.mul_(2)
    assert_current(lstm, x)
    after = packs(lstm)
    assert [a is b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_every_number_counts(mode):
    """Each single number of each weight, changed in its last bit, and changed back."""
    lstm = LSTM(3, 5, bidirectional=True, proj_size=2).prepack()
    x = torch.randn(T, N, 3)
    for weight in lstm.parameters():
        bits = weight.view(torch.int32).view(-1)
        for k in range(weight.numel()):
            before = packs(lstm)[0]
            bits[k] ^= 1
            lstm(x)
            assert packs(lstm)[0] is not before
            bits[k] ^= 1
            assert_equal(lstm(x), plain(lstm)(x))


@pytest.mark.parametrize("threads", [1, 2])
def test_large_weights_are_read_whole(threads, mode):
    """A change far inside weights of several slices, by one thread and by two."""
    lstm, x = LSTM(300, 256).prepack(), torch.randn(20, 1, 300)
    given = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for at in (0, 100_000, 4 * 256 * 300 - 1):
            lstm.weight_ih_l0.view(-1)[at] += 1
            before = packs(lstm)[0]
            assert_current(lstm, x)
            assert packs(lstm)[0] is not before
    finally:
        torch.set_num_threads(given)


@pytest.mark.parametrize("weight_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_threads_may_change(options, weight_dtype, mode):
    """Packed by one thread, used and repacked by more, and the reverse."""
    lstm = LSTM(64, 150, **options)
    x = torch.randn(20, 20, 64)
    given = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = copy.deepcopy(lstm).prepack(weight_dtype)(x)
        for packing in (1, 3):
            torch.set_num_threads(packing)
            lstm.prepack(weight_dtype)
            for using in (1, 2, 5):
                torch.set_num_threads(using)
                kept = packs(lstm)
                assert_equal(lstm(x), expected)
                assert all(a is b for a, b in zip(packs(lstm), kept, strict=True))
    finally:
        torch.set_num_threads(given)


def test_gradients_are_those_of_the_live_weights():
    lstm, x = LSTM(I, H, num_layers=2).prepack(torch.bfloat16), torch.randn(T, N, I)
    twin = plain(lstm)
    for module in (lstm, twin):
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            module(x)[0].square().sum().backward()
            optimizer.step()
    assert_equal(list(lstm.parameters()), list(twin.parameters()))
    with torch.no_grad():
        assert_equal(lstm(x), rounded(twin, torch.bfloat16)(x))


def test_many_threads_while_the_weights_change_between_calls():
    """A thread that finds a stale pack replaces it; no thread reads half of one."""
    lstm = LSTM(16, 64, num_layers=2).prepack()
    x = torch.randn(20, 2, 16)
    with torch.no_grad():
        for _ in range(20):
            for weight in lstm.parameters():
                weight.normal_(std=0.1)
            expected = plain(lstm)(x)[0]
            results = []
            ready = threading.Barrier(4)

            def work(ready=ready, results=results):
                with torch.no_grad():
                    ready.wait()
                    results.extend(lstm(x)[0] for _ in range(3))

            workers = [threading.Thread(target=work) for _ in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            assert len(results) == 12
            assert all(torch.equal(result, expected) for result in results)


# ---- what does without packs ---------------------------------------------------------------------


def test_another_dtype_is_packed_anew_or_not_at_all(mode):
    x = torch.randn(T, N, I)
    for weight_dtype in (None, torch.bfloat16):
        lstm = LSTM(I, H).prepack(weight_dtype)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            lstm.to(dtype)
            assert_current(lstm, x.to(dtype))
        lstm.to(torch.float32)
        expected = lstm if weight_dtype is None else rounded(lstm, weight_dtype)
        assert_equal(lstm(x), expected(x))


@pytest.mark.parametrize("weight_dtype", [None, torch.bfloat16])
def test_autocast_to_another_dtype_uses_the_live_weights(weight_dtype, mode):
    lstm, x = LSTM(I, H).prepack(weight_dtype), torch.randn(T, N, I)
    kept = packs(lstm)
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(lstm(x), plain(lstm)(x))
    assert packs(lstm)[0] is kept[0]


def test_compile_and_export_use_the_live_weights():
    lstm = LSTM(I, H).prepack(torch.bfloat16)
    x = torch.randn(T, N, I)
    with torch.no_grad():
        torch._dynamo.reset()
        compiled = torch.compile(lstm, backend="aot_eager", fullgraph=True)
        expected = plain(lstm)(x)
        assert_equal(compiled(x), expected)
        for strict in (False, True):
            program = torch.export.export(lstm, (x,), strict=strict)
            assert "_prepacked_forward" not in str(program.graph)
            assert_equal(program.module()(x), expected)
        traced = torch.fx.experimental.proxy_tensor.make_fx(lstm)(x)
        assert "_prepacked_forward" not in str(traced.graph)
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as fake:
            assert lstm(fake.from_tensor(x))[0].shape == (T, N, H)
        assert_equal(lstm(x), rounded(lstm, torch.bfloat16)(x))


def test_functional_call_uses_the_weights_it_is_given(mode):
    lstm, x = LSTM(I, H).prepack(), torch.randn(T, N, I)
    other = LSTM(I, H)
    given = dict(other.named_parameters())
    assert_equal(torch.func.functional_call(lstm, given, (x,)), other(x))
    assert_current(lstm, x)


def test_torch_func_sees_through_packs():
    lstm, x = LSTM(I, H).prepack(torch.bfloat16), torch.randn(3, T, N, I)
    with torch.no_grad():
        mapped = torch.func.vmap(lambda x: lstm(x)[0])(x)
        expected = torch.stack([plain(lstm)(one)[0] for one in x])
        assert_close(mapped, expected, rtol=1e-5, atol=1e-6)


# ---- state ---------------------------------------------------------------------------------------


def load_safely(buffer):
    """What torch.load makes of a module where it trusts nothing but its class."""
    buffer.seek(0)
    with torch.serialization.safe_globals([LSTM, set]):
        return torch.load(buffer, weights_only=True)


def test_copies_pickles_and_state_dicts_know_nothing_of_packs(mode):
    lstm, twin = LSTM(I, H), LSTM(I, H)
    lstm.load_state_dict(twin.state_dict())
    x = torch.randn(T, N, I)
    description, size = repr(lstm), len(pickle.dumps(lstm))
    lstm.prepack(torch.bfloat16)
    assert repr(lstm) == description
    assert lstm.state_dict().keys() == twin.state_dict().keys()
    assert len(list(lstm.parameters())) == len(list(twin.parameters()))
    assert len(list(lstm.buffers())) == 0
    pickled = pickle.dumps(lstm)
    assert len(pickled) < size + 100
    buffer = io.BytesIO()
    torch.save(lstm, buffer)
    buffer.seek(0)
    for again in (
        pickle.loads(pickled),
        copy.deepcopy(lstm),
        torch.load(buffer, weights_only=False),
        load_safely(buffer),
    ):
        assert again._prepacked is None
        assert_equal(again(x), twin(x))
    assert_equal(lstm(x), rounded(lstm, torch.bfloat16)(x))


def test_copies_of_a_parametrized_module(mode):
    lstm = LSTM(I, H)
    parametrize.register_parametrization(lstm, "weight_hh_l0", nn.Softsign())
    lstm.prepack()
    x = torch.randn(T, N, I)
    copied = copy.deepcopy(lstm)
    assert copied._prepacked is None
    assert_equal(copied(x), lstm(x))
    lstm.parametrizations.weight_hh_l0.original.mul_(2)
    assert_current(lstm, x)


def test_conversions(mode):
    lstm, x = LSTM(I, H).prepack(torch.bfloat16), torch.randn(T, N, I)
    native = lstm.to_native()
    assert type(native) is nn.LSTM
    assert "_prepacked" not in vars(native)
    assert_close(native(x)[0], plain(lstm)(x)[0], rtol=1e-5, atol=1e-6)
    replaced = lstm_kernels.replace_lstm(nn.Sequential(native))[0].prepack()
    assert_equal(replaced(x), plain(lstm)(x))


def test_unpack(mode):
    lstm, x = LSTM(I, H), torch.randn(T, N, I)
    expected = lstm(x)
    assert lstm.unpack() is lstm
    assert not torch.equal(lstm.prepack(torch.bfloat16)(x)[0], expected[0])
    assert lstm.unpack() is lstm
    assert_equal(lstm(x), expected)


def test_packing_again_changes_the_dtype(mode):
    lstm, x = LSTM(I, H), torch.randn(T, N, I)
    expected = lstm(x)
    lstm.prepack(torch.bfloat16).prepack(torch.float16)
    assert_equal(lstm(x), rounded(lstm, torch.float16)(x))
    assert_equal(lstm.prepack()(x), expected)


@pytest.mark.parametrize("dtype", FLOATING)
def test_packs_take_what_the_docs_say(dtype, mode):
    """The memory of the weights, or half of it, up to vectors that are not full."""
    lstm = LSTM(256, 256, dtype=dtype).prepack()
    size = sum(weight.nbytes for weight in lstm.parameters())
    assert packs(lstm)[0].nbytes == pytest.approx(size, rel=0.01)
    if dtype is torch.float32:
        assert packs(lstm.prepack(torch.float16))[0].nbytes == pytest.approx(size / 2, rel=0.01)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "weight_dtype", "error", "message"),
    [
        (
            torch.float32,
            torch.float64,
            ValueError,
            "must be None or torch.bfloat16 or torch.float16",
        ),
        (torch.float32, torch.int8, ValueError, "for weights of torch.float32, got torch.int8"),
        (torch.float32, torch.float8_e4m3fn, ValueError, "got torch.float8_e4m3fn"),
        (torch.float64, torch.float32, ValueError, "must be None for weights of torch.float64"),
        (torch.float64, torch.bfloat16, ValueError, "must be None for weights of torch.float64"),
        (torch.bfloat16, torch.float32, ValueError, "must be None or torch.bfloat16 for weights"),
        (torch.bfloat16, torch.float16, ValueError, "must be None or torch.bfloat16 for weights"),
        (torch.float16, torch.bfloat16, ValueError, "must be None or torch.float16 for weights"),
        (torch.float32, "bfloat16", TypeError, "must be a torch.dtype or None, got str"),
    ],
)
def test_what_cannot_be_packed_raises_and_changes_nothing(dtype, weight_dtype, error, message):
    lstm = LSTM(I, H, dtype=dtype).prepack()
    kept = lstm._prepacked
    with pytest.raises(error, match=message):
        lstm.prepack(weight_dtype)
    assert lstm._prepacked is kept


def test_other_devices_have_no_packs():
    with pytest.raises(NotImplementedError, match="plain tensors on the CPU"):
        LSTM(I, H, device="meta").prepack()
    lstm = LSTM(I, H).prepack().to("meta")
    with torch.no_grad():
        assert lstm(torch.empty(T, N, I, device="meta"))[0].shape == (T, N, H)


def test_what_is_no_pack_raises():
    """A block of bytes that a kernel would trust is looked at first."""
    weights = list(LSTM(I, H).state_dict().values())
    packed = _ops.prepack_weights(weights, True, False, None)
    x = torch.randn(T, N, I)

    def run(packed):
        return _ops.prepacked_forward(
            packed, x, None, None, weights, True, False, None, None, None, False, False
        )

    assert run(packed)[-1].numel() == 0
    for wrong in (
        torch.zeros(0, dtype=torch.uint8),
        torch.zeros_like(packed),
        torch.randint(256, packed.shape, dtype=torch.uint8),
        packed[:-1],
        packed[8:],
        packed.view(1, -1),
        packed.view(torch.int8),
        torch.stack([packed, packed])[:, 0],
    ):
        with pytest.raises(RuntimeError, match="packed: expected what _prepack_weights returned"):
            run(wrong)
    other = [torch.randn(4 * 20, 9), torch.randn(4 * 20, 20)]
    *results, repacked = run(_ops.prepack_weights(other, False, False, torch.float16))
    assert repacked.shape != packed.shape  # the dtype that was asked for stays
    assert not torch.equal(results[0], run(packed)[0])


# ---- ops -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("weight_dtype", [None, *NARROW])
def test_the_ops_are_what_torch_expects(weight_dtype, stale):
    weights = list(LSTM(I, H).state_dict().values())
    torch.library.opcheck(
        torch.ops.lstm_kernels._prepack_weights.default, (weights, True, False, weight_dtype)
    )
    packed = _ops.prepack_weights(weights, True, False, weight_dtype)
    if stale:
        weights[1] += 1
    x = torch.randn(T, N, I)
    torch.library.opcheck(
        torch.ops.lstm_kernels._prepacked_forward.default,
        (x, None, None, weights, True, False, None, None, None, True, True, packed),
    )


def test_a_stale_pack_given_to_the_op_is_not_used():
    """Also where a program would hold it: the op itself compares."""
    weights = list(LSTM(I, H).state_dict().values())
    packed = _ops.prepack_weights(weights, True, False, None)
    arguments = (torch.randn(T, N, I), None, None, weights, True, False, *(None,) * 3, True, True)
    weights[0].view(-1)[0] += 1
    *results, repacked = _ops.prepacked_forward(packed, *arguments)
    assert_equal(results, _ops.eager_sequence_forward(*arguments))
    assert repacked.shape == packed.shape
    *results, again = _ops.prepacked_forward(repacked, *arguments)
    assert_equal(results, _ops.eager_sequence_forward(*arguments))
    assert again.numel() == 0


def test_numbers_are_told_apart_by_their_bits():
    """NaN equals itself here, and 0 is not -0: what matters is whether the bits are the same."""
    lstm, x = LSTM(I, H), torch.randn(T, N, I)
    with torch.no_grad():
        lstm.weight_hh_l0[0, 0] = np.nan
        lstm.prepack()
        kept = packs(lstm)
        lstm(x)
        assert packs(lstm)[0] is kept[0]
        lstm.weight_hh_l0[0, 0] = 0.0
        lstm(x)
        kept = packs(lstm)
        lstm.weight_hh_l0[0, 0] = -0.0
        lstm(x)
        assert packs(lstm)[0] is not kept[0]
