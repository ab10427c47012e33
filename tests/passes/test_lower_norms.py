"""lower_norms: scales of the run, LpNormalization and LRN become native operators."""

from __future__ import annotations

import pytest

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node


@pytest.mark.parametrize("shape", [(2, 4, 9), ("N", 4, "H", "W")])
def test_instance_norm(shape):
    norm = node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)
    proto = build([norm], {"x": shape, "s": (4,), "b": (4,)}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"H": 5, "W": 3})


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), ("N", 4, "H", "W")])
def test_group_norm(shape):
    norm = node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    proto = build([norm], {"x": shape, "s": (4,), "b": (4,)}, ["y"], opset=21)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"H": 5, "W": 3})


def test_batch_norm():
    square = node("Mul", ["v", "v"], ["w"])
    norm = node("BatchNormalization", ["x", "s", "b", "m", "w"], ["y"], epsilon=1e-2)
    vectors = dict.fromkeys("sbmv", (4,))
    proto = build([square, norm], {"x": ("N", 4, 5, 6), **vectors}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm(axis, p):
    norm = node("LpNormalization", ["x"], ["y"], axis=axis, p=p)
    proto = build([norm], {"x": ("N", 4, 5)}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("size", [1, 3, 4, 5])
@pytest.mark.parametrize("shape", [("N", 7, 5, 6), (2, 7, 9)])
def test_lrn(size, shape):
    norm = node("LRN", ["x"], ["y"], size=size, alpha=0.2, beta=0.6, bias=1.5)
    proto = build([norm], {"x": shape}, ["y"])
    model = apply(proto)
    assert native_report(model) == []
    if len(shape) == 4 and size % 2 == 1:  # onnxruntime's LRN has no others
        assert_same(proto, model)
