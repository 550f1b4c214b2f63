"""What a graph computes does not depend on whether a gradient was wanted when it was recorded."""

import io

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from lstm_kernels import LSTM, LSTMCell
from tests.support import assert_same

T, N, I, H = 5, 2, 3, 4


class Tagger(nn.Module):
    """Something to learn before the LSTM, and after it."""

    def __init__(self, **options):
        super().__init__()
        self.before, self.lstm = nn.Linear(I, I), LSTM(I, H, **options)
        width = (options.get("proj_size") or H) * (1 + options.get("bidirectional", False))
        self.after = nn.Linear(width, 2)

    def forward(self, x):
        return self.after(self.lstm(self.before(x))[0])


class Ragged(Tagger):
    def forward(self, x):
        lengths = torch.tensor([T, 2])
        return self.after(self.lstm(self.before(x), lengths=lengths)[0])


class Stepper(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.cell, self.after = nn.Linear(I, I), LSTMCell(I, H), nn.Linear(H, 2)

    def forward(self, x):
        states, steps = None, []
        for row in self.before(x):
            states = self.cell(row, states)
            steps.append(self.after(states[0]))
        return torch.stack(steps)


def exported(model, x, **options):
    return torch.export.export(model, (x,), **options)


def saved_and_loaded(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def without_gradients(model, x):
    with torch.no_grad():
        return exported(model, x).module()


def in_inference_mode(model, x):
    with torch.inference_mode():
        program = exported(model, x)
    return program.module()


def with_gradients(model, x):
    return exported(model, x).module()


def strictly(model, x):
    with torch.no_grad():
        return exported(model, x, strict=True).module()


def frozen(model, x):
    model.requires_grad_(False)
    run = exported(model, x).module()
    model.requires_grad_(True)
    return run.requires_grad_(True)


def decomposed(model, x):
    return exported(model, x).run_decompositions().module()


def from_a_file(model, x):
    with torch.no_grad():
        return saved_and_loaded(exported(model, x).run_decompositions()).module()


def traced_by_fx(model, x):
    """The graph holds the very parameters of the model."""
    with torch.no_grad():
        graph = make_fx(model)(x)
    graph.register_module("model", model)  # for parameters() to find them
    return graph


def traced_by_fx_with_gradients(model, x):
    graph = make_fx(model)(x)
    graph.register_module("model", model)
    return graph


CAPTURES = (
    without_gradients,
    in_inference_mode,
    with_gradients,
    strictly,
    frozen,
    decomposed,
    from_a_file,
    traced_by_fx,
    traced_by_fx_with_gradients,
)
MODELS = {
    "plain": Tagger,
    "two layers": lambda: Tagger(num_layers=2, bidirectional=True),
    "projected": lambda: Tagger(proj_size=2),
    "recompute": lambda: Tagger(recompute=True),
    "lengths": Ragged,
    "cell": Stepper,
}


def derivatives(run, x):
    """Of first and of second order."""
    x = x.clone().requires_grad_()
    wanted = [x, *dict.fromkeys(run.parameters())]
    first = torch.autograd.grad(run(x).square().sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted, allow_unused=True)
    return *first, *(g for g in second if g is not None)


def by_shape(gradients):
    """Programs list parameters in an order that is their own."""
    return sorted(gradients, key=lambda g: (g.shape, g.abs().sum().item()))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.__name__)
def test_a_graph_has_the_gradients_of_the_model(capture, model):
    torch.manual_seed(0)
    model, x = model().double(), torch.randn(T, N, I, dtype=torch.float64)
    run = capture(model, x)
    expected = derivatives(model, x)
    assert len(expected) >= 2 * len(list(model.parameters()))
    actual = derivatives(run, x)
    assert len(actual) == len(expected)
    assert_same(by_shape(actual), by_shape(expected))


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacfwd], ids=["grad", "jacfwd"])
def test_a_graph_under_a_transform(transform):
    """Captured without gradients, then differentiated by torch.func, mapped over inputs."""
    model, x = Tagger().double(), torch.randn(3, T, N, I, dtype=torch.float64)
    run = without_gradients(model, x[0])

    def loss(function):
        return lambda x: function(x).square().sum()

    actual = torch.func.vmap(transform(loss(run)))(x)
    assert_same(actual, torch.func.vmap(transform(loss(model)))(x))


def test_forward_mode_through_a_graph():
    model, x = Tagger().double(), torch.randn(T, N, I, dtype=torch.float64)
    run, tangent = without_gradients(model, x), torch.randn_like(x)
    assert_same(torch.func.jvp(run, (x,), (tangent,)), torch.func.jvp(model, (x,), (tangent,)))


def test_a_captured_backward_pass_can_be_differentiated_again():
    """make_fx of a gradient, recorded without create_graph."""
    model = Tagger().double()
    x = torch.randn(T, N, I, dtype=torch.float64)

    def gradient(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(model(x).square().sum(), x)[0]

    graph = make_fx(gradient)(x)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert "lstm_kernels.sequence_backward.default" in targets
    assert_same(graph(x), gradient(x))


def test_second_derivatives_through_compiled_code():
    model = LSTM(I, H).double()
    x = torch.randn(T, N, I, dtype=torch.float64, requires_grad=True)

    def penalty(function):
        (gradient,) = torch.autograd.grad(function(x), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, *model.parameters()])

    def loss(x):
        return model(x)[0].square().sum()

    compiled = torch.compile(loss, backend="eager")
    assert_same(penalty(compiled), penalty(loss))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's
def test_a_gradient_penalty_inside_compiled_code():
    model = LSTM(I, H).double()
    x = torch.randn(T, N, I, dtype=torch.float64, requires_grad=True)

    def loss(x):
        output = model(x)[0].square().sum()
        (gradient,) = torch.autograd.grad(output, x, create_graph=True)
        return output + gradient.square().sum()

    compiled = torch.compile(loss, backend="eager")
    wanted = [x, *model.parameters()]
    assert_same(torch.autograd.grad(compiled(x), wanted), torch.autograd.grad(loss(x), wanted))
