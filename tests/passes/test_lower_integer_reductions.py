"""lower_integer_reductions: sums, products and extremes of integers and bool."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

import sparsert
from sparsert.passes import native_report
from tests.passes.pass_checks import apply, build, node, ops

DTYPES = {"i64": TensorProto.INT64, "i32": TensorProto.INT32}
NUMPY = {
    "ReduceSum": np.sum,
    "ReduceProd": np.prod,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
}


@pytest.mark.parametrize("op", NUMPY)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [None, [0], [1, -1], [0, 1, 2]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_numbers(op, dtype, axes, keepdims):
    """Exactly, also beyond what f32 holds."""
    kind = DTYPES[dtype]
    proto = build(
        [node(op, ["x"] if axes is None else ["x", "a"], ["y"], keepdims=keepdims)],
        {"x": ("n", 3, 5)},
        ["y"],
        {} if axes is None else {"a": np.array(axes)},
        dtype=kind,
    )
    apply(proto)
    model = sparsert.load(proto, strict=True, threads=1)
    rng = np.random.default_rng(1)
    big = 3 if op == "ReduceProd" else 1 << 25
    for n in (1, 4):
        x = rng.integers(-big, big, (n, 3, 5)).astype(np.int64 if dtype == "i64" else np.int32)
        axis = None if axes is None else tuple(axes)
        wanted = NUMPY[op](x, axis=axis, keepdims=bool(keepdims)).astype(x.dtype)
        got = model(x)
        assert got.dtype == x.dtype
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_bool(op):
    proto = build(
        [node(op, ["x", "a"], ["y"], keepdims=0)],
        {"x": (4, 6)},
        ["y"],
        {"a": np.array([1])},
        dtype=TensorProto.BOOL,
    )
    model = sparsert.load(proto, strict=True, threads=1)
    x = np.random.default_rng(2).random((4, 6)) < 0.3
    x[0], x[1] = True, False
    np.testing.assert_array_equal(model(x), NUMPY[op](x, axis=1))


def test_shape_arithmetic_stays_as_it_is():
    """A plan computes it."""
    proto = build(
        [
            node("Shape", ["x"], ["s"]),
            node("ReduceProd", ["s"], ["p"]),
            node("Reshape", ["x", "p"], ["y"]),
        ],
        {"x": ("n", 3)},
        ["y"],
    )
    model = apply(proto)
    assert native_report(model) == []
    assert "ReduceProd" in ops(model)
