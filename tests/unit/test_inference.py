"""Modules that own their weights: the numbers and the contract of the LSTM they were made from."""

import copy
import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from support import FLOATING, arguments, assert_equal, assert_same, call, native, options, rounding
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import lstm_kernels
from lstm_kernels import LSTM, InferenceLSTM, LSTMCell, _inference_ops, _quantized, for_inference
from lstm_kernels._inference_ops import OwnedCall

NARROW = [torch.bfloat16, torch.float16]
SAVED = [None, *NARROW, torch.int8]
T, N, I, H = 9, 5, 7, 13
OPTIONS = [
    {},
    {"bias": False},
    {"num_layers": 3, "bidirectional": True},
    {"num_layers": 2, "proj_size": 6, "bidirectional": True, "batch_first": True},
    {"num_layers": 4, "proj_size": 3, "bias": False},
]


def rounded(module, dtype):
    """A copy whose matrices went through `dtype`, and whose biases did not."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() == 2:
                weight.copy_(weight.to(dtype))
    return module


@settings(max_examples=60, deadline=None)
@given(o=options())
def test_results_are_those_of_nn_lstm(o):
    """Every option and kind of input; nn.LSTM sums in another order."""
    module = native(o)
    x, h, c = arguments(o)
    with torch.no_grad():
        expected = call(module, o, x, h, c)
        got = call(LSTM.from_native(module).for_inference(), o, x, h, c)
    assert_same(got, expected, **rounding(torch.float64, o.steps * o.num_layers))


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("module_options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["plain", "states", "gates", "lengths", "reset", "unbatched"])
def test_the_bits_are_those_of_the_lstm(dtype, module_options, kind):
    lstm = LSTM(I, H, dtype=dtype, **module_options)
    swap = lstm.batch_first
    x = torch.randn(*((N, 20) if swap else (20, N)), I, dtype=dtype)
    directions = 2 if lstm.bidirectional else 1
    rows = lstm.num_layers * directions
    hx = (
        torch.randn(rows, N, lstm.proj_size or H, dtype=dtype),
        torch.randn(rows, N, H, dtype=dtype),
    )
    keywords = {}
    if kind == "states":
        keywords = {"return_states": True}
    elif kind == "gates":
        keywords = {"return_gates": True}
    elif kind == "lengths":
        keywords = {"lengths": torch.tensor([20, 0, 11, 1, 8], dtype=torch.int32)}
    elif kind == "reset":
        if directions == 2:
            pytest.skip("a reset has no meaning there")
        keywords = {"reset": (torch.rand(x.shape[:2]) < 0.2).to(dtype), "return_states": True}
    elif kind == "unbatched":
        x, hx = torch.randn(30, I, dtype=dtype), tuple(state[:, 0] for state in hx)
    module = lstm.for_inference()
    with torch.no_grad():
        for given_states in (None, hx):
            expected = lstm(x, given_states, **keywords)
            assert_equal(module(x, given_states, **keywords), expected)


@pytest.mark.parametrize("weight_dtype", NARROW)
def test_narrow_weights_give_the_bits_of_a_rounded_lstm(weight_dtype):
    lstm = LSTM(I, H, num_layers=2, proj_size=4, bidirectional=True)
    x = torch.randn(20, N, I)
    with torch.no_grad():
        expected = rounded(lstm, weight_dtype)(x)
    module = lstm.for_inference(weight_dtype)
    assert module.weight_hh_l0.dtype is weight_dtype
    assert module.bias_hh_l0.dtype is torch.float32
    assert_equal(module(x), expected)


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (1, 40), (2, 3), (8, 2), (300, 1), (3, 0)])
def test_short_long_and_empty_calls(steps, batch):
    """Short plain calls read unpacked weights, and sum in another order."""
    lstm = LSTM(300, 260, num_layers=2)
    x = torch.randn(steps, batch, 300)
    with torch.no_grad():
        expected = lstm(x)
    assert_same(lstm.for_inference()(x), expected, **rounding(torch.float32, 2 * steps, 560))


def test_threads_give_the_bits_of_one():
    module = LSTM(64, 96, num_layers=3).for_inference()
    x, before = torch.randn(12, 40, 64), torch.get_num_threads()
    expected = module(x)
    try:
        torch.set_num_threads(1)
        assert_equal(module(x), expected)
    finally:
        torch.set_num_threads(before)


def test_states_share_no_memory_with_the_output():
    module = LSTM(I, H, num_layers=2).for_inference()
    output, _, states = module(torch.randn(T, N, I), return_gates=True)
    kept = [hidden.clone() for hidden in states.hidden]
    output.zero_()
    assert_equal(list(states.hidden), kept)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("bias", [True, False])
def test_cell(dtype, bias):
    cell = LSTMCell(I, H, bias=bias, dtype=dtype)
    module = cell.for_inference()
    x, h, c = (torch.randn(N, size, dtype=dtype) for size in (I, H, H))
    with torch.no_grad():
        for hx in (None, (h, c)):
            expected = cell(x, hx, return_gates=True)
            assert_same(module(x, hx, return_gates=True), expected, **rounding(dtype, 1))
            assert_equal(module(x, hx), module(x, hx, return_gates=True)[:2])
        single = None if hx is None else (h[0], c[0])
        # Another number of rows is summed in the same order.
        assert_equal(module(x[0], single), tuple(state[0] for state in module(x, hx)))


@pytest.mark.parametrize("weight_dtype", SAVED)
def test_saved_loaded_copied_and_pickled(weight_dtype):
    lstm = LSTM(I, H, num_layers=2, proj_size=4, batch_first=True)
    module = lstm.for_inference(weight_dtype)
    x = torch.randn(N, T, I)
    expected = module(x)

    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    scales = [name for name in saved if name.endswith("_scale")]
    assert [name for name in saved if name not in scales] == list(lstm.state_dict())
    assert len(scales) == (6 if weight_dtype is torch.int8 else 0)
    assert saved["weight_ih_l1"].dtype is (weight_dtype or torch.float32)
    options = {"num_layers": 2, "proj_size": 4, "batch_first": True, "weight_dtype": weight_dtype}
    empty = InferenceLSTM(I, H, **options)
    assert not empty(x)[0].any()
    empty.load_state_dict(saved)
    assert_equal(empty(x), expected)

    assert_equal(copy.deepcopy(module)(x), expected)
    assert_equal(pickle.loads(pickle.dumps(module))(x), expected)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert_equal(torch.load(file, weights_only=False)(x), expected)


@pytest.mark.parametrize("weight_dtype", SAVED)
def test_what_is_saved_is_good_for_every_cpu(weight_dtype, tmp_path):
    """The lowest instruction set reads it. One step: in several, roundings to 8 bits may differ."""
    module, x = LSTM(I, H).for_inference(weight_dtype), torch.randn(1, N, I)
    torch.save((module.state_dict(), x, module(x)[0]), tmp_path / "saved")
    torch.save(module, tmp_path / "module")
    script = """
