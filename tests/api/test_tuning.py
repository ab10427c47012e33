"""Measured choices: what explain() says of them, and the cache that keeps them between loads."""

from __future__ import annotations

import json
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsert
from tests.api.models import expected, image, small_cnn, small_cnn_file, with_fallback
from tests.suite.harness import ISAS, SUM, assert_close, build, random_weights

pytestmark = pytest.mark.timing

X = image(2, 3, 9, 7)
ISA = ISAS[-1]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path))
    return tmp_path / "tuning"


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


def load(tune: bool | str = True, **options: Any) -> sparsert.Model:
    options = {"threads": 1, "isa": ISA, **options}
    model = sparsert.load(small_cnn_file(), tune=tune, **options)
    assert_close(model(X), expected(small_cnn, X)[0], SUM)
    return model


def choices(model: sparsert.Model) -> list[dict[str, Any]]:
    """The layers that have candidates."""
    rows: list[dict[str, Any]] = model.explain().to_dict()["rows"]
    return [row for row in rows if row.get("candidates")]


def is_cached(row: dict[str, Any]) -> bool:
    return "from the tuning cache" in row["reason"]


W_SHAPE = (512, 384)


def linear(batch: int, sparsity: float) -> Any:
    weights = {"w": random_weights(*W_SHAPE, sparsity=sparsity), "b": random_weights(512)}
    return build(["y = Gemm<transB=1>(x, w, b)"], {"x": (batch, 384)}, weights)


def test_explain_shows_candidates() -> None:
    model = load()
    rows = choices(model)
    assert [row["op"] for row in rows] == ["Conv", "Conv", "Linear"]
    for row in rows:
        first, *others = row["candidates"]
        assert len(others) >= 2
        assert (first["kernel"], first["format"]) == (row["kernel"], row["compute_format"])
        assert first["measured_ns"] == row["measured_ns"] > 0
        assert all(c["predicted_ns"] > 0 and c["measured_ns"] >= 0 for c in row["candidates"])
        assert len({c["kernel"] for c in row["candidates"]}) == len(row["candidates"])
    assert {c["kernel"].split("_")[0] for c in rows[2]["candidates"]} == {"spmm", "spmv"}
    table = model.explain()
    column = list(table.columns).index("candidates")
    cells = [row[column] for row in table.rows]
    assert sum(bool(cell) for cell in cells) == 3
    for row, cell in zip(rows, filter(None, cells), strict=True):
        assert row["compute_format"] in cell.split(",")[0]
        assert re.fullmatch(r"[\w ~.]+(, [\w ~.]+)*( \+\d+)?", cell), cell
    assert cells[0] in str(table)
    assert cells[0] in table.to_markdown()
    json.dumps(table.to_dict())


def test_the_cost_model_alone_measures_nothing(cache: Path) -> None:
    rows = choices(load(tune=False))
    assert len(rows) == 3
    for row in rows:
        predicted = [c["predicted_ns"] for c in row["candidates"]]
        assert predicted == sorted(predicted)
        assert all(c["measured_ns"] == 0 for c in row["candidates"])
        assert "cost model" in row["reason"]
    assert files(cache) == []


@pytest.mark.parametrize("tune", [True, "auto"])
def test_the_second_load_takes_the_first_one_s_choices(cache: Path, tune: bool | str) -> None:
    first = choices(load(tune))
    assert not any(map(is_cached, first))
    written = [(path, path.read_bytes()) for path in files(cache)]
    assert len(written) == 1
    second = choices(load(tune))
    assert any(map(is_cached, second))
    for a, b in zip(first, second, strict=True):
        assert a["candidates"] == b["candidates"]
        assert is_cached(b) == (a["measured_ns"] > 0)
    assert [(path, path.read_bytes()) for path in files(cache)] == written


def test_a_load_without_tuning_ignores_the_cache(cache: Path) -> None:
    load()
    before = [path.stat().st_mtime_ns for path in files(cache)]
    assert not any(map(is_cached, choices(load(tune=False))))
    assert [path.stat().st_mtime_ns for path in files(cache)] == before


