"""gradient_flow against autograd through an explicit loop, and against finite differences."""

import pytest
import torch
from models import Reader, fixed_gates
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import _ops, memory

EXACT = {"rtol": 1e-10, "atol": 1e-14}  # float64, a few dozen steps


def loop(lstm, x, lengths=None, reset=None, hx=None):
    """The LSTM as a loop: output, last states, (h_t, c_t, gates) of every layer and direction."""
    steps, batch = x.shape[:2]
    nodes, h_n, c_n = [], [], []
    for _ in range(lstm.num_layers):
        outputs = []
        for d in range(1 + lstm.bidirectional):
            w_ih, w_hh, b_ih, b_hh, *w_hr = lstm.all_weights[len(nodes)]
            h = x.new_zeros(batch, w_hh.shape[1]) if hx is None else hx[0][len(nodes)]
            c = x.new_zeros(batch, lstm.hidden_size) if hx is None else hx[1][len(nodes)]
            seen = {}
            for t in range(steps) if d == 0 else reversed(range(steps)):
                if reset is not None:
                    h, c = (s.masked_fill(reset[t][:, None], 0) for s in (h, c))
                a = x[t] @ w_ih.T + h @ w_hh.T + b_ih + b_hh
                i, f, g, o = a.chunk(4, -1)
                gates = i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
                new_c = f * c + i * g
                new_h = o * new_c.tanh()
                new_h = new_h @ w_hr[0].T if w_hr else new_h
                seen[t] = new_h, new_c, gates
                on = torch.full((batch,), True) if lengths is None else t < lengths
                h, c = (torch.where(on[:, None], *s) for s in ((new_h, h), (new_c, c)))
            h_n.append(h), c_n.append(c)
            nodes.append([seen[t] for t in range(steps)])
            output = torch.stack([seen[t][0] for t in range(steps)])
            if lengths is not None:
                output = output * (torch.arange(steps)[:, None] < lengths)[..., None]
            outputs.append(output)
        x = torch.cat(outputs, -1)
    return x, (torch.stack(h_n), torch.stack(c_n)), nodes


def expected_norms(value, nodes, directions):
    """||dL/dh_t|| and ||dL/dc_t|| per layer, (D, T), from autograd through the loop."""
    flat = [v for steps in nodes for step in steps for v in step[:2]]
    found = torch.autograd.grad(value, flat, allow_unused=True)
    found = [torch.zeros(()) if g is None else g for g in found]
    norms = torch.stack([g.norm() for g in found]).view(len(nodes), -1, 2)
    return norms.view(-1, directions, *norms.shape[1:])


def check(flow, value, nodes, lstm):
    norms = expected_norms(value, nodes, 1 + lstm.bidirectional)
    for layer in range(lstm.num_layers):
        assert_close(flow.hidden[layer], norms[layer, ..., 0], **EXACT)
        assert_close(flow.cell[layer], norms[layer, ..., 1], **EXACT)
    assert_close(flow.loss, value.item(), **EXACT)


OPTIONS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"bidirectional": True, "num_layers": 3},
    {"proj_size": 2},
    {"proj_size": 2, "bidirectional": True, "num_layers": 2},
]


def squares_at_some_steps(output):
    return output[3].square().sum() + 0.3 * output[-1].sum()


@pytest.mark.parametrize("options", OPTIONS)
def test_norms_equal_autograd_through_a_loop(options):
    torch.manual_seed(1)
    model = Reader(lstm_kernels.LSTM(3, 4, dtype=torch.float64, **options))
    x = torch.randn(9, 5, 3, dtype=torch.float64)
    flow = memory.gradient_flow(model, x, squares_at_some_steps)
    output, _, nodes = loop(model.recurrent, x)
    check(flow, squares_at_some_steps(model.head(output)), nodes, model.recurrent)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("options", OPTIONS)
def test_packed_and_padded_input(options):
    torch.manual_seed(2)
    lstm = lstm_kernels.LSTM(3, 4, dtype=torch.float64, **options)
    x, lengths = torch.randn(9, 4, 3, dtype=torch.float64), torch.tensor([5, 9, 1, 7])
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, (_, c_n), nodes = loop(lstm, x, lengths)
    flow = memory.gradient_flow(
        lstm, packed, lambda r: r[0].data.square().sum() + (r[1][1] * 3).sum()
    )
    check(flow, output.square().sum() + (c_n * 3).sum(), nodes, lstm)

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            return self.lstm(x, lengths=lengths)

    flow = memory.gradient_flow(Padded(), x, lambda r: (r[0] + 1).square().sum() + r[1][0].sum())
    output, (h_n, _), nodes = loop(lstm, x, lengths)
    check(flow, (output + 1).square().sum() + h_n.sum(), nodes, lstm)