import sys, torch
from lstm_kernels import InferenceLSTM
saved, x, expected = torch.load(sys.argv[1] + "/saved", weights_only=True)
assert torch.ops.lstm_kernels._cpu_isa().startswith("baseline ")
module = torch.load(sys.argv[1] + "/module", weights_only=False)
made = InferenceLSTM(x.shape[2], expected.shape[2], weight_dtype=module.weight_dtype)
made.load_state_dict(saved)
for one in (module, made):
    torch.testing.assert_close(one(x)[0], expected, rtol=0, atol=1e-5)
"""
    environment = os.environ | {"LSTM_KERNELS_CPU_ISA": "baseline"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, timeout=300)


def test_what_is_laid_out_is_not_saved():
    module = LSTM(64, 64).for_inference()
    weights = sum(weight.nbytes for weight in module.state_dict().values())
    assert weights < len(pickle.dumps(module)) < weights + 5000


def test_a_format_or_dtype_that_cannot_be_read():
    module = LSTM(I, H).for_inference(torch.bfloat16)
    later = OrderedDict(module.state_dict())
    later._metadata = {"": {"version": 99}}
    with pytest.raises(RuntimeError, match="saved in format 99 by a later version"):
        module.load_state_dict(later)
    with pytest.raises(RuntimeError, match=r"weight_ih_l0: expected torch.bfloat16, got torch.fl"):
        module.load_state_dict(LSTM(I, H).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for weight_hh_l0"):
        module.load_state_dict(LSTM(I, H + 1).for_inference(torch.bfloat16).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})


def test_it_has_no_parameters_and_keeps_nothing_of_the_lstm():
    lstm = LSTM(I, H)
    module, x = lstm.for_inference(), torch.randn(T, N, I)
    expected = module(x)
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
    assert_equal(module(x), expected)
    assert not list(module.parameters())


@pytest.mark.parametrize("weight_dtype", SAVED)
@pytest.mark.parametrize("strict", [True, False])
def test_exported_programs_hold_the_weights_of_every_cpu(weight_dtype, strict):
    module = LSTM(I, H, num_layers=2, bidirectional=True).for_inference(weight_dtype)
    x = torch.randn(T, N, I)
    dynamic = {"input": {0: torch.export.Dim("T", min=2), 1: torch.export.Dim("N", min=2)}}
    program = torch.export.export(module, (x,), dynamic_shapes=dynamic, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert set(loaded.state_dict) == set(module.state_dict())
    assert all(tensor.dtype is not torch.uint8 for tensor in loaded.constants.values())
    for steps, batch in ((T, N), (20, 3)):
        x = torch.randn(steps, batch, I)
        # Plain ops decide by themselves whether to read packed weights.
        assert_same(loaded.module()(x), module(x), **rounding(torch.float32, steps))


@pytest.mark.parametrize("weight_dtype", SAVED)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_exported_and_traced_cells(weight_dtype):
    cell, x = LSTMCell(I, H).for_inference(weight_dtype), torch.randn(N, I)
    program = torch.export.export(cell, (x,))
    traced = torch.jit.trace(cell, (x,))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    for loaded in (program.module(), torch.jit.load(file)):
        assert_same(loaded(x), cell(x), **rounding(torch.float32, 1))


def test_compiled():
    module = LSTM(I, H, num_layers=2, proj_size=4).for_inference()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    lengths = torch.tensor([9, 0, 4, 1, 7])
    for keywords in ({}, {"return_gates": True}, {"lengths": lengths}):
        x = torch.randn(T, N, I)
        with torch.no_grad():
            assert_equal(compiled(x, **keywords), module(x, **keywords))
    cell = LSTMCell(I, H).for_inference()
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x[0]), cell(x[0]))


def test_fx_records_a_call_as_one_node():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.cell = LSTM(I, H).for_inference(), LSTMCell(H, H).for_inference()

        def forward(self, x, lengths):
            output, _, states = self.lstm(x, lengths=lengths, return_gates=True)
            return self.cell(output[0], return_gates=True), states.gates[0]

    model, x, lengths = Reader(), torch.randn(T, N, I), torch.tensor([9, 0, 4, 1, 7])
    traced = torch.fx.symbolic_trace(model)
    names = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert names == ["lstm", "cell"]
    assert_equal(traced(x, lengths), model(x, lengths))
    for module in (model.lstm, model.cell):
        with pytest.raises(NotImplementedError, match=r"cannot trace InferenceLSTM\w* alone"):
            torch.fx.symbolic_trace(module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripting_is_refused():
    for module in (LSTM(I, H).for_inference(), LSTMCell(I, H).for_inference()):
        with pytest.raises(NotImplementedError, match=r"cannot compile lstm_kernels\.Inference"):
            torch.jit.script(nn.Sequential(module))


def test_opcheck():
    module = LSTM(I, H, num_layers=2).for_inference()
    x, h, c = torch.randn(T, N, I), torch.randn(2, N, H), torch.randn(2, N, H)
    tests = ["test_schema", "test_faketensor"]
    ops = torch.ops.lstm_kernels
    stack = (module._owned, 2, H, H, False)
    torch.library.opcheck(ops._owned_forward, (x, h, c, *stack), test_utils=tests)
    torch.library.opcheck(
        ops._owned_states, (x, h, c, *stack, None, None, None, True), test_utils=tests
    )
    torch.library.opcheck(ops._owned_step, (x[0], h, c, module._owned), test_utils=tests)
    cell = LSTMCell(I, H).for_inference()
    torch.library.opcheck(ops._owned_cell, (x[0], h[0], c[0], cell._owned, True), test_utils=tests)
    weights = list(LSTM(I, H).state_dict().values())
    torch.library.opcheck(
        ops._own_weights, (weights, 1, True, False, None, False), test_utils=["test_schema"]
    )


def test_autocast_converts_what_comes():
    module = LSTM(I, H, num_layers=2).for_inference()
    x = torch.randn(T, N, I)
    with torch.autocast("cpu", torch.bfloat16):
        got = module(x.bfloat16())
    assert_equal(got, module(x.bfloat16().float()))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(I, H, batch_first=True)
        self.rest = nn.ModuleList([LSTM(H, H), nn.LSTMCell(H, H)])
        self.again = self.first
        self.linear = nn.Linear(H, H)

    def forward(self, x):
        x, _ = self.rest[0](self.first(x)[0])
        return self.linear(self.rest[1](x[0])[0])


def test_models_are_converted_in_place():
    model, x = Model(), torch.randn(N, T, I)
    with torch.no_grad():
        expected = model(x)
        assert for_inference(model) is model
        assert_same(model(x), expected, **rounding(torch.float32, T + 2))
    assert type(model.first) is type(model.rest[0]) is InferenceLSTM
    assert type(model.rest[1]) is lstm_kernels.InferenceLSTMCell
    assert model.again is model.first
    assert type(model.linear) is nn.Linear


def test_a_model_that_cannot_be_converted_stays_as_it_was():
    model = Model().double()
    with pytest.raises(ValueError, match="weight_dtype must be None or torch"):
        for_inference(model, torch.bfloat16)
    assert type(model.first) is nn.LSTM
    model = nn.Sequential(nn.LSTM(I, H), nn.LSTM(I, H, num_layers=2, dropout=0.5))
    with pytest.raises(RuntimeError, match=r"in training mode with dropout=0.5.*call eval\(\)"):
        for_inference(model)
    assert type(model[0]) is nn.LSTM
    assert type(for_inference(model.eval())[1]) is InferenceLSTM


def test_an_lstm_by_itself_and_its_subclass():
    assert type(for_inference(nn.LSTM(I, H))) is InferenceLSTM

    class Own(nn.LSTM):
        pass

    assert type(for_inference(nn.Sequential(Own(I, H)))[0]) is Own
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        for_inference(3)


def test_subclasses_are_converted_and_variants_are_not():
    model = nn.Sequential(lstm_kernels.nn.LSTM(I, H), lstm_kernels.nn.LSTMCell(I, H))
    for_inference(model)
    assert type(model[0]) is InferenceLSTM
    assert type(model[1]) is lstm_kernels.InferenceLSTMCell
    for kind in (LSTM, LSTMCell):
        module = kind(I, H, variant=lstm_kernels.Variant(coupled="input"))
        with pytest.raises(NotImplementedError, match="modules without a variant, got Variant"):
            for_inference(nn.Sequential(module))


def test_flops_are_those_of_the_lstm():
    lstm, x = LSTM(I, H, num_layers=2, proj_size=4, bidirectional=True), torch.randn(T, N, I)
    cell, plain = LSTMCell(I, H), LSTM(I, H)
    module, of_cell = lstm.for_inference(), cell.for_inference()
    stream = plain.for_inference().stream(N)
    pairs = [(lstm, module), (lambda x: cell(x[0]), lambda x: of_cell(x[0]))]
    pairs += [(lambda x: plain(x[:1]), lambda x: stream(x[0]))]
    pairs += [(lstm, lambda x: module(x, return_states=True))]
    for one, other in pairs:
        counts = []
        for call_one in (one, other):
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                call_one(x)
            counts.append(counter.get_total_flops())
        assert counts[0] == counts[1] > 0


def test_parametrized_weights_are_computed_once():
    lstm = nn.LSTM(I, H)
    nn.utils.parametrizations.spectral_norm(lstm, "weight_hh_l0")
    lstm.eval()
    x = torch.randn(T, N, I)
    assert parametrize.is_parametrized(lstm)
    with torch.no_grad():
        expected = lstm(x)
    assert_same(for_inference(lstm)(x), expected, **rounding(torch.float32, T))


def test_a_gradient_is_refused():
    module, x = LSTM(I, H).for_inference(), torch.randn(T, N, I, requires_grad=True)
    cell = LSTMCell(I, H).for_inference()
    message = "computes no gradients, but an argument requires one: call it under torch.no_grad"
    with pytest.raises(RuntimeError, match=message):
        module(x)
    state = torch.zeros(1, N, H, requires_grad=True)
    with pytest.raises(RuntimeError, match=message):
        module(x.detach(), (state, state))
    with pytest.raises(RuntimeError, match=message):
        cell(x[0])
    with torch.no_grad():
        assert not module(x)[0].requires_grad
    with pytest.raises(NotImplementedError, match=r"no part in the transforms of torch.func"):
        torch.func.vmap(module)(torch.randn(2, T, N, I))
    with pytest.raises(NotImplementedError, match="no part in the transforms"):
        torch.func.jvp(lambda x: cell(x)[0], (torch.randn(N, I),), (torch.randn(N, I),))


@pytest.mark.parametrize("grad", [True, False])
def test_what_does_not_fit_is_said_as_by_the_lstm(grad):
    lstm, x = LSTM(I, H, num_layers=2), torch.randn(T, N, I)
    module = lstm.for_inference()
    h, c = torch.zeros(2, N, H), torch.zeros(2, N, H)
    cases = [
        (x[..., :3],),
        (x.double(),),
        (x[:0],),
        (x.unsqueeze(0),),
        (x, (h[:1], c)),
        (x, (h, c[:, :2])),
        (x, (h.double(), c.double())),
        (x, h),
        (x[0], (h, c)),
        (x.int(),),
        (x.to("meta"),),
    ]
    with torch.set_grad_enabled(grad):
        for case in cases:
            with pytest.raises(Exception) as expected:  # noqa: PT011
                lstm(*case)
            with pytest.raises(type(expected.value)) as got:
                module(*case)
            assert str(got.value) == str(expected.value)
        for keywords in ({"lengths": torch.tensor([1, 2])}, {"reset": torch.zeros(T, N + 1)}):
            with pytest.raises((TypeError, RuntimeError), match=next(iter(keywords))):
                module(x, **keywords)
        cell = LSTMCell(I, H)
        for case in ((x[0, :, :3],), (x,), (x[0].double(),), (x[0], (h[0, :2], c[0])), (x[0], h)):
            with pytest.raises(Exception) as expected:  # noqa: PT011
                cell(*case)
            with pytest.raises(type(expected.value)) as got:
                cell.for_inference()(*case)
            assert str(got.value) == str(expected.value)


def test_bad_weight_dtypes_and_devices():
    for weight_dtype in (torch.float64, torch.int32):
        with pytest.raises(ValueError, match=rf"None or .* got {weight_dtype}"):
            LSTM(I, H).for_inference(weight_dtype)
    message = r"torch.bfloat16, got torch.float16: call float\(\) on the module first"
    with pytest.raises(ValueError, match=message):
        LSTM(I, H, dtype=torch.bfloat16).for_inference(torch.float16)
    with pytest.raises(TypeError, match=r"weight_dtype must be a torch.dtype or None, got str"):
        LSTM(I, H).for_inference("int8")
    with pytest.raises(NotImplementedError, match=r"weight_ih_l0 is on meta: call cpu\(\) first"):
        LSTM(I, H, device="meta").for_inference()
    mixed = LSTM(I, H)
    mixed.weight_hh_l0 = nn.Parameter(mixed.weight_hh_l0.double())
    with pytest.raises(ValueError, match=r"weights of one dtype, got weight_hh_l0 of torch.float6"):
        mixed.for_inference()
    module = LSTM(I, H).for_inference()
    for move in ({"dtype": torch.float64}, {"device": "meta"}):
        with pytest.raises(NotImplementedError, match="stays on the CPU"):
            module.to(**move)
    assert module.to("cpu") is module.float() is module.eval()


def test_a_block_of_bytes_that_is_none_of_ours():
    module, x = LSTM(I, H).for_inference(), torch.randn(T, N, I)
    block = module._owned
    for bad in (block[:-1], block[:8], block.float(), block[64:], torch.zeros_like(block)):
        with pytest.raises(RuntimeError, match="owned: expected what _own_weights returned"):
            _inference_ops.owned_forward(OwnedCall(x, None, None, bad, 1, H, H, False))
    with pytest.raises(RuntimeError, match="owned: expected weights of a stack of these sizes"):
        _inference_ops.owned_forward(OwnedCall(x, None, None, block, 2, H, H, False))


def test_repr_says_what_differs():
    module = LSTM(3, 4, num_layers=2, bias=False, batch_first=True).for_inference(torch.float16)
    assert repr(module) == (
        "InferenceLSTM(3, 4, bias=False, num_layers=2, batch_first=True, "
        "weight_dtype=torch.float16)"
    )
    assert repr(LSTMCell(3, 4, dtype=torch.float64).for_inference()) == (
        "InferenceLSTMCell(3, 4, dtype=torch.float64)"
    )


@pytest.mark.parametrize("weight_dtype", SAVED)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_stream_takes_the_steps_of_a_sequence(weight_dtype, threads):
    """The states after each step are those of the sequence, in the tensors that the stream has."""
    module = LSTM(I, H, num_layers=3, proj_size=4).for_inference(weight_dtype)
    x, h, c = torch.randn(T, N, I), torch.randn(3, N, 4), torch.randn(3, N, H)
    kept = h.clone(), c.clone()
    expected, hx, states = module(x, (h, c), return_states=True)
    stream, before = module.stream(N, (h, c)), torch.get_num_threads()
    hidden, cell = stream.hidden, stream.cell
    tolerance = rounding(torch.float32, 3 * T)
    try:
        torch.set_num_threads(threads)
        for t, row in enumerate(x):
            assert_close(stream(row), expected[t], **tolerance)
            for layer in range(3):
                assert_close(hidden[layer], states.hidden[layer][t], **tolerance)
                assert_close(cell[layer], states.cell[layer][t], **tolerance)
    finally:
        torch.set_num_threads(before)
    assert_same((hidden, cell), hx, **tolerance)
    assert_equal((h, c), kept)


@pytest.mark.parametrize("size", [64, 300])
def test_streams_of_many_sequences_on_threads(size):
    """Work enough for several threads, which read states that the call writes over."""
    module = LSTM(size, size, num_layers=2).for_inference()
    x = torch.randn(4, 70, size)
    expected, hx = module(x)
    stream = module.stream(70)
    outputs = torch.stack([stream(row) for row in x])
    assert_same(
        (outputs, (stream.hidden, stream.cell)), (expected, hx), **rounding(x.dtype, 8, size)
    )


def test_resets_of_a_stream():
    module, x = LSTM(I, H, num_layers=2).for_inference(), torch.randn(T, N, I)
    reset = torch.rand(T, N) < 0.3
    expected, _ = module(x, reset=reset)
    stream, other = module.stream(N), module.stream(N)
    for t in range(T):
        assert_close(stream(x[t], reset=reset[t].int()), expected[t], **rounding(x.dtype, 2 * T))
        assert_close(other.zero_(reset[t])(x[t]), expected[t], **rounding(x.dtype, 2 * T))
    assert other.zero_([1, 2]) is other
    assert not other.cell[:, 1:3].any()
    assert other.cell[:, [0, 3, 4]].all()
    assert not other.zero_().hidden.any()


def test_copies_of_a_stream_go_on_by_themselves():
    module, x = LSTM(I, H).for_inference(), torch.randn(2, N, I)
    stream = module.stream(N)
    stream(x[0])
    copies = [copy.deepcopy(stream), pickle.loads(pickle.dumps(stream)), copy.copy(stream)]
    expected = stream(x[1])
    assert_equal([copied(x[1]) for copied in copies[:2]], [expected, expected])
    assert copies[2].hidden is stream.hidden
    assert repr(stream) == f"LSTMStream({module!r}, batch={N})"


def test_streams_of_one_module_on_threads():
    """Each keeps its states, and the op releases Python's lock."""
    module, x = LSTM(64, 128, num_layers=2).for_inference(), torch.randn(4, 30, N, 64)

    def outputs(rows):
        stream = module.stream(N)
        return torch.stack([stream(row) for row in rows])

    expected = [outputs(rows) for rows in x]
    with ThreadPoolExecutor(4) as threads:
        assert_equal(list(threads.map(outputs, x)), expected)


