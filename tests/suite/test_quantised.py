"""Quantised networks and layers: every engine computes the bytes that the interpreter does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.quantization import QuantFormat, QuantType

import sparsert
from sparsert.errors import BackendError, ModelFormatError
from tests.passes.pass_checks import apply, build, feeds_for
from tests.passes.quantised_checks import Y_SCALE, Layers, definition, names, units_of
from tests.passes.quantised_models import NETS, feeds_of, quantised
from tests.suite.harness import ENGINES_OF_BYTES, NETWORK, Engine, assert_close


@functools.cache
def native_reason() -> str:
    """Why this build cannot run packed bytes; empty if it can."""
    layers = Layers().start().add("Identity", ["xd"], "y")
    try:
        sparsert.load(layers.model())
    except (ModelFormatError, BackendError) as error:
        return f"no kernels for packed bytes: {error}"
    return ""


def _layers(signed: bool = False) -> Layers:
    return Layers(signed).start().weight((8, 8, 3, 3), scale=np.linspace(2e-3, 6e-3, 8), axis=0)


def _conv(**attributes: Any) -> onnx.ModelProto:
    layers = _layers().bias(8).add("Conv", ["xd", "wd", "b"], "c", **attributes)
    return layers.add("Relu", ["c"], "r").end("r").model()


def _odd_conv(signed: bool) -> onnx.ModelProto:
    layers = Layers(signed).start().weight((7, 5, 3, 2)).bias(7)
    return layers.add("Conv", ["xd", "wd", "b"], "c").end("c").model({"x": (2, 5, 7, 9)})


def _few_channels(*weight: int, **attributes: Any) -> onnx.ModelProto:
    """Taps of a row are grouped where channels are few."""
    layers = Layers().start().weight(weight).bias(weight[0])
    layers.add("Conv", ["xd", "wd", "b"], "c", **attributes)
    return layers.end("c").model({"x": ("N", weight[1], 9, 37)})


def _depthwise(out: str) -> onnx.ModelProto:
    layers = Layers().start().weight((7, 1, 3, 3)).bias(7)
    layers.add("Conv", ["xd", "wd", "b"], "c", group=7, pads=[1, 1, 1, 1])
    layers.end("c") if out == "bytes" else layers.add("Sigmoid", ["c"], "y")
    return layers.model({"x": ("N", 7, 6, 5)})


def _residual() -> onnx.ModelProto:
    layers = _layers().add("Conv", ["xd", "wd"], "c", pads=[1, 1, 1, 1]).middle("c", "d")
    return layers.add("Add", ["d", "xd"], "a").add("Relu", ["a"], "r").end("r").model()


def _floats_out() -> onnx.ModelProto:
    layers = _layers().bias(8).add("Conv", ["xd", "wd", "b"], "c", pads=[1, 1, 1, 1])
    return layers.add("Add", ["c", "x"], "a").add("Relu", ["a"], "y").model()


def _unary(op: str, **attributes: Any) -> onnx.ModelProto:
    return Layers().start().add(op, ["xd"], "u", **attributes).end("u").model()


def _sum() -> onnx.ModelProto:
    shapes = {"x": ("N", 5, 4, 3), "z": ("N", 5, 4, 3)}
    return Layers().start("x", "z").add("Add", ["xd", "zd"], "a").end("a").model(shapes)


def _concat() -> onnx.ModelProto:
    shapes = {"x": ("N", 8, 4, 3), "z": ("N", 5, 4, 3)}
    layers = Layers().start("x", "z").add("Concat", ["xd", "zd"], "c", axis=1)
    return layers.end("c").model(shapes)


def _product(*shape: int | str) -> onnx.ModelProto:
    layers = Layers().start().weight((12, 7), scale=np.linspace(2e-3, 6e-3, 7), axis=1).bias(7)
    layers.add("MatMul", ["xd", "wd"], "p").add("Add", ["p", "b"], "a")
    return layers.end("a").model({"x": shape})


def _biased(out: str) -> onnx.ModelProto:
    shapes = {"x": ("N", "T", 13), "z": ("N", "T", 13)}
    layers = Layers().start("x", "z").bias(13).add("Add", ["xd", "b"], "a")
    layers.add("Add", ["a", "zd" if out == "bytes" else "z"], "s")
    layers.end("s") if out == "bytes" else layers.add("Gelu", ["s"], "y")
    return layers.model(shapes)


def _attention(rounded: bool, signed: bool = False) -> onnx.ModelProto:
    """Two heads of 8 features; keys as bench.models.bert's "dynamo" turns them."""
    layers = Layers(signed).start("x", "k", "v")
    layers.constants |= {
        "split": np.array([0, 0, 2, 8]),
        "join": np.array([0, 0, 16]),
        "flat": np.array([-1, 3, 8]),
        "turned": np.array([-1, 2, 8, 3]),
        "root": np.array(0.125, np.float32),
        "ps": np.array(1 / 255, np.float32),
        "pz": np.array(np.iinfo(layers.dtype).min, layers.dtype),
    }
    layers.middle("xd", "xm") if rounded else layers.add("Identity", ["xd"], "xm")
    for x, name in (("xm", "q"), ("kd", "r"), ("vd", "w")):
        layers.add("Reshape", [x, "split"], f"{name}s")
        layers.add("Transpose", [f"{name}s"], name, perm=[0, 2, 1, 3])
    layers.add("Reshape", ["r", "flat"], "rf").add("Transpose", ["rf"], "rt", perm=[0, 2, 1])
    layers.add("Reshape", ["rt", "turned"], "c").add("MatMul", ["q", "c"], "s0")
    layers.middle("s0", "s1") if rounded else layers.add("Identity", ["s0"], "s1")
    layers.add("Mul", ["s1", "root"], "s2").add("Add", ["s2", "m"], "s3")
    layers.middle("s3", "s4") if rounded else layers.add("Identity", ["s3"], "s4")
    layers.add("Softmax", ["s4"], "s5", axis=-1)
    layers.add("QuantizeLinear", ["s5", "ps", "pz"], "pq")
    layers.add("DequantizeLinear", ["pq", "ps", "pz"], "p")
    layers.add("MatMul", ["p", "w"], "y0")
    layers.middle("y0", "y1") if rounded else layers.add("Identity", ["y0"], "y1")
    layers.add("Transpose", ["y1"], "y2", perm=[0, 2, 1, 3])
    layers.add("Reshape", ["y2", "join"], "y3")
    layers.end("y3") if rounded else layers.add("Abs", ["y3"], "y")
    shapes: dict[str, Any] = {name: ("N", "T" if name == "x" else 3, 16) for name in "xkv"}
    return layers.model({**shapes, "m": ("N", 1, 1, 3)})