def test_every_condition_has_a_file_of_its_own(cache: Path) -> None:
    model = load()
    for count, again in enumerate(
        [
            lambda: model(image(3, 3, 9, 7)),
            lambda: load("auto"),
            lambda: load(threads=2),
            lambda: load(isa=ISAS[0]) if len(ISAS) > 1 else model(image(4, 3, 9, 7)),
            lambda: sparsert.load(linear(1, 0.5), threads=1, isa=ISA, tune=True),
        ],
        2,
    ):
        again()
        assert len(files(cache)) == count
    again()
    assert len(files(cache)) == count


@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "flipped"])
def test_a_corrupt_file_is_measured_again(cache: Path, damage: str) -> None:
    load()
    (path,) = files(cache)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    bad = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(1000),
        "cut": whole[:-1],
        "flipped": bytes(flipped),
    }[damage]
    path.write_bytes(bad)
    rows = choices(load())
    assert not any(map(is_cached, rows))
    assert all(row["measured_ns"] > 0 for row in rows)
    assert len(path.read_bytes()) > 100
    assert all(map(is_cached, choices(load())))


def test_switched_off_or_unwritable(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSERT_CACHE", "0")
    for _ in range(2):
        assert not any(map(is_cached, choices(load())))
    assert files(cache) == []
    monkeypatch.delenv("SPARSERT_CACHE")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(2):
        assert not any(map(is_cached, choices(load())))


def test_many_threads_load_at_once(cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for model in pool.map(lambda _: load(), range(8)):
            assert all(row["measured_ns"] > 0 for row in choices(model))
    assert len(files(cache)) == 1
    assert all(map(is_cached, choices(load())))


def test_fallback_models_use_it_too(cache: Path) -> None:
    x = image(1, 3, 8, 8)
    for is_second in (False, True):
        with pytest.warns(UserWarning, match="fallback"):
            model = sparsert.load(with_fallback(), threads=1, isa=ISA, tune=True)
        assert_close(model(x), expected(with_fallback, x)[0], SUM)
        table = model.explain()
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert [is_cached(row) for row in choices(model)] == [is_second] * 2
    assert len(files(cache)) == 2


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("batch", "sparsity"), [(1, 0.0), (1, 0.95), (3, 0.0), (3, 0.95), (64, 0.0), (64, 0.95)]
)
def test_vectors_one_by_one_or_side_by_side(batch: int, sparsity: float, isa: str) -> None:
    x = image(batch, 384)
    w = random_weights(*W_SHAPE, sparsity=sparsity)
    for tune in (False, True):
        model = sparsert.load(linear(batch, sparsity), threads=1, isa=isa, tune=tune)
        (row,) = choices(model)
        names = {tuple(c["kernel"].split("_")[:2]) for c in row["candidates"]}
        assert ("spmv", "dense") in names
        assert ("spmm", "dense") in names
        assert (("spmv", "sell") in names) == (sparsity > 0)
        if sparsity > 0:
            assert row["compute_format"] not in ("dense", "dense8")
        if batch == 64 and sparsity > 0 and isa != "scalar":  # dense, groups of vectors may win
            assert row["kernel"].startswith("spmm")
        if batch == 1 and sparsity == 0 and not tune:  # measured, either may win
            assert row["kernel"].startswith("spmv_dense")
        times = [c["measured_ns"] for c in row["candidates"] if c["measured_ns"]]
        assert bool(times) == (tune is True)
        assert not times or times[0] == min(times)
        assert_close(model(x), x @ w.T + random_weights(512), SUM)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 4, 8, 16])
