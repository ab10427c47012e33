"""Quantised models in the forms that quantisers write, and in ones that are broken."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.quantization import QuantFormat, QuantType

import sparsert
from sparsert.errors import ModelFormatError
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, build, feeds_for
from tests.passes.quantised_checks import (
    X_SCALE,
    Layers,
    assert_floats,
    assert_units,
    between,
    definition,
    names,
    units_of,
)
from tests.passes.quantised_models import NETS, feeds_of, quantised

QDQ, U8, S8 = QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt8


def assert_all_in_integers(proto: onnx.ModelProto, layers: int, most: int = 3) -> Any:
    """Every convolution and linear layer is one of bytes, right to `most` units of the result."""
    model = apply(proto)
    assert native_report(model) == []
    found = names(model)
    assert found.count("QConv") + found.count("QDepthwise") >= layers
    assert not {"Conv", "Linear", "Gemm", "Round"} & set(found)
    assert "float_layers" not in model.metadata_props
    return model


def test_layers_with_scales_of_half_precision_are_in_integers() -> None:
    made = Layers().start().weight((8, 8, 3, 3)).bias(8)
    made.add("Conv", ["xd", "wd", "b"], "c", pads=[1] * 4).end("c")
    for name, array in made.constants.items():
        if array.dtype == np.float32:
            made.constants[name] = array.astype(np.float16)
    shapes = {"x": ("N", 8, 6, 5)}
    proto = build(made.nodes, shapes, ["y"], made.constants, 21, TensorProto.FLOAT16)
    assert_all_in_integers(proto, 1)
    feeds = {"x": feeds_for(proto)["x"].astype(np.float16)}
    (got,) = sparsert.load(proto, backend="numpy", strict=True).run(None, feeds)
    (want,) = definition(proto, feeds)
    units = units_of(want, got, float(made.constants["ys"]))
    assert units.max() <= 1
    assert (units > 0).mean() <= 0.05


# ---- onnxruntime's static quantiser ----

OPTIONS: list[dict[str, Any]] = [
    {"weight": U8, "WeightSymmetric": False},
    {"activation": S8, "WeightSymmetric": False, "per_channel": True},
    {"activation": S8, "ActivationSymmetric": True, "reduce_range": True},
    {"AddQDQPairToWeight": True, "per_channel": True},
    {"DedicatedQDQPair": True, "QDQKeepRemovableActivations": True},
    {"QuantizeBias": False, "per_channel": True},
    {"UseQDQContribOps": True, "per_channel": True},
    {"form": QuantFormat.QOperator, "weight": U8, "WeightSymmetric": False},
    {"weight": QuantType.QInt4, "per_channel": True},
    {"weight": QuantType.QUInt4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)))
def test_onnxruntimes_options(options: dict[str, Any]) -> None:
    chosen = {"form": QDQ, "activation": U8, "weight": S8, **options}
    form, activation, weight = (chosen.pop(key) for key in ("form", "activation", "weight"))
    proto = quantised("cnn", form, activation, weight, **chosen)
    model = assert_all_in_integers(proto, 5)
    feeds = next(feeds_of(NETS["cnn"]().shape, 1))
    got = sparsert.load(proto, backend="numpy", strict=True)(feeds["x"])
    last = next(n for n in model.graph if n.op_type == "DequantizePacked")
    assert units_of(definition(proto, feeds)[0], got, last.attributes["alpha"].value).max() <= 3


def test_dedicated_pairs_are_one() -> None:
    layers = Layers().start().weight((8, 8, 1, 1)).add("Conv", ["xd", "wd"], "c")
    layers.middle("c", "d").middle("c", "e").add("MaxPool", ["d"], "p", kernel_shape=[1, 1])
    layers.add("Add", ["p", "e"], "a").end("a")
    assert names(assert_units(layers.model(), at_most=2)) == between("QConv", "QLookup")


@pytest.mark.parametrize("contrib", [False, True])
def test_bytes_of_16_bits_stay_floats(contrib: bool) -> None:
    proto = quantised("mlp", QDQ, QuantType.QUInt16, S8, UseQDQContribOps=contrib)
    model = apply(proto)
    assert native_report(model) == []
    assert names(model).count("Linear") == 3
    listed = json.loads(model.metadata_props["float_layers"])
    assert sum("UINT16" in reason for reason in listed.values()) >= 3
    feeds = next(feeds_of(NETS["mlp"]().shape, 1))
    got = sparsert.load(proto, backend="numpy", strict=True).run(None, feeds)[0]
    want = definition(proto, feeds)[0]
    assert np.abs(got - want).max() <= 1e-3 * np.abs(want).max()


# ---- torch ----


def torch_weight(layers: Layers, rows: int, *inner: int, folded: bool) -> None:
    """Weights as torch's exporter writes them: f64 scales, i64 zero points, bytes with bounds."""
    rng = np.random.default_rng(5)
    scale = rng.uniform(0.002, 0.006, rows)
    levels = rng.integers(-90, 90, (rows, *inner))
    spread = scale.reshape(-1, *[1] * len(inner))
    layers.constants |= {
        "f": (levels * spread).astype(np.float32),
        "q": levels.astype(np.int8),
        "s64": scale,
        "z64": np.zeros(rows, np.int64),
        "least": np.int8(-128),
        "most": np.int8(127),
    }
    layers.add("Cast", ["z64"], "z", to=TensorProto.INT8)
    layers.add("Cast", ["s64"], "s", to=TensorProto.FLOAT)
    if not folded:
        layers.add("CastLike", ["s64", "f"], "t")
        layers.add("QuantizeLinear", ["f", "t", "z"], "fq", axis=0)
        layers.add("Clip", ["fq", "least", "most"], "q8")
    layers.add("DequantizeLinear", ["q" if folded else "q8", "s", "z"], "wd", axis=0)


