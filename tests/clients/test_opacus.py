"""Private training with opacus: our LSTM as it is, where opacus puts a loop in place of nn.LSTM."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lstm_kernels import LSTM

pytest.importorskip("opacus")
from opacus import PrivacyEngine
from opacus.layers import DPLSTM
from opacus.validators import ModuleValidator

CLIENT = "opacus"
SEQUENCES, STEPS, INPUTS, HIDDEN, CLASSES = 32, 50, 16, 64, 3
MODES = {LSTM: "ew", DPLSTM: "hooks"}  # expanded weights; the loop over opacus' own cells


class Classifier(nn.Module):
    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm(INPUTS, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def private(lstm, like, bound=0.05):
    """The model, its optimizer and its data as opacus makes them, without noise."""
    model = Classifier(lstm)
    model.load_state_dict(like.state_dict(), strict=False)  # DPLSTM has each weight by two names
    data = TensorDataset(torch.empty(SEQUENCES, 1))
    return PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(data, batch_size=SEQUENCES),
        noise_multiplier=0.0,
        max_grad_norm=bound,
        poisson_sampling=False,
        grad_sample_mode=MODES[lstm],
    )


def weights(model):
    return {name.removeprefix("_module."): value for name, value in model.named_parameters()}


# opacus says that a noise of 0 is no privacy, and torch that a module's input has no gradient
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_private_step_is_the_same(ratio):
    assert ModuleValidator.is_valid(Classifier(LSTM))
    start = Classifier(LSTM)
    x, y = torch.randn(SEQUENCES, STEPS, INPUTS), torch.randint(CLASSES, (SEQUENCES,))
    steps, samples, after = {}, {}, {}
    for lstm in (DPLSTM, LSTM):
        model, optimizer, _ = private(lstm, start)

        def step(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            found = {name: value.grad_sample for name, value in weights(model).items()}
            optimizer.step()
            return found

        steps[lstm], samples[lstm] = step, step()
        after[lstm] = {name: value.detach() for name, value in weights(model).items()}
    assert samples[LSTM].keys() == weights(start).keys()
    # float32: rounding of 50 steps
    for name, found in samples[LSTM].items():
        assert found.shape == (SEQUENCES, *start.get_parameter(name).shape)
        torch.testing.assert_close(found, samples[DPLSTM][name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(after[LSTM][name], after[DPLSTM][name], rtol=1e-4, atol=1e-6)
        assert (after[LSTM][name] != start.get_parameter(name)).any()
    work = f"private step, {SEQUENCES} sequences of {STEPS} steps, against DPLSTM"
    ratio(work, steps[DPLSTM], steps[LSTM])
