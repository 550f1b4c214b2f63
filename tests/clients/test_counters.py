"""Counters of FLOPs that ask for the type of a module take one more line, as docs/tools.md says."""

import pytest
import torch
from torch import nn

import lstm_kernels
from lstm_kernels import LSTM, LSTMCell

T, N, I, H = 5, 2, 3, 4
X = torch.randn(T, N, I)


def both(options, cls=LSTM):
    return nn.Sequential(cls(I, H, **options)), nn.Sequential(nn.LSTM(I, H, **options))


each_option = pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])


@each_option
def test_thop(options):
    thop = pytest.importorskip("thop")
    from thop.rnn_hooks import count_lstm, count_lstm_cell

    ours, native = both(options)
    counts = {LSTM: count_lstm, LSTMCell: count_lstm_cell}
    found = thop.profile(ours, (X,), custom_ops=counts, verbose=False)
    assert found == thop.profile(native, (X,), verbose=False)
    assert found[0] > 0


@each_option
def test_ptflops(options):
    ptflops = pytest.importorskip("ptflops")
    from ptflops.pytorch_ops import rnn_cell_flops_counter_hook, rnn_flops_counter_hook

    found = []
    of_cell = {lstm_kernels.nn.LSTMCell: rnn_cell_flops_counter_hook}
    hooks = {lstm_kernels.nn.LSTM: rnn_flops_counter_hook, **of_cell}
    models = both(options, lstm_kernels.nn.LSTM)  # the hooks ask isinstance
    for model, given in zip(models, (hooks, {}), strict=True):
        found.append(
            ptflops.get_model_complexity_info(
                model,
                (N, I),
                as_strings=False,
                print_per_layer_stat=False,
                backend="pytorch",
                custom_modules_hooks=given,
            )
        )
    assert found[0] == found[1]
    assert found[0][0] > 0


@each_option
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fvcore traces
def test_fvcore(options):
    """It counts a multiply-add as one, and of nn.LSTM nothing."""
    pytest.importorskip("fvcore")
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

    def count(inputs, outputs):
        shapes = [get_shape(weight) for weight in inputs[3].node().inputs()]
        steps, batch, _ = get_shape(inputs[0])
        return sum(steps * batch * shape[0] * shape[1] for shape in shapes if len(shape) == 2)

    model, _ = both(options)
    counter = FlopCountAnalysis(model, X).set_op_handle("lstm_kernels::sequence_forward", count)
    matrices = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)
    assert counter.unsupported_ops_warnings(False).total() == T * N * matrices
