"""States and gates of a trained neuralhydrology model, in one call.

To look inside a model, neuralhydrology (https://github.com/neuralhydrology/neuralhydrology) copies
its weights into CustomLSTM, which loops over the days in Python. Here one call of the model does:

    model = lstm_kernels.replace_lstm(model)  # a CudaLSTM or EmbCudaLSTM
    states = states_and_gates(model, data)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def states_and_gates(model: nn.Module, data: dict[str, Any]) -> dict[str, Tensor]:
    """What CustomLSTM returns for the weights of `model`, whose LSTM is one of lstm_kernels.

    Returns:
        h_n and c_n, the states after every step, and i, f, g, o before activation, (N, T, H) each;
        and what the model's head says, such as y_hat.
    """
    x = model.embedding_net(data)
    _, _, states = model.lstm(x, return_states=True)
    (gates,) = model.lstm.preactivations(x, states)
    found = {"h_n": states.hidden[0], "c_n": states.cell[0]}
    found |= dict(zip("ifgo", gates.squeeze(2).unbind(2), strict=True))
    found = {name: value.transpose(0, 1) for name, value in found.items()}
    return found | model.head(model.dropout(found["h_n"]))
