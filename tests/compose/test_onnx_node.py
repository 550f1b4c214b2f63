"""lstm_kernels.onnx.from_node: any LSTM node computes what ONNX's own runtimes say."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lstm_kernels import LSTM, Variant
from lstm_kernels.onnx import from_node, translation_table

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

T, N, I, H = 5, 3, 4, 6
INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]


class Node:
    """An LSTM node with random inputs."""

    def __init__(self, *, directions=1, without=(), lengths=(5, 2, 4), **attributes):
        random = np.random.default_rng(0)
        D = directions
        draw = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731
        self.values = {
            "X": draw(T, N, I),
            "W": draw(D, 4 * H, I),
            "R": draw(D, 4 * H, H),
            "B": draw(D, 8 * H),
            "sequence_lens": np.array(lengths, np.int32),
            "initial_h": draw(D, N, H),
            "initial_c": draw(D, N, H),
            "P": draw(D, 3 * H),
        }
        if attributes.get("layout"):
            for name in ("X", "initial_h", "initial_c"):
                self.values[name] = np.ascontiguousarray(self.values[name].swapaxes(0, 1))
        names = ["" if name in without else name for name in INPUTS]
        while not names[-1]:
            names.pop()
        self.node = onnx.helper.make_node(
            "LSTM", names, ["Y", "Y_h", "Y_c"], hidden_size=H, **attributes
        )

    def expected(self):
        """What ONNX Runtime returns."""
        used = [name for name in self.node.input if name]
        types = {"sequence_lens": onnx.TensorProto.INT32}
        inputs = [
            onnx.helper.make_tensor_value_info(
                name, types.get(name, onnx.TensorProto.FLOAT), self.values[name].shape
            )
            for name in used
        ]
        outputs = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in self.node.output
        ]
        graph = onnx.helper.make_graph([self.node], "lstm", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)])
        model.ir_version = 8
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return session.run(None, {name: self.values[name] for name in used})

    def ours(self, **convert):
        module = from_node(self.node, self.values)
        names = [*self.node.input, *[""] * (8 - len(self.node.input))]
        tensors = [
            torch.from_numpy(self.values[name]) if name else None
            for name in (names[0], *names[4:7])
        ]
        with torch.no_grad():
            return [value.numpy() for value in module(*tensors)]


CASES = {
    "plain": {"without": ("B", "sequence_lens", "initial_h", "initial_c", "P")},
    "all inputs": {},
    "peepholes": {"without": ("sequence_lens", "initial_h", "initial_c")},
    "input_forget": {"input_forget": 1},
    "input_forget without peepholes": {"input_forget": 1, "without": ("P", "B")},
    "clip": {"clip": 0.5},
    "clip and a cell state beyond it": {
        "clip": 0.5,
        "activations": ["Sigmoid", "Tanh", "Affine"],
        "activation_alpha": [0.9],
        "activation_beta": [0.1],
    },
    "reverse": {"direction": "reverse"},
    "bidirectional": {"direction": "bidirectional", "directions": 2, "clip": 0.7},
    "other activations": {
        "activations": ["HardSigmoid", "Softsign", "ScaledTanh"],
        "activation_alpha": [0.3, 0.8],
        "activation_beta": [0.4, 0.6],
    },
    "activations of each direction": {
        "direction": "bidirectional",
        "directions": 2,
        "activations": ["Sigmoid", "Relu", "Tanh", "HardSigmoid", "LeakyRelu", "Affine"],
        "activation_alpha": [0.25, 0.02, 0.9],
        "activation_beta": [0.45, 0.1],
    },
    "no h": {"without": ("initial_h", "P")},
}


@pytest.mark.parametrize("case", CASES)
def test_node_is_what_onnx_runtime_computes(case):
    node = Node(**CASES[case])
    for ours, expected in zip(node.ours(), node.expected(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


# Numbers are given where ONNX Runtime's own values for them are not those of the ONNX operators.
NUMBERS = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "Affine": (0.5, 0.3),
    "LeakyRelu": (),
    "ThresholdedRelu": (0.6,),
    "ScaledTanh": (0.7, 0.6),
    "HardSigmoid": (),
    "Elu": (),
    "Softsign": (),
    "Softplus": (),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_each_activation_in_each_place(name):
    """Few steps: gates beyond 1 let the states grow."""
    given = dict(
        zip(("activation_alpha", "activation_beta"), ([n] for n in NUMBERS[name]), strict=False)
    )
    for place in range(3):
        activations = ["Sigmoid", "Tanh", "Tanh"]
        activations[place] = name
        node = Node(activations=activations, lengths=(2, 1, 2), **given)
        for ours, expected in zip(node.ours(), node.expected(), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("direction", "layout"), list(itertools.product(("forward", "bidirectional"), (0, 1)))
)
def test_layouts(direction, layout):
    """ONNX Runtime has no layout 1: it must be layout 0 with the batch first."""
    options = {"direction": direction, "directions": 2 if direction == "bidirectional" else 1}
    plain, other = Node(**options), Node(**options, layout=layout)
    for k, (ours, expected) in enumerate(zip(other.ours(), plain.expected(), strict=True)):
        if layout:
            expected = np.moveaxis(expected, 2, 0) if k == 0 else expected.swapaxes(0, 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_onnxs_own_node_tests():
    """The test cases of the operator that the onnx package ships."""
    from onnx.backend.test.case import node as shipped
    from onnx.backend.test.case.node import lstm  # noqa: F401 - which fills the list

    cases = [case for case in shipped._NodeTestCases if case.model.graph.node[0].op_type == "LSTM"]
    assert len(cases) >= 4
    for case in cases:
        (node,) = case.model.graph.node
        for inputs, outputs in case.data_sets:
            values = dict(zip([name for name in node.input if name], inputs, strict=True))
            module = from_node(node, values)
            names = [*node.input, *[""] * (8 - len(node.input))]
            tensors = [
                torch.from_numpy(values[name].copy()) if name else None
                for name in (names[0], *names[4:7])
            ]
            found = dict(zip(("Y", "Y_h", "Y_c"), module(*tensors), strict=True))
            shown = [slot for slot, name in zip(found, node.output, strict=False) if name]
            for slot, expected in zip(shown, outputs, strict=True):
                actual = found[slot].detach().numpy()
                np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_module_trains():
    module = from_node(Node(clip=0.5).node, Node().values)
    x = torch.randn(T, N, I)
    sum(value.sum() for value in module(x)).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    plain = Node(without=("P", "B"))
    assert from_node(plain.node, plain.values).lstms[0].variant is None
    assert_close(module(x)[0][-1, 0], module(x)[1][0])


def test_bad_nodes():
    node = Node()
    with pytest.raises(ValueError, match="is not among the initializers"):
        from_node(node.node, {})
    with pytest.raises(ValueError, match="expected a node of type LSTM, got GRU"):
        from_node(onnx.helper.make_node("GRU", ["X"], ["Y"]), {})
    with pytest.raises(ValueError, match="no activation 'Gelu'"):
        from_node(Node(activations=["Gelu", "Tanh", "Tanh"]).node, node.values)
    with pytest.raises(ValueError, match="expected 3 activations"):
        from_node(Node(activations=["Tanh"]).node, node.values)
    with pytest.raises(ValueError, match="direction must be"):
        from_node(Node(direction="sideways").node, node.values)
    with pytest.raises(ValueError, match="1 directions, but the direction is bidirectional"):
        from_node(Node(direction="bidirectional").node, node.values)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.onnx's and onnxscript's own
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_variant_that_onnx_has_is_exported_as_one_node_and_comes_back(bidirectional):
    variant = Variant(
        peephole=True,
        coupled="forget",
        clip=0.8,
        activations=(("hardsigmoid", 0.3, 0.45), "softsign", "tanh"),
    )
    module = LSTM(I, H, bidirectional=bidirectional, variant=variant).eval()
    x = torch.randn(T, N, I)
    program = torch.onnx.export(
        module, (x,), dynamo=True, custom_translation_table=translation_table(), verbose=False
    )
    model = program.model_proto
    assert [node.op_type for node in model.graph.node].count("LSTM") == 1
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    output, (h_n, c_n) = module(x)
    for actual, expected in zip(found, (output, h_n, c_n), strict=True):
        np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "problem"),
    [
        (Variant(zoneout_cell=0.5), "zoneout"),
        (Variant(layer_norm="joint"), "layer norm"),
        (Variant(cell_norm="output"), "layer norm"),
    ],
)
def test_other_variants_have_no_onnx(variant, problem):
    module = LSTM(I, H, variant=variant).eval()
    exported = torch.export.export(module, (torch.randn(T, N, I),))
    node = next(n for n in exported.graph.nodes if "variant" in str(n.target))
    assert node.target is torch.ops.lstm_kernels.variant_forward.default
    translate = translation_table()[torch.ops.lstm_kernels.variant_forward.default]
    with pytest.raises(NotImplementedError, match=f"ONNX's LSTM has no {problem}"):
        translate(*node.args)


def test_an_exported_variant_trains():
    variant = Variant(peephole=True, coupled="input", activations=("sigmoid", "softsign", "tanh"))
    module = LSTM(I, H, variant=variant)
    x = torch.randn(T, N, I)
    exported = torch.export.export(module, (x,)).module()
    expected, found = module(x)[0], exported(x)[0]
    assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found.sum(), [*exported.parameters()]),
        torch.autograd.grad(expected.sum(), [*module.parameters()]),
        strict=True,
    ):
        assert_close(a, b)
