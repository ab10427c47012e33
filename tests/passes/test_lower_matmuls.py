"""lower_matmuls: transposes and factors become attributes where that is right, else they stay."""

from __future__ import annotations

import numpy as np

from tests.passes.pass_checks import apply, assert_same, build, node, ops

CONSTANTS = {"c": np.float32(0.25), "row": np.ones(5, np.float32), "wide": np.ones((1,) * 5, "f")}


def canonical(nodes, inputs, outputs=("y",)):
    """The operators that are left, after a comparison of the results."""
    used = {name for one in nodes for name in one.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in used}
    proto = build(nodes, inputs, list(outputs), constants)
    model = apply(proto)
    assert_same(proto, model)
    return ops(model), model


def test_transpose_and_factor():
    nodes = [
        node("Transpose", ["b"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["a", "t"], ["p"]),
        node("Mul", ["p", "c"], ["y"]),
    ]
    found, model = canonical(nodes, {"a": (2, 3, 5), "b": (2, 4, 5)})
    assert found == ["sparsert.MatMul"]
    (only,) = model.graph
    assert only.attributes["trans_b"].value == 1
    assert only.attributes["alpha"].value == 0.25


def test_other_permutation_stays():
    nodes = [
        node("Transpose", ["b"], ["t"], perm=[2, 0, 1]),
        node("MatMul", ["a", "t"], ["y"]),
    ]
    found, _ = canonical(nodes, {"a": (2, 3, 5), "b": (5, 4, 2)})
    assert found == ["Transpose", "MatMul"]


def test_factor_of_every_column_stays():
    nodes = [node("MatMul", ["a", "b"], ["p"]), node("Mul", ["p", "row"], ["y"])]
    found, _ = canonical(nodes, {"a": (3, 4), "b": (4, 5)})
    assert found == ["MatMul", "Mul"]


def test_factor_that_adds_dimensions_stays():
    nodes = [node("MatMul", ["a", "b"], ["p"]), node("Mul", ["p", "wide"], ["y"])]
    found, _ = canonical(nodes, {"a": (3, 4), "b": (4, 5)})
    assert found[0] == "MatMul"
    assert len(found) == 2


def test_product_that_is_an_output_stays():
    nodes = [node("MatMul", ["a", "b"], ["p"]), node("Mul", ["p", "c"], ["y"])]
    found, _ = canonical(nodes, {"a": (3, 4), "b": (4, 5)}, ("y", "p"))
    assert found == ["MatMul", "Mul"]


def test_division_by_the_product_stays():
    nodes = [node("MatMul", ["a", "b"], ["p"]), node("Div", ["c", "p"], ["y"])]
    found, _ = canonical(nodes, {"a": (3, 4), "b": (4, 5)})
    assert found == ["MatMul", "Div"]
