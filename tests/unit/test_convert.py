"""lstm_kernels.convert: converted LSTMs compute what their libraries' equations say.

The libraries need not be here: stand-ins have the names and shapes of their parameters, and each
computes one step as its library documents it.
"""

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm
from torch.testing import assert_close

from lstm_kernels import LSTM, Masks, Variant, convert

T, N, I, H = 5, 3, 4, 6


def random(*size):
    return torch.randn(size, dtype=torch.float64)


def loop(step, x):
    """A step over a sequence, from zeros: output, h_n and c_n."""
    h = c = torch.zeros(N, H, dtype=torch.float64)
    outputs = []
    for x_t in x:
        h, c = step(x_t, h, c)
        outputs.append(h)
    return torch.stack(outputs), h, c


def assert_converted(lstm, step, x=None):
    x = random(T, N, I) if x is None else x
    output, h_n, c_n = loop(step, x)
    found, (h, c) = lstm(x.transpose(0, 1) if lstm.batch_first else x)
    assert_close(found.transpose(0, 1) if lstm.batch_first else found, output)
    assert_close(h[0], h_n)
    assert_close(c[0], c_n)


class Torchaudio(nn.Module):
    def __init__(self, normalises):
        super().__init__()
        self.x2g = nn.Linear(I, 4 * H, bias=not normalises)
        self.p2g = nn.Linear(H, 4 * H, bias=False)
        self.c_norm = nn.LayerNorm(H, eps=1e-3) if normalises else nn.Identity()
        self.g_norm = nn.LayerNorm(4 * H, eps=1e-3) if normalises else nn.Identity()
        for parameter in self.parameters():
            parameter.data = random(*parameter.shape)

    def step(self, x, h, c):
        i, f, g, o = self.g_norm(self.x2g(x) + self.p2g(h)).chunk(4, 1)
        c = self.c_norm(f.sigmoid() * c + i.sigmoid() * g.tanh())
        return o.sigmoid() * c.tanh(), c


@pytest.mark.parametrize("normalises", [False, True])
def test_torchaudio(normalises):
    module = Torchaudio(normalises)
    lstm = convert.from_torchaudio(module)
    assert (lstm.variant is None) is not normalises
    assert_converted(lstm, module.step)


def test_torchaudio_inside_a_model():
    class _CustomLSTM(Torchaudio):
        def forward(self, x, state):
            h, c = state
            outputs = []
            for x_t in x:
                h, c = self.step(x_t, h, c)
                outputs.append(h)
            return torch.stack(outputs), [h, c]

    lstm, other = _CustomLSTM(True), nn.Linear(2, 2)
    model = nn.Sequential(nn.ModuleList([lstm]), other).eval()
    assert convert.replace_torchaudio(model) is model
    found, state = model[0][0], [random(N, H), random(N, H)]
    assert isinstance(found, convert.TorchaudioLSTM)
    assert not found.training
    assert model[1] is other
    x = random(T, N, I)
    assert_close(found(x, state), lstm(x, state))
    zeros = [torch.zeros(N, H, dtype=torch.float64)] * 2
    assert_close(found(x, None), lstm(x, zeros))
    with pytest.raises(TypeError, match="model must be"):
        convert.replace_torchaudio([lstm])


class LayerNormCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight_ih = nn.Parameter(random(4 * H, I))
        self.weight_hh = nn.Parameter(random(4 * H, H))
        self.layernorm_i = nn.LayerNorm(4 * H)
        self.layernorm_h = nn.LayerNorm(4 * H)
        self.layernorm_c = nn.LayerNorm(H)
        for norm in (self.layernorm_i, self.layernorm_h, self.layernorm_c):
            for parameter in norm.parameters():
                parameter.data = random(*parameter.shape)

    def step(self, x, h, c):
        gates = self.layernorm_i(x @ self.weight_ih.mT) + self.layernorm_h(h @ self.weight_hh.mT)
        i, f, g, o = gates.chunk(4, 1)
        c = self.layernorm_c(f.sigmoid() * c + i.sigmoid() * g.tanh())
        return o.sigmoid() * c.tanh(), c


