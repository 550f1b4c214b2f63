"""docTR's CRNN reads pictures with our LSTM: trained the same, exported by docTR's own function."""

import numpy as np
import pytest
import torch
from comparing import gradients, trainer, twins

pytest.importorskip("doctr")
import onnxruntime
from doctr.models.recognition import crnn_mobilenet_v3_small
from doctr.models.utils import export_model_to_onnx

CLIENT = "python-doctr"
VOCABULARY = "abcdefghij"
# float32 through twenty convolutions and two layers in both directions over 32 steps
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}


@pytest.fixture
def models():
    model = crnn_mobilenet_v3_small(pretrained=False, pretrained_backbone=False, vocab=VOCABULARY)
    return twins(model)


def pictures(count):
    return torch.rand(count, 3, 32, 128)


def test_it_trains_the_same(models, ratio):
    """The LSTM's gradients; those of a batch norm differ by how rounding moves its statistics."""
    theirs, ours = models
    batch, words = pictures(16), ["abc", "jig", "head", "face"] * 4

    def loss(model):
        return model(batch, target=words)["loss"]

    torch.testing.assert_close(loss(ours), loss(theirs), **TOLERANCE)
    expected, found = (gradients(model, loss(model)) for model in (theirs, ours))
    for name in expected:
        if name.startswith(("decoder", "linear")):
            torch.testing.assert_close(found[name], expected[name], **TOLERANCE)
    ratio("training step, 16 pictures", trainer(theirs, loss), trainer(ours, loss))


# torch, of the exporter that docTR calls
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_its_own_export_says_what_the_model_says(models, tmp_path):
    theirs, ours = (model.eval() for model in models)
    ours.exportable = theirs.exportable = True
    file = export_model_to_onnx(ours, str(tmp_path / "crnn"), dummy_input=pictures(2))
    batch = pictures(3)
    (logits,) = onnxruntime.InferenceSession(file).run(None, {"input": batch.numpy()})
    with torch.no_grad():
        for model in (ours, theirs):
            expected = model(batch)["logits"]
            np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-3, atol=1e-5)
