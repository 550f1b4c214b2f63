"""speechbrain's LSTM layer and its CRDNN: the same with ours inside, padded batches too."""

import pytest
import torch
from comparing import gradients, trainer, twins

pytest.importorskip("speechbrain")
from speechbrain.lobes.models.CRDNN import CRDNN
from speechbrain.nnet.RNN import LSTM

CLIENT = "speechbrain"
# float32: rounding of at most 100 steps
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, [1.0, 1 / 9, 5 / 9, 1.0]])
def test_the_layer_is_theirs(bidirectional, lengths):
    """Lengths are relative there; with them it packs, and unpacks."""
    model = LSTM(8, input_size=6, num_layers=2, bidirectional=bidirectional)
    x = torch.randn(4, 9, 6)
    found = []
    for each in twins(model):
        of_each = None if lengths is None else torch.tensor(lengths)
        output, (h, c) = each(x, lengths=of_each)
        loss = output.sin().sum() + h.sum() + c.square().sum()
        found.append((output, h, c, gradients(each, loss)))
    torch.testing.assert_close(found[1], found[0], **TOLERANCE)


def test_a_recogniser_trains_the_same(ratio):
    options = {"rnn_class": LSTM, "rnn_layers": 2, "rnn_neurons": 128, "dropout": 0.0}
    blocks = {"cnn_blocks": 1, "cnn_channels": [8], "inter_layer_pooling_size": [2]}
    model = CRDNN(input_size=40, dnn_blocks=1, dnn_neurons=64, **options, **blocks)
    theirs, ours = twins(model)
    x, targets = torch.randn(8, 100, 40), torch.randint(1, 64, (8, 10))
    lengths = torch.full((8,), 100), torch.full((8,), 10)

    def loss(model):
        scores = model(x).log_softmax(-1).transpose(0, 1)
        return torch.nn.functional.ctc_loss(scores, targets, *lengths)

    torch.testing.assert_close(loss(ours), loss(theirs), **TOLERANCE)
    expected = gradients(theirs, loss(theirs))
    for name, gradient in gradients(ours, loss(ours)).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)
    ratio("training step, CRDNN, 8 x 100 frames", trainer(theirs, loss), trainer(ours, loss))