def _bytes_through() -> onnx.ModelProto:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c")
    layers.add("QuantizeLinear", ["c", "ys", "yz"], "y")
    shapes = {"x": ("N", 8, 6, 5)}
    return build(layers.nodes, shapes, ["y"], layers.constants, opset=21, output_dtype=2)


LAYERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv": lambda: _conv(pads=[1, 1, 1, 1]),
    "conv with strides": lambda: _conv(strides=[2, 2], pads=[1, 0, 1, 2]),
    "conv with dilations": lambda: _conv(dilations=[1, 2]),
    "odd conv, u8": lambda: _odd_conv(False),
    "odd conv, s8": lambda: _odd_conv(True),
    "three channels": lambda: _few_channels(6, 3, 5, 7, strides=[2, 2], pads=[2, 3, 1, 2]),
    "two channels": lambda: _few_channels(5, 2, 2, 11, strides=[1, 4], dilations=[2, 1]),
    "one channel": lambda: _few_channels(9, 1, 3, 3, pads=[1, 1, 1, 1]),
    "depthwise": lambda: _depthwise("bytes"),
    "depthwise to f32": lambda: _depthwise("f32"),
    "residual": _residual,
    "conv to f32": _floats_out,
    "lookup": lambda: _unary("Sigmoid"),
    "sum": _sum,
    "concat": _concat,
    "max pool": lambda: _unary("MaxPool", kernel_shape=[3, 2], pads=[1, 0, 1, 1]),
    "average pool": lambda: _unary("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    "mean": lambda: _unary("GlobalAveragePool"),
    "rows": lambda: _product("N", 12),
    "tokens": lambda: _product("N", "T", 12),
    "biased": lambda: _biased("bytes"),
    "biased to f32": lambda: _biased("f32"),
    "attention": lambda: _attention(True),
    "attention, s8": lambda: _attention(True, True),
    "attention to floats": lambda: _attention(False),
    "bytes out": _bytes_through,
}