@pytest.mark.parametrize("batch_first", [False, True])
def test_reset_initial_state_and_states_the_model_reads_itself(batch_first):
    """A loss on c_t, h_t and gates that the model asked for, with episodes and a first state."""
    torch.manual_seed(3)
    lstm = lstm_kernels.LSTM(3, 4, 2, batch_first=batch_first, dtype=torch.float64)
    x = torch.randn(8, 5, 3, dtype=torch.float64)
    reset = torch.rand(8, 5) < 0.3
    hx = torch.randn(2, 2, 5, 4, dtype=torch.float64).unbind()

    def swap(value):
        return value.transpose(0, 1) if batch_first else value

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm

        def forward(self, x):
            output, (_, c_n), states = self.lstm(x, hx, reset=swap(reset), return_gates=True)
            output.mul_(2)  # a model may write to what it was given
            return (
                output.sum()
                + c_n.sum()
                + sum(c.square().sum() for c in states.cell)
                + states.hidden[0].sin().sum()
                + states.gates[1][..., 1, :].square().sum()
            )

    flow = memory.gradient_flow(Model(), swap(x), lambda value: value)
    output, (_, c_n), nodes = loop(lstm, x, reset=reset, hx=hx)
    cells = [torch.stack([c for _, c, _ in steps]) for steps in nodes]
    first = torch.stack([h for h, *_ in nodes[0]])
    forget = torch.stack([gates[1] for *_, gates in nodes[1]])
    value = 2 * output.sum() + c_n.sum() + sum(c.square().sum() for c in cells)
    value = value + first.sin().sum() + forget.square().sum()
    check(flow, value, nodes, lstm)


def test_norms_equal_finite_differences():
    """Each h_t and c_t moved by a little; a moved c_t moves the h_t that shows it, too."""
    torch.manual_seed(4)
    model = Reader(lstm_kernels.LSTM(2, 3, dtype=torch.float64))
    x = torch.randn(6, 2, 2, dtype=torch.float64)

    def loss(output):
        return output[-1].square().sum()

    flow = memory.gradient_flow(model, x, loss)
    step = 1e-5  # central difference in float64: error ~ step^2

    @torch.no_grad()
    def moved(which, t, index, by):
        _, (h, c), states = model.recurrent(x[: t + 1], return_gates=True)
        change = torch.zeros_like(c)
        change.view(-1)[index] = by
        if which == "hidden":
            hx = h + change, c
        else:
            hx = states.gates[0][-1:, :, 0, 3] * (c + change).tanh(), c + change
        return loss(model.head(model.recurrent(x[t + 1 :], hx)[0]))

    for which in ("hidden", "cell"):
        norms = getattr(flow, which)[0][0]
        for t in range(5):
            slopes = [moved(which, t, k, step) - moved(which, t, k, -step) for k in range(6)]
            assert_close(torch.stack(slopes).norm() / (2 * step), norms[t], rtol=1e-6, atol=1e-9)


def test_the_highway_is_the_product_of_forget_gates():
    """No recurrent weights: all of dL/dc_t comes along the cell, f per step."""
    f, o, steps = 0.8, 0.6, 12
    lstm = fixed_gates(0.5, f, 0.5, o)
    x = torch.zeros(steps, 1, 1, dtype=torch.float64)
    flow = memory.gradient_flow(lstm, x, lambda r: r[0][-1].sum())
    last = o * (1 - lstm(x, return_states=True)[2].cell[0][-1, 0, 0].tanh() ** 2).item()
    expected = last * f ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    assert_close(flow.cell[0][0], expected, **EXACT)
    assert_close(flow.highway[0][0], expected, **EXACT)
    assert_close(flow.through_hidden[0][0], torch.zeros(steps, dtype=torch.float64), **EXACT)


def test_highway_and_the_way_through_h_add_up():
    """A shut highway (f = 0) leaves only the way through h, and its part is the whole."""
    torch.manual_seed(5)
    lstm = lstm_kernels.LSTM(2, 3, dtype=torch.float64)
    with torch.no_grad():
        lstm.weight_ih_l0[3:6], lstm.weight_hh_l0[3:6], lstm.bias_ih_l0[3:6] = 0, 0, -60
    x = torch.randn(7, 2, 2, dtype=torch.float64)
    flow = memory.gradient_flow(lstm, x, lambda r: r[0][-1].sum())
    assert_close(flow.through_hidden[0][0, :-1], flow.cell[0][0, :-1], rtol=1e-9, atol=0)
    assert flow.highway[0][0, :-1].max() < 1e-20


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"nonlinearity": "relu", "bias": False}],
)
@pytest.mark.parametrize("packed", [False, True])
def test_plain_rnn(options, packed):
    """The unrolled nn.RNN gives what nn.RNN gives; its gradient norms equal the jacobian's."""
    torch.manual_seed(6)
    model = Reader(nn.RNN(3, 4, batch_first=True, dtype=torch.float64, **options))
    x, lengths = torch.randn(3, 6, 3, dtype=torch.float64), torch.tensor([4, 6, 2])
    if packed:
        x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    flow = memory.gradient_flow(model, x, lambda y: y.square().sum())
    assert (flow.cell, flow.highway, flow.through_hidden) == (None, None, None)
    assert_close(flow.loss, model(x).square().sum().item(), **EXACT)
    assert len(flow.hidden) == model.recurrent.num_layers
    assert flow.hidden[0].shape == (1 + model.recurrent.bidirectional, 6)


