"""A little of everything the tests ask of the ops, for a process under a sanitizer."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import library
import test_ops
import torch

from lstm_kernels import Variant, _variant_autograd, _variant_ops, _variants_reference
from lstm_kernels._layer import Layer
from lstm_kernels._variants import LayerTensors

VARIANTS = (
    Variant(peephole=True, coupled="input", cell_clip=0.5, zoneout_cell=0.2, zoneout_hidden=0.2),
    Variant(recurrent_dropout=0.3, dropout_on="gates", input_gate=True),
    Variant(recurrent_dropout=0.3, layer_norm="joint", cell_norm="output"),
    Variant(layer_norm="separate", cell_norm="carried", peephole=True, zoneout_hidden=0.2),
)
OF_SINGLE_CELLS = (
    Variant(peephole=True, coupled="input", zoneout_cell=0.2, zoneout_hidden=0.2),
    Variant(peephole=True, recurrent_dropout=0.3, input_gate=True),
)

os.environ["LSTM_KERNELS_CUDA_PATH"] = "step"
ops = library.load(sys.argv[1])
for seed, ragged in enumerate((None, "packed", "lengths", "reset")):
    for dtype in (torch.float32, torch.bfloat16):
        for size in ((1, 3, 5, None), (9, 8, 8, None), (17, 5, 6, None), (18, 4, 5, 3)):
            D = 1 if ragged == "reset" else 2
            test_ops.check(ops, test_ops.Case(dtype, 3, *size, D, ragged, seed + 1))
for N in (1, 9, 17):
    test_ops.test_a_step_on_its_own(ops, torch.float32, N)


def check_variant(variant, case, seed):
    """A layer of a variant against the equations, results and gradients."""
    layer = Layer(case.x, case.h0, case.c0, *case.layer)
    H, P = layer.weights[0].shape[0] // 4, layer.weights[1].shape[1]
    D, T = 1 + layer.bidirectional, 3
    N = case.x.shape[1] if layer.batch_sizes is None else int(layer.batch_sizes[0])
    gains = 1 + (variant.layer_norm == "separate")
    masks = {"hidden": (D * P,), "gates": (D, 4, P)}
    tensors = LayerTensors(
        case.uniform(D, 3, H) if variant.peephole else None,
        case.uniform(D, gains, 4 * H) if variant.layer_norm else None,
        case.uniform(D, 2, H) if variant.cell_norm else None,
        case.uniform(T, N, D * H).sigmoid() if variant.input_gate else None,
        case.uniform(T, N, *masks[variant.dropout_on]) if variant.recurrent_dropout else None,
        None,
        case.uniform(T, N, D * P) if variant.zoneout_hidden and seed % 2 else None,
        None,
        None,
    )
    for w in layer.weights:
        w.requires_grad_()
    expected = _variants_reference.sequence_forward(layer, variant, tensors)
    found = _variant_autograd.differentiable(layer, variant, tensors, False)
    both = [
        [*results, *torch.autograd.grad(sum(r.sin().sum() for r in results), layer.weights)]
        for results in (found, expected)
    ]
    tolerance = 1e-9 if case.dtype is torch.float64 else 1e-4
    torch.testing.assert_close(*both, rtol=tolerance, atol=tolerance)


_variant_ops._forward, _variant_ops._backward = ops._variant_forward, ops._variant_backward
for seed, ragged in enumerate((None, "packed", "lengths", "reset")):
    D = 1 if ragged == "reset" else 2
    for size in ((1, 3, 5, None), (9, 8, 40, None), (4, 4, 5, 3)):
        for variant in VARIANTS:
            case = test_ops.Case(torch.float64, 3, *size, D, ragged, seed + 1)
            check_variant(variant, case, seed)
os.environ["LSTM_KERNELS_CUDA_PATH"] = "persistent"
for plan in ("8,8,tagged", "16,24,counter"):
    os.environ["LSTM_KERNELS_CUDA_PLAN"] = plan
    for seed, ragged in enumerate((None, "packed", "lengths", "reset")):
        D = 1 if ragged == "reset" else 2
        for size in ((1, 3, 5, None), (19, 3, 17, None)):
            for variant in OF_SINGLE_CELLS:
                case = test_ops.Case(torch.float32, 3, *size, D, ragged, seed + 1)
                check_variant(variant, case, seed)
print("every value is right")
