"""split_tiles: a tensor of rank 5 repeated along every dimension."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, feeds_for, node, ops


@pytest.mark.parametrize(
    ("repeats", "count"),
    [
        ((2, 2, 1, 2), 1),
        ((1, 3, 2, 2, 1), 1),
        ((2, 1, 3, 2, 2), 2),
        ((2, 2, 2, 2, 2), 2),
        ((2, 2, 0, 2, 2), 2),
        ((2, 1, 2, 1, 2, 2), 2),
        ((1, 2, 1, 2, 1, 1, 2), 3),
    ],
)
def test_split(repeats, count):
    shape = (2, 3, 1, 2, 1, 2, 1)[: len(repeats)]
    proto = build([node("Tile", ["x", "r"], ["y"])], {"x": shape}, ["y"], {"r": np.array(repeats)})
    model = apply(proto)
    assert ops(model) == ["Tile"] * count
    assert native_report(model) == []
    assert_same(proto, model)
    (x,) = feeds_for(proto).values()
    y = sparsert.load(proto, strict=True, tune=False)(x)
    np.testing.assert_array_equal(y, np.tile(x, repeats))


def test_rank_8_is_not_native():
    constants = {"r": np.array([1, 2, 1, 1, 1, 1, 1, 1])}
    proto = build([node("Tile", ["x", "r"], ["y"])], {"x": (1,) * 8}, ["y"], constants)
    (problem,) = native_report(apply(proto))
    assert "too many of them" in problem.reason
