"""recognise_norms: what is no layer normalisation stays spelt out; an epsilon is kept."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

CONSTANTS = {
    "two": np.float32(2),
    "e": np.float32(1e-5),
    "last": np.array([-1]),
    "first": np.array([1]),
    "g": weights(7, sparsity=0),
    "b": weights(7, seed=1, sparsity=0),
}


def norm(**changes):
    """The nodes of a norm, some of them with other inputs."""
    inputs = {
        "a": ("ReduceMean", ["x", "last"]),
        "d": ("Sub", ["x", "a"]),
        "q": ("Pow", ["d", "two"]),
        "v": ("ReduceMean", ["q", "last"]),
        "w": ("Add", ["v", "e"]),
        "s": ("Sqrt", ["w"]),
        "n": ("Div", ["d", "s"]),
        "o": ("Mul", ["n", "g"]),
        "y": ("Add", ["o", "b"]),
    }
    inputs |= changes
    return [node(op, names, [output]) for output, (op, names) in inputs.items()]


def test_whole_norm():
    proto = build(norm(), {"x": ("N", 5, 7)}, ["y"], CONSTANTS)
    model = apply(proto)
    assert ops(model) == ["LayerNormalization"]
    assert_same(proto, model)


@pytest.mark.parametrize(
    "changes",
    [
        {"a": ("ReduceMean", ["x", "first"])},
        {"v": ("ReduceMean", ["q", "first"])},
        {"q": ("Mul", ["x", "d"])},
        {"q": ("Mul", ["x", "x"])},
        {"n": ("Div", ["x", "s"])},
        {"w": ("Sub", ["v", "e"])},
    ],
)
def test_what_is_none(changes):
    proto = build(norm(**changes), {"x": ("N", 5, 7)}, ["y"], CONSTANTS)
    model = apply(proto)
    assert "LayerNormalization" not in ops(model)
    assert_same(proto, model)


def test_used_inside():
    """Values in between that are outputs too stay."""
    proto = build(norm(), {"x": ("N", 5, 7)}, ["y", "n"], CONSTANTS)
    model = apply(proto)
    assert "LayerNormalization" not in ops(model)
    assert_same(proto, model)


def test_small_epsilon_is_not_dropped():
    constants = {**CONSTANTS, "e": np.float32(1e-12)}
    proto = build(norm(), {"x": ("N", 5, 7)}, ["y"], constants)
    model = apply(proto)
    (only,) = model.graph
    assert only.attributes["epsilon"].value == np.float32(1e-12)
    x = {"x": np.ones((2, 5, 7), np.float32)}
    from sparsert.runtime.numpy_backend import NumpyBackend

    assert np.isfinite(NumpyBackend(model).run(x)["y"]).all()
