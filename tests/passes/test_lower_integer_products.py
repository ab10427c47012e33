"""lower_integer_products: products of quantised tensors become f32 ones between casts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node, ops

TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8, np.int32: TensorProto.INT32}


def integers(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    return rng.integers(max(info.min, -50), min(info.max, 100), shape).astype(dtype)


def model_of(
    op: str,
    inputs: list[str],
    shapes: dict[str, tuple],
    constants: dict[str, np.ndarray],
    out: type,
    **attributes: object,
) -> onnx.ModelProto:
    """A node on inputs of u8."""
    return build(
        [node(op, inputs, ["y"], **attributes)],
        shapes,
        ["y"],
        constants,
        opset=21,
        dtype=TensorProto.UINT8,
        output_dtype=TYPES[out],
    )


def scales(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.02, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("channels", [(), (4,)])
@pytest.mark.parametrize("bias", [False, True])
def test_quantised_convolution(kind, channels, bias):
    constants = {
        "xs": scales(seed=1),
        "xz": np.array(7, np.uint8),
        "w": integers(4, 3, 3, 3, dtype=kind),
        "ws": scales(*channels, seed=2),
        "wz": np.full(channels, 0 if channels else 5, kind),
        "ys": np.array(0.5, np.float32),
        "yz": np.array(9, np.uint8),
        "b": integers(4, dtype=np.int32, seed=3),
    }
    inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", *(["b"] if bias else [])]
    proto = model_of(
        "QLinearConv", inputs, {"x": ("N", 3, 9, 7)}, constants, np.uint8, pads=[1, 0, 1, 2]
    )
    model = apply(proto, "lower_integer_products")
    assert ops(model).count("Conv") == 1
    assert_same(proto, model)
    model = apply(proto)
    assert native_report(model) == []
    assert ops(model).count("sparsert.QConv") == 1
    assert_same(proto, model)


@pytest.mark.parametrize("rows", [False, True])
def test_quantised_product(rows):
    by = (5,) if rows else ()
    constants = {
        "as": scales(seed=1),
        "az": np.array(3, np.uint8),
        "b": integers(6, 5, dtype=np.int8),
        "bs": scales(*by, seed=2),
        "bz": np.full(by, 2, np.int8),
        "ys": np.array(0.3, np.float32),
        "yz": np.array(1, np.uint8),
    }
    proto = model_of(
        "QLinearMatMul",
        ["x", "as", "az", "b", "bs", "bz", "ys", "yz"],
        {"x": ("N", 4, 6)},
        constants,
        np.uint8,
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("zeros", [[], ["az"], ["az", "bz"]])
@pytest.mark.parametrize("constant", [False, True])
def test_integer_product(zeros, constant):
    constants = {"az": np.array(3, np.uint8), "bz": np.array(4, np.uint8)}
    shapes = {"x": ("N", 4, 6), "b": (6, 5)}
    if constant:
        constants["b"] = integers(6, 5)
        del shapes["b"]
    proto = model_of("MatMulInteger", ["x", "b", *zeros], shapes, constants, np.int32)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_integer_convolution():
    constants = {"w": integers(4, 2, 3, 3), "xz": np.array(3, np.uint8)}
    proto = model_of(
        "ConvInteger", ["x", "w", "xz"], {"x": (2, 4, 6, 5)}, constants, np.int32, group=2
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_sums_that_f32_would_round_are_left_alone():
    shapes = {"x": (2, 259), "b": (259, 3)}
    proto = model_of("MatMulInteger", ["x", "b"], shapes, {}, np.int32)
    assert ops(apply(proto)) == ["MatMulInteger"]
    large = {"b": np.full((259, 3), 255, np.uint8)}
    proto = model_of("MatMulInteger", ["x", "b"], {"x": (2, 259)}, large, np.int32)
    assert ops(apply(proto)) == ["MatMulInteger"]


@pytest.mark.parametrize("zero", [[], ["xz", "wz"]])
@pytest.mark.parametrize("op", ["MatMulInteger", "ConvInteger"])
def test_sums_that_the_weights_keep_small(op, zero):
    kind = np.uint8 if op == "MatMulInteger" else np.int8
    shape = (700, 3) if op == "MatMulInteger" else (3, 100, 3, 3)
    constants = {
        "w": integers(*shape, dtype=kind),
        "xz": np.array(3, np.uint8),
        "wz": np.array(40 if kind is np.uint8 else 0, kind),
    }
    x = (2, 700) if op == "MatMulInteger" else (1, 100, 4, 5)
    proto = model_of(op, ["x", "w", *zero], {"x": x}, constants, np.int32)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, tolerance=0)


def test_sums_that_go_on_as_f32():
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z"], ["p"]),
        node("Cast", ["p"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "s"], ["y"]),
    ]
    constants = {"w": np.random.default_rng(1).integers(-127, 128, (2000, 8)).astype(np.int8)}
    proto = build(nodes, {"x": (3, 2000)}, ["y"], constants, opset=21)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("zero", [False, True])
def test_scales_of_blocks(zero):
    rng = np.random.default_rng(0)
    constants = {
        "s": rng.uniform(0.01, 0.1, (3, 2, 4)).astype(np.float32),
        "z": rng.integers(0, 9, (3, 2, 4)).astype(np.uint8),
    }
    more = ["s", "z"] if zero else ["s"]
    blocks = {"axis": 1, "block_size": 3}
    nodes = [
        node("QuantizeLinear", ["x", *more], ["q"], output_dtype=0 if zero else 2, **blocks),
        node("DequantizeLinear", ["q", *more], ["y"], **blocks),
    ]
    proto = build(nodes, {"x": (3, 6, 4)}, ["y"], constants, opset=21)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)
