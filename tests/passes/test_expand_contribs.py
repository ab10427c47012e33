"""expand_contribs: what ONNX Runtime's optimisers fuse on floats becomes ONNX's own operators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

import sparsert
from sparsert.passes import expand_contribs
from tests.passes.pass_checks import apply, ops

MICROSOFT = "com.microsoft"
RANDOM = np.random.default_rng(5)
HEADS = 4


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def numbers(below: int, *shape: int, dtype: Any = np.int32) -> np.ndarray:
    return RANDOM.integers(0, below, shape).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Case:
    """One node: what a run feeds it, its constants, its attributes."""

    op: str
    inputs: str
    feeds: Mapping[str, np.ndarray]
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    outputs: str = "y"
    domain: str = MICROSOFT

    def __str__(self) -> str:
        return f"{self.op}({self.inputs})"

    def model(self, free: Sequence[int] = (), opset: int = 17) -> onnx.ModelProto:
        """The node between inputs, whose axes `free` only a run tells, and a Relu."""
        made = helper.make_node(
            self.op,
            self.inputs.split(","),
            self.outputs.split(","),
            name="node",
            domain=self.domain,
            **self.attributes,
        )
        first, *others = (name for name in self.outputs.split(",") if name)
        nodes = [made, helper.make_node("Abs", [first], ["result"], name="behind")]
        inputs = []
        for name, array in self.feeds.items():
            dims = [f"d{n}" if i in free else n for i, n in enumerate(array.shape)]
            dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(name, dtype, dims))
        graph = helper.make_graph(
            nodes,
            "test",
            inputs,
            [onnx.ValueInfoProto(name=name) for name in ("result", *others)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        types = {"tensor(float)": onnx.TensorProto.FLOAT, "tensor(int32)": onnx.TensorProto.INT32}
        declared = [
            helper.make_tensor_value_info(value.name, types[value.type], None)
            for value in session_of(proto).get_outputs()
        ]
        del proto.graph.output[:]
        proto.graph.output.extend(declared)
        return proto


def session_of(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def check(case: Case, free: Sequence[int] = (), opset: int = 17) -> None:
    """The native engine computes what onnxruntime does, without a fallback."""
    proto = case.model(free, opset)
    expected = session_of(proto).run(None, dict(case.feeds))
    found = sparsert.load(proto, strict=True, tune=False).run(None, dict(case.feeds))
    for got, want in zip(found, expected, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


A, B, C, D = floats(2, 3, 4), floats(2, 4, 5), floats(2, 4, 3), floats(2, 5, 4)
FLAGS = [(0, 0), (0, 1), (1, 0), (1, 1)]
PRODUCTS = [
    *(
        Case("FusedMatMul", "a,b", {"a": C if ta else A, "b": D if tb else B}, {}, kw)
        for ta, tb in FLAGS
        for kw in ({"transA": ta, "transB": tb, "alpha": 0.125}, {"transA": ta, "transB": tb})
    ),
    Case("FusedMatMul", "a,b", {"a": A}, {"b": floats(5, 4)}, {"transB": 1, "alpha": 2.0}),
    Case("FusedMatMul", "a,b", {"a": floats(4)}, {"b": floats(4, 5)}, {"transA": 1}),
    Case("FusedMatMul", "a,b", {"a": floats(3, 4)}, {"b": floats(4)}, {"transB": 1}),
    *(
        Case(
            "FusedMatMul",
            "a,b",
            {
                "a": floats(*((4, 2, 6, 3) if ta else (3, 2, 6, 4))),
                "b": floats(*((5, 2, 6, 4) if tb else (4, 2, 6, 5))),
            },
            {},
            {"transA": ta, "transB": tb, "transBatchA": 1, "transBatchB": 1},
        )
        for ta, tb in FLAGS
    ),
]


@pytest.mark.parametrize("case", PRODUCTS, ids=str)
def test_products(case):
    check(case)
    if len(case.feeds["a"].shape) == 3:
        check(case, free=(0, 1))


X = {"x": floats(2, 5, 8), "k": floats(2, 5, 8)}
ONE = {"x": X["x"]}
VECTORS = {"g": floats(8), "b": floats(8), "c": floats(8)}
NORMS = [
    Case("SkipLayerNormalization", "x,k,g", X, VECTORS),
    Case("SkipLayerNormalization", "x,k,g,b", X, VECTORS, {"epsilon": 1e-3}),
    Case("SkipLayerNormalization", "x,k,g,b,c", X, VECTORS, {}, "y,,,s"),
    Case("SkipLayerNormalization", "x,k,g,,c", X, VECTORS, {}, "y,,,s"),
    Case("SkipLayerNormalization", "x,k,g,b", ONE, {**VECTORS, "k": floats(1, 5, 8)}),
    Case("SkipSimplifiedLayerNormalization", "x,k,g", X, VECTORS, {"epsilon": 1e-5}, "y,,,s"),
    Case("SkipSimplifiedLayerNormalization", "x,k,g,b", X, VECTORS, {"epsilon": 1e-5}),
    Case("SimplifiedLayerNormalization", "x,g", ONE, VECTORS, {"axis": -1}, domain=""),
    Case("LayerNormalization", "x,g,b", ONE, VECTORS, {"epsilon": 1e-3}, domain=""),
    Case("LayerNormalization", "x,g", ONE, {"g": floats(5, 8)}, {"axis": 1}, "y,m,i", domain=""),
]


@pytest.mark.parametrize("case", NORMS, ids=str)
@pytest.mark.parametrize("opset", [11, 17])
def test_norms(case, opset):
    check(case, opset=opset)
    check(case, free=(0, 1), opset=opset)


ACTIVATIONS = [
    Case("Gelu", "x", ONE),
    Case("BiasGelu", "x,b", ONE, VECTORS),
    Case("FastGelu", "x", ONE),
    Case("FastGelu", "x,b", ONE, VECTORS),
    Case("QuickGelu", "x", ONE),
    Case("QuickGelu", "x", ONE, {}, {"alpha": 1.0}),
]


@pytest.mark.parametrize("case", ACTIVATIONS, ids=str)
def test_activations(case):
    check(case)
    check(case, free=(0, 1, 2))


@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize(
    ("activation", "params"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("LeakyRelu", [0.1]),
        ("Clip", [-0.5, 0.25]),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
def test_convolutions(activation, params, addend):
    given = {"activation": activation, "pads": [1, 1, 1, 1], "strides": [2, 2]}
    if params:
        given["activation_params"] = params
    feeds = {"x": floats(2, 3, 8, 8)}
    if addend:
        feeds["z"] = floats(2, 4, 4, 4)
    constants = {"w": floats(4, 3, 3, 3), "b": floats(4)}
    check(Case("FusedConv", "x,w,b,z" if addend else "x,w,b", feeds, constants, given))


@pytest.mark.parametrize(
    ("activation", "params"),
    [
        ("Relu", {}),
        ("Softplus", {}),
        ("LeakyRelu", {"activation_alpha": 0.2}),
        ("Elu", {"activation_alpha": 0.7}),
        ("Selu", {"activation_alpha": 1.2, "activation_gamma": 1.1}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
    ],
)
def test_layers(activation, params):
    given = {"activation": activation, "alpha": 0.5, "beta": 2.0, "transB": 1, **params}
    constants = {"w": floats(4, 6), "b": floats(4)}
    check(Case("FusedGemm", "x,w,b", {"x": floats(3, 6)}, constants, given))


TABLES = {"words": floats(20, 8), "places": floats(10, 8), "kinds": floats(2, 8), **VECTORS}
IDS, SEGMENTS = {"ids": numbers(20, 2, 5)}, {"s": numbers(2, 2, 5)}
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
TABLE_NAMES = "words,places,kinds,g,b"
EMBEDDINGS = [
    Case("EmbedLayerNormalization", f"ids,s,{TABLE_NAMES}", IDS | SEGMENTS, TABLES, {}, "y,count"),
    Case(
        "EmbedLayerNormalization",
        f"ids,s,{TABLE_NAMES},m",
        {**IDS, **SEGMENTS, "m": MASK},
        TABLES,
        {"epsilon": 1e-5},
        "y,count",
    ),
    Case("EmbedLayerNormalization", "ids,,words,places,,g,b", IDS, TABLES, {}, "y,count,sum"),
    *(
        Case(
            "EmbedLayerNormalization",
            f"ids,s,{TABLE_NAMES},,at",
            {**IDS, **SEGMENTS, "at": numbers(10, rows, 5)},
            TABLES,
            {},
            "y,count,sum",
        )
        for rows in (1, 2)
    ),
]


@pytest.mark.parametrize("case", EMBEDDINGS, ids=str)
def test_embeddings(case):
    check(case)
    if case.feeds.get("at", MASK).shape[0] == 2:
        check(case, free=(0, 1))


@pytest.mark.parametrize("masked", [False, True])
def test_embeddings_in_bytes(masked):
    names = ["words", "places", "kinds", "g", "b"]
    shapes = [(20, 8), (10, 8), (2, 8), (8,), (8,)]
    constants: dict[str, np.ndarray] = {}
    for name, shape in zip(names, shapes, strict=True):
        constants[name] = numbers(256, *shape, dtype=np.uint8)
        constants[f"{name}_s"] = np.array(RANDOM.uniform(0.01, 0.1), np.float32)
        constants[f"{name}_z"] = np.array(RANDOM.integers(100, 150), np.uint8)
    given = [*("ids", "s"), *names, "m" if masked else ""]
    given += [f"{name}_s" for name in names] + [f"{name}_z" for name in names]
    feeds = {**IDS, **SEGMENTS, **({"m": MASK} if masked else {})}
    check(Case("QEmbedLayerNormalization", ",".join(given), feeds, constants, {}, "y,count"))


WIDTH, WORDS = 16, 5
TOKENS = {"x": floats(2, WORDS, WIDTH)}
PACKED = {"w": 0.3 * floats(WIDTH, 3 * WIDTH), "b": floats(3 * WIDTH)}
PAST = {"p": floats(2, 2, HEADS, 3, WIDTH // HEADS)}
HEAD_COUNT = {"num_heads": HEADS}
ATTENTIONS = [
    Case("Attention", "x,w,b", TOKENS, PACKED, HEAD_COUNT),
    Case("Attention", "x,w", TOKENS, PACKED, {**HEAD_COUNT, "scale": 0.3}),
    Case("Attention", "x,w,b,m", {**TOKENS, "m": MASK}, PACKED, HEAD_COUNT),
    Case(
        "Attention",
        "x,w,b,m",
        {**TOKENS, "m": np.array([3, 5], np.int32)},
        PACKED,
        {**HEAD_COUNT, "mask_filter_value": -50.0},
    ),
    Case("Attention", "x,w,b,m", {**TOKENS, "m": numbers(2, 2, 5, 5)}, PACKED, HEAD_COUNT),
    Case("Attention", "x,w,b,,,a", {**TOKENS, "a": floats(2, HEADS, 5, 5)}, PACKED, HEAD_COUNT),
    Case(
        "Attention",
        "x,w,b,m,,a",
        {**TOKENS, "m": MASK},
        {**PACKED, "a": floats(1, HEADS, 5, 5)},
        HEAD_COUNT,
    ),
    Case("Attention", "x,w,b", TOKENS, PACKED, HEAD_COUNT, "y,present"),
    Case("Attention", "x,w,b,,p", {**TOKENS, **PAST}, PACKED, HEAD_COUNT, "y,present"),
    Case(
        "Attention",
        "x,w,b,m,p",
        {**TOKENS, **PAST, "m": numbers(2, 2, WORDS + 3)},
        PACKED,
        HEAD_COUNT,
        "y,present",
    ),
    Case(
        "Attention",
        "x,w,b",
        TOKENS,
        {"w": 0.3 * floats(WIDTH, 56), "b": floats(56)},
        {**HEAD_COUNT, "qkv_hidden_sizes": [16, 16, 24]},
    ),
]


@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(case, causal):
    case = dataclasses.replace(case, attributes={**case.attributes, "unidirectional": causal})
    check(case)
    check(case, free=(0, 1) if "p" not in case.feeds else (0,))


def test_attention_between_two_ends():
    ends = {"m": np.array([3, 5, 1, 0], np.int32)}
    check(Case("Attention", "x,w,b,m", {**TOKENS, **ends}, PACKED, HEAD_COUNT))


BIAS = {"b": floats(3 * WIDTH)}
QKV = {"q": floats(2, 5, WIDTH), "k": floats(2, 7, WIDTH), "v": floats(2, 7, WIDTH)}
SAME = {name: floats(2, 5, WIDTH) for name in "qkv"}
PASTS = {name: floats(2, HEADS, 3, WIDTH // HEADS) for name in ("pk", "pv")}
ADDEND = {"a": floats(2, HEADS, 5, 7)}
HEADED = [
    Case("MultiHeadAttention", "q,k,v", QKV, {}, HEAD_COUNT),
    Case("MultiHeadAttention", "q,k,v,b", QKV, BIAS, {**HEAD_COUNT, "scale": 0.2}),
    Case("MultiHeadAttention", "q,k,v,b,m", {**QKV, "m": numbers(2, 2, 7)}, BIAS, HEAD_COUNT),
    Case("MultiHeadAttention", "q,k,v,b,,a", {**QKV, **ADDEND}, BIAS, HEAD_COUNT),
    Case("MultiHeadAttention", "q,k,v", SAME, {}, {**HEAD_COUNT, "unidirectional": 1}),
    *(
        Case(
            "MultiHeadAttention",
            "q,k,v,b,,,pk,pv",
            {**SAME, **PASTS},
            BIAS,
            {**HEAD_COUNT, "unidirectional": causal},
            "y,keys,values",
        )
        for causal in (0, 1)
    ),
]


@pytest.mark.parametrize("case", HEADED, ids=str)
def test_multi_head_attention(case):
    check(case)
    check(case, free=(0,) if "pk" in case.feeds else (0, 1))


@pytest.mark.parametrize("kind", ["one scale", "a scale per column", "unsigned"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_bytes(kind, masked):
    dtype = np.uint8 if kind == "unsigned" else np.int8
    weight = numbers(256, WIDTH, 3 * WIDTH, dtype=np.uint8).view(dtype)
    scale, zero = np.array(0.02, np.float32), np.array(kind == "unsigned", dtype) * dtype(120)
    if kind == "a scale per column":
        scale, zero = 0.02 * np.abs(floats(3 * WIDTH)), np.zeros(3 * WIDTH, dtype)
    constants = {
        "w": weight,
        "b": floats(3 * WIDTH),
        "ws": scale,
        "wz": np.asarray(zero, dtype),
        "xs": np.array(0.02, np.float32),
        "xz": np.array(128, np.uint8),
    }
    feeds = {"x": numbers(256, 2, WORDS, WIDTH, dtype=np.uint8)}
    if masked:
        feeds["m"] = MASK
    inputs = f"x,w,b,xs,ws,{'m' if masked else ''},xz,wz"
    case = Case("QAttention", inputs, feeds, constants, HEAD_COUNT)
    check(case)
    module = sparsert.load(case.model(), strict=True, tune=False)
    assert "QConv" in str(module.explain())


def test_others_run_by_fallback():
    case = Case("Inverse", "x", {"x": floats(2, 4, 4)})
    proto = case.model()
    with pytest.warns(UserWarning, match="com.microsoft::Inverse"):
        module = sparsert.load(proto, tune=False)
    expected = session_of(proto).run(None, dict(case.feeds))[0]
    np.testing.assert_allclose(module.run(None, dict(case.feeds))[0], expected, rtol=1e-5)


def test_what_is_given_up_uses_nothing():
    """A product of which only one operand can be turned stays, and what was made for it is gone."""
    infos = [
        helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [4, 3]),
        helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None),
    ]
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = helper.make_node("FusedMatMul", ["a", "b"], ["y"], domain=MICROSOFT, transA=1, transB=1)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    proto = helper.make_model(
        helper.make_graph([node], "g", infos, [result]), opset_imports=opsets, ir_version=8
    )
    model = ir.from_proto(proto)
    expand_contribs.run(model)
    assert [node.op_type for node in model.graph] == ["FusedMatMul"]
    assert all(
        list(value.uses()) == [(model.graph[0], i)] for i, value in enumerate(model.graph.inputs)
    )


def test_unknown_types_are_named():
    case = Case("Inverse", "x", {"x": floats(2, 4, 4)})
    proto = case.model()
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "elsewhere", "Turn"
    proto.opset_import.add(domain="elsewhere", version=1)
    with pytest.raises(sparsert.errors.UnsupportedOpError, match=r"elsewhere::Turn.*value_info"):
        sparsert.load(proto)


def encoder() -> onnx.ModelProto:
    """A layer of a transformer, as ONNX Runtime's optimisers leave it."""
    width, inner = 32, 64
    constants = {
        "w": 0.2 * floats(width, 3 * width),
        "b": floats(3 * width),
        "wo": 0.2 * floats(width, width),
        "wi": 0.2 * floats(width, inner),
        "wf": 0.2 * floats(inner, width),
        "bo": floats(width),
        "bi": floats(inner),
        "bf": floats(width),
        **{name: 1 + 0.1 * floats(width) for name in ("g1", "g2", "s1", "s2")},
    }
    made = []

    def add(op: str, inputs: str, outputs: str, **attributes: Any) -> None:
        domain = "" if op == "MatMul" else MICROSOFT
        names = inputs.split(), outputs.split()
        made.append(helper.make_node(op, *names, name=op + outputs, domain=domain, **attributes))

    add("Attention", "x w b m", "a", num_heads=HEADS)
    add("MatMul", "a wo", "o")
    add("SkipLayerNormalization", "o x g1 s1 bo", "n", epsilon=1e-5)
    add("MatMul", "n wi", "i")
    add("BiasGelu", "i bi", "h")
    add("MatMul", "h wf", "f")
    add("SkipLayerNormalization", "f n g2 s2 bf", "y", epsilon=1e-5)
    dtypes = {"x": onnx.TensorProto.FLOAT, "m": onnx.TensorProto.INT32}
    graph = helper.make_graph(
        made,
        "encoder",
        [
            helper.make_tensor_value_info("x", dtypes["x"], ["N", "T", width]),
            helper.make_tensor_value_info("m", dtypes["m"], ["N", "T"]),
        ],
        [helper.make_tensor_value_info("y", dtypes["x"], ["N", "T", width])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_quantised_encoder(tmp_path):
    """ONNX Runtime's dynamic quantiser on it: all four layers compute in integers."""
    onnx.save(encoder(), tmp_path / "floats.onnx")
    quantize_dynamic(
        tmp_path / "floats.onnx",
        tmp_path / "bytes.onnx",
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    proto = onnx.load(tmp_path / "bytes.onnx")
    assert {"QAttention", "MatMulInteger"} <= {node.op_type for node in proto.graph.node}
    found = ops(apply(proto))
    assert found.count("sparsert.QConvDynamic") == 4
    assert not {"Linear", "sparsert.Linear", "MatMul"} & set(found)
    module = sparsert.load(proto, strict=True, tune=False)
    feeds = {"x": floats(2, 5, 32), "m": MASK}
    expected = session_of(proto).run(None, feeds)[0]
    difference = np.abs(module.run(None, feeds)[0] - expected)
    # Bytes of later layers may fall on the other side where a norm's last bit differs.
    assert difference.max() < 0.02
    assert np.median(difference) < 1e-4
