"""Helpers of the tests of quantised layers: graphs node by node, and the rule of their numbers.

The rule: against ONNX's definition (onnxruntime without its optimisations), each layer is right to
one unit of its QuantizeLinear, and nearly everywhere to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

import sparsert
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, build, feeds_for, node, ops

X_SCALE, Y_SCALE = np.float32(0.021), np.float32(0.034)
# Values that lie in the middle between two units, to the rounding of f32, may go either way.
_TIES = 0.05


def definition(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime computes node by node."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def units_of(wanted: np.ndarray, found: np.ndarray, scale: float) -> np.ndarray:
    """How many units each element is off."""
    assert (wanted.dtype, wanted.shape) == (found.dtype, found.shape)
    difference = np.abs(wanted.astype(np.float64) - found.astype(np.float64))
    return np.rint(difference / scale)


def assert_units(
    proto: onnx.ModelProto,
    scale: float = float(Y_SCALE),
    at_most: int = 1,
    sizes: Mapping[str, int] | None = None,
) -> ir.Model:
    """Compares a model, through its .sprt bytes, with its definition; returns its graph."""
    model = apply(proto)
    assert native_report(model) == []
    feeds = feeds_for(proto, sizes)
    loaded = sparsert.load(proto, backend="numpy", strict=True)
    found = loaded.run(None, feeds)
    for want, got in zip(definition(proto, feeds), found, strict=True):
        units = units_of(want, got, scale)
        assert units.max(initial=0) <= at_most
        assert (units > 0).mean() <= _TIES
        assert np.unique(want).size > min(want.size, 4) // 2  # it is no constant
    return model


def assert_floats(proto: onnx.ModelProto) -> ir.Model:
    """Compares a model without a QuantizeLinear behind its layers, to the rounding of f32."""
    model = apply(proto)
    assert native_report(model) == []
    feeds = feeds_for(proto)
    found = sparsert.load(proto, backend="numpy", strict=True).run(None, feeds)
    for want, got in zip(definition(proto, feeds), found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)
    return model


def names(model: ir.Model) -> list[str]:
    """The operators, without those that only move data."""
    moves = ("Transpose", "Squeeze", "Unsqueeze", "Reshape")
    return [op.removeprefix("sparsert.") for op in ops(model) if op not in moves]


ENDS = ("QuantizePacked", "DequantizePacked")


def between(*middle: str) -> list[str]:
    """Those operators with the conversions at the borders."""
    return [ENDS[0], *middle, ENDS[1]]


class Layers:
    """Collects nodes and constants around bytes of scale X_SCALE and results of scale Y_SCALE."""

    def __init__(self, signed: bool = False) -> None:
        self.dtype = np.int8 if signed else np.uint8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {
            "xs": X_SCALE,
            "xz": np.array(-9 if signed else 119, self.dtype),
            "ys": Y_SCALE,
            "yz": np.array(5 if signed else 133, self.dtype),
        }
        self._rng = np.random.default_rng(3)

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> Layers:
        """Adds a node."""
        self.nodes.append(node(op, inputs, [output], **attributes))
        return self

    def start(self, *inputs: str) -> Layers:
        """Quantises graph inputs: x becomes xd."""
        for x in inputs or ("x",):
            self.add("QuantizeLinear", [x, "xs", "xz"], f"{x}q")
            self.add("DequantizeLinear", [f"{x}q", "xs", "xz"], f"{x}d")
        return self

    def middle(self, x: str, y: str) -> Layers:
        """Puts a QuantizeLinear and a DequantizeLinear between two values."""
        self.add("QuantizeLinear", [x, "ys", "yz"], f"{y}_q")
        return self.add("DequantizeLinear", [f"{y}_q", "ys", "yz"], y)

    def end(self, x: str) -> Layers:
        """Quantises the result."""
        return self.middle(x, "y")

    def weight(
        self,
        shape: Sequence[int],
        name: str = "w",
        scale: Any = 0.004,
        zero: Any = None,
        dtype: Any = np.int8,
        **attributes: Any,
    ) -> Layers:
        """Adds constant bytes and their DequantizeLinear, `wd`."""
        info = np.iinfo(dtype)
        array = self._rng.integers(max(info.min, -90), info.max - 37, shape).astype(dtype)
        self.constants[name] = array
        self.constants[f"{name}s"] = np.asarray(scale, np.float32)
        inputs = [name, f"{name}s"]
        if zero is not None:
            self.constants[f"{name}z"] = np.asarray(zero, dtype)
            inputs.append(f"{name}z")
        return self.add("DequantizeLinear", inputs, f"{name}d", **attributes)

    def bias(self, rows: int, name: str = "b") -> Layers:
        """Adds an f32 bias."""
        self.constants[name] = self._rng.standard_normal(rows).astype(np.float32)
        return self

    def model(self, shapes: Mapping[str, Sequence[int | str]] | None = None) -> onnx.ModelProto:
        """Returns the model."""
        shapes = shapes or {"x": ("N", 8, 6, 5)}
        return build(self.nodes, shapes, ["y"], self.constants, opset=21)
