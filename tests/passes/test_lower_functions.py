"""lower_functions: Shrink, PRelu with a slope of the run, EyeLike, IsNaN and IsInf."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node, ops


@pytest.mark.parametrize(("lambd", "bias"), [(0.5, 0.0), (1.5, 1.5), (0.0, 0.3)])
def test_shrink(lambd, bias):
    proto = build([node("Shrink", ["x"], ["y"], lambd=lambd, bias=bias)], {"x": (4, 25)}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_prelu():
    proto = build([node("PRelu", ["x", "s"], ["y"])], {"x": (2, 3, 5), "s": (3, 1)}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("k", [0, 1, -2])
def test_eye(k):
    proto = build([node("EyeLike", ["x"], ["y"], k=k)], {"x": (4, 5)}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("IsNaN", {}),
        ("IsInf", {}),
        ("IsInf", {"detect_negative": 0}),
        ("IsInf", {"detect_positive": 0}),
    ],
)
def test_tests(op, attributes):
    # 0 / 0 is NaN, others by 0 are infinite.
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Div", ["x", "r"], ["q"]),
        node("Div", ["r", "r"], ["n"]),
        node("Max", ["q", "n"], ["m"]),
        node(op, ["m" if op == "IsNaN" else "q"], ["y"], **attributes),
    ]
    proto = build(nodes, {"x": (4, 5)}, ["y"], output_dtype=TensorProto.BOOL)
    model = apply(proto)
    assert op not in ops(model)
    with np.errstate(all="ignore"):
        assert_same(proto, model)
