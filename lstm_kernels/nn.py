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
    __doc__ = modules.LSTM.__doc__


class LSTMCell(modules.LSTMCell, torch.nn.LSTMCell):
    __doc__ = modules.LSTMCell.__doc__
