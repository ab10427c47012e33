"""expand_qoperators: operators on quantised tensors become f32 ones between conversions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsert
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, feeds_for, ops
from tests.passes.quantised_checks import definition, units_of

TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8, np.float32: TensorProto.FLOAT}
MICROSOFT = "com.microsoft"


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int]],
    constants: Mapping[str, Any],
    dtype: Any,
    out: Any,
) -> onnx.ModelProto:
    """A model with inputs of one type, and the output y."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, TYPES[dtype], s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y", TYPES[out], None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(op: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node, of com.microsoft unless ONNX has it."""
    domain = "" if onnx.defs.has(op) else MICROSOFT
    name = f"{op}_{output}"
    return helper.make_node(op, inputs, [output], name=name, domain=domain, **attributes)


def check(proto: onnx.ModelProto, op: str, most: float = 1) -> None:
    """Compares with onnxruntime to one unit; `op` must be gone and its f32 form there before."""
    expanded = apply(proto, "expand_qoperators")
    assert not any("QLinear" in name or "QGemm" in name for name in ops(expanded))
    assert op in ops(expanded)
    assert native_report(apply(proto)) == []
    feeds = feeds_for(proto)
    for name, array in feeds.items():
        if array.dtype.kind in "iu":
            low, high = (0, 256) if array.dtype == np.uint8 else (-128, 128)
            random = np.random.default_rng(4).integers(low, high, array.shape)
            feeds[name] = random.astype(array.dtype)
    found = sparsert.load(proto, backend="numpy", strict=True).run(None, feeds)[0]
    wanted = definition(proto, feeds)[0]
    if wanted.dtype == np.float32:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    else:
        units = units_of(wanted, found, 1)
        assert units.max() <= most
        assert (units > 0).mean() <= 0.05


def quantisation(dtype: Any, *names: str) -> dict[str, np.ndarray]:
    """A scale and a zero point for each name."""
    found: dict[str, np.ndarray] = {}
    for i, name in enumerate(names):
        found[f"{name}s"] = np.array(0.01 * (i + 2), np.float32)
        found[f"{name}z"] = np.array((100 if dtype == np.uint8 else -20) + 9 * i, dtype)
    return found


BYTES = pytest.mark.parametrize("dtype", [np.uint8, np.int8])


@BYTES
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("result", [np.uint8, np.float32])
def test_gemm(dtype: Any, per_channel: bool, result: Any) -> None:
    rng = np.random.default_rng(0)
    rows = (5,) if per_channel else ()
    constants = quantisation(dtype, "a", "y") | {
        "b": rng.integers(-90, 90, (5, 12)).astype(np.int8),
        "bs": rng.uniform(0.004, 0.008, rows).astype(np.float32),
        "bz": np.zeros(rows, np.int8),
        "c": rng.integers(-9000, 9000, 5).astype(np.int32),
    }
    out = dtype if result == np.uint8 else np.float32
    ends = ["ys", "yz"] if out == dtype else []
    inputs = ["x", "as", "az", "b", "bs", "bz", "c", *ends]
    proto = model_of([node("QGemm", inputs, transB=1)], {"x": (4, 12)}, constants, dtype, out)
    check(proto, "Gemm")
    assert "sparsert.QConv" in ops(apply(proto))


@BYTES
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_binary(op: str, dtype: Any) -> None:
    constants = quantisation(dtype, "a", "b", "y")
    inputs = ["x", "as", "az", "z", "bs", "bz", "ys", "yz"]
    shapes = {"x": (2, 5, 3, 4), "z": (2, 5, 3, 4)}
    proto = model_of([node(f"QLinear{op}", inputs)], shapes, constants, dtype, dtype)
    check(proto, op)
    assert ("sparsert.QAdd" in ops(apply(proto))) == (op == "Add")


@BYTES
def test_concat(dtype: Any) -> None:
    constants = quantisation(dtype, "a", "b", "y")
    inputs = ["ys", "yz", "x", "as", "az", "z", "bs", "bz"]
    shapes = {"x": (2, 4, 3, 4), "z": (2, 5, 3, 4)}
    proto = model_of([node("QLinearConcat", inputs, axis=1)], shapes, constants, dtype, dtype)
    check(proto, "Concat")


@BYTES
def test_pools(dtype: Any) -> None:
    constants = quantisation(dtype, "a", "y")
    inputs = ["x", "as", "az", "ys", "yz"]
    shapes = {"x": (2, 5, 6, 7)}
    made = node("QLinearGlobalAveragePool", inputs, channels_last=0)
    check(model_of([made], shapes, constants, dtype, dtype), "GlobalAveragePool")
    made = node("QLinearAveragePool", inputs, kernel_shape=[3, 2], pads=[1, 0, 1, 1])
    check(model_of([made], shapes, constants, dtype, dtype), "AveragePool")


def test_channels_last_stays() -> None:
    constants = quantisation(np.uint8, "a", "y")
    made = node("QLinearGlobalAveragePool", ["x", "as", "az", "ys", "yz"], channels_last=1)
    proto = model_of([made], {"x": (2, 6, 7, 5)}, constants, np.uint8, np.uint8)
    assert [problem.op for problem in native_report(apply(proto))] == [
        "com.microsoft::QLinearGlobalAveragePool"
    ]


@BYTES
@pytest.mark.parametrize(
    ("op", "attributes"),
    [("Sigmoid", {}), ("LeakyRelu", {"alpha": 0.3}), ("Softmax", {"axis": -1, "opset": 13})],
)
def test_unary(op: str, attributes: dict[str, Any], dtype: Any) -> None:
    constants = quantisation(dtype, "a", "y")
    if op == "Softmax":
        constants["ys"] = np.float32(1 / 256)
        constants["yz"] = np.array(0 if dtype == np.uint8 else -128, dtype)
    made = node(f"QLinear{op}", ["x", "as", "az", "ys", "yz"], **attributes)
    proto = model_of([made], {"x": (2, 5, 6)}, constants, dtype, dtype)
    check(proto, op)


def test_scales_of_the_run_stay() -> None:
    constants = quantisation(np.uint8, "a", "y")
    del constants["as"]
    made = node("QLinearSigmoid", ["x", "as", "az", "ys", "yz"])
    proto = model_of([made], {"x": (2, 5), "z": (2,)}, constants, np.uint8, np.uint8)
    proto.graph.input.append(helper.make_tensor_value_info("as", TensorProto.FLOAT, []))
    assert "com.microsoft.QLinearSigmoid" in ops(apply(proto, "expand_qoperators"))


MOVES: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Reshape", [np.array([0, -1])], {}),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ("Flatten", [], {}),
    ("Resize", [np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)], {}),
]


@BYTES
@pytest.mark.parametrize("move", MOVES, ids=lambda m: m[0])
def test_moves_of_bytes(move: Any, dtype: Any) -> None:
    op, arrays, attributes = move
    constants = quantisation(dtype, "a", "y")
    constants |= {f"k{i}": array for i, array in enumerate(arrays)}
    nodes = [
        node("QLinearSigmoid", ["x", "as", "az", "ys", "yz"], "q"),
        node(op, ["q", *(f"k{i}" for i in range(len(arrays)))], "m", **attributes),
        node("QLinearLeakyRelu", ["m", "ys", "yz", "as", "az"]),
    ]
    proto = model_of(nodes, {"x": (2, 8, 6, 4)}, constants, dtype, dtype)
    check(proto, op, 2)


def test_moved_bytes_may_be_a_result() -> None:
    constants = quantisation(np.uint8, "a", "y")
    nodes = [
        node("QLinearSigmoid", ["x", "as", "az", "ys", "yz"], "q"),
        node("Concat", ["q", "q"], axis=1),
    ]
    proto = model_of(nodes, {"x": (2, 8, 6)}, constants, np.uint8, np.uint8)
    check(proto, "Concat")


@BYTES
def test_microsofts_conversions(dtype: Any) -> None:
    constants = quantisation(dtype, "a", "y")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "as", "az"], ["q"], domain=MICROSOFT),
        helper.make_node("DequantizeLinear", ["q", "ys", "yz"], ["y"], domain=MICROSOFT),
    ]
    proto = model_of(nodes, {"x": (2, 8, 6)}, constants, np.float32, np.float32)
    check(proto, "QuantizeLinear")
