"""recompute=True: the memory of training for time, and nothing else changes."""

import pytest
import torch
from support import H, I, N, T, assert_equal, assert_same, gradients, tensors, twins, weigh
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad, vmap
from torch.nn.utils.rnn import pack_padded_sequence

import lstm_kernels


def _modules(**options):
    plain, _ = twins(**options)
    recomputing = lstm_kernels.LSTM(I, H, **options, recompute=True)
    recomputing.load_state_dict(plain.state_dict())
    return plain, recomputing


def _kept_bytes(module, x):
    """What the graph keeps for the backward pass, without parameters, input and results."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    for known in (x, *module.parameters()):
        storages.pop(known.untyped_storage().data_ptr(), None)
    return sum(storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"num_layers": 2, "proj_size": 2},
        {"bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(T, N), (33, 1), (1, 40)], ids=str)
def test_gradients_are_the_same_bits(options, dtype, shape):
    plain, recomputing = _modules(dtype=dtype, **options)
    x = torch.randn(*shape, I, dtype=dtype, requires_grad=True)
    ours, theirs = recomputing(x), plain(x)
    assert_equal(ours, theirs)
    assert_same(
        gradients(ours, [x, *recomputing.parameters()]),
        gradients(theirs, [x, *plain.parameters()]),
        rtol=0,
        atol=0,
    )


def test_lengths_resets_and_packed_sequences():
    plain, recomputing = _modules(num_layers=2)
    x = torch.randn(T, N, I)
    lengths = torch.tensor([2, 5, 0])
    reset = torch.rand(T, N) < 0.3
    packed = pack_padded_sequence(x, [2, 5, 1], enforce_sorted=False)
    found = []
    for module in (recomputing, plain):
        packed_output, packed_states = module(packed)
        results = (
            module(x, lengths=lengths),
            module(x, reset=reset),
            (packed_output.data, packed_states),
        )
        found.append((tensors(results), gradients(results, list(module.parameters()))))
    assert_equal(*found)


def test_keeps_at_most_40_percent():
    plain, recomputing = _modules(num_layers=3)
    x = torch.randn(64, 8, I)
    assert 0 < _kept_bytes(recomputing, x) <= 0.4 * _kept_bytes(plain, x)


def test_second_derivatives_per_sample_gradients_and_compile():
    plain, recomputing = _modules()
    x = torch.randn(T, N, I)

    def slope(module):
        return grad(lambda p, x: weigh(functional_call(module, p, (x,))))

    parameters = {name: p.detach() for name, p in plain.named_parameters()}
    assert_same(
        *(vmap(slope(module), (None, 1))(parameters, x).values() for module in (recomputing, plain))
    )
    assert_same(
        *(
            grad(lambda p, m=module: weigh(list(slope(m)(p, x).values())))(parameters).values()
            for module in (recomputing, plain)
        )
    )
    compiled = torch.compile(recomputing, fullgraph=True, backend="aot_eager")
    assert_same(
        gradients(compiled(x), list(recomputing.parameters())),
        gradients(plain(x), list(plain.parameters())),
    )


def test_dropout_between_layers_is_drawn_once():
    plain, recomputing = _modules(num_layers=3, dropout=0.5)
    x = torch.randn(T, N, I)
    found = []
    for module in (recomputing, plain):
        torch.manual_seed(1)
        found.append(gradients(module(x), list(module.parameters())))
    assert_equal(*found)


def test_states_of_every_step_are_returned_all_the_same():
    plain, recomputing = _modules(num_layers=2)
    x = torch.randn(T, N, I)
    ours, theirs = recomputing(x, return_gates=True), plain(x, return_gates=True)
    assert_equal(ours, theirs)
    assert_same(
        gradients(ours, list(recomputing.parameters())),
        gradients(theirs, list(plain.parameters())),
        rtol=0,
        atol=0,
    )


def test_the_choice_shows_and_converts():
    _, recomputing = _modules()
    assert "recompute=True" in repr(recomputing)
    native = recomputing.to_native()
    assert not hasattr(native, "recompute")
    assert not lstm_kernels.LSTM.from_native(native).recompute