@pytest.mark.parametrize("folded", [False, True])
def test_torchs_export(folded: bool) -> None:
    layers = Layers().start()
    torch_weight(layers, 6, 8, 3, 3, folded=folded)
    layers.bias(6).add("Conv", ["xd", "wd", "b"], "c").add("Relu", ["c"], "r").middle("r", "d")
    layers.constants["k"] = np.array([-1, -2])
    layers.add("ReduceMean", ["d", "k"], "m", keepdims=1).middle("m", "e")
    layers.constants["flat"] = np.array([-1, 6])
    layers.add("Reshape", ["e", "flat"], "n").end("n")
    found = names(assert_units(layers.model({"x": (2, 8, 6, 5)}), at_most=2))
    assert found == between("QConv", "QAveragePool")


def test_torchs_linear_layer_over_tokens() -> None:
    layers = Layers().start()
    torch_weight(layers, 7, 12, folded=False)
    layers.add("Transpose", ["wd"], "turned", perm=[1, 0]).bias(7)
    layers.add("MatMul", ["xd", "turned"], "p").add("Add", ["p", "b"], "a").end("a")
    assert names(assert_units(layers.model({"x": (2, 3, 12)}))) == between("QConv")


def test_torchs_older_exporter_computes_the_integers_of_biases() -> None:
    layers = Layers().start().weight((6, 8, 3, 3), scale=np.linspace(0.002, 0.006, 6), axis=0)
    layers.bias(6).add("Mul", ["ws", "xs"], "step").add("Div", ["b", "step"], "ratio")
    layers.add("Cast", ["ratio"], "bq", to=TensorProto.INT32).add("Shape", ["step"], "size")
    zero = onnx.numpy_helper.from_array(np.array([0], np.int32))
    layers.add("ConstantOfShape", ["size"], "bz", value=zero)
    layers.add("DequantizeLinear", ["bq", "step", "bz"], "bd", axis=0)
    layers.add("Conv", ["xd", "wd", "bd"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QConv")


def test_a_network_that_torch_has_quantised() -> None:
    torch = pytest.importorskip("torch")
    fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao.quantization import get_default_qconfig_mapping

    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    x = torch.randn(2, 3, 11, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = fx.prepare_fx(module, get_default_qconfig_mapping("x86"), (x,))
        prepared(x)
        # The decomposed operators, as those of PT2E.
        converted = fx._convert_to_reference_decomposed_fx(prepared)
        proto = torch.onnx.export(converted, (x,), dynamo=True, verbose=False).model_proto
    assert_all_in_integers(proto, 3)
    feeds = {proto.graph.input[0].name: x.numpy()}
    got = sparsert.load(proto, strict=True, tune=False).run(None, feeds)[0]
    want = definition(proto, feeds)[0]
    assert np.abs(got - want).max() <= 0.02 * np.abs(want).max()


# ---- ConvInteger ----


def integer_conv(zero: int | None, per_channel: bool, bias: bool, back: bool = True) -> Layers:
    """A convolution of integers: sums, their bias, floats, the scale."""
    layers = Layers()
    layers.add("QuantizeLinear", ["x", "xs", "xz"], "xq").weight((6, 8, 3, 3), dtype=np.uint8)
    layers.nodes.pop()  # the DequantizeLinear
    inputs = ["xq", "w", "xz"]
    if zero is not None:
        layers.constants["wz"] = np.array(zero, np.uint8)
        layers.constants["w"] = np.clip(layers.constants["w"], zero - 120, zero + 120).astype("u1")
        inputs.append("wz")
    layers.add("ConvInteger", inputs, "i", pads=[1, 1, 1, 1])
    sums = "i"
    if bias:
        layers.constants["bi"] = np.arange(-3000, 3000, 1000, np.int32).reshape(1, 6, 1, 1)
        sums = layers.add("Add", ["i", "bi"], "ib").nodes[-1].output[0]
    layers.add("Cast", [sums], "f", to=TensorProto.FLOAT)
    scale = np.linspace(0.002, 0.006, 6) if per_channel else np.full(1, 0.004)
    layers.constants["k"] = (X_SCALE * scale).astype(np.float32).reshape(-1, 1, 1)
    return layers.add("Mul", ["f", "k"], "c") if back else layers


@pytest.mark.parametrize("zero", [None, 128, 40])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_integer_convolution(zero: int | None, per_channel: bool, bias: bool) -> None:
    layers = integer_conv(zero, per_channel, bias)
    layers.add("Relu", ["c"], "r").end("r")
    found = names(assert_units(layers.model()))
    assert found in (between("QConv"), between("Concat", "QConv"))


def test_integer_convolution_without_scales() -> None:
    layers = integer_conv(128, False, True, back=False).add("Identity", ["f"], "y")
    assert names(assert_floats(layers.model())) == ["QuantizePacked", "QConv"]


def test_sums_that_stay_integers() -> None:
    layers = Layers().weight((6, 8, 3, 3))
    layers.nodes.pop()
    layers.add("QuantizeLinear", ["x", "xs", "xz"], "xq").add("ConvInteger", ["xq", "w", "xz"], "i")
    layers.constants["two"] = np.int32(2)
    layers.add("Mul", ["i", "two"], "j").add("Cast", ["j"], "y", to=TensorProto.FLOAT)
    proto = layers.model()
    feeds = feeds_for(proto)
    got = sparsert.load(proto, backend="numpy")(feeds["x"])
    np.testing.assert_array_equal(got, definition(proto, feeds)[0])


# ---- weights that are moved ----


@pytest.mark.parametrize("depthwise", [False, True])
def test_weights_of_tensorflow(depthwise: bool) -> None:
    """[H, W, C, M], or [H, W, C, 1] of a depthwise convolution, between transposes of images."""
    shape = (3, 3, 8, 1) if depthwise else (3, 3, 8, 6)
    axis = 2 if depthwise else 3
    scale = np.linspace(0.002, 0.006, shape[axis])
    layers = Layers(True).weight(shape, scale=scale, axis=axis)
    layers.add("QuantizeLinear", ["x", "xs", "xz"], "q").add(
        "DequantizeLinear", ["q", "xs", "xz"], "d"
    )
    layers.add("Transpose", ["d"], "t", perm=[0, 3, 1, 2])
    perm = [2, 3, 0, 1] if depthwise else [3, 2, 0, 1]
    layers.add("Transpose", ["wd"], "v", perm=perm)
    layers.add("Conv", ["t", "v"], "c", group=8 if depthwise else 1)
    layers.add("Transpose", ["c"], "u", perm=[0, 2, 3, 1]).end("u")
    found = names(assert_units(layers.model({"x": (2, 6, 5, 8)})))
    # Bytes go in as they are; the transpose behind the layer is of floats.
    assert found[:2] == ["QuantizePacked", "QDepthwise" if depthwise else "QConv"]


def test_reshaped_weights() -> None:
    layers = Layers().start().weight((6, 72), scale=np.linspace(0.002, 0.006, 6), axis=0)
    layers.constants["k"] = np.array([6, 8, 3, 3])
    layers.add("Reshape", ["wd", "k"], "v").add("Conv", ["xd", "v"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QConv")


def test_weights_with_a_batch_norm_that_is_not_folded() -> None:
    """A QuantizeLinear of weights times scale / sqrt(variance + epsilon), all in the graph."""
    rng = np.random.default_rng(8)
    layers = Layers().start()
    layers.constants |= {
        "w": rng.standard_normal((6, 8, 3, 3)).astype(np.float32),
        "variance": rng.uniform(0.5, 2, 6).astype(np.float32),
        "scale": rng.uniform(0.5, 2, 6).astype(np.float32),
        "epsilon": np.float32(1e-5),
        "k": np.array([-1, 1, 1, 1]),
        "ws": np.float32(0.03),
        "wz": np.int8(0),
    }
    layers.add("Add", ["variance", "epsilon"], "v").add("Sqrt", ["v"], "d")
    layers.add("Div", ["scale", "d"], "f").add("Reshape", ["f", "k"], "fk")
    layers.add("Mul", ["w", "fk"], "wf").add("QuantizeLinear", ["wf", "ws", "wz"], "wq")
    layers.add("DequantizeLinear", ["wq", "ws", "wz"], "wd").add("Conv", ["xd", "wd"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QConv")


# ---- halves of patterns ----


def test_activation_between_bytes_and_a_layer() -> None:
    layers = Layers().start().add("Relu", ["xd"], "r").weight((8, 8, 3, 3))
    layers.add("Conv", ["r", "wd"], "c").end("c")
    assert names(assert_units(layers.model())) == between("QLookup", "QConv")


def half(name: str) -> onnx.ModelProto:
    """A convolution with conversions on one side only."""
    layers = Layers()
    if name == "input":
        layers.start()
    if name in ("weights", "result and weights"):
        layers.weight((8, 8, 3, 3))
    else:
        layers.constants["wd"] = np.random.default_rng(2).standard_normal((8, 8, 3, 3), np.float32)
    layers.add("Conv", ["xd" if name == "input" else "x", "wd"], "c")
    if name in ("result", "result and weights"):
        return layers.end("c").model()
    return layers.add("Identity", ["c"], "y").model()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("input", "weights that are not quantised"),
        ("weights", "its weights are quantised, but its input is not"),
        ("result", None),
        ("result and weights", "its weights are quantised, but its input is not"),
    ],
)
def test_conversions_on_one_side(name: str, reason: str | None) -> None:
    proto = half(name)
    feeds = feeds_for(proto)
    model = sparsert.load(proto, strict=True, tune=False)
    got, want = model(feeds["x"]), definition(proto, feeds)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=0.036 if "result" in name else 1e-4)
    table = model.explain()
    row = next(row for row in table.to_dict()["rows"] if row["op"] == "Conv")
    assert (f"in f32: {reason}" in row["reason"]) == (reason is not None)
    assert any(f"in f32 in a quantised model: Conv_c ({reason})" in n for n in table.notes) == (
        reason is not None
    )


def test_bytes_on_one_side_of_a_sum() -> None:
    layers = Layers().start().weight((8, 8, 3, 3)).add("Conv", ["xd", "wd"], "c", pads=[1] * 4)
    layers.middle("c", "d").add("Add", ["d", "x"], "a").end("a")
    assert names(assert_units(layers.model(), at_most=2)).count("QConv") == 1


# ---- what does not fit ----


def _broken(change: Callable[[Layers], Any]) -> onnx.ModelProto:
    layers = Layers().start().weight((6, 8, 3, 3), scale=np.full(6, 0.004), axis=0)
    layers.add("Conv", ["xd", "wd"], "c").end("c")
    change(layers)
    return layers.model()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ws": np.full(5, 0.004, np.float32)}, "5 scales 'ws' for dimension 0 of 'w'"),
        ({"ws": np.full((6, 1), 0.004, np.float32)}, "'ws' have 2 dimensions, expected 1"),
        ({"xz": np.zeros(3, np.uint8)}, "1 scales 'xs', but 3 zero points 'xz'"),
        ({"xz": np.array(300, np.int32)}, "QuantizeLinear_xq.*y_zero_point.*int32"),
        ({"xs": np.array(1, np.int32)}, "QuantizeLinear_xq.*y_scale.*int32"),
    ],
)
def test_what_contradicts_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    proto = _broken(lambda layers: layers.constants.update(change))
    with pytest.raises(ModelFormatError, match=message):
        sparsert.load(proto)


@pytest.mark.parametrize(
    ("scales", "axis", "block_size", "message"),
    [
        ((3, 12), 0, 4, r"dimension 0 of 'w' has 16 elements, but .* 'ws' have 3, expected 4 "),
        ((4, 11), 0, 4, r"dimension 1 of 'w' has 12 elements, but .* 'ws' have 11, expected 12 "),
        ((4,), 0, 4, "'ws' have 1 dimensions, expected 2"),
        ((4, 12), 2, 4, "its axis is 2, but 'w' has 2 dimensions"),
        ((4, 12), 0, -4, "its block_size is -4, expected 0 or more"),
    ],
)
def test_blocks_that_contradict_are_refused(
    scales: Sequence[int], axis: int, block_size: int, message: str
) -> None:
    layers = (
        Layers()
        .start()
        .weight((16, 12), scale=np.full(scales, 0.004), axis=axis, block_size=block_size)
    )
    proto = layers.add("MatMul", ["xd", "wd"], "c").end("c").model({"x": (3, 16)})
    with pytest.raises(ModelFormatError, match=message):
        sparsert.load(proto)


def test_scales_that_mean_nothing_are_listed() -> None:
    for scale in (np.nan, np.inf, 0.0, 1e-42):
        proto = _broken(lambda layers, s=scale: layers.constants.update(xs=np.float32(s)))
        with np.errstate(all="ignore"):
            model = sparsert.load(proto, strict=True, tune=False)
            model(feeds_for(proto)["x"])
        text = str(model.explain())
        assert f"a scale of {np.float32(scale):g}" in text


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ("xd zd", "keys, values and shares are all quantised"),
        ("xd z", "one of which is not quantised"),
        ("x zd", "one of which is not quantised"),
    ],
)
def test_products_without_weights(inputs: str, reason: str) -> None:
    layers = Layers().start("x", "z").add("MatMul", inputs.split(), "p").end("p")
    model = apply(layers.model({"x": (2, 3, 4, 5), "z": (2, 3, 5, 6)}))
    (found,) = json.loads(model.metadata_props["float_layers"]).values()
    assert found.startswith("a product of two values of the run")
    assert found.endswith(reason)
