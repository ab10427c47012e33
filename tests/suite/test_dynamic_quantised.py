"""Layers whose activations are quantised by the run: on every engine what onnxruntime computes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import sparsert
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, build, node
from tests.passes.quantised_checks import definition, names
from tests.suite.harness import ENGINES_OF_BYTES, Engine

F32 = np.float32


class Dynamic:
    """Collects nodes as onnxruntime's quantize_dynamic writes them."""

    def __init__(self, *shape: int | str) -> None:
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(7)

    def add(self, op: str, inputs: list[str], *outputs: str, **attributes: Any) -> Dynamic:
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return self

    def given(self, name: str, array: Any) -> str:
        self.constants[name] = np.asarray(array)
        return name

    def weights(self, *shape: int, dtype: Any = np.int8, zeros: float = 0.5) -> np.ndarray:
        info = np.iinfo(dtype)
        array = self._rng.integers(info.min, info.max, shape, endpoint=True)
        return (array * (self._rng.random(shape) > zeros)).astype(dtype)

    def quantise(self, x: str = "x") -> Dynamic:
        return self.add("DynamicQuantizeLinear", [x], f"{x}q", f"{x}s", f"{x}z")

    def layer(self, op: str, y: str, weight: Any, scale: Any, zero: Any = None, **more: Any) -> str:
        """A product of xq; its bias, if any, has the shape that goes with it."""
        bias, x = more.pop("bias", None), more.pop("x", "x")
        inputs = [f"{x}q", self.given(f"{y}_w", weight), f"{x}z"]
        inputs += [] if zero is None else [self.given(f"{y}_wz", zero)]
        self.add(op, inputs, f"{y}_sums", **more)
        self.add("Mul", [f"{x}s", self.given(f"{y}_ws", np.asarray(scale, F32))], f"{y}_scale")
        self.add("Cast", [f"{y}_sums"], f"{y}_f", to=TensorProto.FLOAT)
        result = y if bias is None else f"{y}_p"
        self.add("Mul", [f"{y}_f", f"{y}_scale"], result)
        if bias is not None:
            self.add("Add", [result, self.given(f"{y}_b", bias.astype(F32))], y)
        return y

    def floats(self, *shape: int) -> np.ndarray:
        return self._rng.standard_normal(shape).astype(F32)

    def model(self, *outputs: str) -> onnx.ModelProto:
        proto = build(self.nodes, {"x": self.shape}, outputs or ["y"], self.constants, opset=21)
        if any(n.domain for n in proto.graph.node):
            proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        return proto


def _product(*shape: int | str, columns: int = 7, each: bool = False) -> onnx.ModelProto:
    made = Dynamic(*shape).quantise()
    scale = np.linspace(1e-3, 5e-3, columns) if each else 0.003
    zero = np.zeros(columns if each else (), np.int8)
    weight = made.weights(int(shape[-1]), columns)
    made.layer("MatMulInteger", "y", weight, scale, zero, bias=made.floats(columns))
    return made.model()


def _unsigned_weights() -> onnx.ModelProto:
    """Zero points take them beyond -128 to 127; a scale for each column."""
    made = Dynamic("N", "T", 14).quantise()
    weight = made.weights(14, 9, dtype=np.uint8, zeros=0)
    zero = np.array([0, 255, 128, 7, 250, 128, 127, 3, 90], np.uint8)
    made.layer("MatMulInteger", "y", weight, np.linspace(1e-3, 2e-3, 9), zero)
    return made.model()


def _shared() -> onnx.ModelProto:
    """Three layers of the same bytes, a residual and an activation; then their bytes again."""
    made = Dynamic("N", "T", 20).quantise()
    for name in ("a", "b", "c"):
        made.layer("MatMulInteger", name, made.weights(20, 20), 0.004, bias=made.floats(20))
    made.add("Relu", ["a"], "r").add("Add", ["b", "x"], "s").add("Gelu", ["c"], "g")
    made.add("Add", ["r", "s"], "t").add("Add", ["t", "g"], "u").quantise("u")
    made.layer("MatMulInteger", "y", made.weights(20, 3, zeros=0.9), 0.002, x="u")
    return made.model()


