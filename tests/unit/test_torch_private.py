"""Each private name of torch does what _torch_private.py says: where a release changes one, the
test of that name fails.
"""

import io
from typing import NamedTuple

import pytest
import torch
from support import precision_of_rnns
from torch.autograd import forward_ad
from torch.nn.utils._expanded_weights.expanded_weights_impl import ExpandedWeight
from torch.utils.flop_counter import FlopCounterMode

from lstm_kernels import _torch_private as private

X = torch.arange(6.0).view(2, 3)


def test_transforms_active():
    seen = []

    def function(x):
        seen.append(private.transforms_active())
        return x.sum()

    function(X)
    torch.func.grad(function)(X)
    torch.func.vmap(function)(X)
    assert seen == [False, True, True]


def test_any_autocast_enabled():
    assert not private.any_autocast_enabled()
    with torch.autocast("cpu", torch.bfloat16):
        assert private.any_autocast_enabled()
    assert not private.any_autocast_enabled()


def test_count_dispatch_modes():
    assert private.count_dispatch_modes() == 0
    with FlopCounterMode(display=False):
        assert private.count_dispatch_modes() == 1


def test_is_wrapped():
    seen = []

    def function(x):
        seen.append(private.is_wrapped(x))
        return x.sum()

    function(X)
    torch.func.vmap(function)(X)
    assert seen == [False, True]


def test_unwrapped():
    seen = []

    def function(x):
        seen.append(private.unwrapped(x))
        return x.sum()

    torch.func.vmap(torch.func.vmap(function))(X)
    assert not private.is_wrapped(seen[0])
    assert torch.equal(seen[0], X)
    assert private.unwrapped(X) is X


def test_forward_mode_active():
    assert not private.forward_mode_active()
    with forward_ad.dual_level():
        assert private.forward_mode_active()
    assert not private.forward_mode_active()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")  # what is tested
def test_tracing():
    seen = []

    def function(x):
        seen.append(private.tracing())
        return x + 1

    function(X)
    torch.jit.trace(function, (X,), check_trace=False)
    assert seen == [False, True]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")  # what is tested
def test_tracing_paused():
    seen = []

    def function(x):
        with private.tracing_paused():
            seen.append(type(x.shape[0]))
        seen.append(type(x.shape[0]))
        return x + 1

    torch.jit.trace(function, (X,), check_trace=False)
    assert seen == [int, torch.Tensor]


def gradient_of(rule, batched):
    """The gradients that autograd passes on for a Function with this rule."""

    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return rule(grad)

    x = X.clone().requires_grad_()
    grads = torch.stack([X + 1, X + 2, X + 3, X + 4]) if batched else X + 1
    return grads, torch.autograd.grad(Same.apply(x), x, grads, is_grads_batched=batched)[0]


def test_is_mapped_by_autograd():
    seen = []

    def rule(grad):
        seen.append(private.is_mapped_by_autograd(grad))
        return grad

    gradient_of(rule, batched=False)
    gradient_of(rule, batched=True)
    assert seen == [False, True]


def test_unmap():
    seen = []

    def rule(grad):
        seen.append(private.unmap(grad, private.level_of_autograds_vmap()))
        return grad

    grads, _ = gradient_of(rule, batched=True)
    assert torch.equal(seen[0], grads)


def test_map_first_axis():
    def rule(grad):
        level = private.level_of_autograds_vmap()
        rows = private.unmap(grad, level)
        return private.map_first_axis(rows * torch.arange(4.0)[:, None, None], level)

    grads, result = gradient_of(rule, batched=True)
    assert torch.equal(result, grads * torch.arange(4.0)[:, None, None])


def test_level_of_autograds_vmap():
    """It is left as it was, and is that of the vmap that runs."""
    before = private.level_of_autograds_vmap()
    seen = []

    def rule(grad):
        seen.extend(private.level_of_autograds_vmap() for _ in range(2))
        return grad

    gradient_of(rule, batched=True)
    assert seen == [before + 1, before + 1]
    assert private.level_of_autograds_vmap() == before


