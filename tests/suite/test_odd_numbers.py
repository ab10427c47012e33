"""NaN, infinities and ranges of nothing that are quantised: bytes as of onnxruntime, everywhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import sparsert
from tests.passes.pass_checks import build, node
from tests.passes.quantised_checks import definition
from tests.suite.harness import ENGINES_OF_BYTES, Engine

F32 = np.float32
NAN, INFINITE = np.nan, np.inf
ODD = np.array([NAN, INFINITE, -INFINITE, 1e38, -1e38, 1e-42, -0.0, 0.3, NAN, -7], F32)
ENGINES = pytest.mark.parametrize("engine", ENGINES_OF_BYTES, ids=str)


def runs_alike(proto: onnx.ModelProto, engine: Engine, feeds: dict[str, np.ndarray]) -> None:
    exact = sparsert.load(proto, backend="numpy", strict=True)
    model = exact
    if engine.name != "numpy":
        model = sparsert.load(bytes(exact._native_file()), **dict(engine.options))
    for got, want in zip(model.run(None, feeds), definition(proto, feeds), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def quantizer(dtype: str, zero: int, scale: object, shape: tuple[int, ...]) -> onnx.ModelProto:
    constants = {"s": np.asarray(scale, F32)}
    constants["z"] = np.full(constants["s"].shape, zero, dtype)
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    q = node("QuantizeLinear", ["x", "s", "z"], ["q"])
    return build([q], {"x": shape}, ["q"], constants, opset=21, output_dtype=number)


@ENGINES
@pytest.mark.parametrize("scale", [0.1, np.linspace(0.1, 0.5, 5)], ids=["one", "channels"])
@pytest.mark.parametrize(
    ("dtype", "zero"), [("uint8", 7), ("int8", -3), ("uint16", 900), ("int16", -900)]
)
def test_bytes_of_odd_numbers(dtype: str, zero: int, scale: object, engine: Engine) -> None:
    x = np.resize(ODD, (3, 5, 7)).astype(F32)
    runs_alike(quantizer(dtype, zero, scale, x.shape), engine, {"x": x})


@ENGINES
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_layers_of_odd_numbers(dtype: str, engine: Engine) -> None:
    """Bytes that a layer reads, and that are an output too."""
    constants = {"s": F32(0.1), "z": np.array(4, dtype), "ws": F32(0.02)}
    constants["w"] = np.arange(-12, 12).reshape(4, 6, 1, 1).astype(np.int8)
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws"], ["wd"]),
        node("Conv", ["d", "wd"], ["c"]),
        node("QuantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = np.resize(ODD, (2, 6, 3, 3)).astype(F32)
    proto = build(nodes, {"x": x.shape}, ["q", "y"], constants, opset=21, output_dtype=number)
    runs_alike(proto, engine, {"x": x})


def dynamic(*shape: int) -> onnx.ModelProto:
    q = node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    proto = build([q], {"x": shape}, ["q", "s", "z"], opset=21, output_dtype=TensorProto.UINT8)
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT
    return proto


def dynamic_layer(*shape: int) -> onnx.ModelProto:
    constants = {"w": np.arange(-8, 8).reshape(-1, 2).astype(np.int8), "ws": F32(0.02)}
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws"], ["wd"]),
        node("MatMul", ["d", "wd"], ["y"]),
    ]
    return build(nodes, {"x": shape}, ["y"], constants, opset=21)


def numbers(**places: float) -> np.ndarray:
    """Random numbers, with others at these places."""
    x = np.random.default_rng(3).standard_normal(80).astype(F32)
    for name, value in places.items():
        x[int(name[1:])] = value
    return x.reshape(10, 8)


# onnxruntime leaves NaN out of the range too, but where one is the last number that it compares.
RANGES = {
    "zeros": np.zeros((10, 8), F32),
    "negative zeros": -np.zeros((10, 8), F32),
    "one number": np.full((10, 8), 2, F32),
    "below zero": -np.abs(numbers()),
    "NaN": numbers(p3=NAN, p17=NAN),
    "NaN among zeros": np.where(np.arange(80).reshape(10, 8) == 5, NAN, 0).astype(F32),
    "infinite": numbers(p3=INFINITE),
    "infinite below": numbers(p3=-INFINITE),
    "infinite on both sides": numbers(p3=-INFINITE, p4=INFINITE),
    "infinite width": numbers(p3=3e38, p9=-3e38),
}


@ENGINES
@pytest.mark.parametrize("name", RANGES)
def test_ranges_that_the_run_finds(name: str, engine: Engine) -> None:
    runs_alike(dynamic(10, 8), engine, {"x": RANGES[name]})


# Sums of bytes times an infinite scale are infinite, where those of infinite numbers are NaN.
@ENGINES
@pytest.mark.parametrize("name", [name for name in RANGES if "infinite" not in name])
def test_layers_with_ranges_that_the_run_finds(name: str, engine: Engine) -> None:
    proto = dynamic_layer(10, 8)
    exact = sparsert.load(proto, backend="numpy", strict=True)
    model = exact
    if engine.name != "numpy":
        model = sparsert.load(bytes(exact._native_file()), **dict(engine.options))
    (want,), feeds = definition(proto, {"x": RANGES[name]}), {"x": RANGES[name]}
    np.testing.assert_allclose(model.run(None, feeds)[0], want, rtol=1e-5, atol=1e-5)
