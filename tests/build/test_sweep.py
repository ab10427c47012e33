"""bench.sweep and the tables of kernels behind bench/kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import sweep
from bench.kernels.rows import Row, describe, kernel_rows
from bench.kernels.test_depthwise_layers import picked_shapes
from bench.peers.race import Result
from bench.peers.report import summarise


def arguments(text: str) -> list[sweep.Heat]:
    return sweep.plan_heats(sweep.parse_arguments(text.split()))


def test_heats_are_distinct_and_have_no_pattern_without_zeros() -> None:
    heats = arguments(
        "vgg16 --sparsity 0 0.9 --pattern 4x1 unstructured --batch 1 16 --threads 1 2"
    )
    expected = [(0, "unstructured", 1, 1), (0.9, "4x1", 1, 1), (0.9, "unstructured", 1, 1)]
    expected += [(0.9, "unstructured", 1, 2), (0.9, "unstructured", 16, 1)]
    assert [(h.sparsity, h.pattern, h.batch, h.threads) for h in heats] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alexnet", "got alexnet"),
        ("", "got none"),
        ("vgg16 --rounds 3", "at least 7"),
        ("vgg16 --sparsity 90", "less than 1"),
    ],
)
def test_bad_arguments(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sweep.parse_arguments(text.split())
    assert message in capsys.readouterr().err


def made_up(engine: str, ms: float, batch: int = 1, error: float = 0.0) -> Result:
    seconds = [ms / 1e3] * 7
    return Result(
        *("m", 0.9, 1, batch, engine, "1.0"),
        seconds=seconds,
        round_medians=seconds,
        max_error=error,
        file_bytes=100,
    )


def test_the_faster_dense_engine_counts() -> None:
    results = [made_up("onnxruntime", 10), made_up("openvino", 8), made_up("sparsert", 2)]
    results += [made_up("onnxruntime", 60, 8), made_up("sparsert", 12, 8)]
    records = sweep.pair_up(summarise(results))
    sweep.add_scaling(records)
    first, second = records
    assert (first["dense_engine"], first["speedup"]) == ("openvino", pytest.approx(4))
    assert first["ideal"] == pytest.approx(10)
    assert first["per_image"] == 1
    assert second["speedup"] == pytest.approx(5)
    assert second["per_image"] == pytest.approx(12 / 8 / 2)
    assert "| 90% | unstructured | 1 | 1 | openvino | 8.000 | 2.000 |" in (
        sweep.sweep_table("m", records).to_markdown()
    )


def test_wrong_outputs_and_failures_stop_the_sweep() -> None:
    rows = summarise([made_up("onnxruntime", 10), made_up("sparsert", 2, error=0.5)])
    with pytest.raises(RuntimeError, match=r"sparsert on m: error 5\.0e-01"):
        sweep.pair_up(rows)
    rows[1].update(error="no such file", max_error=None)
    with pytest.raises(RuntimeError, match="no such file"):
        sweep.pair_up(rows)


def test_short_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("matplotlib")
    sweep.main(["--short", "--burst", "0.01", "--out", str(tmp_path)])
    printed = capsys.readouterr()
    assert "4/4: small_cnn, 90% zeros, unstructured, batch 4" in printed.err
    report = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert len(report["results"]) == 4
    for record in report["results"]:
        assert record["speedup"] > 0
        assert record["max_error"] < 1e-4
        assert record["arena_bytes"] > 0
    dense, sparse = report["results"][:2]
    assert sparse["sprt_bytes"] < 0.3 * dense["sprt_bytes"]
    assert (tmp_path / "sweep-small_cnn.png").read_bytes().startswith(b"\x89PNG")
    assert "![small_cnn: speed over zeros]" in (tmp_path / "sweep.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("op", ["spmm", "spmv", "dwconv", "rowconv", "winograd"])
def test_every_row_of_a_table_is_read(op: str) -> None:
    rows = kernel_rows(op)
    table = Path(__file__).parents[2] / "csrc" / "kernels" / op / "kernels.inc"
    lines = table.read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(set(rows)) == sum(line.startswith("SRT_") for line in lines)
    isas = {"scalar", "avx2", "avx512", "neon"} | ({"amx"} if op == "spmm" else set())
    assert {row.isa for row in rows} == isas
    assert Row("winograd" if op == "winograd" else "dense", "scalar") in rows


def test_depthwise_benchmarks_have_both_windows_and_strides() -> None:
    shapes = picked_shapes()
    assert {(s.kernel, s.stride) for s in shapes} == {(3, 1), (3, 2), (5, 1), (5, 2)}
    assert len({describe(s) for s in shapes}) == len(shapes)
