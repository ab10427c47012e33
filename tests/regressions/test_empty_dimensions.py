"""Layers over no tokens, and with weights without elements, were errors."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import sparsert
from tests.passes.pass_checks import build, node
from tests.suite.harness import ISAS


def _same(proto: onnx.ModelProto, shape: tuple[int, ...], **options: object) -> None:
    x = np.ones(shape, np.float32)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (want,) = session.run(None, {"x": x})
    model = sparsert.load(proto, tune=False, threads=1, **options)
    (got,) = model.run(None, {"x": x})
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("shape", [(1, 0, 8), (2, 0, 8), (2, 3, 0, 8)])
def test_linear_over_no_tokens(shape, is_open, isa):
    dims = [*(f"d{i}" for i in range(len(shape) - 1)), 8] if is_open else list(shape)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "v"], ["m"]),
        node("Add", ["m", "x"], ["y"]),
    ]
    constants = {"w": np.ones((8, 9), np.float32), "v": np.ones((9, 8), np.float32)}
    proto = build(nodes, {"x": dims}, ["y"], constants)
    _same(proto, shape, strict=True, isa=isa)


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize(
    ("op", "shape", "weights"),
    [
        ("MatMul", (3, 0), (0, 8)),
        ("MatMul", (2, 4), (4, 0)),
        ("MatMul", (2, 0), (0,)),
        ("Gemm", (3, 0), (0, 4)),
    ],
)
def test_products_with_weights_of_no_elements(op, shape, weights, backend):
    constants = {"w": np.ones(weights, np.float32)}
    proto = build([node(op, ["x", "w"], ["y"])], {"x": shape}, ["y"], constants)
    _same(proto, shape, strict=True, backend=backend)


@pytest.mark.parametrize("op", ["BatchNormalization", "InstanceNormalization"])
def test_norms_of_no_channels(op):
    none = np.ones(0, np.float32)
    inputs = ["x", *"sbmv"] if op == "BatchNormalization" else ["x", *"sb"]
    constants = dict.fromkeys(inputs[1:], none)
    nodes = [node(op, inputs, ["n"]), node("Exp", ["n"], ["y"])]
    proto = build(nodes, {"x": (2, 0, 3, 3)}, ["y"], constants)
    _same(proto, (2, 0, 3, 3), strict=True)


def test_convolution_with_weights_of_no_elements():
    constants = {"w": np.ones((0, 3, 1, 1), np.float32)}
    conv = node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    proto = build([conv], {"x": (1, 3, 4, 4)}, ["y"], constants)
    with pytest.raises(sparsert.errors.UnsupportedOpError, match="its weights are empty"):
        sparsert.load(proto, strict=True)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_over_three_axes_of_no_images(op):
    pool = node(op, ["x"], ["y"], kernel_shape=[2, 2, 2], strides=[1, 2, 1])
    _same(build([pool], {"x": (0, 3, 5, 5, 5)}, ["y"]), (0, 3, 5, 5, 5), strict=True)