def test_compiled_steps():
    module, x = LSTM(I, H, num_layers=2).for_inference(), torch.randn(3, N, I)
    stream, other = module.stream(N), module.stream(N)
    compiled = torch.compile(lambda x: 2 * stream(x), fullgraph=True, backend="aot_eager")
    for row in x:
        assert_equal(compiled(row), 2 * other(row))
    assert_equal((stream.hidden, stream.cell), (other.hidden, other.cell))


def test_a_stream_follows_its_module():
    module, x = LSTM(I, H).for_inference(), torch.randn(N, I)
    stream, other = module.stream(N), LSTM(I, H).for_inference()
    module.load_state_dict(other.state_dict())
    assert_equal(stream(x), other.stream(N)(x))


def test_steps_that_do_not_fit_leave_a_stream_as_it_was():
    module, x = LSTM(I, H, num_layers=2).for_inference(), torch.randn(N, I)
    stream = module.stream(N)
    stream(x)
    before = stream.hidden.clone(), stream.cell.clone()
    for bad, error, message in (
        (x[:2], RuntimeError, f"Expected input of {N} sequences, got 2"),
        (x[:, :3], RuntimeError, "must be equal to input_size"),
        (x[0], ValueError, "Expected input to be 2D, got 1D"),
        (x.double(), ValueError, "RNN input dtype"),
        (x.clone().requires_grad_(), RuntimeError, "computes no gradients"),
    ):
        with pytest.raises(error, match=message):
            stream(bad)
    with pytest.raises(RuntimeError, match="reset"):
        stream(x, reset=torch.zeros(N + 1, dtype=torch.bool))
    assert_equal((stream.hidden, stream.cell), before)
    with torch.autocast("cpu", torch.bfloat16):
        assert stream(x.bfloat16()).dtype is torch.float32


