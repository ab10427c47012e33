"""fuse_residuals: Add of a tensor of the same shape becomes the layer's fourth input."""

from __future__ import annotations

import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

PASSES = ("lower_convs", "lower_linears", "fuse_residuals", "tidy_graph")
W = {"w": weights(4, 4, 3, 3)}
SAME = {"pads": [1, 1, 1, 1]}


@pytest.mark.parametrize("operands", [["a", "x"], ["x", "a"]])
@pytest.mark.parametrize("shape", [(1, 4, 6, 6), ("N", 4, 6, 6), ("N", 4, "H", "W")])
def test_identity_residual(operands, shape):
    proto = build(
        [node("Conv", ["x", "w"], ["a"], **SAME), node("Add", operands, ["y"])],
        {"x": shape},
        ["y"],
        W,
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv"]
    assert len(next(iter(model.graph)).inputs) == 4
    assert_same(proto, model, {"H": 5, "W": 7})


def test_later_layer_takes_the_residual():
    proto = build(
        [
            node("Conv", ["x", "w"], ["a"], strides=[2, 2], **SAME),
            node("Conv", ["x", "v"], ["b"], strides=[2, 2]),
            node("Add", ["a", "b"], ["y"]),
        ],
        {"x": ("N", 4, "H", "W")},
        ["y"],
        {**W, "v": weights(4, 4, 1, 1, seed=2)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "sparsert.Conv"]
    first, second = model.graph
    assert first.inputs[1].name == "w"
    assert second.inputs[3] is first.outputs[0]
    assert_same(proto, model, {"H": 7, "W": 8})


def test_layer_moves_behind_its_residual():
    proto = build(
        [
            node("Conv", ["x", "w"], ["a"], **SAME),
            node("Exp", ["x"], ["e"]),
            node("Add", ["a", "e"], ["y"]),
        ],
        {"x": (1, 4, 5, 5)},
        ["y"],
        W,
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["Exp", "sparsert.Conv"]
    assert_same(proto, model)


def test_linear():
    proto = build(
        [node("MatMul", ["x", "w"], ["a"]), node("Add", ["x", "a"], ["y"])],
        {"x": (3, 4)},
        ["y"],
        {"w": weights(4, 4)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Linear"]
    assert_same(proto, model)


@pytest.mark.parametrize("other", [(1, 4, 1, 1), (4, 5, 5), (2, 4, 5, 5)])
def test_broadcast_stays(other):
    proto = build(
        [node("Conv", ["x", "w"], ["a"], **SAME), node("Add", ["a", "z"], ["y"])],
        {"x": (1, 4, 5, 5), "z": other},
        ["y"],
        W,
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "Add"]
    assert_same(proto, model)


def test_unknown_sizes_stay():
    proto = build(
        [node("Conv", ["x", "w"], ["a"], **SAME), node("Add", ["a", "z"], ["y"])],
        {"x": ("N", 4, "H", 5), "z": ("N", 4, "K", 5)},
        ["y"],
        W,
    )
    assert ops(apply(proto, *PASSES)) == ["sparsert.Conv", "Add"]


def test_result_with_two_users_stays():
    proto = build(
        [
            node("Conv", ["x", "w"], ["a"], **SAME),
            node("Add", ["a", "x"], ["b"]),
            node("Mul", ["a", "b"], ["y"]),
        ],
        {"x": (1, 4, 5, 5)},
        ["y"],
        W,
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "Add", "Mul"]
    assert_same(proto, model)