def test_blocks_of_rows_have_a_format_for_vectors(rows: int, isa: str) -> None:
    lines = random_weights(W_SHAPE[0] // rows, W_SHAPE[1], sparsity=0.9)
    w = np.repeat(lines, rows, axis=0)
    proto = build(["y = Gemm<transB=1>(x, w)"], {"x": (1, W_SHAPE[1])}, {"w": w})
    model = sparsert.load(proto, threads=1, isa=isa, tune=False)
    (row,) = choices(model)
    formats = {each["format"] for each in row["candidates"] if each["kernel"].startswith("spmv")}
    assert formats >= {"dense", "sell"}
    assert row["compute_format"] in (("sell", "perm") if rows == 1 else (f"bsr{rows}",))
    assert len({each for each in formats if each.startswith("bsr")}) == (rows > 1)
    x = image(1, W_SHAPE[1])
    assert_close(model(x), x @ w.T, SUM)


def test_explain_says_that_a_batch_runs_in_slices() -> None:
    weights = {"w": random_weights(16, 3, 3, 3, sparsity=0.8)}
    inputs = {"x": ("n", 3, 96, 96)}
    model = sparsert.load(build(["y = Conv<pads=[1,1,1,1]>(x, w)"], inputs, weights))
    model(image(1, 3, 96, 96))
    assert "slices" not in "".join(model.explain().notes)
    model(image(12, 3, 96, 96))
    note = next(note for note in model.explain().notes if "slices" in note)
    slices, images = map(int, re.findall(r"\d+", note))
    assert slices > 1
    assert slices * images == 12
    assert note in model.explain().to_dict()["notes"]


def test_dense_kernels_of_bytes_are_measured_beside_sparse_ones() -> None:
    # In blocks of four input channels, of which these shares are zero: the cost model sees the
    # sparse kernels ahead by factors around two.
    zeros = (0.75, 0.8, 0.85, 0.9)
    rng = np.random.default_rng(0)
    weights = {}
    for i, share in enumerate(zeros):
        kept = np.repeat(rng.random((64, 16)) >= share, 4, axis=1)
        weights[f"w{i}"] = random_weights(64, 64, 1, 1, seed=i) * kept[:, :, None, None]
    nodes = ["a = Conv(x, w0)", "b = Conv(a, w1)", "c = Conv(b, w2)", "y = Conv(c, w3)"]
    x = rng.standard_normal((2, 64, 14, 14), dtype=np.float32)
    quantised = sparsert.quantize(build(nodes, {"x": (1, 64, 14, 14)}, weights), x).model
    rows = choices(sparsert.load(quantised, tune="auto", threads=1, isa=ISA))
    assert [row["op"] for row in rows] == ["QConv"] * len(zeros)
    for row in rows:
        best = min(c["predicted_ns"] for c in row["candidates"])
        dense = [c for c in row["candidates"] if c["format"].startswith("dense")]
        assert dense
        if min(c["predicted_ns"] for c in dense) <= 2.5 * best:
            assert any(c["measured_ns"] for c in dense)


def test_layers_learn_from_layers_alike(cache: Path) -> None:
    count = 4
    weights = {f"w{i}": random_weights(384, 384, sparsity=0.9, seed=i) for i in range(count)}
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    nodes = [f"{names[i + 1]} = Gemm<transB=1>({names[i]}, w{i})" for i in range(count)]
    proto = build(nodes, {"x": (64, 384)}, weights)

    def rows_of_a_load() -> list[dict[str, Any]]:
        rows = choices(sparsert.load(proto, threads=1, isa=ISA, tune="auto"))
        assert len(rows) == count
        return rows

    first = rows_of_a_load()
    (path,) = files(cache)
    header, entry, record, ns_at = 28, 8, 56, 48  # of the blob: see csrc/plan/tuning.h
    blob = bytearray(path.read_bytes())
    start = blob.index(b"SRTTUNE\n")
    at = start + header
    measured = [sum(c["measured_ns"] > 0 for c in row["candidates"]) for row in first]
    assert measured[0] >= 2
    loser = first[0]["candidates"][1]["kernel"]
    for _ in range(count - 1):  # the last layer is to be measured anew
        (records,) = struct.unpack_from("<I", blob, at + 4)
        at += entry
        for _ in range(records):
            is_loser = blob[at : at + 40].rstrip(b"\0").decode() == loser
            struct.pack_into("<d", blob, at + ns_at, 1e9 if is_loser else 1e3)
            at += record
    del blob[at:]
    struct.pack_into("<I", blob, start + header - 4, count - 1)
    struct.pack_into("<I", blob, start + 12, zlib.crc32(blob[start + 16 :]))
    path.write_bytes(blob)

    *known, last = rows_of_a_load()
    assert [is_cached(row) for row in known] == [n > 0 for n in measured[:-1]]
    assert not is_cached(last)
    assert last["kernel"] != loser
    (again,) = (c for c in last["candidates"] if c["kernel"] == loser)
    assert again["measured_ns"] == 0
