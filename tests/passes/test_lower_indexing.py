"""lower_indexing: Hardmax, Compress, MaxUnpool, TensorScatter and a Gather of everything."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import sparsert
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node, ops
from tests.suite.harness import make_session


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("shape", [(2, 5, 3), ("n", "m", "k")])
def test_hardmax(axis, shape):
    proto = build([node("Hardmax", ["x"], ["y"], axis=axis)], {"x": shape}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"n": 3, "m": 1, "k": 7})


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_compress(axis):
    condition = np.array([True, False, True]) if axis != 0 else np.array([False, True])
    attributes = {} if axis is None else {"axis": axis}
    proto = build(
        [node("Compress", ["x", "c"], ["y"], **attributes)],
        {"x": (2, 4, 5)},
        ["y"],
        {"c": condition},
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_compress_by_data_is_left_alone():
    proto = build([node("Compress", ["x", "c"], ["y"])], {"x": (2, 3), "c": (6,)}, ["y"])
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.BOOL
    (record,) = native_report(apply(proto))
    assert "depends on data" in record.reason


@pytest.mark.parametrize("batch", [2, "n"])
@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 2]}, {"strides": [2, 1]}])
def test_unpool_of_pool(batch, attributes):
    """What MaxPool took goes back to its place."""
    window = {"kernel_shape": [2, 2], **attributes}
    proto = build(
        [
            node("MaxPool", ["x"], ["p", "i"], **window),
            node("MaxUnpool", ["p", "i"], ["y"], **window),
        ],
        {"x": (batch, 3, 6, 8)},
        ["y"],
    )
    model = sparsert.load(proto, strict=True, threads=1)
    x = np.random.default_rng(3).standard_normal((2, 3, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(model(x), make_session(proto).run(None, {"x": x})[0])


def test_unpool_into_a_given_shape():
    proto = build(
        [
            node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
            node("MaxUnpool", ["p", "i", "s"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {"x": (1, 2, 4, 6)},
        ["y"],
        {"s": np.array([1, 2, 5, 9])},
    )
    model = sparsert.load(proto, strict=True, threads=1)
    x = np.random.default_rng(3).standard_normal((1, 2, 4, 6)).astype(np.float32)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_array_equal(model(x), wanted)


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("symbolic", [False, True])
def test_tensor_scatter(mode, symbolic):
    """Rows of a cache, where each sequence of the batch has come to."""
    cache = ["b", 3, "s", 4] if symbolic else [2, 3, 6, 4]
    update = ["b", 3, "t", 4] if symbolic else [2, 3, 2, 4]
    graph = helper.make_graph(
        [node("TensorScatter", ["c", "u", "w"], ["y"], mode=mode)],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.FLOAT, cache),
            helper.make_tensor_value_info("u", TensorProto.FLOAT, update),
            helper.make_tensor_value_info("w", TensorProto.INT64, cache[:1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
    model = sparsert.load(proto, strict=True, threads=1)
    rng = np.random.default_rng(5)
    feeds = {
        "c": rng.standard_normal((2, 3, 6, 4)).astype(np.float32),
        "u": rng.standard_normal((2, 3, 2, 4)).astype(np.float32),
        "w": np.array([1, 5 if mode == "circular" else 4]),
    }
    (wanted,) = ReferenceEvaluator(proto).run(None, feeds)
    np.testing.assert_array_equal(model.run(None, feeds)[0], wanted)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(6,), (2, 1, 3)])
def test_gather_of_everything_in_its_order(axis, shape):
    indices = np.arange(6).reshape(shape)
    for taken, expected in ((indices, "Reshape"), (indices[::-1], "Gather")):
        nodes = [node("Exp", ["x"], ["a"]), node("Gather", ["a", "i"], ["b"], axis=axis)]
        proto = build([*nodes, node("Relu", ["b"], ["y"])], {"x": (6, 6)}, ["y"], {"i": taken})
        model = apply(proto, "lower_indexing", "tidy_graph")
        assert ops(model) == ["Exp", expected, "Relu"]
        assert_same(proto, model)


def test_strides_of_pytorch_are_no_gather():
    """Pooling to one pixel in a channels-last module is exported with as_strided()."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = module.eval().to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 9, 9)
    model = sparsert.load(module, example_inputs=x, threads=1)
    assert not any("Gather" in str(record) for record in model.explain().records)
    np.testing.assert_allclose(model(x.numpy())[0], module(x).detach().numpy()[0], atol=1e-5)
