"""fold_transposes: an exchange of the last two axes that is wrapped into Reshapes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops

CONSTANTS = {
    "rest": np.array([-1]),
    "first": np.array([-(2**62)]),
    "last": np.array([2**62]),
    "minus_1": np.array([-1]),
    "minus_2": np.array([-2]),
}


def nodes(join=("rest", "rows", "columns"), split=("before", "columns", "rows")):
    """Torch's way to write it, with other shapes if given."""
    return [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "first", "minus_2"], ["before"]),
        node("Slice", ["shape", "minus_2", "minus_1"], ["rows"]),
        node("Slice", ["shape", "minus_1", "last"], ["columns"]),
        node("Concat", list(join), ["joined"], axis=0),
        node("Reshape", ["x", "joined"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        node("Concat", list(split), ["whole"], axis=0),
        node("Reshape", ["b", "whole"], ["y"]),
    ]


@pytest.mark.parametrize("shape", [("n", 3, "t", 8), (2, 3, 4, 4), ("n", 5, "t")])
def test_is_one_transpose(shape):
    proto = build(nodes(), {"x": shape}, ["y"], CONSTANTS)
    model = apply(proto)
    assert ops(model) == ["Transpose"]
    assert_same(proto, model, {"n": 2, "t": 7})


@pytest.mark.parametrize(
    "changes",
    [
        {"join": ("rest", "columns", "rows")},
        {"split": ("before", "rows", "columns")},
    ],
)
def test_other_reshapes_stay(changes):
    proto = build(nodes(**changes), {"x": ("n", 3, "t", 8)}, ["y"], CONSTANTS)
    model = apply(proto)
    assert ops(model).count("Reshape") == 2
    assert_same(proto, model, {"n": 2, "t": 7})
