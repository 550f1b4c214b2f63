"""What an LSTM remembers: measured from its hidden state, cell state and gates of every step.

Start from `record(model, x)` or `stream(model, loader)`, or from the states of a call with
`return_states=True`. Each analysis is one function that returns a dataclass; `plot` draws them and
`report` puts them all on one page.
"""

from . import plot
from ._ablate import Ablation, ablate
from ._export import load, save, to_pandas
from ._gradient_flow import GradientFlow, gradient_flow
from ._horizon import Horizon, horizon
from ._label import Tracking, label
from ._lyapunov import Lyapunov, lyapunov
from ._match import Match, match
from ._overlap import Overlap, overlap
from ._record import record, stream
from ._recording import Recording
from ._report import report
from ._retention import Retention, Saturation, retention, saturation

__all__ = [
    "Ablation",
    "GradientFlow",
    "Horizon",
    "Lyapunov",
    "Match",
    "Overlap",
    "Recording",
    "Retention",
    "Saturation",
    "Tracking",
    "ablate",
    "gradient_flow",
    "horizon",
    "label",
    "load",
    "lyapunov",
    "match",
    "overlap",
    "plot",
    "record",
    "report",
    "retention",
    "saturation",
    "save",
    "stream",
    "to_pandas",
]
