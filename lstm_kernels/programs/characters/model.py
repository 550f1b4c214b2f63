"""The character model: embedding, LSTM, linear layer."""

from typing import Any

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class CharacterModel(nn.Module):
    """Predicts the next character at every step.

    Args:
        lstm: the class of the recurrent layers: `torch.nn.LSTM` or `lstm_kernels.LSTM`. Models that
            differ only in it start from equal weights under the same seed.
        characters: size of the alphabet.
    """

    def __init__(
        self,
        lstm: type[nn.RNNBase],
        characters: int,
        hidden_size: int,
        num_layers: int = 1,
        embedding_size: int = 64,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding_size)
        # RNNBase's own signature has the mode first, which its subclasses fill in.
        make: Any = lstm
        self.lstm = make(embedding_size, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, characters)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of the next character and the state to go on from.

        Args:
            tokens: (T, N) int64.
            state: `(h, c)`, each (L, N, H); absent means zeros.

        Returns:
            logits (T, N, characters), and the `(h, c)` after the last step.
        """
        output, state = self.lstm(self.embedding(tokens), state)
        return self.head(output), state

    @torch.no_grad()
    def sample(self, prompt: Tensor, length: int, temperature: float = 0.6) -> Tensor:
        """Draws `length` characters that follow `prompt` (characters,), with torch's own RNG."""
        logits, state = self(prompt[:, None])
        drawn = []
        for _ in range(length):
            chances = torch.softmax(logits[-1, 0] / temperature, dim=0)
            drawn.append(torch.multinomial(chances, 1))
            logits, state = self(drawn[-1][:, None], state)
        return torch.cat(drawn)
