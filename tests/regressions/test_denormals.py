"""Denormals cost no time in products, and are left alone elsewhere.

A product with one takes some hundred times as long on x86. They need not be in the data: the bytes
of pointers and small integers are denormals too, and lie behind the last column of a row.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

import sparsert
from tests.suite.harness import (
    ENGINES,
    SUM,
    Engine,
    assert_close,
    build,
    make_session,
    random_weights,
)

pytestmark = pytest.mark.timing

X86 = [e for e in ENGINES if e.name in ("avx2", "avx512")]
PRODUCTS = {
    "Linear": ("y = MatMul(x, w)", ["n", 256], (20, 256), {"w": random_weights(256, 512)}),
    "Conv": (
        "y = Conv<pads=[1, 1, 1, 1]>(x, w)",
        ["n", 64, 15, 13],
        (1, 64, 15, 13),
        {"w": random_weights(64, 64, 3, 3)},
    ),
    "Depthwise": (
        "y = Conv<group=64, pads=[1, 1, 1, 1]>(x, w)",
        ["n", 64, 45, 43],
        (1, 64, 45, 43),
        {"w": random_weights(64, 1, 3, 3)},
    ),
    "MatMul": ("y = MatMul(x, x)", ["n", 120, 120], (2, 120, 120), {}),
}


def seconds(model: sparsert.Model, x: np.ndarray) -> float:
    """The least of several runs."""
    found = []
    for _ in range(9):
        start = time.perf_counter()
        model(x)
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.mark.parametrize("engine", X86, ids=str)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, engine: Engine) -> None:
    node, shape, size, constants = PRODUCTS[name]
    proto = build([node], {"x": shape}, constants)
    model = sparsert.load(proto, strict=True, **dict(engine.options))
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    tiny = x * np.float32(1e-42)
    assert 0 < np.abs(tiny).max() < np.finfo(np.float32).tiny
    ratio = seconds(model, tiny) / seconds(model, x)
    assert ratio < 8, ratio
    want = make_session(proto).run(None, {"x": tiny})[0]
    np.testing.assert_allclose(model(tiny), want, atol=1e-36)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_other_operators_and_other_code_see_them(engine: Engine) -> None:
    proto = build(
        ["l = MatMul(x, w)", "y = Log(x)", "z = Identity(l)"],
        {"x": [1, 4]},
        {"w": random_weights(4, 4)},
        outputs=("y", "z"),
    )
    model = sparsert.load(proto, strict=True, **dict(engine.options))
    x = np.array([[1e-40, 3e-39, 1e-44, 1]], np.float32)
    found = model.run(None, {"x": x})
    for got, want in zip(found, make_session(proto).run(None, {"x": x}), strict=True):
        assert_close(got, want, SUM)
    assert np.float32(1e-40) * np.float32(0.5) != 0
