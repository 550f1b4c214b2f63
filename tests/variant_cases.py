"""Random variants, and layers of them, for hypothesis to draw."""

import hypothesis.strategies as st
import torch
from support import weigh

from lstm_kernels import Variant, _variants_reference
from lstm_kernels._layer import Layer
from lstm_kernels._variants import ACTIVATIONS, LayerTensors

# LSTM_KERNELS_CUDA_PLAN: both exchanges, numbers of units and of cells of a thread. The stand-in on
# the CPU has six multiprocessors: there many sequences are several tiles of a block.
PLANS = ("8,8,tagged", "16,32,counter", "16,16,tagged", "8,24,counter")


@st.composite
def variants(draw):
    """Any variant that has kernels."""
    names = list(ACTIVATIONS)
    coupled = draw(st.sampled_from([None, None, "input", "forget"]))
    return Variant(
        peephole=draw(st.booleans()),
        coupled=coupled,
        clip=draw(st.sampled_from([None, 0.5])),
        cell_clip=draw(st.sampled_from([None, 0.3])),
        activations=(
            draw(st.sampled_from(["sigmoid", "sigmoid", "hardsigmoid", "softsign"])),
            draw(st.sampled_from(["tanh", "tanh", *names])),
            draw(st.sampled_from(["tanh", "tanh", *names])),
        ),
        layer_norm=draw(st.sampled_from([None, None, "joint", "separate"])),
        cell_norm=draw(st.sampled_from([None, None, "carried", "output"])),
        norm_eps=draw(st.sampled_from([1e-5, 0.1])),
        recurrent_dropout=draw(st.sampled_from([0.0, 0.3])),
        dropout_on=draw(st.sampled_from(["hidden", "gates", "candidate"])),
        dropout_per_step=draw(st.booleans()),
        zoneout_cell=draw(st.sampled_from([0.0, 0.3])),
        zoneout_hidden=draw(st.sampled_from([0.0, 0.3])),
        input_gate=coupled != "input" and draw(st.booleans()),
    )


@st.composite
def calls(
    draw,
    variant,
    dtype=torch.float64,
    T=None,
    N=None,
    H=None,
    ragged=None,
    states=None,
    projects=None,
):
    """A layer and the variant's tensors. What is None is drawn."""
    T = T or draw(st.integers(1, 6))
    N = N or draw(st.integers(1, 5))
    H = H or draw(st.integers(1, 20))
    I = draw(st.integers(1, 9))
    D = 1 if ragged == "reset" else draw(st.sampled_from([1, 2]))
    P = H if projects is False else draw(st.sampled_from([H, max(1, H // 2)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))

    def random(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    def bits(*size):
        return (random(*size) > 0).to(dtype)

    lengths = draw(st.lists(st.integers(1, T), min_size=N - 1, max_size=N - 1))
    lengths = sorted([*lengths, T])
    if ragged is None:
        ragged = draw(st.sampled_from(["", "packed", "lengths", "reset" if D == 1 else ""]))
    batch_sizes = reset = None
    if ragged == "packed":
        batch_sizes = torch.tensor([sum(length > t for length in lengths) for t in range(T)])
    reset_h = reset_c = None
    if ragged == "reset":
        reset = torch.rand(T, N, generator=generator) < 0.3
        to_steps = draw(st.sampled_from([0, 1, T]))
        if to_steps:
            reset_h, reset_c = random(to_steps, N, P), random(to_steps, N, H)
    has_lengths = ragged == "lengths" or (ragged == "reset" and draw(st.booleans()))
    if has_lengths:
        lengths[0] = draw(st.integers(0, T))
        if N == 1:
            lengths[0] = T
    shapes = [(4 * H, I), (4 * H, P)]
    # The more units, the smaller: sums of many would drive every gate from step to step at random.
    scale = 0.3 * min(1.0, (20 / H) ** 0.5)
    biases = draw(st.booleans())
    if projects is None:
        projects = P != H or draw(st.booleans())
    shapes += [(4 * H,)] * 2 * biases + [(P, H)] * projects
    rows = (sum(lengths),) if ragged == "packed" else (T, N)
    if states is None:
        states = draw(st.booleans())
    layer = Layer(
        random(*rows, I),
        random(D, N, P) if states else None,
        random(D, N, H) if states else None,
        [random(*shape) * scale for _ in range(D) for shape in shapes],
        biases,
        D == 2,
        batch_sizes,
        torch.tensor(lengths) if has_lengths else None,
        reset,
    )
    recurrent = {"hidden": (D * P,), "gates": (D, 4, P), "candidate": (D * H,)}
    steps = T if variant.dropout_per_step else 1
    masked = draw(st.booleans())
    tensors = LayerTensors(
        random(D, 3, H) if variant.peephole else None,
        random(D, 1 + (variant.layer_norm == "separate"), 4 * H) if variant.layer_norm else None,
        random(D, 2, H) if variant.cell_norm else None,
        random(draw(st.sampled_from([1, T])), N, D * H).sigmoid() if variant.input_gate else None,
        bits(steps, N, *recurrent[variant.dropout_on]) / 0.7 if variant.recurrent_dropout else None,
        bits(T, N, D * H) if variant.zoneout_cell and masked else None,
        bits(T, N, D * P) if variant.zoneout_hidden and masked else None,
        reset_h,
        reset_c,
    )
    return layer, tensors


def on_device(values, device):
    """A named tuple with all its tensors on the device, but for batch_sizes."""

    def moved(name, value):
        if isinstance(value, list):
            return [one.to(device) for one in value]
        stays = name == "batch_sizes" or not isinstance(value, torch.Tensor)
        return value if stays else value.to(device)

    return type(values)(*map(moved, values._fields, values))


def floating(layer, tensors):
    """The tensors that have a gradient."""
    of_variant = (tensors.peephole, tensors.norm_gates, tensors.norm_cell, tensors.input_gate)
    resets = (tensors.reset_h, tensors.reset_c)
    values = [layer.input, layer.h0, layer.c0, *layer.weights, *of_variant, *resets]
    return [value for value in values if value is not None]


def both(compute, layer, tensors, variant):
    """Results and gradients from `compute`, and from plain torch."""
    leaves = floating(layer, tensors)
    for value in leaves:
        value.requires_grad_()
    found = []
    for computed in (
        compute(layer, variant, tensors),
        _variants_reference.sequence_forward(layer, variant, tensors),
    ):
        loss = weigh([value.double().cpu() for value in computed])
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        found.append(([value.detach() for value in computed], gradients))
    return found
