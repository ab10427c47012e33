"""Convolutions, products and sums of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import sparsert
from tests.passes.pass_checks import apply, feeds_for
from tests.passes.quantised_checks import (
    X_SCALE,
    Layers,
    assert_floats,
    assert_units,
    between,
    definition,
    names,
)

CONVS: dict[str, tuple[Sequence[int | str], Sequence[int], dict[str, Any], str]] = {
    "plain": ((2, 8, 6, 5), (5, 8, 3, 3), {"pads": [1, 1, 1, 1]}, "QConv"),
    "odd channels": ((2, 7, 6, 5), (3, 7, 3, 3), {}, "QConv"),
    "stride": (
        ("N", 8, "H", "W"),
        (8, 8, 3, 3),
        {"strides": [2, 1], "pads": [1, 0, 1, 2]},
        "QConv",
    ),
    "same": ((1, 4, 7, 5), (8, 4, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "QConv"),
    "valid": ((1, 4, 7, 5), (8, 4, 3, 2), {"auto_pad": "VALID"}, "QConv"),
    "dilation": ((1, 4, 9, 8), (8, 4, 3, 3), {"dilations": [2, 3]}, "QConv"),
    "1-d": ((2, 6, 11), (5, 6, 3), {"pads": [1, 1]}, "QConv"),
    "groups": ((2, 16, 4, 4), (8, 8, 3, 3), {"group": 2}, "QConv"),
    "depthwise": ((2, 7, 6, 5), (7, 1, 3, 3), {"group": 7, "pads": [1, 1, 1, 1]}, "QDepthwise"),
    "one channel": ((2, 1, 6, 5), (1, 1, 3, 3), {}, "QConv"),
    "groups of odd size": ((2, 6, 4, 4), (4, 3, 3, 3), {"group": 2}, "QConv"),
    "two filters each": ((2, 6, 4, 4), (12, 1, 3, 3), {"group": 6}, "QConv"),
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution(name: str, signed: bool, bias: bool) -> None:
    shape, weight, attributes, op = CONVS[name]
    rows = weight[0]
    scale = np.linspace(0.002, 0.006, rows) if bias else 0.004
    layers = Layers(signed).start().weight(weight, scale=scale, axis=0)
    if bias:
        layers.bias(rows)
    layers.add("Conv", ["xd", "wd", *["b"] * bias], "c", **attributes).end("c")
    model = assert_units(layers.model({"x": shape}), sizes={"N": 2, "H": 7, "W": 6})
    assert names(model) == between(op)


@pytest.mark.parametrize("rank", [3, 5])
def test_convolutions_of_other_ranks(rank: int) -> None:
    size, kernel = [4] * (rank - 2), [2] * (rank - 2)
    layers = Layers().start().weight((4, 4, *kernel)).add("Conv", ["xd", "wd"], "c").end("c")
    model = assert_units(layers.model({"x": (2, 4, *size)}))
    assert ("QConv" in names(model)) == (rank == 3)


def test_bias_of_int32() -> None:
    layers = Layers().start().weight((6, 8, 3, 3), scale=np.linspace(0.002, 0.006, 6), axis=0)
    layers.constants["b"] = np.arange(-3000, 3000, 1000).astype(np.int32)
    layers.constants["bs"] = X_SCALE * layers.constants["ws"]
    layers.add("DequantizeLinear", ["b", "bs"], "bd", axis=0)
    layers.add("Conv", ["xd", "wd", "bd"], "c").end("c")
    model = assert_units(layers.model())
    conv = next(n for n in model.graph if n.op_type == "QConv")
    start = conv.inputs[3].const_value.numpy()
    np.testing.assert_array_equal(start, layers.constants["b"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_weights_with_zero_points(dtype: Any) -> None:
    zero = 77 if dtype == np.uint8 else 11
    layers = Layers().start().weight((6, 8, 3, 3), zero=zero, dtype=dtype)
    layers.add("Conv", ["xd", "wd"], "c").end("c")
    layers.constants["w"] = np.clip(layers.constants["w"], zero - 110, zero + 120).astype(dtype)
    assert names(assert_units(layers.model())) == between("QConv")


@pytest.mark.parametrize("zero", [0, 20, 200])
@pytest.mark.parametrize("group", [1, 2, 5])
def test_weights_beyond_i8_are_added_up(zero: int, group: int) -> None:
    channels = {1: 5, 2: 8, 5: 5}[group]
    shape = (channels, channels // group, 3, 3)
    layers = Layers().start().weight(shape, zero=zero, dtype=np.uint8).bias(channels)
    layers.constants["w"][:2, 0, 0, 0] = 0, 255
    layers.add("Conv", ["xd", "wd", "b"], "c", group=group).end("c")
    found = names(assert_units(layers.model({"x": (2, channels, 6, 5)})))
    assert not {"Conv", "Linear"} & set(found)
    count = found.count("QConv") + found.count("QDepthwise")
    assert count == (1 if group == 1 else 3 if zero == 0 else 2)


def test_product_with_weights_beyond_i8() -> None:
    layers = Layers().start().weight((11, 7), zero=30, dtype=np.uint8).bias(7)
    layers.constants["w"][0] = 255
    layers.add("Gemm", ["xd", "wd", "b"], "p").end("p")
    model = assert_units(layers.model({"x": (3, 11)}))
    assert names(model) == between("Concat", "QConv")


def test_weights_that_are_quantised_in_the_graph() -> None:
    layers = Layers().start()
    weights = np.random.default_rng(1).standard_normal((6, 8, 3, 3)) * 0.2
    layers.constants["f"] = weights.astype(np.float32)
    layers.constants["fs"] = np.linspace(0.004, 0.006, 6).astype(np.float32)
    layers.constants["fz"] = np.zeros(6, np.int8)
    layers.add("QuantizeLinear", ["f", "fs", "fz"], "fq", axis=0)
    layers.add("DequantizeLinear", ["fq", "fs", "fz"], "fd", axis=0)
    layers.add("Conv", ["xd", "fd"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QConv")


def test_sums_beyond_int32_stay_floats() -> None:
    layers = Layers().start().weight((1, 70000, 1), scale=1e-6)
    layers.constants["w"][:] = 127
    layers.constants["xz"] = np.array(0, np.uint8)
    layers.add("Conv", ["xd", "wd"], "c").end("c")
    model = apply(layers.model({"x": (1, 70000, 2)}))
    assert "QConv" not in names(model)
    layers.constants["w"] = layers.constants["w"][:, :60000]
    assert "QConv" in names(apply(layers.model({"x": (1, 60000, 2)})))


@pytest.mark.parametrize(("scale", "ops"), [("ys", {"QConv"}), ("ws", set())])
@pytest.mark.parametrize("group", [1, 8])
def test_scaled_sums_beyond_int32_are_floats(scale: str, ops: set[str], group: int) -> None:
    layers = Layers().start().weight((8, 8 // group, 3, 3), scale=0.004)
    layers.add("Conv", ["xd", "wd"], "c", group=group).end("c")
    layers.constants[scale] = np.float32(1e-8 if scale == "ys" else 1e7)
    found = {name.replace("QDepthwise", "QConv") for name in names(apply(layers.model()))}
    assert found & {"QConv"} == ops
    feeds = feeds_for(layers.model())
    (want,) = definition(layers.model(), feeds)
    for backend in ("native", "numpy"):
        (got,) = sparsert.load(layers.model(), backend=backend).run(None, feeds)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("clip", [(0.0, 6.0), (None, 1.0), (0.3, None), (-1.0, 0.5)])
def test_limits(clip: tuple[float | None, float | None]) -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c")
    inputs = ["c"]
    for name, bound in zip(("low", "high"), clip, strict=True):
        if bound is not None:
            layers.constants[name] = np.float32(bound)
        inputs.append(name if bound is not None else "")
    layers.add("Relu", ["c"], "r") if clip[0] == 0 else layers.add("Identity", ["c"], "r")
    inputs[0] = "r" if clip[0] == 0 else "c"
    layers.add("Clip", inputs, "l").end("l")
    assert names(assert_units(layers.model())) == between("QConv")


def test_bounds_in_the_wrong_order_stay_floats() -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c")
    layers.constants |= {"low": np.float32(0.7), "high": np.float32(0.2)}
    layers.add("Clip", ["c", "low", "high"], "l").end("l")
    model = apply(layers.model())
    feeds = feeds_for(layers.model())
    got = sparsert.load(layers.model(), backend="numpy")(feeds["x"])
    np.testing.assert_array_equal(got, definition(layers.model(), feeds)[0])
    assert "QConv" in names(model)


# ---- results in f32 ----


@pytest.mark.parametrize("act", ["Relu", "Sigmoid", "HardSwish", ""])
@pytest.mark.parametrize("residual", [False, True])
def test_floats_out(act: str, residual: bool) -> None:
    layers = Layers().start().weight((8, 8, 3, 3)).bias(8)
    layers.add("Conv", ["xd", "wd", "b"], "c", pads=[1, 1, 1, 1])
    y = "c"
    if residual:
        y = layers.add("Add", ["x", y], "sum").nodes[-1].output[0]
    layers.add(act or "Identity", [y], "y")
    model = assert_floats(layers.model())
    assert names(model) == ["QuantizePacked", "QConv"]
    conv = next(n for n in model.graph if n.op_type == "QConv")
    assert conv.attributes["to"].value == TensorProto.FLOAT
    assert len(conv.inputs) == (5 if residual else 4)
    assert ("act" in conv.attributes) == bool(act)


def test_activation_before_the_quantiser() -> None:
    layers = Layers().start().weight((8, 8, 3, 3)).add("Conv", ["xd", "wd"], "c")
    layers.add("Sigmoid", ["c"], "s").add("Mul", ["c", "s"], "m").end("m")
    assert names(assert_units(layers.model())) == between("QConv", "QuantizePacked")


def test_result_with_two_users() -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c")
    layers.middle("c", "d").add("Exp", ["c"], "e").add("Add", ["d", "e"], "y")
    model = assert_units(layers.model())
    assert names(model).count("QConv") == 1


# ---- linear layers ----


@pytest.mark.parametrize("shape", [(3, 12), ("N", 12), (2, 5, 12), ("N", "T", 12), (2, 3, 2, 12)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("quantiser", [False, True])
def test_product(shape: Sequence[int | str], bias: bool, quantiser: bool) -> None:
    scale = np.linspace(0.002, 0.006, 7)
    layers = Layers().start().weight((12, 7), scale=scale, axis=1).bias(7)
    layers.add("MatMul", ["xd", "wd"], "p")
    y = "p"
    if bias:
        y = layers.add("Add", ["b", "p"], "a").nodes[-1].output[0]
    if quantiser:
        model = assert_units(layers.end(y).model({"x": shape}), sizes={"N": 2, "T": 5})
        assert names(model) == between("QConv")
    else:
        model = assert_floats(layers.add("Identity", [y], "y").model({"x": shape}))
        assert names(model) == ["QuantizePacked", "QConv"]


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5}, {"transA": 1}])
def test_gemm(attributes: dict[str, Any]) -> None:
    turned = "transB" in attributes
    layers = Layers().start().weight((7, 12) if turned else (12, 7)).bias(7)
    layers.add("Gemm", ["xd", "wd", "b"], "p", **attributes).end("p")
    model = assert_units(layers.model({"x": (12, 3) if "transA" in attributes else (3, 12)}))
    assert ("QConv" in names(model)) == ("transA" not in attributes)


@pytest.mark.parametrize("size", [(4, 3), (5,)])
@pytest.mark.parametrize("again", [False, True])
def test_product_of_flat_planes(size: tuple[int, ...], again: bool) -> None:
    width = 6 * int(np.prod(size))
    layers = Layers().start().add("Flatten", ["xd"], "f").weight((5, width)).bias(5)
    if again:
        layers.add("QuantizeLinear", ["f", "xs", "xz"], "fq")
        layers.add("DequantizeLinear", ["fq", "xs", "xz"], "f2")
    layers.add("Gemm", ["f2" if again else "f", "wd", "b"], "p", transB=1).end("p")
    model = assert_units(layers.model({"x": ("N", 6, *size)}))
    assert names(model) == between("QConv")


def test_flat_planes_as_a_result() -> None:
    layers = (
        Layers().start().add("Flatten", ["xd"], "f").add("QuantizeLinear", ["f", "xs", "xz"], "q")
    )
    layers.add("DequantizeLinear", ["q", "xs", "xz"], "d").add("Exp", ["d"], "y")
    assert names(assert_units(layers.model())) == [*between(), "Flatten", "Exp"]
    layers = Layers().start().add("Flatten", ["xd"], "f").middle("f", "d").weight((240, 5))
    layers.add("Gemm", ["d", "wd"], "g").end("g")
    assert "QConv" in names(assert_units(layers.model(), at_most=2))


def test_scales_along_the_inputs_stay_floats() -> None:
    scale = np.linspace(0.002, 0.006, 12)
    layers = Layers().start().weight((12, 7), scale=scale, axis=0)
    layers.add("MatMul", ["xd", "wd"], "p").end("p")
    assert "Linear" in names(assert_units(layers.model({"x": (3, 12)})))


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_constant_per_row_is_no_bias(op: str) -> None:
    layers = Layers().start().weight((12, 7))
    layers.constants["b"] = np.arange(7, dtype=np.float32).reshape(7, 1)
    if op == "Gemm":
        layers.add("Gemm", ["xd", "wd", "b"], "p").end("p")
    else:
        layers.add("MatMul", ["xd", "wd"], "m").add("Add", ["m", "b"], "p").end("p")
    assert_units(layers.model({"x": (7, 12)}))


@pytest.mark.parametrize("act", ["Relu", ""])
def test_tokens_with_a_residual(act: str) -> None:
    layers = Layers().start().weight((12, 12)).bias(12).add("MatMul", ["xd", "wd"], "m")
    layers.add("Add", ["m", "b"], "p").add("Add", ["p", "x"], "a").add(
        act or "Identity", ["a"], "y"
    )
    model = assert_floats(layers.model({"x": ("N", 5, 12)}))
    assert names(model) == ["QuantizePacked", "QConv"]
    conv = next(n for n in model.graph if n.op_type == "QConv")
    assert len(conv.inputs) == 5
    assert ("act" in conv.attributes) == bool(act)


def test_transposed_weight() -> None:
    layers = Layers().start().weight((7, 12), scale=np.linspace(0.002, 0.006, 7), axis=0)
    layers.add("Transpose", ["wd"], "t", perm=[1, 0])
    layers.add("MatMul", ["xd", "t"], "p").end("p")
    assert names(assert_units(layers.model({"x": (2, 3, 12)}))) == between("QConv")


def test_sum_of_bytes_and_a_constant_per_feature() -> None:
    layers = Layers().start().bias(12).add("Add", ["xd", "b"], "a").end("a")
    model = assert_units(layers.model({"x": (2, 5, 12)}))
    assert names(model) == between("QElementwise")


def test_sum_of_bytes_and_a_constant_per_element_stays_floats() -> None:
    layers = Layers().start()
    layers.constants["b"] = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    layers.add("Add", ["xd", "b"], "a").end("a")
    model = assert_units(layers.model({"x": (2, 5, 12)}))
    assert "Add" in names(model)


# ---- sums ----


def test_sum() -> None:
    shapes = {"x": ("N", 5, 4, 3), "z": ("N", 5, 4, 3)}
    layers = Layers().start("x", "z").add("Add", ["xd", "zd"], "a").add("Relu", ["a"], "r").end("r")
    model = assert_units(layers.model(shapes))
    assert names(model).count("QAdd") == 1
    assert names(model).count("DequantizePacked") == 1


def test_sum_with_broadcast_stays_floats() -> None:
    shapes = {"x": (2, 5, 4, 3), "z": (2, 5, 1, 1)}
    layers = Layers().start("x", "z").add("Add", ["xd", "zd"], "a").end("a")
    assert "Add" in names(assert_units(layers.model(shapes)))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_residual(swapped: bool, relu: bool) -> None:
    layers = Layers().start().weight((8, 8, 3, 3))
    layers.add("Conv", ["xd", "wd"], "c", pads=[1, 1, 1, 1]).middle("c", "d")
    operands = ["xd", "d"] if swapped else ["d", "xd"]
    layers.add("Add", operands, "a").add("Relu" if relu else "Identity", ["a"], "r").end("r")
    model = assert_units(layers.model(), at_most=2)  # the convolution's unit, and the sum's
    assert names(model) == between("QConv")
    conv = next(n for n in model.graph if n.op_type == "QConv")
    assert len(conv.inputs) == 5
    quant = conv.attributes["quant"].value
    assert list(quant) == [119, 133, 0, 255, 119, 133, 133 if relu else 0, 255]


def test_two_convolutions_in_a_sum() -> None:
    layers = Layers().start().weight((8, 8, 3, 3)).weight((8, 8, 1, 1), "v")
    layers.add("Conv", ["xd", "wd"], "c", pads=[1, 1, 1, 1]).middle("c", "d")
    layers.add("Conv", ["xd", "vd"], "e").middle("e", "f").add("Add", ["d", "f"], "a").end("a")
    assert names(assert_units(layers.model(), at_most=2)) == between("QConv", "QConv")


def test_convolution_with_another_user_keeps_its_bytes() -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c")
    layers.middle("c", "d").add("Add", ["d", "xd"], "a").middle("a", "e")
    layers.add("Exp", ["d"], "g").add("Add", ["e", "g"], "y")
    found = names(assert_units(layers.model(), at_most=2))
    assert found.count("QConv") == 1
    assert found.count("QAdd") == 1
