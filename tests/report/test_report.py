"""sparsert.report: documents, the machine, storage tables, and races."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

import sparsert
from bench.models import build_model
from sparsert.modelfile import read
from sparsert.report import (
    Document,
    Effort,
    Entrant,
    describe_machine,
    encoding_table,
    race,
    race_table,
    serve,
    tensor_table,
)
from sparsert.report.race import Result, file_bytes, max_relative_error, save_arrays
from sparsert.report.worker import split_feeds
from sparsert.runtime.table import Table
from tests.suite.harness import build

SHORT = Effort(rounds=2, burst_seconds=0.01)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The small CNN at 90 % zeros, as ONNX and .sprt."""
    folder = tmp_path_factory.mktemp("models")
    model, _ = build_model("small_cnn", 0.9)
    onnx.save(model, folder / "m.onnx")
    sparsert.convert(folder / "m.onnx", folder / "m.sprt")
    return folder


def test_document(tmp_path):
    document = Document("Title")
    document.heading("Part")
    document.paragraph("one", "two")
    document.bullets(["a", "b"])
    document.command(["sparsert", "demo", "--output", "a b"])
    document.table(Table("T", ["x"], [(1,)]))
    document.write(tmp_path / "r.md")
    assert (tmp_path / "r.md").read_text() == (
        "# Title\n\n## Part\n\none\ntwo\n\n- a\n- b\n\n```sh\nsparsert demo --output 'a b'\n```\n\n"
        "**T**\n\n| x |\n|---|\n| 1 |\n"
    )


def test_machine(monkeypatch):
    monkeypatch.setenv("SPARSERT_ISA", "scalar")
    machine = describe_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert "scalar" in machine.isas
    assert machine.versions["sparsert"] == sparsert.__version__
    assert machine.to_dict()["forced_isa"] == "scalar"
    assert "SPARSERT_ISA=scalar" in machine.lines()[0]


def test_storage_tables_account_for_every_byte(files):
    content = read(files / "m.sprt")
    by_tensor = tensor_table(content, "t").to_dict()["rows"]
    by_encoding = encoding_table(content, "t").to_dict()["rows"]
    constants = [tensor for tensor in content.tensors if tensor.is_constant]
    assert [row["name"] for row in by_tensor] == [tensor.name for tensor in constants]
    for key in ("bytes", "elements", "stored_values"):
        assert sum(row[key] for row in by_tensor) == sum(row[key] for row in by_encoding)
    assert {row["encoding"] for row in by_encoding} == {"dense", "bitmask", "csr/u8"}
    assert sum(row["tensors"] for row in by_encoding) == len(constants)


def test_a_race(files):
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).standard_normal((1, 1, 28, 28), dtype=np.float32)
    turns = []
    entrants = [
        Entrant("ort", "onnxruntime", files / "m.onnx"),
        Entrant("ours", "sparsert", files / "m.sprt"),
        Entrant("scalar", "sparsert", files / "m.onnx", {"isa": "scalar"}),
        Entrant("broken", "sparsert", files / "none.sprt"),
    ]
    results = race(entrants, {"input": x}, effort=SHORT, on_turn=lambda: turns.append(1))
    assert len(turns) == len(entrants) * 3
    ort, ours, scalar, broken = results
    assert "No such file" in broken.error
    for result in (ours, scalar):
        assert not result.error
        assert result.error_against(ort) < 1e-4
        assert len(result.round_medians) == 2
        assert result.round_minima[0] <= result.round_medians[0]
        assert result.median > 0
        assert result.speedup_over(ort) > 0
        assert result.packed_bytes > 0
        assert "arena" in result.memory_note
    assert ours.file_bytes < ort.file_bytes / 5
    table = race_table("t", results, "ort")
    assert len(table.rows) == 4
    assert "broken, 1 thread(s): " in str(table)
    assert table.records[1]["speedup"] == ours.speedup_over(ort)


def test_a_race_over_pieces_checks_all_of_them(files):
    x = np.random.default_rng(0).standard_normal((3, 1, 28, 28), dtype=np.float32)
    # Without tuning both processes choose the same formats, and sum in the same order.
    entrants = [Entrant("ours", "sparsert", files / "m.sprt", {"tune": False})]
    (result,) = race(entrants, {"input": x}, chunk=1, effort=Effort(rounds=2, runs=7))
    model = sparsert.load(files / "m.sprt", threads=1, tune=False)
    expected = np.concatenate([model(x[i : i + 1]) for i in range(3)])
    np.testing.assert_array_equal(result.outputs[0], expected)
    assert len(result.seconds) == 8


