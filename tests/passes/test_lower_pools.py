"""lower_pools: LpPool and pools over three axes become native pools."""

from __future__ import annotations

import pytest

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [3]},
        {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 2]},
        {"kernel_shape": [2, 2, 3], "pads": [1, 0, 1, 0, 1, 2], "strides": [1, 2, 2]},
    ],
)
def test_lp_pool(p, window):
    pool = node("LpPool", ["x"], ["y"], p=p, **window)
    shape = ("N", 3, 7, 8, 9)[: 2 + len(window["kernel_shape"])]
    proto = build([pool], {"x": shape}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp_pool(p):
    pool = node("GlobalLpPool", ["x"], ["y"], p=p)
    proto = build([pool], {"x": ("N", 3, 5, "W")}, ["y"], opset=20)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"W": 4})


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("MaxPool", {}),
        ("AveragePool", {"count_include_pad": 0}),
        ("AveragePool", {"count_include_pad": 1}),
    ],
)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_shape": [2, 3, 2]},
        {"kernel_shape": [3, 2, 3], "strides": [2, 1, 2], "pads": [1, 1, 0, 0, 0, 1]},
        {"kernel_shape": [3, 3, 3], "strides": [2, 2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 2, 2], "strides": [3, 3, 3], "ceil_mode": 1},
        {"kernel_shape": [2, 2, 2], "dilations": [2, 1, 2]},
    ],
)
def test_three_axes(op, more, window):
    pool = node(op, ["x"], ["y"], **window, **more)
    proto = build([pool], {"x": ("N", 3, 7, 8, 9)}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)
