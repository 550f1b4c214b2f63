"""A LightningModule with an LSTM inside: fit, checkpoint, load, test."""

import tempfile
from pathlib import Path

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Forecaster(lightning.LightningModule):
    """Predicts the next value of a wave from the values so far."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 16, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0])

    def loss(self, batch):
        (x,) = batch
        return nn.functional.mse_loss(self(x[:, :-1]), x[:, 1:])

    def training_step(self, batch, index):
        return self.loss(batch)

    def test_step(self, batch, index):
        self.log("loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def train():
    phase = torch.rand(64, 1) * 6.28
    waves = torch.sin(phase + torch.arange(33) / 4).unsqueeze(-1)
    loader = DataLoader(TensorDataset(waves), batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        model = Forecaster()
        trainer.fit(model, loader)
        (trained,) = trainer.test(model, loader, verbose=False)
        path = Path(folder) / "model.ckpt"
        trainer.save_checkpoint(path)
        loaded = Forecaster.load_from_checkpoint(path)
        (again,) = trainer.test(loaded, loader, verbose=False)
    return loaded, [trained["loss"], again["loss"]]
