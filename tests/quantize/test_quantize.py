"""sparsert.quantize: what it takes, what it refuses, what it leaves in float."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import sparsert
from sparsert.errors import BackendError, ModelFormatError, ShapeError
from tests.suite.harness import build, make_session, random_weights

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((12, 3, 8, 8)).astype(np.float32)


def conv_model(batch: int | str = "n", **more: np.ndarray) -> onnx.ModelProto:
    """Conv-Relu-Conv-Relu6-GlobalAveragePool-Gemm."""
    constants = {
        "w1": random_weights(8, 3, 3, 3, sparsity=0.5),
        "b1": random_weights(8, scale=1.0),
        "w2": random_weights(8, 8, 3, 3, sparsity=0.8),
        "w3": random_weights(5, 8, sparsity=0.5),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
    }
    return build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, w1, b1)",
            "b = Relu(a)",
            "c = Conv(b, w2)",
            "d = Clip(c, low, high)",
            "e = GlobalAveragePool(d)",
            "f = Flatten(e)",
            "y = Gemm<transB=1>(f, w3)",
        ],
        {"x": [batch, 3, 8, 8]},
        {**constants, **more},
    )


def two_inputs() -> onnx.ModelProto:
    return build(
        ["a = MatMul(p, w)", "b = MatMul(q, w)", "y = Add(a, b)"],
        {"p": ["n", 4], "q": ["n", 4]},
        {"w": random_weights(4, 6)},
    )


def types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if "Linear" not in node.op_type]


def close(model: onnx.ModelProto, source: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    """A quantised model is near the float one in both engines."""
    onnx.checker.check_model(model, full_check=True)
    exact = make_session(source).run(None, feeds)
    ours = sparsert.load(model, threads=1, tune=False).run(None, feeds)
    for expected, one, other in zip(exact, make_session(model).run(None, feeds), ours, strict=True):
        size = np.linalg.norm(expected)
        assert 0 < np.linalg.norm(one - expected) < 0.05 * size
        assert np.linalg.norm(one - other) < 0.02 * size


# ---- forms of models and data --------------------------------------------------------------------


def test_forms_of_the_model(tmp_path):
    source = conv_model()
    onnx.save(source, tmp_path / "m.onnx")
    texts = set()
    for form in (source, source.SerializeToString(), tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        result = sparsert.quantize(form, IMAGES)
        close(result.model, source, {"x": IMAGES})
        texts.add(str(result.report))
    assert len(texts) == 1
    assert [t.name for t in source.graph.initializer] == ["w1", "b1", "w2", "w3", "low", "high"]


def test_a_torch_module():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.Flatten(),
        torch.nn.Linear(288, 4),
    ).eval()
    sparsert.prune(module, sparsity=0.75)
    sparsert.prune.remove(module)
    x = torch.from_numpy(IMAGES)
    result = sparsert.quantize(module, [x[:6], x[6:]], example_inputs=x[:6], exclude="3")
    assert [(layer.weight, layer.precision) for layer in result.report.layers] == [
        ("0.weight", "int8"),
        ("3.weight", "f32"),
    ]
    assert all(layer.zeros >= 0.75 * layer.weights for layer in result.report.layers)
    with torch.inference_mode():
        expected = module(x[:6]).numpy()
    got = sparsert.load(result.model, tune=False)(x[:6]).numpy()
    assert 0 < np.linalg.norm(got - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        {"x": IMAGES},
        [IMAGES],
        [{"x": IMAGES[:4]}, {"x": IMAGES[4:]}],
        [(IMAGES[:4],), [IMAGES[4:]]],
        (IMAGES[i : i + 1] for i in range(12)),
        iter(np.array_split(IMAGES, 5)),
    ],
    ids=["array", "dict", "list", "dicts", "tuples", "generator", "iterator"],
)
def test_forms_of_the_data(data):
    report = sparsert.quantize(conv_model(), data, batch_size=5).report
    assert report.layers[0].input_range == (
        pytest.approx(IMAGES.min()),
        pytest.approx(IMAGES.max()),
    )


def test_samples_are_cut_to_the_batch_of_the_model():
    assert sparsert.quantize(conv_model(4), IMAGES).report.samples == 3
    assert sparsert.quantize(conv_model(5), IMAGES).report.samples == 2
    assert sparsert.quantize(conv_model(), IMAGES, batch_size=5).report.samples == 3


def test_several_inputs():
    p, q = (RNG.standard_normal((6, 4)).astype(np.float32) for _ in "pq")
    model, report = sparsert.quantize(two_inputs(), [(p, q), {"q": q, "p": 2 * p}])
    close(model, two_inputs(), {"p": p, "q": q})
    assert report.quantised == 2
    assert len([t for t in model.graph.initializer if t.name.endswith("int8")]) == 1  # shared


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], ValueError, "calibration_data is empty"),
        (IMAGES[:0], ValueError, "calibration_data is empty"),
        ({}, ValueError, "calibration_data is empty"),
        (3, ValueError, "calibration_data is int"),
        ("data.npz", ValueError, "calibration_data is str"),
        ([IMAGES[0]], ShapeError, r"feed 0.*'x' has shape \[3, 8, 8\]"),
        ([IMAGES, IMAGES[:, :2]], ShapeError, "feed 1.*shape"),
        (IMAGES.astype(np.float64), ShapeError, "float64, expected float32"),
        ({"z": IMAGES}, ShapeError, "no input 'z'"),
        ([(IMAGES, np.zeros(12))], ShapeError, "2 for the inputs 'x'.*targets"),
        ([7], ShapeError, "int for the inputs"),
    ],
)
def test_bad_data(data, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        sparsert.quantize(conv_model(), data)


def test_bad_samples_of_several_inputs():
    with pytest.raises(ValueError, match="'p' 2, 'q' 3"):
        sparsert.quantize(two_inputs(), {"p": np.zeros((2, 4)), "q": np.zeros((3, 4))})
    with pytest.raises(ValueError, match="12 samples, but the model takes 16"):
        sparsert.quantize(conv_model(16), IMAGES)


# ---- what calibration finds ----------------------------------------------------------------------


def test_a_tensor_that_is_always_zero_is_named():
    bias = np.full(8, -1000, np.float32)
    with pytest.raises(
        ValueError, match=r"'b' is zero or below .* for all calibration data.*'Conv_2'"
    ):
        sparsert.quantize(conv_model(b1=bias), IMAGES)
    report = sparsert.quantize(conv_model(b1=bias), IMAGES, exclude=["w2", "w3"]).report
    assert [layer.precision for layer in report.layers] == ["int8", "f32", "f32"]
    with pytest.raises(ValueError, match="'x' is zero or below"):
        sparsert.quantize(conv_model(), np.zeros_like(IMAGES))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(bad):
    images = IMAGES.copy()
    images[3, 1, 2, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite values in 'x' and 5 tensors after it"):
        sparsert.quantize(conv_model(), images)
    with pytest.raises(ValueError, match="layer 'Conv_2': 'w2' is not finite"):
        sparsert.quantize(conv_model(w2=np.full((8, 8, 3, 3), bad, np.float32)), IMAGES)


def test_outputs_that_are_not_finite_are_named():
    source = build(["a = MatMul(x, w)", "y = Log(a)"], {"x": ["n", 4]}, {"w": random_weights(4, 4)})
    with pytest.raises(ValueError, match="NaN or infinite values in 'y' while"):
        sparsert.quantize(source, RNG.standard_normal((5, 4)).astype(np.float32))


def test_a_quantised_model_is_refused():
    model = sparsert.quantize(conv_model(), IMAGES).model
    with pytest.raises(ValueError, match="quantised already: node 'Conv_0_weight' is a Deq"):
        sparsert.quantize(model, IMAGES)


def test_a_model_without_layers():
    with pytest.raises(ValueError, match="no layer with constant weights"):
        sparsert.quantize(build(["y = Relu(x)"], {"x": ["n", 3]}), np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="no layer with constant weights"):
        sparsert.quantize(conv_model(), IMAGES, exclude=["w1", "w2", "w3"])


def test_bad_models(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"junk")
    for source in (tmp_path / "m.onnx", tmp_path / "none.onnx", 7):
        with pytest.raises(ModelFormatError):
            sparsert.quantize(source, IMAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "guess"},
            "method is 'guess', expected one of minmax, percentile, mse",
        ),
        ({"activation": "f8"}, "activation is 'f8', expected one of u8, s8"),
        ({"percentile": 50}, "percentile is 50"),
        ({"min_speedup": 0}, "min_speedup is 0, expected a positive factor"),
        ({"percentile": float("nan")}, "percentile is nan"),
        ({"op_types": ["Conv", "Softmax"]}, "op_types has 'Softmax', expected some of Conv"),
        ({"exclude": "conv9"}, r"no layer 'conv9' .* Conv_0 \(w1\), Conv_2 \(w2\), Gemm_6 \(w3\)"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"evaluate": 3}, "evaluate is not a function"),
        ({"max_drop": 0.1}, "max_drop needs evaluate"),
        ({"evaluate": len, "max_drop": -1}, "max_drop is -1"),
        ({"evaluate": len, "min_sqnr": 10}, "either evaluate or min_sqnr"),
        ({"min_sqnr": float("nan")}, "min_sqnr is nan"),
        ({"method": "x", "activation": "y", "batch_size": "z"}, "3 problems"),
        ({"evaluate": lambda model: "good"}, "evaluate returned 'good', expected a number"),
        ({"evaluate": lambda model: float("nan")}, "evaluate returned nan"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        sparsert.quantize(conv_model(), IMAGES, **options)


# ---- the graph -----------------------------------------------------------------------------------


def test_op_types_and_exclude():
    source = conv_model()

    def precisions(**options):
        model, report = sparsert.quantize(source, IMAGES, **options)
        close(model, source, {"x": IMAGES})
        return [layer.precision for layer in report.layers], report.other_nodes

    everything = (["int8"] * 3, ["GlobalAveragePool_4", "Flatten_5"])
    assert precisions() == everything
    assert precisions(op_types=["Conv", "Gemm"]) == (["int8"] * 3, [])
    assert precisions(op_types="Conv") == (["int8"] * 2, [])
    for exclude in ("w3", ["Gemm_6"]):
        assert precisions(exclude=exclude) == (["int8", "int8", "f32"], [])
    assert precisions(exclude=["GlobalAveragePool_4"]) == (["int8"] * 3, [])


def test_outputs_of_the_graph_keep_their_names():
    source = build(
        ["a = Conv(x, w1)", "b = Relu(a)", "y = Conv(b, w2)", "z = Relu(b)"],
        {"x": [2, 3, 8, 8]},
        {"w1": random_weights(8, 3, 1, 1), "w2": random_weights(4, 8, 1, 1)},
        outputs=("b", "y", "z", "a"),
    )
    model = sparsert.quantize(source, IMAGES).model
    assert [value.name for value in model.graph.output] == ["b", "y", "z", "a"]
    close(model, source, {"x": IMAGES[:2]})


def test_a_relu_beside_another_reader_shares_the_scale():
    source = build(
        ["a = Conv(x, w1)", "b = Relu(a)", "c = Conv(b, w2)", "d = Conv(a, w3)", "y = Add(c, d)"],
        {"x": [2, 3, 8, 8]},
        {name: random_weights(8, 3 if name == "w1" else 8, 1, 1) for name in ("w1", "w2", "w3")},
    )
    model, report = sparsert.quantize(source, IMAGES)
    close(model, source, {"x": IMAGES[:2]})
    assert report.other_nodes == ["Relu_1"]
    scales = [n.input[1:] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(scales) == 3
    assert len({tuple(pair) for pair in scales}) == 2


def test_parts_of_a_concat_share_the_scale():
    source = build(
        [
            "a = Conv(x, w1)",
            "b = Conv(x, w2)",
            "c = Concat<axis=1>(a, b)",
            "d = MaxPool<kernel_shape=[2,2]>(c)",
            "y = Conv(d, w3)",
        ],
        {"x": ["n", 3, 8, 8]},
        {
            "w1": random_weights(4, 3, 1, 1),
            "w2": 3 * random_weights(8, 3, 1, 1),
            "w3": random_weights(4, 12, 1, 1),
        },
    )
    model, report = sparsert.quantize(source, IMAGES, method="mse")
    close(model, source, {"x": IMAGES})
    assert report.other_nodes == ["Concat_2", "MaxPool_3"]
    pairs = [tuple(n.input[1:]) for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(pairs) == 5  # x, and the four around Concat and MaxPool
    assert len(set(pairs)) == 2
    assert report.layers[0].output_range == report.layers[1].output_range


def test_parts_of_a_split_go_to_integers_to_floats_and_out():
    source = build(
        [
            "a = Conv(x, w1)",
            "b, c, d = Split<axis=1, num_outputs=3>(a)",
            "e = Conv(b, w2)",
            "f = Exp(c)",
            "y = Add(e, f)",
        ],
        {"x": [2, 3, 8, 8]},
        {"w1": random_weights(12, 3, 1, 1), "w2": random_weights(4, 4, 1, 1)},
        outputs=("y", "d"),
    )
    model, report = sparsert.quantize(source, IMAGES)
    close(model, source, {"x": IMAGES[:2]})
    assert report.other_nodes == ["Split_1"]
    assert [value.name for value in model.graph.output] == ["y", "d"]


def test_half_precision_is_computed_in_f32():
    source = conv_model()
    half = conv_model()
    for tensor in half.graph.initializer:
        narrow = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model, report = sparsert.quantize(half, IMAGES.astype(np.float16))
    assert report.quantised == 3
    (got,) = make_session(model).run(None, {"x": IMAGES.astype(np.float16)})
    (expected,) = make_session(source).run(None, {"x": IMAGES})
    assert got.dtype == np.float16
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)


def test_nothing_is_rounded_between_float_nodes():
    source = build(
        [
            "a = Sigmoid(x)",
            "b = MaxPool<kernel_shape=[2,2]>(a)",
            "c = Conv(b, w)",
            "d = Sigmoid(c)",
            "e = MaxPool<kernel_shape=[2,2]>(d)",
            "f = Add(e, e)",
            "y = Tanh(f)",
        ],
        {"x": ["n", 3, 8, 8]},
        {"w": random_weights(4, 3, 2, 2)},
    )
    model, report = sparsert.quantize(source, IMAGES)
    close(model, source, {"x": IMAGES})
    assert report.other_nodes == []
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 1
    _, report = sparsert.quantize(
        build(
            ["c = Conv(x, w)", "d = Sigmoid(c)", "e = Mul(c, d)", "y = Conv(e, v)"],
            {"x": ["n", 3, 8, 8]},
            {"w": random_weights(4, 3, 2, 2), "v": random_weights(4, 4, 1, 1)},
        ),
        IMAGES,
        op_types=["Conv", "Sigmoid", "Mul"],
    )
    assert report.other_nodes == ["Sigmoid_1", "Mul_2"]


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_and_grouped_convolutions(group):
    source = build(
        [
            f"a = Conv<group={group}>(x, w1, b1)",
            "b = Relu(a)",
            f"y = ConvTranspose<group={group}, strides=[2,2]>(b, w2, b2)",
        ],
        {"x": ["n", 4, 6, 6]},
        {
            "w1": random_weights(8, 4 // group, 3, 3),
            "b1": random_weights(8),
            "w2": random_weights(8, 6 // group, 2, 2),
            "b2": random_weights(6),
        },
    )
    x = RNG.standard_normal((3, 4, 6, 6)).astype(np.float32)
    for options in ({}, {"per_channel": False}, {"bias_correction": True}):
        model, report = sparsert.quantize(source, x, **options)
        close(model, source, {"x": x})
        assert report.quantised == 2


def test_batch_norms_are_folded_or_stay():
    norm = {name: np.abs(random_weights(8, sparsity=0, scale=1.0)) + 0.5 for name in "gbmv"}
    source = build(
        [
            "a = Conv(x, w1)",
            "b = BatchNormalization(a, g, b0, m, v)",
            "c = Relu(b)",
            "d = BatchNormalization(c, g, b0, m, v)",
            "y = Conv(d, w2)",
        ],
        {"x": ["n", 3, 8, 8]},
        {
            "w1": random_weights(8, 3, 3, 3, sparsity=0.5),
            "w2": random_weights(4, 8, 1, 1),
            "b0": norm.pop("b"),
            **norm,
        },
    )
    model, report = sparsert.quantize(source, IMAGES)
    close(model, source, {"x": IMAGES})
    assert types(model).count("BatchNormalization") == 1
    assert report.layers[0].sparsity >= 0.45


def test_old_and_new_opsets_are_kept_runnable():
    for opset in (11, 13, 18, 21):
        source = build(
            ["a = Conv(x, w)", "b = Relu(a)", "y = Conv(b, v)"],
            {"x": [2, 3, 8, 8]},
            {"w": random_weights(4, 3, 1, 1), "v": random_weights(4, 4, 1, 1)},
            opset=opset,
        )
        model = sparsert.quantize(source, IMAGES).model
        assert model.opset_import[0].version == max(opset, 18)
        close(model, source, {"x": IMAGES[:2]})


def test_products_of_any_rank():
    source = build(
        ["a = MatMul(x, w)", "b = Add(a, c)", "d = Relu(b)", "e = MatMul(d, v)", "y = Add(e, x)"],
        {"x": ["n", 5, 6]},
        {"w": random_weights(6, 8), "c": random_weights(8), "v": random_weights(8, 6)},
    )
    x = RNG.standard_normal((4, 5, 6)).astype(np.float32)
    for options in ({}, {"bias_correction": True}):
        model, report = sparsert.quantize(source, x, **options)
        close(model, source, {"x": x})
        assert report.quantised == 2
        assert report.layers[0].output_range is not None


def test_a_branch_reads_what_a_layer_computes():
    import onnx.parser

    source = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        branches (float[n,4] x, bool c) => (float[n,4] y)
        <float[4,4] w = {1,2,0,4, 0,-1,3,1, 2,0,0,1, 5,1,-2,0}> {
          a = MatMul(x, w)
          b = Relu(a)
          d = If(c) <
            then_branch = one () => (float[n,4] t) { t = Neg(b) },
            else_branch = other () => (float[n,4] e) { e = MatMul(b, w) }
          >
          f = MatMul(b, w)
          y = Add(d, f)
        }"""
    )
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    feeds = [{"x": x, "c": np.array(flag)} for flag in (True, False)]
    model, report = sparsert.quantize(source, feeds)
    assert report.quantised == 2
    for feed in feeds:
        with pytest.warns(UserWarning, match="fallback"):
            close(model, source, feed)


