"""If, Loop and Scan run by fallback, with what they take from outside, beside native segments."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import parser

import sparsert
from sparsert.errors import BackendError, UnsupportedOpError
from tests.suite.harness import SUM, assert_close, make_session, random_weights

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
# Large enough to be handed over as an array, not inside the graph.
WEIGHTS = random_weights(40, 40, sparsity=0.5)
X = np.random.default_rng(5).standard_normal((3, 40)).astype(np.float32)

MODELS = {
    "if": """
        g (float[n, 40] x, bool c) => (float[n, 40] y) {
            a = MatMul(x, w)
            b = Relu(a)
            z = If(c) <
                then_branch = t () => (float[n, 40] u) { u = Add(a, b) },
                else_branch = e () => (float[n, 40] v) { v = MatMul(b, w) }
            >
            y = Neg(z)
        }""",
    "loop": """
        g (float[n, 40] x, bool c) => (float[n, 40] y, float[k, n, 40] all) {
            a = MatMul(x, w)
            count = Constant<value = int64 {3}>()
            last, all = Loop(count, c, a) <
                body = b (int64 i, bool go, float[n, 40] s)
                    => (bool more, float[n, 40] r, float[n, 40] q)
                {
                    more = Identity(go)
                    f = Cast<to = 1>(i)
                    p = Mul(s, f)
                    q = MatMul(p, w)
                    r = Add(q, a)
                }
            >
            y = Relu(last)
        }""",
    "scan": """
        g (float[n, 40] x, bool c) => (float[40] y, float[n, 40] all) {
            a = MatMul(x, w)
            zero = ReduceSum<keepdims = 0>(x, axis)
            start = Sub(zero, zero)
            last, all = Scan<
                num_scan_inputs = 1,
                body = b (float[40] s, float[40] r) => (float[40] t, float[40] u) {
                    t = Add(s, r)
                    u = Mul(t, zero)
                }
            >(start, a)
            y = Abs(last)
        }""",
    "nested": """
        g (float[n, 40] x, bool c) => (float[n, 40] y) {
            a = MatMul(x, w)
            count = Constant<value = int64 {2}>()
            last = Loop(count, , a) <
                body = b (int64 i, bool go, float[n, 40] s) => (bool more, float[n, 40] r) {
                    more = Identity(go)
                    p = Mul(s, a)
                    r = If(c) <
                        then_branch = t () => (float[n, 40] u) { u = MatMul(p, w) },
                        else_branch = e () => (float[n, 40] v) { v = Sub(a, s) }
                    >
                }
            >
            y = Relu(last)
        }""",
}


def model_of(name: str) -> onnx.ModelProto:
    proto = parser.parse_model(HEADER + MODELS[name])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHTS, "w"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axis"))
    return proto


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, backend: str) -> None:
    proto = model_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sparsert.load(proto, threads=1, backend=backend)
    session = make_session(proto)
    for condition in (True, False):
        feeds = {"x": X, "c": np.array(condition)}
        for got, want in zip(model.run(None, feeds), session.run(None, feeds), strict=True):
            assert_close(got, want, SUM)


@pytest.mark.parametrize("name", MODELS)
def test_strict_names_it(name: str) -> None:
    with pytest.raises(UnsupportedOpError, match="it has a subgraph"):
        sparsert.load(model_of(name), strict=True)


def test_native_segments_stay_native() -> None:
    with pytest.warns(UserWarning, match="it has a subgraph"):
        model = sparsert.load(model_of("if"), threads=1)
    ops = [row["op"] for row in model.explain().to_dict()["rows"]]
    assert "Linear" in ops
    assert "fallback" in ops


@pytest.mark.parametrize("name", MODELS)
def test_profile_shows_what_it_costs(name: str) -> None:
    """A row for each part, with its time, its share and why it is not native."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sparsert.load(model_of(name), threads=1)
    table = model.profile({"x": X, "c": np.array(True)}, runs=3)
    records = table.to_dict()["rows"]
    fallbacks = [row for row in records if row["kernel"] != "native"]
    assert len(fallbacks) == 1
    assert "it has a subgraph" in fallbacks[0]["reason"]
    assert all(row["time_ns"] > 0 for row in records)
    assert "ms of it in fallbacks" in str(table)
    assert sum(row[3] for row in table.rows) == pytest.approx(100)
    assert {row["name"] for row in records} == {f"(part {i})" for i in range(len(records))}


def test_conditions_that_are_known_are_folded() -> None:
    """One branch is left where shapes and constants decide, with its own conditions inside."""
    proto = parser.parse_model(
        HEADER
        + """
        g (float[n, 4] x) => (float[n, 4] y) {
            s = Shape(x)
            one = Constant<value = int64 {1}>()
            four = Constant<value = int64 {4}>()
            d = Gather(s, one)
            c = Equal(d, four)
            a = Relu(x)
            y = If(c) <
                then_branch = t () => (float[n, 4] u) {
                    e = Constant<value = bool {0}>()
                    u = If(e) <
                        then_branch = tt () => (float[n, 4] q) { q = Neg(a) },
                        else_branch = ee () => (float[n, 4] r) { r = Abs(a) }
                    >
                },
                else_branch = f () => (float[n, 4] v) { v = Sqrt(a) }
            >
        }"""
    )
    model = sparsert.load(proto, strict=True, threads=1)
    x = X[:, :4]
    np.testing.assert_array_equal(model(x), np.abs(np.maximum(x, 0)))


def test_errors_inside_are_named() -> None:
    """What fails in the fallback engine is an error of ours."""
    proto = parser.parse_model(
        HEADER
        + """
        g (float[n, 4] x, int64[k] i, bool c) => (float[m, 4] y) {
            a = Relu(x)
            y = If(c) <
                then_branch = t () => (float[m, 4] u) { u = Gather(a, i) },
                else_branch = e () => (float[m, 4] v) { v = Identity(a) }
            >
        }"""
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sparsert.load(proto, threads=1)
    feeds = {"x": X[:, :4], "i": np.array([0, 2]), "c": np.array(True)}
    assert model.run(None, feeds)[0].shape == (2, 4)
    with pytest.raises(BackendError):
        model.run(None, {**feeds, "i": np.array([0, 7])})
    assert model.run(None, {**feeds, "c": np.array(False)})[0].shape == (3, 4)
