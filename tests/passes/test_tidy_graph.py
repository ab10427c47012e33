"""tidy_graph: unused parts go, names are unique, nodes are in order."""

from __future__ import annotations

import numpy as np

from tests.passes.pass_checks import apply, assert_same, build, node, ops


def test_unused_and_equal_parts():
    proto = build(
        [
            node("Exp", ["x"], ["unused"]),
            node("Add", ["x", "k"], ["a"]),
            node("Mul", ["a", "l"], ["y"]),
        ],
        {"x": (2, 3)},
        ["y"],
        {"k": np.ones(3, np.float32), "l": np.ones(3, np.float32), "m": np.ones(9)},
    )
    model = apply(proto, "tidy_graph")
    assert ops(model) == ["Add", "Mul"]
    assert len(model.graph.initializers) == 1
    assert all(n.name for n in model.graph)
    assert_same(proto, model)


def test_every_pass_leaves_no_constant_node():
    proto = build(
        [
            node("Constant", [], ["k"], value_float=2.0),
            node("Mul", ["x", "k"], ["y"]),
        ],
        {"x": (2, 3)},
        ["y"],
    )
    model = apply(proto)
    assert ops(model) == ["Mul"]
    assert len(model.graph.initializers) == 1
    assert_same(proto, model)