def test_streams_that_cannot_be():
    with pytest.raises(ValueError, match="bidirectional LSTM has no streams"):
        LSTM(I, H, bidirectional=True).for_inference().stream()
    module = LSTM(I, H).for_inference()
    for batch in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"batch must be a positive int, got {batch!r}"):
            module.stream(batch)
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size"):
        module.stream(N, (torch.zeros(1, N, H), torch.zeros(1, N, H + 1)))


def quantized_lstm(lstm, x, h, c):
    """The equations with 8-bit products, in plain torch: output, h_n and c_n."""
    weights = [_quantized.quantized(w) if w.dim() == 2 else w for w in lstm._flat_weights]
    (w_ih, w_hh, b_ih, b_hh, *w_hr), outputs = weights, []
    for row in x:
        z = _quantized.product(row, *w_ih) + _quantized.product(h, *w_hh) + b_ih + b_hh
        i, f, g, o = z.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        if w_hr:
            h = _quantized.product(h, *w_hr[0])
        outputs.append(h)
    return torch.stack(outputs), h, c


@pytest.mark.parametrize("proj_size", [0, 4])
@torch.no_grad()
def test_int8_is_what_its_equations_say(proj_size):
    """One step to rounding; in several, a number that is rounded the other way moves the rest."""
    lstm = LSTM(I, H, proj_size=proj_size)
    x, h, c = torch.randn(T, N, I), torch.randn(1, N, proj_size or H), torch.randn(1, N, H)
    module = lstm.for_inference(torch.int8)
    for steps, tolerance in ((1, 1e-5), (T, 0.01)):
        output, (h_n, c_n) = module(x[:steps], (h, c))
        expected = quantized_lstm(lstm, x[:steps], h[0], c[0])
        assert_same((output, h_n[0], c_n[0]), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_int8_is_near_the_lstm(options):
    """A percent of the root mean square, and twice that after layers and steps.

    A number that is rounded is off by a twelfth of the square of a step, in the mean square. The
    weights are uniform, 254 steps wide: 0.4% of themselves. A row of normal numbers is 255 steps
    and about 5 of its deviations wide: 0.6%. Of both together, 0.7% are in a gate, and states
    carry it on.
    """
    torch.manual_seed(0)
    lstm = LSTM(64, 96, **{**options, "proj_size": 48 if "proj_size" in options else 0})
    module, x = lstm.for_inference(torch.int8), torch.randn(40, 8, 64)
    with torch.no_grad():
        expected, _, states = copy.deepcopy(lstm).double()(x.double(), return_states=True)
    output, _, got = module(x, return_states=True)
    for one, other in ((output, expected), *zip(got.cell, states.cell, strict=True)):
        assert (one - other).square().mean() < (0.02**2) * other.square().mean()


@pytest.mark.parametrize("kind", ["packed", "lengths", "reset", "unbatched", "batch_first"])
def test_int8_rows_do_not_see_each_other(kind):
    """Each sequence by itself gives the same bits, however it came."""
    module = LSTM(I, H, num_layers=2, batch_first=kind == "batch_first").for_inference(torch.int8)
    alone = LSTM(I, H, num_layers=2).for_inference(torch.int8)
    alone.load_state_dict(module.state_dict())
    x, lengths = torch.randn(T, N, I), [9, 2, 5, 9, 1]
    keywords = {}
    given = x.transpose(0, 1) if kind == "batch_first" else x
    if kind == "lengths":
        keywords = {"lengths": torch.tensor(lengths)}
    elif kind == "reset":
        reset = torch.zeros(T, N, dtype=torch.bool)
        reset[4] = True
        keywords = {"reset": reset}
    elif kind == "packed":
        given = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    elif kind == "unbatched":
        given = x[:, 0]
    output, (h_n, c_n) = module(given, **keywords)
    if kind == "packed":
        output, _ = pad_packed_sequence(output)
    elif kind == "unbatched":
        output, h_n, c_n = output.unsqueeze(1), h_n.unsqueeze(1), c_n.unsqueeze(1)
    elif kind == "batch_first":
        output = output.transpose(0, 1)
    for n in range(output.shape[1]):
        last = lengths[n] if kind in ("packed", "lengths") else T
        first = 4 if kind == "reset" else 0
        expected, states = alone(x[first:last, n : n + 1])
        assert_equal(output[first:last, n : n + 1], expected)
        assert_equal((h_n[:, n : n + 1], c_n[:, n : n + 1]), states)


def test_int8_weights_are_rounded_row_by_row():
    weight = torch.randn(40, 30) * torch.logspace(-30, 30, 40)[:, None]
    weight[3] = 0
    weight[5] = 1e-45  # a subnormal number; so is its scale
    weight[7, 1:] = 0
    q, scale = _quantized.quantized(weight)
    off = (_quantized.dequantized(q, scale) - weight).abs().amax(1)
    assert (off <= 0.5001 * scale + 1e-44).all()
    assert q.abs().amax(1)[[0, 1, 7, 39]].eq(127).all()
    assert not q[3].any()
    assert q.min() >= -127


def test_int8_of_what_it_cannot_hold():
    for bad in (torch.nan, torch.inf):
        lstm = LSTM(I, H, num_layers=2)
        with torch.no_grad():
            lstm.weight_hh_l1[3, 4] = bad
        with pytest.raises(ValueError, match=r"weight_hh_l1 has numbers that are not finite"):
            lstm.for_inference(torch.int8)
    with pytest.raises(ValueError, match=r"at most 65536 numbers, got input_size 65537 and"):
        InferenceLSTM(65537, 1, weight_dtype=torch.int8)
    for dtype in (torch.float64, torch.bfloat16):
        with pytest.raises(ValueError, match=rf"for a module of {dtype}, got torch.int8"):
            LSTM(I, H, dtype=dtype).for_inference(torch.int8)


def test_int8_cell():
    lstm, cell = LSTM(I, H), LSTMCell(I, H)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, getattr(lstm, f"{name}_l0"))
    x, h, c = torch.randn(N, I), torch.randn(N, H), torch.randn(N, H)
    output, (_, c_n) = lstm.for_inference(torch.int8)(x.unsqueeze(0), (h[None], c[None]))
    assert_equal(cell.for_inference(torch.int8)(x, (h, c)), (output[0], c_n[0]))


def test_int8_models_are_a_quarter_as_large():
    lstm = LSTM(128, 128)
    bytes_of = [
        sum(value.nbytes for value in module.state_dict().values())
        for module in (lstm, lstm.for_inference(torch.int8))
    ]
    assert bytes_of[0] > 3.7 * bytes_of[1]
