"""neuralhydrology's own runner, from a file of options to the scores of a test period.

The rivers are made here: rain on each day, a store that loses a part of its water on each, at a
rate that is the basin's attribute.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray
from neuralhydrology.modelzoo import get_model
from neuralhydrology.nh_run import eval_run, start_run
from neuralhydrology.utils.config import Config
from ruamel.yaml import YAML

BASINS = ("brook", "river", "stream")
OPTIONS = {
    "experiment_name": "made",
    "dataset": "generic",
    "dynamic_inputs": ["rain", "warmth"],
    "static_attributes": ["rate"],
    "target_variables": ["flow"],
    "model": "cudalstm",
    "head": "regression",
    "output_activation": "linear",
    "hidden_size": 24,
    "initial_forget_bias": 3,
    "output_dropout": 0.1,
    "optimizer": "Adam",
    "loss": "MSE",
    "learning_rate": {0: 0.01},
    "batch_size": 64,
    "epochs": 2,
    "seq_length": 60,
    "predict_last_n": 1,
    "clip_gradient_norm": 1,
    "metrics": ["NSE"],
    "validate_every": 2,
    "validate_n_random_basins": 1,
    "save_weights_every": 1,
    "log_interval": 5,
    "log_tensorboard": False,
    "num_workers": 0,
    "seed": 0,
    "device": "cpu",
}
PERIODS = {"train": (2000, 2001), "validation": (2002, 2002), "test": (2003, 2003)}


def make_basins(folder: Path) -> None:
    draw = np.random.default_rng(0)
    date = pd.date_range("1999-01-01", "2003-12-31")
    rates = draw.uniform(0.05, 0.3, len(BASINS))
    (folder / "time_series").mkdir()
    (folder / "attributes").mkdir()
    for name, rate in zip(BASINS, rates, strict=True):
        rain = draw.gamma(0.3, 8.0, len(date))
        store, flow = 0.0, np.empty(len(date))
        for day, fallen in enumerate(rain):
            store += fallen
            flow[day] = rate * store
            store -= flow[day]
        warmth = 10 * np.sin(2 * np.pi * date.dayofyear.to_numpy() / 365)
        columns = {"rain": rain, "warmth": warmth, "flow": flow}
        frame = pd.DataFrame(columns, index=pd.Index(date, name="date"))
        xarray.Dataset.from_dataframe(frame).to_netcdf(folder / "time_series" / f"{name}.nc")
    attributes = pd.DataFrame({"rate": rates}, index=pd.Index(BASINS, name="basin"))
    attributes.to_csv(folder / "attributes" / "attributes.csv")
    (folder / "basins.txt").write_text("\n".join(BASINS))


def options_in(folder: Path) -> dict[str, object]:
    options = dict(OPTIONS) | {"data_dir": str(folder), "run_dir": str(folder / "runs")}
    for period, (first, last) in PERIODS.items():
        options[f"{period}_basin_file"] = str(folder / "basins.txt")
        options[f"{period}_start_date"] = f"01/01/{first}"
        options[f"{period}_end_date"] = f"31/12/{last}"
    return options


def train():
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        make_basins(folder)
        with (folder / "options.yml").open("w") as file:
            YAML().dump(options_in(folder), file)
        start_run(folder / "options.yml")
        (run,) = (folder / "runs").iterdir()
        eval_run(run, period="test")
        (scores,) = run.glob("test/*/test_metrics.csv")
        numbers = pd.read_csv(scores)["NSE"].to_list()
        model = get_model(Config(run / "config.yml"))
        (last,) = run.glob("model_epoch002.pt")
        model.load_state_dict(torch.load(last, weights_only=True))
    return model, numbers