def _conv(m: int, c: int, *kernel: int, each: bool = False, **window: Any) -> onnx.ModelProto:
    group = window.get("group", 1)
    made = Dynamic("N", c, *(6, 5)[: len(kernel)]).quantise()
    rows = [m, *[1] * len(kernel)]
    scale = np.linspace(1e-3, 5e-3, m).reshape(rows) if each else 0.003
    weight = made.weights(m, c // group, *kernel)
    made.layer("ConvInteger", "y", weight, scale, bias=made.floats(*rows), **window)
    return made.model()


def _bias_of_the_run() -> onnx.ModelProto:
    """Neural Compressor divides a bias by the scale of the sums, which the run computes."""
    made = Dynamic("N", 5, 6, 5).quantise()
    given = {"w": made.weights(7, 5, 3, 3), "ws": F32(0.003), "b": made.floats(7)}
    made.constants |= {**given, "k": np.array([1, -1, 1, 1])}
    made.add("ConvInteger", ["xq", "w", "xz"], "i", pads=[1, 1, 1, 1])
    made.add("Mul", ["xs", "ws"], "s").add("Div", ["b", "s"], "bd").add("Floor", ["bd"], "bf")
    made.add("Cast", ["bf"], "bq", to=TensorProto.INT32).add("Reshape", ["bq", "k"], "br")
    made.add("Add", ["i", "br"], "j").add("Cast", ["j"], "f", to=TensorProto.FLOAT)
    return made.add("Mul", ["f", "s"], "m").add("Relu", ["m"], "y").model()


def _dynamic_matmul() -> onnx.ModelProto:
    made = Dynamic("N", "T", 12)
    given = [made.given("w", made.weights(12, 5)), made.given("s", np.linspace(1e-3, 3e-3, 5))]
    made.constants["s"] = made.constants["s"].astype(F32)
    inputs = ["x", *given, made.given("z", np.zeros(5, np.int8)), made.given("b", made.floats(5))]
    return made.add("DynamicQuantizeMatMul", inputs, "y", domain="com.microsoft").model()


def _matmul_to_float() -> onnx.ModelProto:
    made = Dynamic("N", "T", 12).quantise()
    given = [made.given("w", made.weights(12, 5, dtype=np.uint8)), "xs", made.given("s", F32(3e-3))]
    inputs = ["xq", *given, "xz", made.given("z", np.uint8(128)), made.given("b", made.floats(5))]
    return made.add("MatMulIntegerToFloat", inputs, "y", domain="com.microsoft").model()


def _dequantised() -> onnx.ModelProto:
    """The form of QDQ with scales that the run computes."""
    made = Dynamic("N", "T", 12).quantise().add("DequantizeLinear", ["xq", "xs", "xz"], "xd")
    given = [made.given("w", made.weights(12, 5)), made.given("s", F32(3e-3))]
    return made.add("DequantizeLinear", given, "wd").add("MatMul", ["xd", "wd"], "y").model()


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "rows": lambda: _product("N", 13),
    "long rows": lambda: _product("N", 300, columns=70, each=True),
    "tokens": lambda: _product("N", "T", 12, each=True),
    "tokens of blocks": lambda: _product("N", 2, "T", 9),
    "unsigned weights": _unsigned_weights,
    "shared": _shared,
    "conv": lambda: _conv(7, 5, 3, 3, each=True, pads=[1, 1, 1, 1]),
    "conv with strides": lambda: _conv(8, 4, 3, 2, strides=[2, 2], pads=[0, 1, 2, 1]),
    "conv of one axis": lambda: _conv(4, 6, 3, pads=[2, 0]),
    "depthwise": lambda: _conv(6, 6, 3, 3, each=True, group=6, pads=[1, 1, 1, 1]),
    "groups": lambda: _conv(8, 8, 3, 3, group=2),
    "odd groups": lambda: _conv(6, 4, 2, 2, group=2, pads=[1, 1, 0, 0]),
    "bias of the run": _bias_of_the_run,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _matmul_to_float,
    "dequantised": _dequantised,
}


@functools.cache
def interpreter(name: str) -> sparsert.Model:
    return sparsert.load(MODELS[name](), backend="numpy", strict=True)


def on(engine: Engine, name: str) -> sparsert.Model:
    if engine.name == "numpy":
        return interpreter(name)
    return sparsert.load(bytes(interpreter(name)._native_file()), **dict(engine.options))


def feeds_of(proto: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    """Ranges of both signs, of one, and of nothing but zeros; several sizes of batch."""
    dims = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = []
    sizes = ((1, -2.0, 5.0), (3, 0.5, 3.0), (2, -4.0, -1.0), (1, 0.0, 0.0), (33, -1.0, 3.0))
    for size, low, high in sizes:
        shape = [{"N": size, "T": 5}.get(dim, dim) for dim in dims]
        feeds.append({"x": np.random.default_rng(size).uniform(low, high, shape).astype(F32)})
    return feeds


@pytest.mark.parametrize("engine", ENGINES_OF_BYTES, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, engine: Engine) -> None:
    proto, model = MODELS[name](), on(engine, name)
    for feeds in feeds_of(proto):
        for got, want in zip(model.run(None, feeds), definition(proto, feeds), strict=True):
            assert got.shape == want.shape
            if name == "shared":  # Gelu may move a byte of what lies behind
                np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max())
            else:
                np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_all_layers_are_in_integers(name: str) -> None:
    model = apply(MODELS[name]())
    assert native_report(model) == []
    found = names(model)
    assert found.count("QuantizeDynamic") == (2 if name == "shared" else 1)
    assert "QConvDynamic" in found
    assert not {"Conv", "Linear", "MatMul", "ReduceMax", "Round"} & set(found)
    assert "float_layers" not in model.metadata_props


def test_products_with_other_weights_run_in_floats() -> None:
    """What the layers cannot take is still computed as ONNX defines it."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    rng = np.random.default_rng(1)
    constants = {"w": rng.standard_normal((4, 8, 6)).astype(F32)}
    proto = build(nodes, {"x": (4, 3, 8)}, ["y"], constants, opset=21)
    assert native_report(apply(proto)) == []
    feeds = {"x": rng.standard_normal((4, 3, 8)).astype(F32)}
    want = definition(proto, feeds)[0]
    np.testing.assert_allclose(sparsert.load(proto).run(None, feeds)[0], want, rtol=1e-5, atol=1e-5)