def test_cells_of_fastrnns_and_nemo():
    cell = LayerNormCell()
    assert_converted(convert.from_layer_norm_cell(cell), cell.step)
    cell.layernorm_c.eps = 0.1
    with pytest.raises(ValueError, match="eps differ"):
        convert.from_layer_norm_cell(cell)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_keras(version, activation):
    kernel, recurrent, bias = 0.3 * random(I, 4 * H), 0.3 * random(H, 4 * H), random(4 * H)
    masks = (random(4, N, H) > 0).double() / 0.6
    squash = torch.tanh if activation == "tanh" else torch.relu

    def hard_sigmoid(z):
        return (0.2 * z + 0.5).clamp(0, 1) if version == 2 else nn.functional.hardsigmoid(z)

    def step(x, h, c):
        z = [
            x @ kernel[:, k * H : (k + 1) * H]
            + (h * masks[k]) @ recurrent[:, k * H : (k + 1) * H]
            + bias[k * H : (k + 1) * H]
            for k in range(4)
        ]
        c = hard_sigmoid(z[1]) * c + hard_sigmoid(z[0]) * squash(z[2])
        return hard_sigmoid(z[3]) * squash(c), c

    lstm = convert.from_keras(
        [kernel.numpy(), recurrent.numpy(), bias.numpy()],
        activation=activation,
        recurrent_activation="hard_sigmoid",
        recurrent_dropout=0.4,
        version=version,
    )
    x = random(T, N, I)
    given = Masks(recurrent=masks.transpose(0, 1).unsqueeze(1))
    found = lstm(x.transpose(0, 1), masks=[given])[0].transpose(0, 1)
    assert_close(found, loop(step, x)[0])
    plain = convert.from_keras([kernel, recurrent])
    assert plain.variant is None
    assert not plain.bias
    with pytest.raises(ValueError, match="activation must be one of"):
        convert.from_keras([kernel, recurrent], activation="gelu")
    with pytest.raises(ValueError, match="version must be"):
        convert.from_keras([kernel, recurrent], version=1)


class Haste(nn.Module):
    """Gates in the order i, g, f, o; evaluation, where zoneout is its expectation."""

    def __init__(self, normalises, zoneout):
        super().__init__()
        self.zoneout, self.batch_first, self.dropout = zoneout, True, 0.0
        self.kernel, self.recurrent_kernel = random(I, 4 * H), random(H, 4 * H)
        self.bias = random(4 * H)
        self.normalises = normalises
        if normalises:
            self.gamma, self.gamma_h, self.beta_h = random(2, 4 * H), random(H), random(H)

    def step(self, x, h, c):
        of_x, of_h = x @ self.kernel, h @ self.recurrent_kernel
        if self.normalises:
            of_x = layer_norm(of_x, (4 * H,), self.gamma[0])
            of_h = layer_norm(of_h, (4 * H,), self.gamma[1])
        i, g, f, o = (of_x + of_h + self.bias).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        shown = layer_norm(c, (H,), self.gamma_h, self.beta_h) if self.normalises else c
        new = o.sigmoid() * shown.tanh()
        return self.zoneout * h + (1 - self.zoneout) * new, c


@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("zoneout", [0.0, 0.2])
def test_haste(normalises, zoneout):
    module = Haste(normalises, zoneout)
    lstm = convert.from_haste(module).eval()
    assert (lstm.variant is None) is (not normalises and zoneout == 0)
    assert_converted(lstm, module.step)


def test_other_modules_are_refused():
    with pytest.raises(TypeError, match="Linear has no x2g, p2g"):
        convert.from_torchaudio(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="has no kernel"):
        convert.from_haste(LSTM(2, 2, variant=Variant(peephole=True)))
