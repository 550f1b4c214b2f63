"""LSTM and LSTMCell that are a torch.nn.LSTM and a torch.nn.LSTMCell, for what asks isinstance.

Some libraries treat an LSTM as such only where `isinstance(module, torch.nn.LSTM)`: they initialise
it, pass it a PackedSequence, or export it. These classes are for them. They do all that
`lstm_kernels.LSTM` and `lstm_kernels.LSTMCell` do, but torch.compile breaks the graph at every
torch.nn.LSTM unless `torch._dynamo.config.allow_rnn` is set.

`lstm_kernels.nn.LSTM.from_native` converts one module, `replace_lstm(model, subclass=True)` those
of a model.
"""

from __future__ import annotations

import torch.nn

from . import modules

__all__ = ["LSTM", "LSTMCell"]


class LSTM(modules.LSTM, torch.nn.LSTM):
    """An lstm_kernels.LSTM, with the same arguments and results, that is also a torch.nn.LSTM.

    Raises:
        TypeError, ValueError: as lstm_kernels.LSTM.

    Examples:
        >>> import torch
        >>> import lstm_kernels
        >>> lstm = lstm_kernels.nn.LSTM(3, 4)
        >>> isinstance(lstm, torch.nn.LSTM), isinstance(lstm, lstm_kernels.LSTM)
        (True, True)
        >>> tuple(lstm(torch.randn(5, 2, 3))[0].shape)
        (5, 2, 4)
    """


class LSTMCell(modules.LSTMCell, torch.nn.LSTMCell):
    """An lstm_kernels.LSTMCell, with the same arguments and results, also a torch.nn.LSTMCell.

    Raises:
        TypeError, ValueError: as lstm_kernels.LSTMCell.

    Examples:
        >>> import torch
        >>> import lstm_kernels
        >>> cell = lstm_kernels.nn.LSTMCell(3, 4)
        >>> isinstance(cell, torch.nn.LSTMCell), isinstance(cell, lstm_kernels.LSTMCell)
        (True, True)
        >>> h, c = cell(torch.randn(2, 3))
    """
