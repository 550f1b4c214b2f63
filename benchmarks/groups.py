"""The questions: each group is a grid of cases and who computes them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from . import analysis, contenders, deployed, variable, variants
from .cases import Case
from .workload import Call, Workload

Contenders = dict[str, Callable[[Workload], Call]]

NATIVE: Contenders = {"nn.LSTM": contenders.native}
LOOPS: Contenders = {
    "nn.LSTMCell loop": contenders.cell_loop,
    "compiled loop": contenders.compiled_loop,
}
ONNX: Contenders = {"ONNX Runtime": contenders.onnx_runtime}


@dataclass(frozen=True)
class Group:
    """One question. `ours` and each peer compute every case; ratios are peer over ours.

    spinning: how many processes that never rest run during the measurement.
    times: how many times as long as usual a row is measured, where its ratios vary most.
    """

    question: str
    cases: list[Case]
    peers: Contenders
    ours: Callable[[Workload], Call] = contenders.ours
    # Peers that take part in some cases only, because all would take too long.
    some: Mapping[str, Callable[[Case], bool]] = field(default_factory=dict)
    spinning: int = 0
    times: int = 1

    def takes_part(self, peer: str, case: Case) -> bool:
        """Whether a peer computes a case."""
        return peer not in self.some or self.some[peer](case)


def grid(full: bool) -> Iterator[Case]:
    """Shapes of the inference and training groups; thinned so that the whole takes minutes."""
    if full:
        for t, n, h in product(
            (1, 16, 128, 1024), (1, 4, 16, 64, 256), (64, 100, 128, 256, 512, 1024)
        ):
            case = Case(t, n, h)
            if case.flops < 2e12:  # more takes longer than all the rest together
                yield case
        return
    for n, sizes in {
        1: (64, 128, 256, 512, 1024),
        4: (100, 256),
        16: (64, 128, 256, 512),
        64: (128, 256, 512),
    }.items():
        for h in sizes:
            yield Case(128, n, h)
    yield from (Case(1, 16, 256), Case(16, 16, 1024), Case(16, 256, 256), Case(1024, 1, 128))


def trained(full: bool) -> list[Case]:
    """The same grid for training, without the cases whose steps take a second."""
    return training([case for case in grid(full) if full or case.flops < 1e10])


def training(cases: Iterator[Case] | list[Case]) -> list[Case]:
    return [replace(case, training=True) for case in cases]


def both(cases: list[Case]) -> list[Case]:
    return cases + training(cases)


def loops_take_part(case: Case) -> bool:
    return case.N == 16 and case.H == 256


def groups(full: bool) -> dict[str, Group]:
    """All groups by name, with thinned grids or the full ones."""
    some = dict.fromkeys(LOOPS, loops_take_part)
    # Few steps, because without instructions for them nn.LSTM takes seconds in 16-bit dtypes.
    narrow = [
        Case(32, n, 256, dtype=dtype)
        for dtype in ("bfloat16", "float16", "float64")
        for n in (1, 16)
    ]
    plain = [Case(128, 1, 256), Case(128, 16, 256)]
    ragged = [
        replace(case, **option)
        for case in plain
        for option in (
            {"packed": True},
            {"bidirectional": True},
            {"proj_size": 128},
            {"layers": 2},
            {"packed": True, "bidirectional": True, "layers": 2},
        )
        if not (case.N == 1 and "packed" in option)
    ]
    cells = [Case(1, n, h, cell=True) for n in (1, 16) for h in (64, 128, 256, 512)]
    single = [Case(1, n, h) for n in (1, 16) for h in (64, 128, 256, 512)]
    quantized = [
        *(Case(64, n, h) for n in (1, 4, 16, 64) for h in (128, 256, 512, 1024)),
        *(Case(1, n, h) for n in (1, 16) for h in (128, 512)),
    ]
    states = [Case(128, n, h) for n, h in ((1, 128), (1, 512), (16, 256), (64, 128))]
    uneven = both([Case(128, n, 256, packed=True) for n in (16, 64)])
    episodes = both([Case(128, n, 128) for n in (8, 32)])
    analyses = [
        Case(128, n, h, analysis=name)
        for n, h in ((16, 256), (64, 128))
        for name in analysis.ANALYSES
    ]
    sweeps = [
        *(Case(t, 16, 256, sweep="T") for t in (16, 64, 256, 1024)),
        *(Case(128, n, 256, sweep="N") for n in (1, 4, 16, 64, 256)),
        *(Case(128, 16, h, sweep="H") for h in (64, 128, 256, 512, 1024)),
    ]
    sizes = (
        list(product((1, 16, 64), (128, 256, 512))) if full else [(1, 256), (16, 256), (64, 128)]
    )
    of_variants = both(
        [Case(128, n, h, variant=name) for name in variants.VARIANTS for n, h in sizes]
    )
    return {
        "inference": Group(
            "How fast is inference in float32?", list(grid(full)), NATIVE | LOOPS, some=some
        ),
        "prepacked": Group(
            "How fast is inference in float32 with packed weights kept?",
            list(grid(full)),
            NATIVE | ONNX | {"ours, packing in each call": contenders.ours},
            ours=contenders.ours_prepacked,
        ),
        "prepacked_narrow": Group(
            "How fast is inference in float32 with weights kept in bfloat16?",
            [Case(128, n, h) for n, h in ((1, 512), (1, 1024), (1, 256), (16, 512))],
            NATIVE
            | {
                "ours, float32 weights kept": contenders.ours_prepacked,
                "ours, float16 weights kept": contenders.ours_prepacked_float16,
            },
            ours=contenders.ours_prepacked_bfloat16,
        ),
        "quantized": Group(
            "How fast is inference with int8 weights?",
            quantized,
            NATIVE
            | ONNX
            | {
                "ONNX Runtime, int8": deployed.onnx_runtime_int8,
                "ONNX Runtime, uint8": deployed.onnx_runtime_uint8,
                "torch.ao, int8": deployed.torch_ao_int8,
                "OpenVINO": deployed.openvino_float32,
                "OpenVINO, bfloat16": deployed.openvino_bfloat16,
                "ours, float32 weights owned": deployed.owned,
                "ours, bfloat16 weights owned": deployed.owned_bfloat16,
                "ours, bfloat16 products owned": deployed.owned_reduced,
            },
            ours=deployed.owned_int8,
        ),
        "stream": Group(
            "How long does one step of a stream take?",
            cells,
            {
                "nn.LSTM": deployed.native_step,
                "nn.LSTMCell": contenders.native_cell_step,
                "ours, int8": deployed.stream_int8,
            },
            ours=deployed.stream,
        ),
        "training": Group(
            "How fast is a training step in float32: forward, and all gradients?",
            trained(full),
            NATIVE | LOOPS,
            some=some,
        ),
        "reduced": Group(
            "How fast is float32 where products may round to bfloat16?",
            both([Case(64, n, h) for n in (16, 64) for h in (256, 512, 1024)]),
            NATIVE | {"ours, rounding nothing": contenders.ours},
            ours=contenders.ours_reduced,
        ),
        "narrow": Group("How fast are the other dtypes?", both(narrow), NATIVE),
        "ragged": Group(
            "How fast are packed, bidirectional, projected and stacked LSTMs?", both(ragged), NATIVE
        ),
        "cell": Group(
            "How long does one LSTMCell step take?",
            cells,
            {
                "nn.LSTMCell": contenders.native_cell_step,
                "ours, the op alone": contenders.cell_op_alone,
            },
            ours=contenders.ours_cell_step,
        ),
        "single": Group(
            "How long does an LSTM over one step take?",
            single,
            NATIVE | ONNX | {"ours, the op alone": contenders.op_alone},
        ),
        "states": Group(
            "What does every hidden and cell state cost?",
            both(states),
            {
                "nn.LSTMCell loop": contenders.cell_loop_with_states,
                "ours, without states": contenders.ours,
            },
            ours=contenders.ours_with_states,
        ),
        "lengths": Group(
            "What does padded input with lengths= cost?",
            uneven,
            {
                "ours, packed beforehand": contenders.ours,
                "nn.LSTM, packing and padding": variable.native_packing,
            },
            ours=variable.ours_with_lengths,
        ),
        "reset": Group(
            "What do resets of the state inside a sequence cost?",
            episodes,
            {
                "ours, without resets": contenders.ours,
                "nn.LSTM, splitting and padding": variable.native_splitting,
                "nn.LSTMCell loop": variable.cell_loop_with_resets,
            },
            ours=variable.ours_with_resets,
        ),
        "recompute": Group(
            "What time does recompute=True cost? (The group footprint says what it saves.)",
            training(states),
            {"ours, recompute=False": contenders.ours},
            ours=variable.ours_recomputing,
        ),
        "analysis": Group(
            "What does it cost to analyse what an LSTM remembers?",
            analyses,
            {
                "ours, forward and backward": analysis.forward_and_backward,
                "nn.LSTMCell loop": analysis.cell_loop,
            },
            ours=analysis.ours,
        ),
        "variants": Group(
            "What do variants of the LSTM cost?",
            of_variants,
            {
                "ours, plain LSTM": variants.ours_plain,
                "loop in torch": variants.eager_loop,
                "compiled loop": variants.compiled_loop,
                "ONNX Runtime": variants.onnx_runtime,
                "Keras on torch": variants.keras,
                "torchaudio": variants.torchaudio,
            },
            ours=variants.ours_variant,
            some={"loop in torch": loops_take_part, "compiled loop": loops_take_part},
        ),
        "busy": Group(
            "How fast is it while another process keeps one core busy?",
            both([Case(32, n, 256) for n in (1, 4, 16, 64)]),
            NATIVE,
            spinning=1,
            times=13,
        ),
        "scaling": Group("How does time grow with T, N, H and threads?", sweeps, NATIVE),
    }
