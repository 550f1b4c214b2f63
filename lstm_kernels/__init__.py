"""A faster torch.nn.LSTM that also returns the hidden state, cell state and gates of every step."""

# For what they register: FLOPs of the ops, and gradients of those that graphs hold.
from . import _flops, _graph_ops, nn, onnx  # noqa: F401
from ._config import show_config
from ._states import LSTMStates
from ._variants import Masks, Variant, VariantWeights
from ._version import __version__
from .functional import lstm, lstm_cell
from .inference import InferenceLSTM, InferenceLSTMCell, LSTMStream, for_inference
from .modules import LSTM, LSTMCell, replace_lstm

__all__ = [
    "LSTM",
    "InferenceLSTM",
    "InferenceLSTMCell",
    "LSTMCell",
    "LSTMStates",
    "LSTMStream",
    "Masks",
    "Variant",
    "VariantWeights",
    "__version__",
    "for_inference",
    "lstm",
    "lstm_cell",
    "replace_lstm",
    "show_config",
]