def test_assert_without_waiting():
    private.assert_without_waiting(torch.tensor(True), "never said")
    with pytest.raises(RuntimeError, match="this was wrong"):
        private.assert_without_waiting(torch.tensor(False), "this was wrong")


def test_refuse_to_compile():
    def function(x):
        if torch.compiler.is_dynamo_compiling():
            private.refuse_to_compile("not this one")
        return x + 1

    with pytest.raises(torch._dynamo.exc.Unsupported, match="not this one"):
        torch.compile(function, backend="eager", fullgraph=True)(X)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(function, backend="eager")(X), X + 1)


def test_recording():
    seen = []

    class Notes(torch.nn.Module):
        def forward(self, x):
            seen.append(private.recording())
            return x + 1

    Notes()(X)
    with FlopCounterMode(display=False):
        Notes()(X)
    torch.jit.trace(Notes(), X, check_trace=False)
    torch.export.export(Notes(), (X,))
    assert seen == [False, True, True, True]


def test_fp32_precision(monkeypatch):
    """It is what the public switches say."""
    for value in ("ieee", "tf32"):
        monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", value)
        assert private.fp32_precision("cuda", "rnn") == value
    for value in ("ieee", "bf16"):
        with precision_of_rnns(value):
            assert private.fp32_precision("mkldnn", "rnn") == value


def test_constant_in_graphs():
    """A graph keeps the first result, also of what torch.compile cannot look into."""

    @private.constant_in_graphs
    def constant(backend):
        calls.append(backend)
        return private.fp32_precision(backend, "rnn") + str(len(calls))

    def function(x):
        return x + len(constant("mkldnn"))

    calls = []
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    first = compiled(X)
    assert calls
    calls.clear()
    assert torch.equal(compiled(X), first)
    assert not calls
    assert constant("mkldnn").endswith("1")


def test_never_compile():
    def within(x):
        return torch.compiler.is_compiling(), x + 1

    def function(x):
        return within(x)

    private.never_compile(function)
    assert torch.compile(function, backend="eager")(X)[0] is False
    assert torch.compile(within, backend="eager")(X)[0] is True


def test_below_autograd():
    """A kernel for "Autograd" that goes past itself reaches the CPU kernel."""
    with torch.library._scoped_library("lstm_kernels_test", "DEF") as library:
        library.define("plus(Tensor a, int b) -> Tensor")
        library.impl("plus", lambda a, b: a.clone() + b, "CPU")
        op = torch.ops.lstm_kernels_test.plus.default
        library.impl(
            "plus",
            lambda keyset, a, b: private.below_autograd(op, keyset, a, b + 1),
            "Autograd",
            with_keyset=True,
        )
        assert torch.equal(op(X, 1), X + 2)


def test_optional_tensor_type():
    """It is the type that torch.jit gives an argument which may be None."""
    schema = torch.ops.lstm_kernels.sequence_forward.default._schema
    types = {argument.name: argument.type for argument in schema.arguments}
    assert types["h0"] == private.optional_tensor_type()
    assert types["input"] != private.optional_tensor_type()


def test_expanded_weights():
    weight = torch.nn.Parameter(X)
    assert not private.is_expanded_weight(weight)
    assert private.unexpanded(weight) is weight
    expanded = ExpandedWeight(weight, 4, "mean")
    assert private.is_expanded_weight(expanded)
    assert private.unexpanded(expanded) is weight
    for times in (4, 8):  # a mean's gradients are scaled up by the batch size, and added
        private.set_grad_sample(expanded, torch.ones(4, 2, 3))
        assert torch.equal(weight.grad_sample, torch.full((4, 2, 3), float(times)))


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class MakesPair(torch.nn.Module):
    def forward(self, x):
        return Pair(x + 1, x + 2)


def test_register_namedtuple():
    private.register_namedtuple(Pair, "tests.Pair")
    file = io.BytesIO()
    torch.export.save(torch.export.export(MakesPair(), (X,)), file)
    file.seek(0)
    pair = torch.export.load(file).module()(X)
    assert isinstance(pair, Pair)
    assert torch.equal(pair.second, X + 2)
