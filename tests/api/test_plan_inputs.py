"""Inputs that give shapes, axes and the like: native, with a plan for each of their values."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

import sparsert
from sparsert.errors import BackendError, ShapeError
from tests.suite.harness import EXACT, SUM, Engine, assert_close, build, i64, make_session

X = np.random.default_rng(3).standard_normal((2, 3, 4, 6)).astype(np.float32)
I64 = TensorProto.INT64
# Name -> (nodes, further inputs, their values in turn).
CASES = {
    "reshape": (
        ["h = Relu(x)", "y = Reshape(h, s)"],
        {"s": (I64, ["r"])},
        [{"s": i64(2, -1)}, {"s": i64(6, 4, 6)}, {"s": i64(2, -1)}],
    ),
    "slice": (
        ["y = Slice(x, b, e, a, t)"],
        {"b": (I64, [2]), "e": (I64, [2]), "a": (I64, [2]), "t": (I64, [2])},
        [
            {"b": i64(0, 1), "e": i64(2, 9), "a": i64(2, -1), "t": i64(1, 2)},
            {"b": i64(-1, 5), "e": i64(-9, 0), "a": i64(1, 3), "t": i64(-1, -2)},
        ],
    ),
    "arithmetic": (
        ["n = Add(s, t)", "m = Concat<axis=0>(n, r)", "y = Reshape(x, m)"],
        {"s": (I64, [1]), "t": (I64, [1]), "r": (I64, [1])},
        [
            {"s": i64(1), "t": i64(1), "r": i64(-1)},
            {"s": i64(20), "t": i64(4), "r": i64(6)},
        ],
    ),
    "resize": (
        ['y = Resize<mode="linear">(x, , s)'],
        {"s": (TensorProto.FLOAT, [4])},
        [{"s": np.array([1, 1, 2, 1.5], np.float32)}, {"s": np.array([1, 1, 1, 0.5], np.float32)}],
    ),
    "reduce": (
        ["y = ReduceSum(x, a)"],
        {"a": (I64, ["k"])},
        [{"a": i64(1)}, {"a": i64(-1, 0)}],
    ),
    "pad": (
        ["y = Pad(x, p, v)"],
        {"p": (I64, [8]), "v": ()},
        [
            {"p": i64(0, 0, 1, 2, 0, 0, 0, 1), "v": np.array(7, np.float32)},
            {"p": i64(0, 1, 0, 0, 0, 0, 2, 0), "v": np.array(-1, np.float32)},
        ],
    ),
    "top": (
        ["y, i = TopK(x, k)"],
        {"k": (I64, [1])},
        [{"k": i64(1)}, {"k": i64(5)}],
    ),
    "fill": (
        ["c = ConstantOfShape(s)", "y = Add(x, c)"],
        {"s": (I64, [4])},
        [{"s": i64(1, 3, 1, 1)}, {"s": i64(2, 3, 4, 6)}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values(name: str, engine: Engine) -> None:
    nodes, more, runs = CASES[name]
    proto = build(nodes, {"x": (2, 3, 4, 6), **more})
    model = sparsert.load(proto, strict=True, **dict(engine.options))
    session = make_session(proto)
    for values in runs:
        feeds = {"x": X, **values}
        want = session.run(["y"], feeds)[0]
        tolerance = SUM if name in ("reduce", "resize") else EXACT
        assert_close(model.run(["y"], feeds)[0], want, tolerance)


def test_a_plan_is_kept_for_each_value() -> None:
    nodes, more, runs = CASES["reshape"]
    model = sparsert.load(build(nodes, {"x": (2, 3, 4, 6), **more}), threads=1, tune=False)
    with pytest.raises(BackendError, match="depends on the values of 's': run it first"):
        model.explain()
    for values in runs:
        model.run(None, {"x": X, **values})
    assert len(model._backend._plans) == 2
    assert model.explain().rows


def test_saved_and_loaded(tmp_path) -> None:
    nodes, more, runs = CASES["slice"]
    proto = build(nodes, {"x": (2, 3, 4, 6), **more})
    sparsert.convert(proto, tmp_path / "m.sprt")
    model = sparsert.load(tmp_path / "m.sprt", threads=1)
    feeds = {"x": X, **runs[1]}
    assert_close(model.run(None, feeds)[0], make_session(proto).run(None, feeds)[0], EXACT)


def test_bad_values() -> None:
    nodes, more, _ = CASES["reshape"]
    model = sparsert.load(build(nodes, {"x": (2, 3, 4, 6), **more}), threads=1)
    with pytest.raises(ShapeError, match="cannot take the shape"):
        model.run(None, {"x": X, "s": i64(5, -1)})
    with pytest.raises(ShapeError, match="expected int64"):
        model.run(None, {"x": X, "s": np.array([2, -1], np.int32)})


def test_matrices_of_indices_are_data() -> None:
    """Token ids must not get a plan each."""
    proto = build(
        ["e = Gather(w, i)", "m = ReduceMax<keepdims=0>(j)", "y = Add(e, w)"],
        {"i": (I64, [3]), "j": (2, 2)},
        {"w": np.ones((3, 5), np.float32)},
        outputs=("y", "m"),
    )
    model = sparsert.load(proto, threads=1, strict=True)
    for ids in (i64(0, 1, 2), i64(2, 2, 2), i64(1, 0, 0)):
        model.run(None, {"i": ids, "j": X[0, 0, :2, :2]})
    assert len(model._backend._plans) == 1
