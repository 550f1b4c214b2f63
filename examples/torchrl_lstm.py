"""torchrl's LSTMModule, with one call for rows that hold several episodes.

In recurrent mode torchrl (https://github.com/pytorch/rl) cuts rows into episodes and pads those.
Here `reset=` does the starts of episodes in one call. The states come out for every step, where
torchrl gives those at the end of an episode and zeros elsewhere.

    lstm = lstm_kernels.nn.LSTM(inputs, hidden, batch_first=True)
    module = ResettingLSTMModule(lstm=lstm, in_key="observation", out_key="features")
"""

from __future__ import annotations

from typing import Any

import torch
from torchrl.modules import LSTMModule


class ResettingLSTMModule(LSTMModule):
    """In recurrent mode what LSTMModule computes in its default mode, step after step.

    An episode starts from zeros there, as states do that torchrl's primer makes.
    """

    def forward(self, tensordict: Any) -> Any:
        if not self.recurrent_mode:
            return super().forward(tensordict)
        rows = tensordict.unsqueeze(0) if tensordict.ndim == 1 else tensordict.flatten(0, -2)
        x, *given = (rows.get(key, None) for key in self.in_keys[:3])
        first = None
        if given[0] is not None:  # (rows, steps, layers, H): those before the first step
            first = [state[:, 0].transpose(0, 1) for state in given]
        starts = rows["is_init"].squeeze(-1)
        output, _, states = self.lstm(x, first, reset=starts, return_states=True)
        results = (output, torch.stack(states.hidden, -2), torch.stack(states.cell, -2))
        for key, value in zip(self.out_keys, results, strict=True):
            tensordict.set(key, value.reshape(*tensordict.shape, *value.shape[2:]))
        return tensordict
