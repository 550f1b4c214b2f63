"""What an LSTM returns on request: both states and the gates of every step."""

from __future__ import annotations

from typing import Generic

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import NamedTuple, TypeVar  # generic, and with a default, in any Python

from ._torch_private import register_namedtuple

_Either = Tensor | PackedSequence
_Rows = TypeVar("_Rows", bound=_Either, covariant=True, default=_Either)


class LSTMStates(NamedTuple, Generic[_Rows]):
    """Hidden state, cell state and gates of every step, one entry per layer.

    Shapes are for (T, N, I) input; batch_first swaps T and N, unbatched input has no N, and for a
    PackedSequence each entry is a PackedSequence with the input's batch_sizes and indices. The
    reverse direction is aligned to the time of the input. Nothing here shares memory with the
    output or with each other.

    Attributes:
        hidden: the hidden state h_t after each step, before dropout; (T, N, D * H_out), where H_out
            is proj_size if the layer projects, else hidden_size.
        cell: the cell state c_t after each step, (T, N, D * H).
        gates: the activated input, forget, candidate and output gates i, f, g, o that made the
            step, (T, N, D, 4, H); None unless they were asked for.

    Examples:
        >>> import torch
        >>> from lstm_kernels import LSTM
        >>> _, (h_n, c_n), states = LSTM(3, 4)(torch.randn(5, 2, 3), return_states=True)
        >>> tuple(states.cell[0].shape), states.gates is None
        ((5, 2, 4), True)
        >>> torch.equal(states.cell[0][-1], c_n[0])
        True
    """

    hidden: tuple[_Rows, ...]
    cell: tuple[_Rows, ...]
    gates: tuple[_Rows, ...] | None


# So that torch.export.save can write a program that returns one.
register_namedtuple(LSTMStates, "lstm_kernels.LSTMStates")
