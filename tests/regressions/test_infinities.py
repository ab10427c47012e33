"""Infinities that once reached outputs which do not depend on them."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from tests.suite.harness import ISAS, build, random_weights


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 7, 16, 37])
@pytest.mark.parametrize("infinite", [0, 3, 63])
@pytest.mark.parametrize("form", ["sell", "perm"])
def test_rows_that_do_not_use_an_infinite_column(
    form: str, infinite: int, rows: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The padding of the sell format multiplied column 0 by 0, which made NaN of an infinity."""
    if form == "perm" and isa in ("scalar", "avx2", "neon", "neondot"):
        pytest.skip("perm is of AVX-512 alone")
    monkeypatch.setenv("SPARSERT_FORMAT", form)
    w = random_weights(64, rows, sparsity=0.95)
    w[:, ::5] = 0.0  # rows without any weight
    w[infinite] = 0.0
    w[infinite, 1::6] = 0.5
    x = np.linspace(-1.0, 1.0, 64, dtype=np.float32)[None]
    want = x @ w
    want[:, 1::6] = np.inf
    x[0, infinite] = np.inf
    proto = build(["y = MatMul(x, w)"], {"x": (1, 64)}, {"w": w})
    model = sparsert.load(proto, isa=isa, threads=1, tune=False)
    (row,) = model.explain().to_dict()["rows"]
    assert row["kernel"].startswith(f"spmv_{form}_f32_")
    np.testing.assert_allclose(model(x), want, rtol=1e-5, atol=1e-6)