@functools.cache
def interpreter(name: str) -> sparsert.Model:
    """The interpreter's model of a layer, or of a network."""
    proto = LAYERS[name]() if name in LAYERS else network(name)
    return sparsert.load(proto, backend="numpy", strict=True)


@functools.cache
def network(name: str) -> onnx.ModelProto:
    """A network, quantised per channel."""
    return quantised(name, QuantFormat.QDQ, QuantType.QUInt8, per_channel=True)


def on(engine: Engine, name: str) -> sparsert.Model:
    """The same on an engine."""
    if engine.name == "numpy":
        return interpreter(name)
    if native_reason():
        pytest.skip(native_reason())
    return sparsert.load(bytes(interpreter(name)._native_file()), **dict(engine.options))


@pytest.mark.parametrize("engine", ENGINES_OF_BYTES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_layer(name: str, engine: Engine, size: int) -> None:
    proto = LAYERS[name]()
    feeds = feeds_for(proto, {"N": size, "T": 3})
    found = on(engine, name).run(None, feeds)
    exact = interpreter(name).run(None, feeds)
    for got, want, defined in zip(found, exact, definition(proto, feeds), strict=True):
        if "attention" in name:  # a share may lie between two bytes
            unit = 3 / 255 if "floats" in name else float(Y_SCALE)
            assert units_of(want, got, unit).max() <= 1
            assert units_of(defined, got, unit).max() <= 1
        elif "f32" in name:
            assert_close(got, want, NETWORK, name)
            np.testing.assert_allclose(got, defined, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(got, want, err_msg=name)
            units = units_of(defined, got, 1 if got.dtype == np.uint8 else float(Y_SCALE))
            assert units.max() <= (2 if name == "residual" else 1)
            assert (units > 0).sum() <= max(1, 0.05 * units.size)


@pytest.mark.parametrize("engine", ENGINES_OF_BYTES, ids=str)
@pytest.mark.parametrize("forced", ["any4", "csr4"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_by_fours(
    name: str, forced: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine.is_native:
        pytest.skip("has no formats")
    monkeypatch.setenv("SPARSERT_FORMAT", forced)
    test_layer(name, engine, 3)
    kernels = [row["kernel"] for row in on(engine, name).explain().to_dict()["rows"]]
    products = [kernel for kernel in kernels if kernel.startswith("qspmm_")]
    assert all(k.startswith(f"qspmm_{forced}_i8_") or "_neon" in k for k in products)


def _vectors(zeros: float, inputs: int, block: int) -> onnx.ModelProto:
    """A product with one vector, of which a share of the weights is 0, `block` inputs at a time."""
    layers = Layers().start().weight((inputs, 87)).bias(87)
    keep = np.random.default_rng(7).random((-(-inputs // block), 87)) >= zeros
    keep = keep.repeat(block, axis=0)[:inputs]
    keep[:, 5] = zeros == 0
    layers.constants["w"] *= keep
    layers.add("MatMul", ["xd", "wd"], "p").add("Add", ["p", "b"], "a")
    return layers.end("a").model({"x": ("N", inputs)})


@pytest.mark.parametrize("engine", ENGINES_OF_BYTES, ids=str)
@pytest.mark.parametrize("forced", ["sell", "bits", "perm"])
def test_formats_of_vectors(forced: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    if not engine.is_native:
        pytest.skip("has no formats")
    monkeypatch.setenv("SPARSERT_FORMAT", forced)
    for zeros, inputs, block in (
        (0.0, 40, 1),
        (0.7, 131, 1),
        (0.95, 1021, 1),
        (0.9, 1021, 4),
        (1.0, 260, 1),
    ):
        proto = _vectors(zeros, inputs, block)
        exact = sparsert.load(proto, backend="numpy", strict=True)
        model = sparsert.load(bytes(exact._native_file()), **dict(engine.options))
        for size in (1, 3):
            feeds = feeds_for(proto, {"N": size})
            np.testing.assert_array_equal(model.run(None, feeds), exact.run(None, feeds))
        (row,) = [row for row in model.explain().to_dict()["rows"] if row["weights"]]
        assert row["kernel"].startswith("qspmv_")
        if forced != "perm":  # which few CPUs have
            assert row["compute_format"] == forced
        if row["compute_format"] == forced:
            assert row["reason"].startswith("forced by SPARSERT_FORMAT")


@pytest.mark.parametrize("engine", ENGINES_OF_BYTES, ids=str)
@pytest.mark.parametrize("forced", ["", "csr2", "pat4", "dense"])
def test_vectors_as_columns(forced: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of a batch, a residual among them, are the columns of one product."""
    if not engine.is_native:
        pytest.skip("has no formats")
    monkeypatch.setenv("SPARSERT_FORMAT", forced)
    for size in (2, 16, 17, 100):
        layers = Layers().start("x", "z").weight((131, 87)).bias(87)
        layers.constants["w"] *= np.random.default_rng(7).random((131, 87)) >= 0.8
        layers.add("MatMul", ["xd", "wd"], "p").add("Add", ["p", "b"], "a").middle("a", "am")
        layers.add("Add", ["am", "zd"], "s").end("s")
        proto = layers.model({"x": (size, 131), "z": (size, 87)})
        exact = sparsert.load(proto, backend="numpy", strict=True)
        model = sparsert.load(bytes(exact._native_file()), **dict(engine.options))
        feeds = feeds_for(proto)
        np.testing.assert_array_equal(model.run(None, feeds), exact.run(None, feeds))
        (row,) = [row for row in model.explain().to_dict()["rows"] if row["weights"]]
        if forced:
            assert row["kernel"].startswith("qspmm_")


@pytest.mark.parametrize("engine", ENGINES_OF_BYTES, ids=str)
@pytest.mark.parametrize("name", NETS)
def test_network(name: str, engine: Engine) -> None:
    model = on(engine, name)
    for feeds in feeds_of(NETS[name]().shape, 2):
        for got, want in zip(
            model.run(None, feeds), interpreter(name).run(None, feeds), strict=True
        ):
            largest = float(np.abs(want).max())
            # Functions in f32 may move a byte, and later ones with it.
            limit = 0.0 if name in ("cnn", "mlp") else 0.03
            assert float(np.abs(got - want).max()) <= limit * largest


@pytest.mark.parametrize("weights_alone", [False, True])
def test_every_quantised_tensor_of_a_transformer(weights_alone: bool) -> None:
    """Right to one unit of the definition, with the softmax and the norm in f32 or not."""
    if native_reason():
        pytest.skip(native_reason())
    proto = quantised(
        "transformer",
        QuantFormat.QDQ,
        QuantType.QUInt8,
        per_channel=True,
        MatMulConstBOnly=weights_alone,
        op_types=["MatMul"] if weights_alone else None,
    )
    found = [n.output[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    assert len(found) >= (8 if weights_alone else 20)
    for name in found:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    model = sparsert.load(proto, strict=True, tune=False)
    for feeds in feeds_of(NETS["transformer"]().shape, 3):
        got, want = model.run(None, feeds), definition(proto, feeds)
        for name, mine, defined in zip(found, got[1:], want[1:], strict=True):
            assert units_of(defined, mine, 1).max() <= 1, name


@pytest.mark.parametrize("name", LAYERS)
def test_no_layer_is_left_in_floats(name: str) -> None:
    found = names(apply(LAYERS[name]()))
    floats = "Conv Linear Add Sigmoid MaxPool AveragePool MatMul Softmax Gelu DequantizeLinear"
    assert not set(floats.split()) & set(found)
    assert ("QAttention" in found) == name.startswith("attention")
    assert ("QElementwise" in found) == name.startswith("biased")
