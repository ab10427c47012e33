"""split_variadics: Sum, Mean, Min and Max of many inputs become binary chains."""

from __future__ import annotations

import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops


@pytest.mark.parametrize("op", ["Sum", "Mean", "Min", "Max"])
def test_one_input_from_input_to_output(op):
    proto = build([node(op, ["x"], ["y"])], {"x": (3, 4)}, ["y"])
    model = apply(proto, "split_variadics", "tidy_graph")
    assert ops(model) == ["Identity"]
    assert_same(proto, model)


@pytest.mark.parametrize("op", ["Sum", "Mean", "Min", "Max"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_chain(op, count):
    shapes = {f"x{i}": ((3, 4) if i % 2 else (2, 3, 1)) for i in range(count)}
    proto = build([node(op, list(shapes), ["y"])], shapes, ["y"])
    model = apply(proto, "split_variadics", "tidy_graph")
    binary = {"Sum": "Add", "Mean": "Add"}.get(op, op)
    assert ops(model) == [binary] * (count - 1) + (["Mul"] if op == "Mean" else [])
    assert_same(proto, model)
