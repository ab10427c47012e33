"""sparsert.quantize on networks trained on real images: accuracy, masks, both engines."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import sparsert
from sparsert.quantize.ranges import METHODS
from tests.quantize.networks import (
    BLOCK,
    NETWORKS,
    accuracy,
    cnn,
    digits,
    float_accuracy,
    integers,
    transformer,
)
from tests.suite.harness import make_session

SAMPLES = 200


def data() -> np.ndarray:
    return digits().train_x[:SAMPLES]


@pytest.mark.parametrize("name", NETWORKS)
def test_accuracy_stays_within_a_hundredth(name):
    model, report = sparsert.quantize(NETWORKS[name](), data())
    onnx.checker.check_model(model, full_check=True)
    assert report.quantised == len(report.layers)
    assert float_accuracy(name) > 0.9
    for engine in (make_session(model), sparsert.load(model, threads=1, tune=False)):
        assert accuracy(engine) >= float_accuracy(name) - 0.01


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias_correction": True},
        {"activation": "s8", "per_channel": False},
        {"reduce_range": True, "percentile": 99.9},
    ],
    ids=["default", "bias-correction", "s8-per-tensor", "reduced-range"],
)
def test_every_method(method, options):
    model, report = sparsert.quantize(cnn("unstructured"), data(), method=method, **options)
    assert accuracy(make_session(model)) >= float_accuracy("cnn-unstructured") - 0.01
    assert {layer.method for layer in report.layers} == {method}
    limit = 64 if "reduce_range" in options else 127
    for name, weight in integers(model).items():
        assert weight.dtype == np.int8
        assert np.abs(weight).max() == limit, name
    expected = onnx.TensorProto.INT8 if "activation" in options else onnx.TensorProto.UINT8
    zeros = {t.name: t for t in model.graph.initializer if t.name.endswith("_zero")}
    kinds = {
        zeros[node.input[2]].data_type
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert kinds == {expected}


@pytest.mark.parametrize("name", ["cnn-unstructured", "cnn-1x4", "mlp"])
def test_masks_are_kept(name):
    source = NETWORKS[name]()
    model, report = sparsert.quantize(source, data(), bias_correction=True)
    before = {t.name: numpy_helper.to_array(t) for t in source.graph.initializer}
    after = integers(model)
    assert len(after) == len(report.layers)
    for weight, array in after.items():
        assert before[weight].shape == array.shape
        assert not array[before[weight] == 0].any()
    for layer in report.layers:
        assert layer.zeros >= layer.zeros_before
        assert layer.zeros == layer.weights - np.count_nonzero(after[layer.weight])
        if layer.weight not in ("w0_weight",):
            assert layer.sparsity >= 0.79


def test_blocks_stay_blocks():
    after = integers(sparsert.quantize(cnn("1x4"), data()).model)
    for name in ("w2_first_weight", "w2_second_weight", "w4_weight", "w7_weight"):
        array = after[name]
        blocks = array.reshape(array.shape[0], -1, BLOCK, *array.shape[2:])
        empty = ~blocks.any(axis=2)
        assert empty.mean() >= 0.79, name


def test_the_graph_is_what_integer_engines_fuse():
    model, report = sparsert.quantize(cnn("dense"), data())
    counts = collections.Counter(node.op_type for node in model.graph.node)
    assert counts["BatchNormalization"] == 0
    assert (counts["Conv"], counts["Gemm"], counts["Add"], counts["MaxPool"]) == (4, 1, 1, 1)
    assert sorted(node.split("_")[0] for node in report.other_nodes) == [
        *("Add", "MaxPool", "Reshape")
    ]
    makers = {output: node for node in model.graph.node for output in node.output}
    readers = collections.defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node.op_type)
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "Add", "MaxPool", "Reshape"):
            data_inputs = node.input[:1] if node.op_type in ("MaxPool", "Reshape") else node.input
            assert {makers[name].op_type for name in data_inputs} == {"DequantizeLinear"}
        if node.op_type == "Relu":  # nothing between a layer, or an addition, and its Relu
            assert makers[node.input[0]].op_type in ("Conv", "Add")
            assert readers[node.output[0]] == ["QuantizeLinear"]
    assert makers["y"].op_type == "Gemm"


def test_the_optimised_session_runs_integer_operators(tmp_path):
    import onnxruntime

    model, _ = sparsert.quantize(cnn("dense"), data(), reduce_range=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    counts = collections.Counter(
        node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node
    )
    assert (counts["QLinearConv"], counts["QLinearAdd"], counts["QGemm"]) == (4, 1, 1)
    assert (counts["Conv"], counts["Gemm"], counts["DequantizeLinear"]) == (0, 0, 0)
    (logits,) = session.run(None, {"x": digits().test_x})
    ours = sparsert.load(model, threads=1, tune=False)(digits().test_x)
    assert np.abs(logits - ours).max() <= 0.05 * np.abs(logits).max()


def test_tensors_share_scales_where_values_are_handed_on():
    model, _ = sparsert.quantize(cnn("dense"), data())
    scales = {n.output[0]: n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    quantised = {n.input[0]: n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type in ("MaxPool", "Reshape"):
            assert scales[node.input[0]] == quantised[node.output[0]]


def test_attention_stays_in_float():
    model, report = sparsert.quantize(transformer(), data())
    assert {layer.op for layer in report.layers} == {"MatMul", "Gemm"}
    assert report.quantised == len(report.layers) == 8
    constants = {tensor.name for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    of_two = [node for node in products if makers.get(node.input[1]) != "DequantizeLinear"]
    assert len(of_two) == 2
    assert not any(name in constants for node in of_two for name in node.input)


def test_bias_correction_takes_off_the_mean_error():
    source = cnn("dense")
    exact = make_session(source).run(None, {"x": data()})[0]

    def error(**options):
        model, _ = sparsert.quantize(source, data(), per_channel=False, **options)
        return np.abs((make_session(model).run(None, {"x": data()})[0] - exact).mean(0)).mean()

    # How much is left depends on the CPU, whose rounding errors the network is trained with: less
    # than half on some, 0.64 on an AMD EPYC.
    assert error(bias_correction=True) < 0.8 * error()


def test_sqnr_is_what_quantising_the_layer_alone_costs():
    source = cnn("dense")
    _, report = sparsert.quantize(source, data())
    everything = [layer.name for layer in report.layers]
    exact = make_session(source).run(None, {"x": data()})[0].astype(np.float64)
    last = report.layers[-1]
    alone, _ = sparsert.quantize(source, data(), exclude=everything[:-1])
    noise = make_session(alone).run(None, {"x": data()})[0] - exact
    measured = 10 * np.log10((exact**2).sum() / (noise**2).sum())
    assert last.sqnr == pytest.approx(measured, abs=0.1)
