"""lower_quantized_nets: networks and functions of bytes, moves, and what stays in floats."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnxruntime.quantization import QuantFormat, QuantType

import sparsert
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, build
from tests.passes.quantised_checks import (
    ENDS,
    Layers,
    assert_units,
    between,
    definition,
    names,
    units_of,
)
from tests.passes.quantised_models import NETS, feeds_of, quantised

# ---- whole networks ----


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=lambda f: f.name)
@pytest.mark.parametrize("activation", [QuantType.QUInt8, QuantType.QInt8], ids=lambda t: t.name)
def test_networks(name: str, form: Any, activation: Any) -> None:
    proto = quantised(name, form, activation, per_channel=activation == QuantType.QInt8)
    model = apply(proto)
    assert native_report(model) == []
    found = names(model)
    layers = {"cnn": 5, "activations": 5, "mlp": 3, "transformer": 6}
    assert found.count("QConv") == layers[name]
    assert not {"Conv", "Linear", "Gemm", "Round"} & set(found)
    scales = [n.attributes["alpha"].value for n in model.graph if n.op_type == "DequantizePacked"]
    loaded = sparsert.load(proto, backend="numpy", strict=True)
    for feeds in feeds_of(NETS[name]().shape, 2):
        for want, got in zip(definition(proto, feeds), loaded.run(None, feeds), strict=True):
            # A layer's unit may be several of a later layer; the last one's are the largest here.
            units = units_of(want, got, max(scales))
            assert units.max() <= 3
            assert (units > 0).mean() <= 0.3


def test_cnn_has_no_floats_inside() -> None:
    model = apply(quantised("cnn", QuantFormat.QDQ, QuantType.QUInt8, per_channel=True))
    assert [names(model).count(op) for op in ENDS] == [1, 1]


# ---- tables ----

UNARY: dict[str, dict[str, Any]] = {
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
    "LeakyRelu": {"alpha": 0.2},
    "HardSwish": {},
    "HardSigmoid": {"alpha": 0.3},
    "Elu": {},
    "Exp": {},
    "Abs": {},
    "Erf": {},
    "Softplus": {},
}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("signed", [False, True])
def test_function(op: str, signed: bool) -> None:
    layers = Layers(signed).start().add(op, ["xd"], "u", **UNARY[op]).end("u")
    assert names(assert_units(layers.model())) == between("QLookup")


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Min", "Max"])
@pytest.mark.parametrize("first", [False, True])
def test_constant_number(op: str, first: bool) -> None:
    layers = Layers().start()
    layers.constants["k"] = np.array([0.37], np.float32)
    layers.add(op, ["k", "xd"] if first else ["xd", "k"], "u")
    layers.end("u")
    if op == "Div" and first:  # of zero too, which gives an infinity: the largest byte
        layers.constants["xz"] = np.array(0, np.uint8)
    model = assert_units(layers.model())
    assert set(names(model)) <= {*ENDS, "QLookup"}


def test_function_that_changes_no_byte_is_left_out() -> None:
    layers = Layers().start().add("Relu", ["xd"], "r").weight((8, 8, 1, 1))
    layers.constants["xz"] = np.array(0, np.uint8)
    layers.add("Conv", ["r", "wd"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QConv")


def test_gate_of_its_own_bytes_is_one_table() -> None:
    layers = Layers().start().add("Sigmoid", ["xd"], "s").middle("s", "g")
    layers.add("Mul", ["g", "xd"], "m").end("m")
    assert names(assert_units(layers.model())) == between("QLookup")


def test_function_without_a_number_for_some_byte_stays_floats() -> None:
    layers = Layers().start().add("Sqrt", ["xd"], "u").add("Abs", ["u"], "v")
    layers.constants["k"] = np.float32(0)
    layers.add("Max", ["xd", "k"], "p").add("Sqrt", ["p"], "w").end("w")
    assert names(assert_units(layers.model())) == between("QLookup")
    layers = Layers().start().add("Log", ["xd"], "u").end("u")
    assert "QLookup" not in names(apply(layers.model()))


def test_other_meaning_of_the_same_bytes() -> None:
    layers = Layers().start().add("QuantizeLinear", ["x", "xs", "xz"], "q2")
    layers.add("DequantizeLinear", ["q2", "ys", "yz"], "d").weight((8, 8, 1, 1))
    layers.add("Conv", ["d", "wd"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QConv")


# ---- pools and moves ----

POOLS = [
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
]


@pytest.mark.parametrize("attributes", POOLS)
@pytest.mark.parametrize("same", [False, True])
def test_max_pool(attributes: dict[str, Any], same: bool) -> None:
    layers = Layers().start().add("MaxPool", ["xd"], "p", **attributes)
    if same:
        layers.constants |= {"ys": layers.constants["xs"], "yz": layers.constants["xz"]}
    model = assert_units(layers.end("p").model(), at_most=0)
    assert names(model) == between(*["QMaxPool"] + ["QLookup"] * (not same))


@pytest.mark.parametrize(
    "attributes", [*POOLS, {"kernel_shape": [2, 3], "count_include_pad": 1, "pads": [1, 1, 1, 1]}]
)
def test_average_pool(attributes: dict[str, Any]) -> None:
    layers = Layers().start().add("AveragePool", ["xd"], "p", **attributes).end("p")
    assert names(assert_units(layers.model())) == between("QAveragePool")


def test_global_average_pool_and_classifier() -> None:
    layers = Layers().start().add("GlobalAveragePool", ["xd"], "p").middle("p", "d")
    layers.add("Flatten", ["d"], "f").middle("f", "e").weight((8, 5))
    layers.add("Gemm", ["e", "wd"], "g").end("g")
    model = assert_units(layers.model(), at_most=2)
    assert names(model) == between("QAveragePool", "QConv")


@pytest.mark.parametrize("channels", [(8, 5), (5, 8), (4, 4)])
def test_concat(channels: tuple[int, int]) -> None:
    shapes = {"x": (2, channels[0], 4, 3), "z": (2, channels[1], 4, 3)}
    layers = Layers().start("x", "z").add("Concat", ["xd", "zd"], "c", axis=1).end("c")
    found = names(assert_units(layers.model(shapes), at_most=0))
    assert ("QLookup" in found) == (channels[0] % 4 == 0)
    assert found.count("DequantizePacked") == (1 if channels[0] % 4 == 0 else 2 + 1)


def test_concat_with_floats() -> None:
    shapes = {"x": (2, 8, 4, 3), "z": (2, 3, 4, 3)}
    layers = Layers().start("x").add("Concat", ["xd", "z"], "c", axis=1).end("c")
    found = names(assert_units(layers.model(shapes), at_most=0))
    assert found.count("DequantizePacked") == 1


MOVES: dict[str, tuple[list[np.ndarray], dict[str, Any]]] = {
    "Transpose": ([], {"perm": [0, 2, 3, 1]}),
    "Reshape": ([np.array([0, -1, 5])], {}),
    "Slice": ([np.array([1]), np.array([4]), np.array([1])], {}),
    "Gather": ([np.array([2, 0, 2])], {"axis": 1}),
    "Pad": ([np.array([0, 1, 0, 0, 0, 0, 1, 1])], {}),
}


@pytest.mark.parametrize("op", MOVES)
def test_moves_go_through_floats(op: str) -> None:
    arrays, attributes = MOVES[op]
    layers = Layers().start()
    for i, array in enumerate(arrays):
        layers.constants[f"k{i}"] = array
    layers.add(op, ["xd", *(f"k{i}" for i in range(len(arrays)))], "m", **attributes)
    layers.add("QuantizeLinear", ["m", "xs", "xz"], "q").add(
        "DequantizeLinear", ["q", "xs", "xz"], "y"
    )
    found = names(assert_units(layers.model(), at_most=0))
    if op != "Pad":  # nothing is rounded twice
        assert found.count("QuantizePacked") == 1


def test_sums_are_rounded_before_they_are_moved() -> None:
    layers = Layers().start()
    layers.constants["k"] = np.linspace(-1, 1, 8, dtype=np.float32).reshape(8, 1, 1)
    layers.constants["shape"] = np.array([0, 0, -1])
    layers.add("Add", ["xd", "k"], "a").add("Reshape", ["a", "shape"], "r")
    layers.add("Transpose", ["r"], "t", perm=[0, 2, 1]).end("t")
    assert names(assert_units(layers.model())) == between("QElementwise")


def test_nearest_resize() -> None:
    layers = Layers().start()
    layers.constants["k"] = np.array([1, 1, 2, 2], np.float32)
    layers.add("Resize", ["xd", "", "k"], "m", mode="nearest").weight((8, 8, 1, 1)).middle("m", "d")
    layers.add("Conv", ["d", "wd"], "c").end("c")
    assert "QConv" in names(assert_units(layers.model(), at_most=2))


# ---- what is not recognised ----


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf, 1e-42, -0.1])
@pytest.mark.parametrize("which", ["x", "w", "y"])
def test_scales_that_are_no_positive_normal_numbers(scale: float, which: str) -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c").end("c")
    layers.constants[f"{which}s"] = np.float32(scale)
    model = apply(layers.model())
    if (which, scale) == ("w", 0):  # weights of zeros
        assert names(model) == between("QConv")
        return
    # Of its result: then the layer has one in f32.
    assert ("QConv" in names(model)) == (which == "y")
    listed = json.loads(model.metadata_props["float_layers"])
    node = {"x": "QuantizeLinear_xq", "w": "Conv_c", "y": "QuantizeLinear_y_q"}[which]
    what = "weights of " if which == "w" else ""
    assert f"a scale of {what}{np.float32(scale):g}" in listed[node]


def test_rows_whose_scale_is_zero() -> None:
    scale = np.where(np.arange(8) % 3 == 0, 0, 0.004)
    layers = Layers().start().weight((8, 8, 1, 1), scale=scale, axis=0).bias(8)
    layers.add("Conv", ["xd", "wd", "b"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QConv")


def test_negative_scale_of_weights() -> None:
    layers = Layers().start().weight((8, 8, 1, 1), scale=-0.004)
    layers.add("Conv", ["xd", "wd"], "c").end("c")
    assert_units(layers.model())


def test_scales_of_channels_of_activations() -> None:
    layers = Layers()
    layers.constants["ss"] = np.linspace(0.01, 0.03, 8).astype(np.float32)
    layers.constants["sz"] = np.zeros(8, np.uint8)
    layers.add("QuantizeLinear", ["x", "ss", "sz"], "q", axis=1)
    layers.add("DequantizeLinear", ["q", "ss", "sz"], "d", axis=1).weight((8, 8, 1, 1))
    layers.add("Conv", ["d", "wd"], "c").end("c")
    assert "QConv" not in names(assert_units(layers.model()))


def test_scales_of_the_run() -> None:
    layers = Layers().weight((8, 8, 1, 1))
    layers.add("QuantizeLinear", ["x", "s", "xz"], "q")
    layers.add("DequantizeLinear", ["q", "s", "xz"], "d").add("Conv", ["d", "wd"], "c").end("c")
    proto = layers.model({"x": (2, 8, 4, 4), "s": ()})
    assert "QConv" not in names(apply(proto))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_other_integers(dtype: Any) -> None:
    layers = Layers().weight((8, 8, 1, 1))
    layers.constants["uz"] = np.array(100, dtype)
    layers.add("QuantizeLinear", ["x", "xs", "uz"], "q")
    layers.add("DequantizeLinear", ["q", "xs", "uz"], "d").add("Conv", ["d", "wd"], "c").end("c")
    assert "QConv" not in names(assert_units(layers.model()))


def test_weights_of_the_run() -> None:
    layers = Layers().start("x", "w2").add("Conv", ["xd", "w2d"], "c").end("c")
    proto = layers.model({"x": (2, 8, 4, 4), "w2": (4, 8, 1, 1)})
    assert "QConv" not in names(apply(proto))


# ---- the ends of the graph ----


@pytest.mark.parametrize("signed", [False, True])
def test_bytes_in_and_out(signed: bool) -> None:
    layers = Layers(signed).add("DequantizeLinear", ["x", "xs", "xz"], "d").weight((8, 8, 1, 1))
    layers.add("Conv", ["d", "wd"], "c").add("QuantizeLinear", ["c", "ys", "yz"], "y")
    dtype = TensorProto.INT8 if signed else TensorProto.UINT8
    proto = build(
        layers.nodes,
        {"x": (2, 8, 4, 4)},
        ["y"],
        layers.constants,
        opset=21,
        dtype=dtype,
    )
    model = assert_units(proto, 1.0)
    assert names(model) == ["Cast", "QuantizePacked", "QConv", "DequantizePacked", "Cast"]


def test_bytes_that_something_else_reads() -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c").middle("c", "d")
    layers.add("Cast", ["d_q"], "i", to=TensorProto.FLOAT).add("Add", ["i", "d"], "y")
    model = assert_units(layers.model(), 1.0)
    assert names(model).count("QConv") == 1


def test_bytes_of_rank_1_stay() -> None:
    layers = Layers().start().end("xd")
    model = assert_units(layers.model({"x": (7,)}))
    assert not set(names(model)) & set(ENDS)


def test_channels_of_unknown_number_stay() -> None:
    layers = Layers().start().add("Relu", ["xd"], "r").end("r")
    model = assert_units(layers.model({"x": ("N", "C")}), sizes={"N": 2, "C": 5})
    assert not set(names(model)) & set(ENDS)


def test_zero_point_absent() -> None:
    layers = (
        Layers().add("QuantizeLinear", ["x", "xs"], "q").add("DequantizeLinear", ["q", "xs"], "d")
    )
    layers.weight((8, 8, 1, 1)).add("Conv", ["d", "wd"], "c").end("c")
    model = assert_units(layers.model())
    assert list(model.graph[0].attributes["quant"].value) == [0, 0, 255]


def test_explain_names_the_layers() -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c").end("c")
    model = sparsert.load(layers.model(), backend="numpy", strict=True)
    listed = [row["op"] for row in model.explain().to_dict()["rows"]]
    assert listed == between("QConv")