def test_an_all_zero_channel_keeps_its_bias():
    weight = random_weights(8, 3, 3, 3, sparsity=0.5)
    weight[2:5] = 0
    source = conv_model(w1=weight, b1=np.linspace(-0.5, 3, 8).astype(np.float32))
    close(sparsert.quantize(source, IMAGES).model, source, {"x": IMAGES})


def test_a_layer_of_zeros():
    source = conv_model(w2=np.zeros((8, 8, 3, 3), np.float32), b2=np.ones(8, np.float32))
    source.graph.node[2].input.append("b2")
    result = sparsert.quantize(source, IMAGES)
    layer = result.report.layers[1]
    assert (layer.sparsity, layer.precision, layer.sqnr) == (1.0, "int8", math.inf)
    json.dumps(result.report.to_dict(), allow_nan=False)
    close(result.model, source, {"x": IMAGES})


# ---- results -------------------------------------------------------------------------------------


def test_the_report():
    _, report = sparsert.quantize(conv_model(), IMAGES, exclude="w2", method="entropy")
    first, second, third = report.layers
    assert (first.name, first.weight, first.op, first.shape) == (
        "Conv_0",
        "w1",
        "Conv",
        (8, 3, 3, 3),
    )
    assert (second.precision, second.why, second.sqnr, second.method) == (
        "f32",
        "excluded",
        None,
        "",
    )
    assert first.input_range[0] < 0 < first.input_range[1]
    assert (first.output_range, second.input_range, third.output_range) == (None, None, None)
    assert 20 < first.sqnr < 70
    text = str(report)
    assert "2 of 3 layers in integers" in text
    for part in ("SQNR", "entropy", "excluded", "int8", "f32"):
        assert part in text
    facts = report.to_dict()
    assert facts["rows"][0]["sparsity"] == first.sparsity
    assert facts["rows"][0]["sqnr"] == first.sqnr
    assert report.to_markdown().count("|---") == len(report.table().columns)


