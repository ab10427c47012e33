"""convert_floats: f16, bf16 and f64 models compute in f32 and keep their interface."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

PASSES = ("convert_floats", "drop_noops", "lower_convs", "fuse_activations", "tidy_graph")


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("width", [3, 64])
def test_model(dtype, width):
    kind = np.float16 if dtype == TensorProto.FLOAT16 else np.float64
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"w": weights(width, 3, 3, 3).astype(kind)},
        dtype=dtype,
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["Cast", "sparsert.Conv", "Cast"]
    conv = list(model.graph)[1]
    assert conv.inputs[1].const_value.numpy().dtype == np.float32
    assert conv.outputs[0].dtype == ir.DataType.FLOAT
    if kind is np.float16:  # onnxruntime has no f64 convolution
        assert_same(proto, model, tolerance=2e-2)


def test_f64_values():
    proto = build(
        [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])],
        {"x": (2, 3)},
        ["y"],
        {"w": weights(3, 4).astype(np.float64)},
        dtype=TensorProto.DOUBLE,
    )
    model = apply(proto)
    assert ops(model) == ["Cast", "sparsert.Linear", "Cast"]
    assert_same(proto, model)


def test_mixed_precision_casts_vanish():
    proto = build(
        [
            node("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
            node("Relu", ["a"], ["b"]),
            node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
        ],
        {"x": (2, 3)},
        ["y"],
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["Relu"]
    assert_same(proto, model, tolerance=1e-2)


def test_f32_is_untouched():
    proto = build([node("Relu", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    assert ops(apply(proto, *PASSES)) == ["Relu"]
