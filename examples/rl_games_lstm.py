"""rl_games' recurrent layer, with one call of the LSTM for a whole batch of sequences.

rl_games (https://github.com/Denys88/rl_games) cuts a batch at every step where any of its sequences
starts a new episode, and calls its LSTM on each piece. To switch over, before a network is built:

    from rl_games.algos_torch import network_builder

    network_builder.LSTMWithDones = LSTMWithDones
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lstm_kernels import LSTM

State = tuple[Tensor, Tensor]


class LSTMWithDones(nn.Module):
    """The layer of the same name in rl_games, with its arguments, results and state_dict."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.rnn = LSTM(*args, **kwargs)

    def forward(
        self, input: Tensor, states: State, done_masks: Tensor | None = None, bptt_len: int = 0
    ) -> tuple[Tensor, State]:
        """input: (T, N, I); done_masks: (T, N, 1), 1 where a step starts an episode.

        bptt_len is not looked at, as in rl_games.
        """
        reset = None if done_masks is None else done_masks.squeeze(-1)
        output, states = self.rnn(input, states, reset=reset)
        return output, states
