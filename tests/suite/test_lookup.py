"""Rows of pruned tables: looked up as they lie in the file, in each encoding that it may choose."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import sparsert
from sparsert.errors import BackendError
from tests.suite.harness import (
    ENGINES,
    EXACT,
    ISAS,
    SUM,
    Case,
    Engine,
    assert_close,
    build,
    check,
    make_session,
    random_weights,
)


def few_of(rows: int, cols: int, per_row: int) -> np.ndarray:
    """A few values in each row but the second, far apart."""
    rng = np.random.default_rng(cols)
    table = np.zeros((rows, cols), np.float32)
    for row in table:
        row[rng.choice(cols, per_row, replace=False)] = rng.standard_normal(per_row)
    table[1] = 0
    table[-1, -1] = 5
    return table


@functools.cache
def tables() -> dict[str, np.ndarray]:
    """By how they are stored: encoding, and kind of indices or shape of blocks."""
    tall = np.repeat(random_weights(76, 40, sparsity=0.8), 4, axis=0)[:302]
    wide = np.repeat(random_weights(100, 30, sparsity=0.8, seed=1), 8, axis=1)[:, :235]
    distances = random_weights(301, 300, sparsity=0.97)
    distances[0], distances[5] = 0, 1
    distances[7, :299] = 0  # a distance of more than one byte
    return {
        "bitmask": random_weights(301, 37, sparsity=0.6),
        "csr-distances": distances,
        "csr-u16": few_of(50, 9000, 3),
        "csr-u32": few_of(8, 70000, 2),
        "block-tall": np.ascontiguousarray(tall),
        "block-wide": np.ascontiguousarray(wide),
    }


def case_of(name: str) -> Case:
    """Indices of each type, known ones and a single one; one result is a layer's input."""
    table = tables()[name]
    rows, cols = table.shape
    rng = np.random.default_rng(rows)
    is_wide = cols > 1000
    tokens = (2, 3) if is_wide else (2, 35)
    return Case(
        name,
        [
            "a = Gather(t, i)",
            "b = Gather<axis=-2>(t, j)",
            "c = Gather(t, known)",
            "d = Gather(t, last)",
            "h = Gather(t, i)",
            "f = Relu(h)" if is_wide else "f = MatMul(h, w)",
        ],
        {"i": (TensorProto.INT64, ["n", "m"]), "j": (TensorProto.INT32, ["k"])},
        {
            "t": table,
            "known": np.array([[0, -1, rows - 2], [7, 1, -rows]]),
            "last": np.array(-1),
            **({} if is_wide else {"w": random_weights(cols, 5)}),
        },
        outputs=("a", "b", "c", "d", "f"),
        sizes=[{}],
        feeds={
            "i": rng.integers(-rows, rows, tokens),
            "j": rng.integers(-rows, rows, 3).astype(np.int32),
        },
        tolerance=SUM,
    )


# One kernel serves every instruction set; what is around it differs.
@pytest.mark.parametrize("engine", [*ENGINES[:2], *ENGINES[-1:]], ids=str)
@pytest.mark.parametrize("name", tables())
def test_table(name: str, engine: Engine) -> None:
    case = case_of(name)
    check(case, [engine])
    model = case.load(engine)
    feeds, (want, *_) = case.runs[0]
    assert_close(model.run(None, feeds)[0], want, EXACT)
    if engine.is_native:
        gathers = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Gather"]
        assert {row["storage_format"] for row in gathers} == {name.partition("-")[0]}
        assert {row["kernel"] for row in gathers} == {"lookup_rows_f32_scalar"}
        assert {row["compute_format"] for row in gathers} == {"rows"}
        assert "instead of" in gathers[0]["reason"]
        rows = model.explain().to_dict()["rows"]
        packed = model._backend.memory()["packed_bytes"]  # type: ignore[attr-defined]
        packed -= sum(row["packed_bytes"] for row in rows if row["op"] != "Gather")
        assert packed < tables()[name].nbytes / 8
        for bad in (len(tables()[name]), -len(tables()[name]) - 1):
            with pytest.raises(BackendError, match=f"index {bad} of 'i'"):
                model.run(None, {**feeds, "i": np.full_like(feeds["i"], bad)})


def test_a_table_that_is_a_layer_too(tmp_path: Path) -> None:
    """Words come in and go out by the same weights, here of half precision."""
    table = random_weights(301, 40, sparsity=0.7)
    proto = build(
        ["e = Gather(t, i)", "h = Tanh(e)", "y = Gemm<transB=1>(h, t)"],
        {"i": (TensorProto.INT64, ["n"])},
        {"t": table.astype(np.float16).astype(np.float32)},
    )
    ids = np.arange(300, -1, -7)
    want = make_session(proto).run(None, {"i": ids})[0]
    path = tmp_path / "tied.sprt"
    sparsert.convert(proto, path, weights="f16")
    for isa in ISAS:
        model = sparsert.load(path, isa=isa, threads=1)
        assert_close(model(ids), want, SUM)
        rows = model.explain().to_dict()["rows"]
        assert rows[0]["compute_format"] == "rows"


def test_a_table_that_is_read_whole_is_decoded() -> None:
    proto = build(
        ["e = Gather(t, i)", "u = Mul(t, x)", "s = ReduceSum(u)", "y = Add(e, s)"],
        {"i": (TensorProto.INT64, ["n"]), "x": (1,)},
        {"t": random_weights(99, 40, sparsity=0.7)},
    )
    feeds = {"i": np.arange(50), "x": np.ones(1, np.float32)}
    model = sparsert.load(proto, strict=True)
    assert_close(model.run(None, feeds)[0], make_session(proto).run(None, feeds)[0], SUM)
    (row,) = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Gather"]
    assert row["kernel"].startswith("gather")
