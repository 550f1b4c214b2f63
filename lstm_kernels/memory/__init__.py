"""What an LSTM remembers: measured from its hidden state, cell state and gates of every step.

Start from `record(model, x)` or `stream(model, loader)`, or from the states of a call with
`return_states=True`. Each analysis is one function that returns a dataclass; `plot` draws them and
`report` puts them all on one page.
"""

from . import plot
from .ablation import Ablation, ablate
from .export import load, save, to_pandas
from .gates import Retention, Saturation, retention, saturation
from .gradients import GradientFlow, gradient_flow
from .probes import Horizon, horizon
from .recording import Recording, record, stream
from .search import Match, match
from .summary import report
from .tracking import Tracking, label

__all__ = [
    "Ablation",
    "GradientFlow",
    "Horizon",
    "Match",
    "Recording",
    "Retention",
    "Saturation",
    "Tracking",
    "ablate",
    "gradient_flow",
    "horizon",
    "label",
    "load",
    "match",
    "plot",
    "record",
    "report",
    "retention",
    "saturation",
    "save",
    "stream",
    "to_pandas",
]
