"""native_report: each reason why a node is not native, with its name."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, build, node, weights

CROP = node("Resize", ["x", "r", "k"], ["y"], coordinate_transformation_mode="tf_crop_and_resize")
CASES = [
    ([node("Shrink", ["x"], ["y"], lambd=-1.0)], {}, "not in the sparsert opset"),
    (
        [CROP],
        {"k": np.array([1, 1, 2, 2], np.float32), "r": np.ones(8, np.float32)},
        "scales instead of sizes",
    ),
    (
        [
            node("Cast", ["x"], ["i"], to=TensorProto.INT64),
            node("ReduceMean", ["i"], ["j"]),
            node("Cast", ["j"], ["y"], to=TensorProto.FLOAT),
        ],
        {},
        "INT64; only f32",
    ),
    (
        [
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node("Reshape", ["m", "k"], ["n"]),
            node("Cast", ["n"], ["j"], to=TensorProto.INT64),
            node("Reshape", ["x", "j"], ["y"]),
        ],
        {"k": np.array([-1])},
        "is computed from data",
    ),
    ([node("NonZero", ["x"], ["z"]), node("Cast", ["z"], ["y"], to=1)], {}, "depends on data"),
]


@pytest.mark.parametrize(("nodes", "constants", "reason"), CASES)
def test_reason(nodes, constants, reason):
    proto = build(nodes, {"x": (4, 4, 4, 4)}, ["y"], constants)
    report = native_report(apply(proto))
    assert len(report) == 1
    assert reason in report[0].reason
    assert report[0].node in str(report[0])


def test_three_dimensions_and_rank_nine():
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node("Reshape", ["a", "k"], ["y"])],
        {"x": (1, 2, "D", 4, 4)},
        ["y"],
        {"w": weights(2, 2, 3, 3, 3), "k": np.array([1] * 8 + [-1])},
    )
    reasons = [record.reason for record in native_report(apply(proto))]
    assert "3-D" in reasons[0]
    assert "9 dimensions" in reasons[1]


def test_shape_arithmetic_is_native():
    proto = build(
        [
            node("Shape", ["x"], ["s"]),
            node("ReduceProd", ["s"], ["p"], keepdims=1),
            node("Div", ["p", "two"], ["d"]),
            node("Concat", ["two", "d"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        {"x": ("N", 4)},
        ["y"],
        {"two": np.array([2])},
    )
    assert native_report(apply(proto)) == []