def test_progress_reaches_the_end_and_never_goes_back():
    for options in ({}, {"method": "mse"}, {"evaluate": lambda model: 1.0}):
        seen: list[float] = []
        sparsert.quantize(conv_model(), IMAGES, on_progress=seen.append, **options)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert len(seen) > 2


def test_files(tmp_path):
    result = sparsert.quantize(conv_model(), IMAGES, path=tmp_path / "m.int8.onnx")
    assert onnx.load(tmp_path / "m.int8.onnx") == result.model
    result.save(tmp_path / "m.sprt")
    expected = sparsert.load(result.model, tune=False)(IMAGES)
    for name in ("m.sprt", "m.int8.onnx"):
        np.testing.assert_array_equal(sparsert.load(tmp_path / name, tune=False)(IMAGES), expected)
    with pytest.raises(OSError):
        result.save(tmp_path / "none" / "m.onnx")


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert sparsert.quantize(conv_model(), IMAGES, bias_correction=True).report.quantised == 3


def test_without_onnx(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sparsert.quantize.pipeline", None)
    with pytest.raises(BackendError, match="quantising needs the packages onnx"):
        sparsert.quantize(conv_model(), IMAGES)


def test_the_package_can_be_called():
    assert sparsert.quantize.quantize(conv_model(), IMAGES).report.quantised == 3
    assert not math.isnan(sparsert.quantize(conv_model(), IMAGES).report.layers[0].sqnr)