def test_an_engine_s_end_of_a_race_needs_the_standard_library_alone():
    """bench/peers loads it by its path, where neither NumPy's version nor sparsert is ours."""
    subprocess.run([sys.executable, "-I", "-S", serve.__file__], check=True)


def test_split_feeds():
    pieces = split_feeds({"a": np.arange(5), "b": np.arange(10).reshape(5, 2)}, 2)
    assert [len(piece["a"]) for piece in pieces] == [2, 2, 1]
    np.testing.assert_array_equal(pieces[2]["b"], [[8, 9]])


def test_only_calm_rounds_of_a_race_count(monkeypatch):
    races = iter(
        [
            ([1.4] * 9 + [1.0], [0.9] * 9 + [0.5]),
            ([1.5] * 10, [0.1] * 10),
            ([1.1] * 4 + [1.6] * 6, [0.6, 0.5, 0.6, 0.1] + [0.1] * 6),
            ([1.5] * 5 + [1.05] * 5, [0.1] * 5 + [0.5] * 5),
            ([1.9] * 5 + [1.8] * 5, [0.7] * 5 + [0.6] * 5),
        ]
    )
    pauses = []

    def timed(*_arguments):
        return [
            Result(name, 1, seconds=list(minima), round_medians=minima, round_minima=list(minima))
            for name, minima in zip("ab", next(races), strict=True)
        ]

    module = sys.modules[Result.__module__]
    monkeypatch.setattr(module, "race", timed)
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    waits: list[float] = []
    calm = module.CalmRaces(patience=60.0, on_wait=waits.append)
    # Of the first race one round is calm, of the third three: the fourth's next turn was not.
    a, b = calm.race([], {})
    assert len(pauses) == 3
    assert len(waits) == 3
    assert waits == sorted(waits, reverse=True)
    assert waits[0] == 60.0
    assert sorted(a.round_minima) == [1.0, 1.05, 1.05, 1.05, 1.05, 1.05, 1.1, 1.1, 1.1]
    assert sorted(b.round_minima) == [0.5] * 7 + [0.6] * 2
    assert len(a.seconds) == 40
    assert calm.best == 1.0
    # Without patience, the calmest there are.
    a, b = module.CalmRaces(patience=0.0, best=1.0).race([], {})
    assert a.round_minima == [1.8] * 5
    assert b.undisturbed == 0.6
    assert len(pauses) == 3


def test_long_runs_make_fewer_rounds_where_that_is_asked_for():
    effort = Effort(rounds=100, burst_seconds=0.02, least_rounds=9)
    assert [effort.rounds_for(s) for s in (0.001, 0.02, 0.04, 5.0)] == [100, 100, 50, 9]
    assert Effort(rounds=9).rounds_for(5.0) == 9
    assert [effort.runs_for(s) for s in (0.001, 5.0)] == [20, 1]


def test_figures_of_a_result():
    a = Result("a", 1, seconds=[1.0, 2.0, 3.0], round_medians=[2.0, 2.0], round_minima=[1.0, 1.0])
    b = Result("b", 1, seconds=[4.0], round_medians=[4.0, 8.0], round_minima=[4.0, 6.0])
    assert a.median == 2.0
    assert a.spread == 1.0
    assert b.spread == 0.0
    assert a.speedup_over(b) == 3.0
    assert b.undisturbed == 5.0
    assert a.undisturbed_speedup_over(b) == 5.0
    assert a.to_dict()["median"] == 2.0


def test_max_relative_error():
    reference = np.array([1.0, -4.0], np.float32)
    assert max_relative_error(np.array([1.0, -4.4]), reference) == pytest.approx(0.1)
    assert max_relative_error(np.zeros(3), reference) == float("inf")
    assert max_relative_error(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0


def test_arrays_of_any_name_are_saved(tmp_path):
    arrays = {"file": np.arange(3), "a/b": np.ones((2, 2), np.float16)}
    save_arrays(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as loaded:
        assert set(loaded.files) == set(arrays)
        np.testing.assert_array_equal(loaded["a/b"], arrays["a/b"])


def test_file_bytes_counts_external_data(tmp_path):
    model = build(["y = MatMul(x, w)"], {"x": (1, 64)}, {"w": np.ones((64, 64), np.float32)})
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    total = sum(part.stat().st_size for part in tmp_path.iterdir())
    assert file_bytes(path) == total > 64 * 64 * 4
    assert file_bytes(tmp_path / "none.onnx") is None
