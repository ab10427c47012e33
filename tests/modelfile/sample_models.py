"""Canonical models for tests: one node of each op, and a small network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

F32 = ir.DataType.FLOAT


def activation(name: str, shape: Sequence[int | str | None] | None = None) -> ir.Value:
    return ir.Value(
        name=name,
        shape=None if shape is None else ir.Shape(shape),
        type=ir.TensorType(F32),
    )


def constant(name: str, array: Any) -> ir.Value:
    array = np.asarray(array)
    return ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(array, name=name),
    )


def weights(*shape: int, density: float = 0.1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < density, array, np.float32(0))


def make_model(
    inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], nodes: Sequence[ir.Node]
) -> ir.Model:
    constants = {
        id(value): value
        for node in nodes
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=nodes,
        initializers=list(constants.values()),
        opset_imports={"": onnx.defs.onnx_opset_version(), "sparsert": 1},
        name="sample",
    )
    return ir.Model(graph, ir_version=10)


# op_type, domain, inputs after x (arrays, or None for absent ones), attributes
S = "sparsert"
INT8_WEIGHTS = np.arange(4 * 12 * 9).reshape(4, 12, 3, 3).astype(np.int8)
# Operators whose first input is packed bytes.
ON_BYTES = (
    "DequantizePacked",
    "QConv",
    "QDepthwise",
    "QAdd",
    "QMaxPool",
    "QAveragePool",
    "QLookup",
    "QElementwise",
    "QAttention",
    "QConvDynamic",
)
ONE_NODE: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("Conv", S, [weights(4, 3, 3, 3), np.zeros(4, np.float32)], {"act": "relu6"}),
    ("Conv", S, [weights(4, 3, 5)], {"strides": [2], "pads": [2, 2], "group": 1}),
    ("Conv", S, [weights(4, 1, 3, 3)], {"group": 2, "auto_pad": "SAME_UPPER", "act": "silu"}),
    ("ConvTranspose", S, [weights(4, 2, 2, 2)], {"strides": [2, 2], "output_padding": [1, 1]}),
    ("Linear", S, [weights(8, 6), None, weights(2, 8)], {"act": "leaky_relu", "act_alpha": 0.1}),
    ("BatchNormalization", S, [np.ones(3, np.float32), np.ones(3, np.float32)], {"act": "relu"}),
    ("Add", S, [np.ones((1, 3), np.float32)], {"act": "clip", "act_alpha": -1.0, "act_beta": 1.0}),
    *[(op, "", [np.ones(3, np.float32)], {}) for op in "Add Sub Mul Div Pow Min Max".split()],
    ("LeakyRelu", "", [], {"alpha": 0.2}),
    ("Elu", "", [], {}),
    ("Selu", "", [], {"alpha": 1.5, "gamma": 2.0}),
    ("Celu", "", [], {"alpha": 0.5}),
    ("HardSigmoid", "", [], {"alpha": 0.1, "beta": 0.4}),
    ("Swish", "", [], {"alpha": 2.0}),
    ("Gelu", "", [], {"approximate": "tanh"}),
    ("Gelu", "", [], {}),
    ("ThresholdedRelu", "", [], {"alpha": 0.5}),
    ("Clip", "", [np.float32(-1), np.float32(1)], {}),
    ("Clip", "", [None, np.float32(6)], {}),
    *[
        (op, "", [], {})
        for op in (
            "Relu HardSwish Sigmoid Tanh Exp Log Sqrt Abs Neg Reciprocal Floor Ceil Round Erf Sin "
            "Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Softplus Softsign Mish Sign "
            "Identity Size GlobalAveragePool GlobalMaxPool"
        ).split()
    ],
    ("PRelu", "", [np.ones((3, 1, 1), np.float32)], {}),
    ("MaxPool", "", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", "", [], {"kernel_shape": [2], "count_include_pad": 1, "pads": [1, 1]}),
    ("AveragePool", "", [], {"kernel_shape": [2, 2], "auto_pad": "VALID"}),
    ("Concat", "", [np.ones((1, 3), np.float32)], {"axis": -1}),
    ("Split", "", [np.array([1, 2])], {"axis": 1}),
    ("Slice", "", [np.array([0]), np.array([2]), None, np.array([1])], {}),
    ("Reshape", "", [np.array([1, -1])], {"allowzero": 1}),
    ("Flatten", "", [], {"axis": 2}),
    ("Squeeze", "", [], {}),
    ("Unsqueeze", "", [np.array([0])], {}),
    ("Transpose", "", [], {"perm": [0, 2, 3, 1]}),
    ("Expand", "", [np.array([2, 3, 4])], {}),
    ("Gather", "", [np.array([[0, 1]])], {"axis": 1}),
    ("Pad", "", [np.array([0, 1]), np.float32(2), np.array([1])], {"mode": "reflect"}),
    ("Resize", "", [None, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
    (
        "Resize",
        "",
        [None, None, np.array([4, 4])],
        {
            "axes": [2, 3],
            "coordinate_transformation_mode": "align_corners",
            "nearest_mode": "ceil",
            "keep_aspect_ratio_policy": "not_larger",
        },
    ),
    (
        "Resize",
        "",
        [np.ones(8, np.float32), None, np.array([1, 3, 4, 4])],
        {
            "mode": "linear",
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 2.5,
        },
    ),
    (
        "Resize",
        "",
        [None, None, np.array([1, 3, 2, 2])],
        {"mode": "cubic", "cubic_coeff_a": -0.5, "antialias": 1, "exclude_outside": 1},
    ),
    (
        "GridSample",
        "",
        [np.zeros((1, 2, 2, 2), np.float32)],
        {"mode": "cubic", "padding_mode": "border", "align_corners": 1},
    ),
    ("GridSample", "", [np.zeros((1, 2, 2, 2), np.float32)], {}),
    (
        "RoiAlign",
        "",
        [np.zeros((2, 4), np.float32), np.zeros(2, np.int64)],
        {
            "mode": "max",
            "coordinate_transformation_mode": "output_half_pixel",
            "output_height": 3,
            "output_width": 5,
            "sampling_ratio": 2,
            "spatial_scale": 0.5,
        },
    ),
    (
        "DeformColumns",
        S,
        [np.zeros((1, 18, 4, 4), np.float32)],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 1},
    ),
    *[
        (f"Reduce{name}", "", [np.array([1])], {"keepdims": 0})
        for name in "Sum Mean Max Min Prod L1 L2 SumSquare LogSum LogSumExp".split()
    ],
    *[(op, "", [np.array([3])], {}) for op in "BitwiseAnd BitwiseOr BitwiseXor".split()],
    ("Mod", "", [np.ones(3, np.float32)], {}),
    ("Mod", "", [np.ones(3, np.float32)], {"fmod": 1}),
    ("BitShift", "", [np.array([3])], {"direction": "LEFT"}),
    ("BitShift", "", [np.array([3])], {"direction": "RIGHT"}),
    ("ArgMax", "", [], {"axis": 1, "keepdims": 0, "select_last_index": 1}),
    ("ArgMin", "", [], {}),
    ("TopK", "", [np.array([2])], {"axis": 1, "largest": 0, "sorted": 0}),
    ("GatherElements", "", [np.zeros((1, 1, 1, 1), np.int64)], {"axis": 2}),
    ("GatherND", "", [np.zeros((1, 2), np.int64)], {"batch_dims": 0}),
    (
        "ScatterElements",
        "",
        [np.zeros((1, 1, 1, 1), np.int64), np.ones((1, 1, 1, 1), np.float32)],
        {"axis": 1, "reduction": "mul"},
    ),
    (
        "ScatterND",
        "",
        [np.zeros((1, 4), np.int64), np.ones(1, np.float32)],
        {"reduction": "max"},
    ),
    ("OneHot", "", [np.array(4), np.array([0, 1], np.float32)], {"axis": 0}),
    ("CumSum", "", [np.array(1)], {"exclusive": 1, "reverse": 1}),
    ("CumProd", "", [np.array(1)], {}),
    ("Trilu", "", [np.array(1)], {"upper": 0}),
    ("Tile", "", [np.array([1, 2, 1, 1])], {}),
    ("BitCast", "", [], {"to": 6}),
    (
        "Recurrent",
        "sparsert",
        [np.eye(4, 2, dtype=np.float32), None, np.eye(2, dtype=np.float32)],
        {"cell": "gru", "activations": ["sigmoid", "tanh"], "clip": 3.0, "reverse": 1},
    ),
    ("QuantizePacked", S, [], {"alpha": 0.5, "quant": [128, 0, 255]}),
    ("DequantizePacked", S, [], {"alpha": 0.5, "quant": [3], "channels": 11}),
    (
        "QConv",
        S,
        [INT8_WEIGHTS, np.ones(4, np.float32), np.arange(4, dtype=np.int32)],
        {"to": 12, "quant": [128, 3, 0, 255], "strides": [2, 1], "pads": [1, 1, 1, 1]},
    ),
    (
        "QConv",
        S,
        [INT8_WEIGHTS, np.ones(4, np.float32), np.ones(4, np.float32)],
        {"to": 1, "quant": [7], "act": "silu", "act_alpha": 1.0},
    ),
    (
        "QDepthwise",
        S,
        [np.ones((12, 1, 3, 3), np.int8), np.ones(12, np.float32)],
        {"to": 12, "quant": [128, 3, 0, 255], "group": 12},
    ),
    (
        "QAdd",
        S,
        [np.zeros((1, 3, 1, 1), np.uint32)],
        {"alpha": 0.5, "beta": 2.0, "quant": [0, 1, 2, 3, 4]},
    ),
    ("QMaxPool", S, [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("QAveragePool", S, [], {"alpha": 0.5, "quant": [0, 1, 2, 255]}),
    (
        "QAveragePool",
        S,
        [],
        {"alpha": 0.5, "quant": [0, 1, 2, 255], "kernel_shape": [2, 2], "count_include_pad": 1},
    ),
    ("QLookup", S, [np.arange(256).astype(np.uint8)], {}),
    (
        "QElementwise",
        S,
        [np.ones(3, np.float32), np.zeros(11, np.float32), np.zeros((1, 3, 1, 1), np.uint32)],
        {"to": 12, "quant": [1, 2, 3, 0, 255], "channels": 11, "act": "gelu"},
    ),
    (
        "QAttention",
        S,
        [
            np.zeros((1, 3, 8), np.uint32),
            np.zeros((1, 3, 8), np.uint32),
            np.ones((5, 5), np.float32),
            np.zeros((1, 8), np.float32),
        ],
        {"to": 1, "quant": [1, 2, 3], "heads": 3},
    ),
    (
        "QConvDynamic",
        S,
        [
            *[np.ones((8, 1, 12), np.int8), np.ones(8, np.float32), np.ones(2, np.float32)],
            *[np.zeros(8, np.float32), np.zeros((1, 8, 8), np.float32)],
        ],
        {"strides": [1], "act": "relu"},
    ),
    ("QuantizeDynamic", S, [], {}),
    ("Softmax", "", [], {"axis": 1}),
    ("LogSoftmax", "", [], {}),
    ("Cast", "", [], {"to": 7}),
    ("Shape", "", [], {"start": 1, "end": -1}),
]


_PAIRS = ("Split", "QuantizeDynamic")  # ops with two outputs here


def one_node_model(index: int) -> ir.Model:
    op_type, domain, arrays, attributes = ONE_NODE[index]
    x = activation("x", ["N", 3, 8, None])
    if op_type in ON_BYTES:
        x.type = ir.TensorType(ir.DataType.UINT32)
    inputs = [None if a is None else constant(f"c{i}", a) for i, a in enumerate(arrays)]
    outputs = [activation("y"), activation("z")] if op_type in _PAIRS else [activation("y")]
    node = ir.node(op_type, [x, *inputs], attributes, domain=domain, outputs=outputs, name="n")
    return make_model([x], outputs, [node])


def level_networks(density: float = 0.5) -> dict[str, ir.Model]:
    """network() three times, for levels of one file: the given, "half" and "few" of its weights.

    In "few" a convolution has factors for its rows, and one of two biases that share a constant in
    the others has values of its own.
    """
    models = {}
    for name, share in (("half", 0.5), ("all", 1.0), ("few", 0.2)):
        model = models[name] = network(density)
        for value in list(model.graph.initializers.values()):
            assert value.const_value is not None
            array = value.const_value.numpy()
            if array.ndim < 2:
                continue
            unit = 4 if value.name == "w3" else 1  # blocks go as a whole
            rank = np.random.default_rng(1).random((array.shape[0] // unit, *array.shape[1:]))
            array = np.where(np.repeat(rank, unit, 0)[: array.shape[0]] < share, array, 0)
            if name == "few" and value.name == "w2":
                array = array * np.linspace(-2, 3, 64, dtype=np.float32).reshape(64, 1, 1, 1)
            value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
        if name == "few":
            bias = constant("other", np.arange(64, dtype=np.float32))
            model.graph.register_initializer(bias)
            model.graph[1].replace_input_with(2, bias)
    return models


def network(density: float = 0.1) -> ir.Model:
    """A residual CNN with every encoding in reach: x [N, 3, 16, 16] -> y [N, 10]."""
    x = activation("x", ["N", 3, 16, 16])
    names = [activation(name) for name in ("a", "b", "c", "d", "e", "f")]
    a, b, c, d, e, f = names
    y = activation("y", ["N", 10])
    zeros = constant("zeros", np.zeros(64, np.float32))
    blocks = np.kron(weights(16, 64, density=density) != 0, np.ones((4, 1))).astype(np.float32)
    nodes = [
        ir.node(
            "Conv",
            [x, constant("w1", weights(64, 3, 3, 3, density=density)), zeros],
            {"pads": [1, 1, 1, 1], "act": "relu"},
            domain=S,
            outputs=[a],
        ),
        ir.node(
            "Conv",
            [a, constant("w2", weights(64, 64, 3, 3, density=density)), zeros, a],
            {"pads": [1, 1, 1, 1], "act": "relu"},
            domain=S,
            outputs=[b],
        ),
        ir.node(
            "Conv",
            [b, constant("w3", blocks.reshape(64, 64, 1, 1))],
            {},
            domain=S,
            outputs=[c],
        ),
        ir.node("Clip", [c, constant("low", np.float32(0))], outputs=[d]),
        ir.node("GlobalAveragePool", [d], outputs=[e]),
        ir.node("Flatten", [e], outputs=[f]),
        ir.node(
            "Linear",
            [f, constant("w4", weights(10, 64, density=1.0)), constant("b4", weights(10))],
            {},
            domain=S,
            outputs=[y],
        ),
    ]
    return make_model([x], [y], nodes)
