"""quantisation: what is read of QuantizeLinear, DequantizeLinear and the constants around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from sparsert.passes.quantisation import (
    Quantisation,
    is_normal,
    read_floats,
    read_quantisation,
    weight_or_reason,
)
from tests.passes.pass_checks import apply, build, node


def nodes_of(op: str, x: Any, *constants: Any, **attributes: Any) -> list[ir.Node]:
    """The nodes of a model with one node; x is the shape of a graph input, or a constant."""
    arrays = {f"c{i}": np.asarray(array) for i, array in enumerate(constants)}
    inputs = {"x": x} if isinstance(x, tuple) else {"unused": (1,)}
    if not inputs.get("x"):
        arrays["x"] = np.asarray(x)
    made = node(op, ["x", *(f"c{i}" for i in range(len(constants)))], ["y"], **attributes)
    out = None
    if op == "QuantizeLinear":
        out = {"u": TensorProto.UINT8, "i": TensorProto.INT8}[arrays["c1"].dtype.kind]
    proto = build([made], inputs, ["y"], arrays, opset=21, output_dtype=out)
    return list(apply(proto, "infer_shapes").graph)


@pytest.mark.parametrize(
    ("scale", "normal"),
    [(0.5, True), (0, False), (-1, False), (1e-39, False), (np.inf, False), (np.nan, False)],
)
def test_normal_scales(scale: float, normal: bool) -> None:
    assert is_normal(scale) == normal
    assert is_normal([1.0, scale]) == normal


def test_levels_and_their_numbers() -> None:
    quant = Quantisation(0.5, 128, ir.DataType.INT8)
    assert quant.offset == 128
    np.testing.assert_array_equal(quant.levels(quant.table()), np.arange(256))
    assert quant.levels([0.25, 0.75, -np.inf, 1e30]).tolist() == [128, 130, 0, 255]


@pytest.mark.parametrize(
    ("dtype", "zero", "byte"), [(np.uint8, 7, 7), (np.int8, -100, 28), (np.int8, 0, 128)]
)
def test_zero_points(dtype: Any, zero: int, byte: int) -> None:
    made = nodes_of("QuantizeLinear", (2, 3), np.float32(0.1), np.array(zero, dtype))[0]
    quant = read_quantisation(made)
    assert quant is not None
    assert (quant.zero, quant.scale) == (byte, float(np.float32(0.1)))


def test_one_scale_for_several_channels_is_none() -> None:
    scale, zero = np.full(3, 0.1, np.float32), np.zeros(3, np.uint8)
    assert read_quantisation(nodes_of("QuantizeLinear", (2, 3), scale, zero, axis=1)[0]) is None


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_weights(axis: int) -> None:
    stored = np.arange(-6, 6).reshape(3, 4).astype(np.int8)
    count = stored.shape[axis]
    scale, zero = np.linspace(0.1, 0.2, count).astype(np.float32), np.arange(count).astype(np.int8)
    made = nodes_of("DequantizeLinear", stored, scale, zero, axis=axis)[0]
    weight = weight_or_reason(made.outputs[0], axis % 2)
    assert not isinstance(weight, str)
    rows = np.moveaxis(stored, axis, 0)
    np.testing.assert_array_equal(weight.levels, rows - zero[:, None])
    np.testing.assert_array_equal(weight.scale, scale.astype(np.float64))
    assert isinstance(weight_or_reason(made.outputs[0], 1 - axis % 2), str)


def test_floats_behind_a_dequantizer() -> None:
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    scale, zero = np.array([0.5, 2], np.float32), np.array([0, 0], np.int32)
    made = nodes_of("DequantizeLinear", stored, scale, zero, axis=0)[0]
    found = read_floats(made.outputs[0])
    np.testing.assert_array_equal(found, stored * scale[:, None])
    assert read_floats(made.outputs[0], 5) is None
