"""pytorch-forecasting's DeepAR, whose own LSTM class is a subclass of nn.LSTM."""

import tempfile

import lightning
import numpy as np
import pandas as pd
from pytorch_forecasting import DeepAR, TimeSeriesDataSet


def train():
    steps = np.arange(60)
    rows = [
        pd.DataFrame({"step": steps, "series": str(s), "value": np.sin(steps / 5 + s) + 2.0})
        for s in range(8)
    ]
    series = TimeSeriesDataSet(
        pd.concat(rows, ignore_index=True),
        time_idx="step",
        target="value",
        group_ids=["series"],
        static_categoricals=["series"],
        time_varying_unknown_reals=["value"],
        max_encoder_length=20,
        max_prediction_length=5,
    )
    model = DeepAR.from_dataset(series, hidden_size=16, rnn_layers=2, dropout=0.1, log_interval=-1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=2,
            limit_train_batches=5,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        trainer.fit(model, series.to_dataloader(train=True, batch_size=16))
    return model, [float(trainer.callback_metrics["train_loss_epoch"])]
