"""Calibration data that is broken or says nothing: a clear message, or the right numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.errors import ShapeError
from tests.suite.harness import build, make_session, random_weights

X = np.random.default_rng(2).standard_normal((12, 3, 6, 6)).astype(np.float32)
METHODS = ("minmax", "percentile", "mse", "entropy")


def model() -> onnx.ModelProto:
    """The second layer reads nothing but zeros where x is not above 4."""
    return build(
        ["a = Conv(x, w1)", "b = Sub(a, four)", "c = Relu(b)", "d = Conv(c, w2)", "y = Add(d, a)"],
        {"x": ["n", 3, 6, 6]},
        {
            "w1": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
            "w2": random_weights(3, 3, 1, 1),
            "four": np.float32(4),
        },
    )


def works(data: Any, x: np.ndarray, **options: Any) -> sparsert.quantize.QuantizeReport:
    """Quantises; the result has to be near the source, and the same here as in ONNX Runtime."""
    source = model()
    made, report = sparsert.quantize(source, data, **options)
    (want,) = make_session(source).run(None, {"x": x})
    (other,) = make_session(made).run(None, {"x": x})
    (got,) = sparsert.load(made).run(None, {"x": x})
    unit = max(1.0, float(np.abs(want).max())) / 255
    np.testing.assert_allclose(got, other, atol=2 * unit)
    np.testing.assert_allclose(got, want, atol=4 * unit)
    return report


def test_nothing_reaches_a_layer() -> None:
    for data in (X, 0 * X, np.full_like(X, -3)):
        with pytest.raises(ValueError, match=r"'c' is zero .* exclude what reads it \('Conv_3'\)"):
            sparsert.quantize(model(), data)
    report = works(X, X, exclude="Conv_3")
    assert [layer.why for layer in report.layers] == ["", "excluded"]


@pytest.mark.parametrize("method", METHODS)
def test_one_value_reaches_a_layer(method: str) -> None:
    few = X.copy()
    few[3, 1, 2, 2] = 6
    works(few, few, method=method)
    works(few, X, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [5.0, 1e-3, 1e30])
def test_constant_data(method: str, value: float) -> None:
    same = np.full_like(X, value)
    if value > 4:
        works(same, same, method=method)
    else:
        works(same, same, method=method, exclude=["Conv_3"])


def test_one_sample() -> None:
    strong = 9 * X[:1]
    for data in (strong, [strong], [{"x": strong}], iter([(strong,)]), {"x": strong}):
        assert works(data, strong).samples == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(bad: float) -> None:
    broken = 9 * X
    broken[-1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="NaN or infinite values in 'x'"):
        sparsert.quantize(model(), broken)


def test_sums_that_overflow() -> None:
    two = {"w": 2 * np.eye(6, dtype=np.float32)}
    source = build(["y = MatMul(x, w)"], {"x": ["n", 3, 6, 6]}, two)
    with pytest.raises(ValueError, match="NaN or infinite values in 'y'"):
        sparsert.quantize(source, np.full_like(X, 3e38))


@pytest.mark.parametrize("data", [[], iter(()), (x for x in ()), {}, {"x": X[:0]}, X[:0]])
def test_no_data(data: Any) -> None:
    with pytest.raises(ValueError, match="calibration_data is empty"):
        sparsert.quantize(model(), data)


def test_an_iterator_that_fails() -> None:
    def feeds() -> Iterator[np.ndarray]:
        yield 9 * X
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        sparsert.quantize(model(), feeds())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"z": X}], "feed 0: .*2 problems(.|\n)*no input 'z'(.|\n)*input 'x' is missing"),
        ([{"x": X}, {}], "feed 1: .*input 'x' is missing"),
        ([{"x": X.astype(np.float64)}], "feed 0: .*'x' is float64, expected float32"),
        ([X.astype(np.int64)], "feed 0: .*'x' is int64, expected float32"),
        ([X[0]], r"feed 0: .*'x' has shape \[3, 6, 6\], expected \[n, 3, 6, 6\]"),
        ([X[:, :2]], r"feed 0: .*'x' has shape \[12, 2, 6, 6\]"),
        ([X, X[:, :, :5]], "feed 1: "),
        ([None], "feed 0: NoneType for the inputs 'x'"),
        ([(X, X)], "feed 0: 2 for the inputs 'x'"),
        ([{"x": "image"}], "feed 0: .*'x' is"),
        ([{"x": [[1], [2, 3]]}], "feed 0: .*'x' is not an array"),
        ({"z": X}, "feed 0: "),
    ],
)
def test_feeds_that_do_not_fit(data: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        sparsert.quantize(model(), data)
