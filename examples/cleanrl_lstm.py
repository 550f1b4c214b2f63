"""CleanRL's recurrent PPO agent, with one call of the LSTM for a whole rollout.

CleanRL (https://github.com/vwxyzjn/cleanrl, ppo_atari_lstm.py) calls its LSTM once for each step,
and zeroes the state by hand where an episode ended before it. To switch an agent over, put OneCall
first among its base classes, and make its LSTM with lstm_kernels.LSTM:

    class Agent(OneCall, nn.Module): ...
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

State = tuple[Tensor, Tensor]


class OneCall:
    """`get_states` of CleanRL's Agent, for any `network` before the `lstm`."""

    network: Any
    lstm: Any

    def get_states(self, x: Tensor, lstm_state: State, done: Tensor) -> tuple[Tensor, State]:
        """x: (T * N, ...); lstm_state: (h, c) of (L, N, H); done: (T * N,), 0 or 1.

        Returns:
            The hidden state of each step, (T * N, H), and the state after the last.
        """
        envs = lstm_state[0].shape[1]
        features = self.network(x).unflatten(0, (-1, envs))
        hidden, state = self.lstm(features, lstm_state, reset=done.view(-1, envs))
        return hidden.flatten(0, 1), state