def test_plain_rnn_norms_equal_the_closed_form():
    """dL/dh_t of a one-unit linear chain: the product of w * (1 - h^2)."""
    rnn = nn.RNN(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(rnn.weight_hh_l0, 0.7)
    x = torch.randn(9, 1, 1, dtype=torch.float64)
    flow = memory.gradient_flow(rnn, x, lambda r: r[0][-1].sum())
    h = rnn(x)[0].detach().flatten()
    factors = 0.7 * (1 - h[1:] ** 2)
    expected = torch.cat([factors.flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])
    assert_close(flow.hidden[0][0], expected, **EXACT)


@pytest.mark.parametrize("kind", [lstm_kernels.LSTM, nn.RNN])
def test_frozen_and_unbatched(kind):
    model = Reader(kind(3, 4, dtype=torch.float64)).requires_grad_(False)
    x = torch.randn(5, 3, dtype=torch.float64)
    unbatched = memory.gradient_flow(model, x, lambda y: y.square().sum())
    batched = memory.gradient_flow(model, x.unsqueeze(1), lambda y: y.square().sum())
    assert_close(unbatched.hidden, batched.hidden, **EXACT)


def test_batches_add_up_to_one():
    torch.manual_seed(7)
    model = Reader(lstm_kernels.LSTM(3, 4, dtype=torch.float64, batch_first=True))
    x, y = torch.randn(6, 5, 3, dtype=torch.float64), torch.randn(6, 5, 2, dtype=torch.float64)

    def loss(output, y):
        return (output - y).square().sum()

    whole = memory.gradient_flow(model, [(x, y)], loss)
    parts = memory.gradient_flow(model, list(zip(x.split(2), y.split(2), strict=True)), loss)
    for kind in ("hidden", "cell", "highway", "through_hidden"):
        assert_close(getattr(parts, kind), getattr(whole, kind), **EXACT)
    assert_close(parts.loss, whole.loss, **EXACT)


def test_reduced_precision_is_decided_as_in_training(monkeypatch):
    """The backward pass of the analysis asks torch about its states, as that of training does."""
    asked = []
    monkeypatch.setattr(_ops, "reduced_precision", lambda states, *_: asked.append(states) or False)
    lstm = lstm_kernels.LSTM(3, 4)
    memory.gradient_flow(lstm, torch.randn(6, 2, 3), lambda r: r[0].sum())
    assert [states.shape for states in asked if states.shape[-1] == 4] == [(6, 2, 4)]


def test_model_is_put_back():
    model = Reader(lstm_kernels.LSTM(3, 4, 2, dropout=0.5)).train()
    forward = model.recurrent.forward
    memory.gradient_flow(model, torch.randn(4, 2, 3), lambda y: y.sum())
    assert model.training
    assert model.recurrent.training
    assert model.recurrent.forward == forward
    assert "forward" not in vars(model.recurrent)


def test_vanishing_gradients_do_not_underflow():
    """float32 states, a gradient of 1e-30: its square is below float32's range."""
    lstm = fixed_gates(0.5, 0.1, 0.5, 0.5).float()
    flow = memory.gradient_flow(lstm, torch.zeros(31, 1, 1), lambda r: r[0][-1].sum())
    assert_close(
        flow.cell[0][0, 0] / flow.cell[0][0, -1], torch.tensor(1e-30).double(), rtol=1e-4, atol=0
    )


def test_bad_input():
    model = Reader(lstm_kernels.LSTM(3, 4))
    x = torch.randn(4, 2, 3)
    with pytest.raises(ValueError, match=r"loss must return a scalar tensor, got \(4, 2, 2\)"):
        memory.gradient_flow(model, x, lambda y: y)
    with pytest.raises(ValueError, match="loss does not depend on the states"):
        memory.gradient_flow(model, x, lambda y: torch.zeros(()))
    with pytest.raises(ValueError, match="x holds NaN"):
        memory.gradient_flow(model, x * torch.nan, lambda y: y.sum())
    with pytest.raises(ValueError, match="x is empty"):
        memory.gradient_flow(model, [], lambda y: y.sum())
    with pytest.raises(ValueError, match=r"model has no lstm_kernels\.LSTM or torch\.RNN inside"):
        memory.gradient_flow(nn.Linear(2, 2), x, lambda y: y.sum())


def test_a_variant_is_refused():
    lstm = lstm_kernels.LSTM(3, 4, variant=lstm_kernels.Variant(coupled="input"))
    with pytest.raises(NotImplementedError, match="no adjoint equations of Variant"):
        memory.gradient_flow(Reader(lstm), torch.randn(5, 2, 3), lambda y: y.sum())
    with pytest.raises(NotImplementedError, match="no Jacobians of Variant"):
        memory.lyapunov(Reader(lstm), torch.randn(5, 2, 3))
