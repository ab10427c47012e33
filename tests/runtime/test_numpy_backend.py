"""NumpyBackend: operators that onnx's evaluator lacks or that sparsert replaces, and bad feeds."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert.errors import BackendError, ShapeError
from sparsert.runtime.numpy_backend import NumpyBackend
from tests.passes.pass_checks import apply, assert_same, build, feeds_for, node, weights

POOLS = [
    ((1, 2, 9, 9), {"kernel_shape": [3, 3]}),
    ((1, 2, 9, 10), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}),
    ((1, 2, 10, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    (
        (1, 2, 8, 8),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1},
    ),
    ((1, 2, 7, 7), {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1, "pads": [1] * 4}),
    ((1, 2, 12, 12), {"kernel_shape": [3, 3], "dilations": [2, 2]}),
    ((1, 2, 9, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 9, 10), {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((2, 3, 11), {"kernel_shape": [4], "strides": [2], "pads": [1, 2]}),
]


@pytest.mark.parametrize(("shape", "attributes"), POOLS)
def test_max_pool(shape, attributes):
    proto = build([node("MaxPool", ["x"], ["y"], **attributes)], {"x": shape}, ["y"])
    assert_same(proto, apply(proto))


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize(("shape", "attributes"), POOLS)
def test_average_pool(shape, attributes, count_include_pad):
    pool = node("AveragePool", ["x"], ["y"], count_include_pad=count_include_pad, **attributes)
    proto = build([pool], {"x": shape}, ["y"])
    assert_same(proto, apply(proto))


COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("coordinates", [*COORDINATES, "half_pixel_symmetric"])
@pytest.mark.parametrize("sizes", [None, [1, 2, 13, 5], [1, 2, 1, 9]])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 0.6, 1.7]])
def test_resize_linear(coordinates, sizes, scales):
    check_resize(sizes, scales, mode="linear", coordinate_transformation_mode=coordinates)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("sizes", [None, [1, 2, 13, 5]])
def test_resize_nearest(coordinates, rounding, sizes):
    check_resize(
        sizes,
        [1, 1, 2, 0.5],
        mode="nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
    )


def check_resize(sizes, scales, **attributes):
    constants = {"n": np.array(sizes)} if sizes else {"s": np.array(scales, dtype=np.float32)}
    inputs = ["x", "", "", "n"] if sizes else ["x", "", "s"]
    proto = build(
        [node("Resize", inputs, ["y"], **attributes)], {"x": (1, 2, 6, 8)}, ["y"], constants
    )
    assert_same(proto, apply(proto))


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_resize_policy(policy):
    resize = node(
        "Resize",
        ["x", "", "", "n"],
        ["y"],
        mode="linear",
        axes=[2, 3],
        keep_aspect_ratio_policy=policy,
    )
    proto = build([resize], {"x": (1, 2, 6, 8)}, ["y"], {"n": np.array([9, 20])})
    assert_same(proto, apply(proto))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [[0, 1, 2, 0, 0, 2, 1, 3], [0, 0, -1, 1, 0, 0, 2, -2]])
def test_pad(mode, pads):
    proto = build(
        [node("Pad", ["x", "p"], ["y"], mode=mode)],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"p": np.array(pads)},
    )
    assert_same(proto, apply(proto))


def test_max_pool_with_indices():
    pool = node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], strides=[2, 2])
    proto = build([pool], {"x": (1, 2, 6, 6)}, ["y"])
    assert_same(proto, apply(proto))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax(op, axis):
    proto = build([node(op, ["x"], ["y"], axis=axis)], {"x": (2, 3, 4)}, ["y"])
    assert_same(proto, apply(proto))


REDUCTIONS = "Sum Mean Max Min Prod L1 L2 SumSquare LogSumExp".split()


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("axes", [None, [1], [0, -1]])
def test_reductions(op, axes):
    constants = {} if axes is None else {"axes": np.array(axes)}
    proto = build(
        [node(f"Reduce{op}", ["x", *constants], ["y"])], {"x": (2, 3, 4)}, ["y"], constants
    )
    assert_same(proto, apply(proto))


def test_silu():
    swish = build([node("Swish", ["x"], ["y"], alpha=1.5)], {"x": (2, 3)}, ["y"])
    feeds = feeds_for(swish)
    x = feeds["x"].astype(np.float64)
    (found,) = NumpyBackend(apply(swish)).run(feeds).values()
    np.testing.assert_allclose(found, x / (1 + np.exp(-1.5 * x)), rtol=1e-6)


def conv_backend():
    proto = build(
        [node("Conv", ["x", "w"], ["y"])], {"x": ("N", 3, 5, 5)}, ["y"], {"w": weights(4, 3, 3, 3)}
    )
    return NumpyBackend(apply(proto))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "'x' is missing"),
        ({"x": np.zeros((1, 3, 5, 5), np.float32), "z": np.zeros(1)}, "no input 'z'"),
        ({"x": np.zeros((1, 3, 5, 5))}, "float64; expected float32"),
        ({"x": np.zeros((1, 4, 5, 5), np.float32)}, r"\[1, 4, 5, 5\]"),
        ({"x": np.zeros((3, 5, 5), np.float32)}, "shape"),
        ({"x": np.zeros((1, 3, 5, 5), ">f4")}, ">f4"),
    ],
)
def test_bad_feeds(feeds, message):
    with pytest.raises(ShapeError, match=message):
        conv_backend().run(feeds)


def test_strided_feed():
    x = np.random.default_rng(0).standard_normal((5, 5, 3, 2)).astype(np.float32).T
    backend = conv_backend()
    np.testing.assert_array_equal(
        backend.run({"x": x})["y"], backend.run({"x": np.ascontiguousarray(x)})["y"]
    )


def test_failing_operator_is_named():
    proto = build([node("Add", ["x", "z"], ["y"])], {"x": ("N",), "z": ("M",)}, ["y"])
    backend = NumpyBackend(apply(proto))
    with pytest.raises(BackendError):
        backend.run({"x": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)})
