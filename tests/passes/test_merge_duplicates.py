"""merge_duplicates: equal subexpressions are computed once, also of equal small constants."""

from __future__ import annotations

import numpy as np

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

ONE = np.ones(3, np.float32)


def test_equal_constants_are_one():
    proto = build(
        [
            node("Mul", ["x", "a"], ["p"]),
            node("Mul", ["x", "b"], ["q"]),
            node("Mul", ["x", "c"], ["r"]),
            node("Sum", ["p", "q", "r"], ["y"]),
        ],
        {"x": (2, 3)},
        ["y"],
        {"a": np.float32(0.5), "b": np.float32(0.5), "c": np.float32(-0.5)},
    )
    model = apply(proto, "merge_duplicates")
    assert ops(model) == ["Mul", "Mul", "Sum"]
    assert_same(proto, model)


def test_large_constants_are_not_compared():
    proto = build(
        [node("Mul", ["x", "a"], ["p"]), node("Mul", ["x", "b"], ["q"])],
        {"x": (2, 30)},
        ["p", "q"],
        {"a": weights(30), "b": weights(30)},
    )
    assert ops(apply(proto, "merge_duplicates")) == ["Mul", "Mul"]


def test_outputs_are_kept_without_a_word(caplog):
    proto = build([node("Mul", ["x", "a"], ["y"])], {"x": (2, 3)}, ["y", "b"], {"a": ONE, "b": ONE})
    model = apply(proto, "merge_duplicates")
    assert [value.name for value in model.graph.outputs] == ["y", "b"]
    assert not caplog.records
    assert_same(proto, model)
