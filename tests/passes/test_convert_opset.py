"""convert_opset: every opset from 7 on gives the same answers in the newest one."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert.errors import UnsupportedOpError
from sparsert.importers import import_model
from sparsert.passes import load_pass, native_report
from tests.passes.pass_checks import NEWEST, apply, assert_same, build, node, weights


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 22, 25, 27, NEWEST])
def test_network(opset):
    mean = node("ReduceMean", ["p"], ["y"], keepdims=0, axes=[2, 3])
    constants = {"w": weights(4, 3, 3, 3), **{k: weights(4, sparsity=0) ** 2 + 1 for k in "gbmv"}}
    if opset >= 18:
        mean = node("ReduceMean", ["p", "axes"], ["y"], keepdims=0)
        constants["axes"] = np.array([2, 3])
    proto = build(
        [
            node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
            node("BatchNormalization", ["c", *"gbmv"], ["n"]),
            node("Relu", ["n"], ["r"]),
            node("AveragePool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            mean,
        ],
        {"x": ("N", 3, 8, 8)},
        ["y"],
        constants,
        opset,
    )
    model = apply(proto)
    assert model.opset_imports[""] == NEWEST
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10), ("Resize", 11)])
def test_resize(op, opset, mode):
    inputs = ["x", "r", "s"] if opset == 11 else ["x", "s"]
    constants = {"s": np.array([1, 1, 2, 3], np.float32), "r": np.zeros(0, np.float32)}
    proto = build(
        [node(op, inputs, ["y"], mode=mode)],
        {"x": (1, 3, 4, 4)},
        ["y"],
        {name: constants[name] for name in inputs[1:]},
        opset,
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_old_softmax_flattens(axis):
    softmax = node("Softmax", ["x"], ["y"], axis=axis)
    proto = build([softmax], {"x": ("N", 3, 4, 5)}, ["y"], opset=11)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("opset", [9, 11, 12])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3, -3, -1])
def test_old_hardmax_flattens(opset, axis):
    if axis is not None and axis < 0 and opset < 11:
        pytest.skip("negative axes came with opset 11")
    attributes = {} if axis is None else {"axis": axis}
    proto = build(
        [node("Hardmax", ["x"], ["y"], **attributes)], {"x": (2, 3, 4, 5)}, ["y"], None, opset
    )
    assert_same(proto, apply(proto))


# Dimensions that grow, shrink, do both, and keep their size although their scale is not 1.
_SCALES = [(0.6, 0.6), (0.3, 0.9), (1.3, 0.7), (1.7, 2), (1.05, 1.05), (1.05, 0.9), (1.05, 1.3)]


@pytest.mark.parametrize("scales", _SCALES)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_opset_10(scales, mode):
    constants = {"s": np.array([1, 1, *scales], np.float32)}
    resize = node("Resize", ["x", "s"], ["y"], mode=mode)
    proto = build([resize], {"x": (1, 2, 10, 11)}, ["y"], constants, 10)
    assert_same(proto, apply(proto))


@pytest.mark.parametrize("scales", [(0.6, 0.6), (1.3, 0.7), (1.7, 2)])
def test_resize_of_opset_10_by_computed_scales(scales):
    constants = {"s": np.array([1, 1, *scales], np.float32), "zero": np.zeros(1, np.float32)}
    nodes = [
        node("Mul", ["x", "zero"], ["z"]),
        node("ReduceSum", ["z"], ["n"], keepdims=0),
        node("Add", ["s", "n"], ["t"]),
        node("Resize", ["x", "t"], ["y"]),
    ]
    proto = build(nodes, {"x": (1, 2, 10, 11)}, ["y"], constants, 10)
    assert_same(proto, apply(proto))


def test_group_norm_before_21():
    norm = node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    constants = {"s": np.array([1, 2], np.float32), "b": np.array([3, 4], np.float32)}
    proto = build([norm], {"x": (1, 4, 3, 3)}, ["y"], constants, opset=18)
    assert_same(proto, apply(proto))


def test_large_weights_are_not_copied():
    proto = build(
        [node("Gemm", ["x", "w"], ["y"], transB=1)],
        {"x": (2, 300)},
        ["y"],
        {"w": weights(400, 300)},
        opset=11,
    )
    model = import_model(proto)
    before = model.graph.initializers["w"].const_value
    load_pass("convert_opset")(model)
    assert model.graph.initializers["w"].const_value is before


def test_operator_that_cannot_be_converted():
    scan = node("Affine", ["x"], ["y"])
    proto = build([scan], {"x": (2,)}, ["y"], opset=9)
    with pytest.raises(UnsupportedOpError, match="Affine"):
        import_model(proto)
