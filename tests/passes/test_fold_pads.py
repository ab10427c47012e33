"""fold_pads: zero padding moves into convolutions and pools; VALID becomes zero pads."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

PASSES = ("fold_pads", "tidy_graph")
SPATIAL = np.array([0, 0, 1, 2, 0, 0, 3, 0])


@pytest.mark.parametrize("dilation", [1, 2])
def test_into_conv(dilation):
    proto = build(
        [
            node("Pad", ["x", "p"], ["a"]),
            node("Conv", ["a", "w"], ["y"], pads=[1, 1, 0, 0], dilations=[dilation] * 2),
        ],
        {"x": (1, 3, 8, 8)},
        ["y"],
        {"p": SPATIAL, "w": weights(4, 3, 3, 3)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["Conv"]
    assert_same(proto, model)


def test_with_axes_and_value():
    proto = build(
        [node("Pad", ["x", "p", "v", "ax"], ["a"]), node("Conv", ["a", "w"], ["y"])],
        {"x": (1, 3, 8, 8)},
        ["y"],
        {
            "p": np.array([1, 2]),
            "v": np.float32(0),
            "ax": np.array([-1]),
            "w": weights(4, 3, 3, 3),
        },
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["Conv"]
    assert_same(proto, model)


def test_into_average_pool():
    proto = build(
        [
            node("Pad", ["x", "p"], ["a"]),
            node("AveragePool", ["a"], ["y"], kernel_shape=[4, 3], strides=[2, 2]),
        ],
        {"x": (1, 3, 8, 8)},
        ["y"],
        {"p": SPATIAL},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["AveragePool"]
    assert_same(proto, model)


@pytest.mark.parametrize(
    ("kernel", "pads"), [([3, 3], [0] * 4), ([4, 2], [0] * 4), ([4, 3], [1] * 4)]
)
def test_average_pool_with_windows_of_padding_alone(kernel, pads):
    pool = node("AveragePool", ["a"], ["y"], kernel_shape=kernel, pads=pads, count_include_pad=1)
    proto = build(
        [node("Pad", ["x", "p"], ["a"]), pool], {"x": (1, 3, 8, 8)}, ["y"], {"p": SPATIAL}
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["Pad", "AveragePool"]
    assert_same(proto, model)


@pytest.mark.parametrize(
    ("pads", "value", "mode"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], 1.0, "constant"),
        ([0, 1, 1, 1, 0, 1, 1, 1], 0.0, "constant"),
        ([0, 0, -1, 1, 0, 0, 1, 1], 0.0, "constant"),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "reflect"),
    ],
)
def test_other_pads_stay(pads, value, mode):
    channels = 5 if pads[1] else 3
    proto = build(
        [
            node("Pad", ["x", "p", "v"], ["a"], mode=mode),
            node("Conv", ["a", "w"], ["y"]),
        ],
        {"x": (1, 3, 8, 8)},
        ["y"],
        {"p": np.array(pads), "v": np.float32(value), "w": weights(4, channels, 3, 3)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["Pad", "Conv"]
    assert_same(proto, model)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_valid(op):
    pool = node(op, ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="VALID")
    proto = build([pool], {"x": (1, 3, 8, 9)}, ["y"])
    model = apply(proto, *PASSES)
    assert "auto_pad" not in next(iter(model.graph)).attributes
    assert_same(proto, model)
