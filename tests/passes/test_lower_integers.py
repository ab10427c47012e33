"""lower_integers: unary operators on integers and Clip become binary operators."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node, ops

SIGNED = (TensorProto.INT8, TensorProto.INT32, TensorProto.INT64)


@pytest.mark.parametrize("dtype", SIGNED)
@pytest.mark.parametrize("op", ["Abs", "Neg", "Sign", "BitwiseNot"])
def test_signed(op, dtype):
    # Half of the feeds, which are 0 to 2, become negative.
    nodes = [node("Sub", ["x", "z"], ["a"]), node(op, ["a"], ["y"])]
    proto = build(nodes, {"x": (3, 4), "z": (3, 4)}, ["y"], dtype=dtype)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("op", ["Abs", "Sign", "BitwiseNot"])
@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.UINT64])
def test_unsigned(op, dtype):
    proto = build([node(op, ["x"], ["y"])], {"x": (3, 4)}, ["y"], dtype=dtype)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_relu():
    proto = build([node("Relu", ["x"], ["y"])], {"x": (3, 4)}, ["y"], dtype=TensorProto.INT32)
    assert ops(apply(proto)) == ["Max"]


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.INT32])
@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["x", "low", "high"], ["Max", "Min"]),
        (["x", "low"], ["Max"]),
        (["x", "", "high"], ["Min"]),
        (["x"], None),
    ],
)
def test_clip(inputs, expected, dtype):
    bounds = {name: () for name in inputs[1:] if name}
    proto = build([node("Clip", inputs, ["y"])], {"x": (3, 4), **bounds}, ["y"], dtype=dtype)
    model = apply(proto)
    assert native_report(model) == []
    assert expected is None or ops(model) == expected
    assert_same(proto, model)


def test_power_with_integer_exponent():
    cast = node("Cast", ["x"], ["i"], to=TensorProto.INT64)
    nodes = [cast, node("Abs", ["x"], ["a"]), node("Pow", ["a", "i"], ["y"])]
    proto = build(nodes, {"x": (3, 4)}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)
