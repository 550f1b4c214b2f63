"""SB3-contrib's RecurrentPPO, with one call of the LSTM for a whole batch of sequences.

    pip install sb3-contrib
    python examples/sb3_recurrent.py

SB3-contrib (https://github.com/Stable-Baselines-Team/stable-baselines3-contrib) calls its LSTM once
for each step of a batch in which any episode starts. OneCall in front of one of its recurrent
policies makes that one call. Its models on disk go both ways.
"""

from __future__ import annotations

from typing import Any

from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from torch import Tensor

from lstm_kernels import LSTM, replace_lstm

State = tuple[Tensor, Tensor]


class OneCall:
    """Comes first among the base classes of a recurrent policy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        replace_lstm(self)  # keeps the Parameter objects, which the optimizer has

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: State, episode_starts: Tensor, lstm: LSTM
    ) -> tuple[Tensor, State]:
        """features: (N * T, I), sequence after sequence; episode_starts: (N * T,), 0 or 1."""
        sequences = lstm_states[0].shape[1]
        x = features.view(sequences, -1, lstm.input_size).transpose(0, 1)
        starts = episode_starts.view(sequences, -1).transpose(0, 1)
        output, state = lstm(x, lstm_states, reset=starts)
        return output.transpose(0, 1).flatten(0, 1), state


class MlpLstmPolicy(OneCall, RecurrentActorCriticPolicy):
    """SB3-contrib's MlpLstmPolicy."""


def main() -> None:
    RecurrentPPO(MlpLstmPolicy, "CartPole-v1", verbose=1).learn(10_000)


if __name__ == "__main__":
    main()
