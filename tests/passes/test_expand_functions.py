"""expand_functions: operators become those of ONNX's definition where these are native."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from sparsert.passes import native_report
from sparsert.runtime.numpy_backend import NumpyBackend
from tests.passes.pass_checks import apply, assert_same, build, feeds_for, node, ops


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_and_depth(op, mode):
    attributes = {"blocksize": 2, **({"mode": mode} if op == "DepthToSpace" else {})}
    proto = build([node(op, ["x"], ["y"], **attributes)], {"x": ("N", 8, 4, 6)}, ["y"], opset=13)
    model = apply(proto)
    assert native_report(model) == []
    assert op not in ops(model)
    assert_same(proto, model)


def test_two_of_a_kind_between_others():
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("DepthToSpace", ["a"], ["b"], blocksize=2),
        node("Add", ["b", "c"], ["d"]),
        node("DepthToSpace", ["d"], ["e"], blocksize=2),
        node("Neg", ["e"], ["y"]),
    ]
    proto = build(nodes, {"x": (2, 16, 3, 3)}, ["y", "d"], {"c": np.ones(1, np.float32)}, opset=13)
    model = apply(proto)
    assert native_report(model) == []
    names = [n.name for n in model.graph]
    assert len(set(names)) == len(names)
    assert_same(proto, model)


DEFINED = {
    "conv": (
        {"x": ("N", 3, 5), "w": (3, 1, 2), "b": (3,)},
        node("CausalConvWithState", ["x", "w", "b"], ["y", "state"], activation="silu"),
    ),
    "conv_without_bias": (
        {"x": ("N", 3, 5), "w": (3, 1, 2), "p": ("N", 3, 1)},
        node("CausalConvWithState", ["x", "w", "", "p"], ["y", "state"]),
    ),
    "attention": (
        {"q": (2, 3, 8), "k": (2, 3, 8), "v": (2, 3, 8), "d": (2, 3, 8)},
        node(
            "LinearAttention",
            ["q", "k", "v", "", "d"],
            ["y", "state"],
            q_num_heads=2,
            kv_num_heads=2,
            update_rule="gated",
        ),
    ),
}


@pytest.mark.parametrize("name", DEFINED)
def test_definitions_that_hold_others(name):
    shapes, made = DEFINED[name]
    proto = build([made], shapes, ["y", "state"], opset=27)
    model = apply(proto)
    assert native_report(model) == []
    feeds = feeds_for(proto)
    for got, want in zip(
        NumpyBackend(model).run(feeds).values(),
        ReferenceEvaluator(proto).run(None, feeds),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("align", [0, 1])
def test_affine_grid(align):
    proto = build(
        [node("AffineGrid", ["t", "size"], ["y"], align_corners=align)],
        {"t": ("N", 2, 3)},
        ["y"],
        {"size": np.array([2, 3, 4, 5])},
        opset=21,
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_what_is_not_native_stays():
    proto = build([node("Shrink", ["x"], ["y"], lambd=-1.0)], {"x": (2, 3)}, ["y"])
    assert ops(apply(proto)) == ["Shrink"]
