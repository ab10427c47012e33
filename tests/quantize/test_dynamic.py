"""sparsert.quantize(dynamic=True): what it writes, runs and refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

import sparsert
from tests.passes.quantised_checks import definition
from tests.quantize.networks import accuracy, float_accuracy, transformer
from tests.suite.harness import build

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    array = RNG.standard_normal(shape).astype(np.float32)
    return array * (RNG.random(shape) > 0.5)


def model() -> onnx.ModelProto:
    """A convolution, tokens with a bias behind, rows with weights either way, a shared input."""
    constants = {
        "k": floats(8, 3, 3, 3),
        "a": floats(16, 12),
        "ab": floats(12),
        "b": floats(6, 192),
        "bb": floats(6),
        "c": floats(192, 4),
        "tokens": np.array([0, 16, 16]),
        "rows": np.array([0, -1]),
    }
    nodes = [
        "i = Conv(x, k)",
        "j = Reshape(i, tokens)",
        "l = MatMul(j, a)",
        "m = Add(l, ab)",
        "n = Relu(m)",
        "o = Reshape(n, rows)",
        "y = Gemm<transB=1>(o, b, bb)",
        "z = MatMul(o, c)",
    ]
    return build(nodes, {"x": ["n", 3, 10, 6]}, constants, outputs=["y", "z"])


def feeds(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(count).standard_normal((count, 3, 10, 6)).astype(np.float32)}


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("op_types", [None, ["Conv", "Gemm", "MatMul"]])
def test_forms(per_channel, op_types):
    source = model()
    made, report = sparsert.quantize(
        source, dynamic=True, per_channel=per_channel, op_types=op_types
    )
    onnx.checker.check_model(made, full_check=True)
    ops = Counter(node.op_type for node in made.graph.node)
    assert ops["MatMulInteger"] == 3
    assert ops["ConvInteger"] == (op_types is not None)
    assert ops["DynamicQuantizeLinear"] == 2 + (op_types is not None)  # two layers read `o`
    assert report.quantised == len(report.layers) == ops["MatMulInteger"] + ops["ConvInteger"]
    assert all(layer.zeros >= layer.zeros_before > 0 for layer in report.layers)
    assert "in each run" in str(report)
    loaded = sparsert.load(made, strict=True, tune=False)
    rows = loaded.explain().to_dict()["rows"]
    assert sum(row["op"] == "QConvDynamic" for row in rows) == report.quantised
    for count in (1, 3):
        found, exact = loaded.run(None, feeds(count)), definition(source, feeds(count))
        for got, want, floating in zip(found, definition(made, feeds(count)), exact, strict=True):
            # A convolution in f32 may move a byte.
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3 * np.abs(want).max())
            assert 0 < np.linalg.norm(got - floating) < 0.05 * np.linalg.norm(floating)


def test_exclude_and_reduced_range():
    source = model()
    made, report = sparsert.quantize(source, dynamic=True, exclude="b", reduce_range=True)
    assert [(layer.precision, layer.why) for layer in report.layers] == [
        ("int8", ""),
        ("f32", "excluded"),
        ("int8", ""),
    ]
    integers = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert max(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max() for t in integers) == 64


def test_files_and_profile(tmp_path):
    path = tmp_path / "m.sprt"
    made, _ = sparsert.quantize(model(), dynamic=True, path=path)
    loaded = sparsert.load(path)
    for got, want in zip(loaded.run(None, feeds(2)), definition(made, feeds(2)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3 * np.abs(want).max())
    timed = {row["op"]: row["time_ns"] for row in loaded.profile(feeds(2)).to_dict()["rows"]}
    assert timed["QuantizeDynamic"] > 0
    assert timed["QConvDynamic"] > 0
    with pytest.raises(ValueError, match="quantised already"):
        sparsert.quantize(made, dynamic=True)


def test_what_does_not_go_together():
    data = feeds(2)["x"]
    with pytest.raises(ValueError, match="leave out calibration_data, method, min_sqnr"):
        sparsert.quantize(model(), data, dynamic=True, method="mse", min_sqnr=20)
    with pytest.raises(ValueError, match=r"'Add', expected some of Conv, Gemm, MatMul"):
        sparsert.quantize(model(), dynamic=True, op_types=["Add"])
    with pytest.raises(ValueError, match="no calibration data"):
        sparsert.quantize(model())


def test_a_trained_transformer_keeps_its_accuracy():
    made, _ = sparsert.quantize(transformer(), dynamic=True)
    loaded = sparsert.load(made, strict=True, tune=False)
    assert accuracy(loaded) >= float_accuracy("transformer") - 0.01
