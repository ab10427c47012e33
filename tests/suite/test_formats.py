"""Convolutions and linear layers with every compute format forced by $SPARSERT_FORMAT."""

from __future__ import annotations

import pytest

import sparsert
from tests.suite import test_conv, test_linear
from tests.suite.harness import ISAS, ISAS_OF_FLOATS, Case, assert_close, runs_on
from tests.suite.random_graphs import random_case

FORMATS = ("dense", "csr", "pat4", "bsr4", "bsr8", "dense8", "csr2", "csr4")
VECTOR_FORMATS = ("sell", "bits", "bsr4", "bsr8", "bsr16", "perm")  # of single vectors
CASES = [
    *test_conv.weight_cases()[::3],
    *test_conv.group_cases()[::5],
    *test_conv.fusion_cases()[::7],
    *test_conv.window_cases()[::4],
    *test_conv.extent_cases()[::5],
    *test_linear.shape_cases()[::4],
    *test_linear.fusion_cases()[::3],
    *(random_case(seed) for seed in range(100, 110)),
]
VECTOR_CASES = [*test_linear.shape_cases()[::6], *test_linear.fusion_cases()[::6]]


FORMATS_OF_AMX = ("dense16", "bits16")
FORCED = [(forced, isa) for forced in FORMATS for isa in ISAS_OF_FLOATS]
FORCED += [(forced, "amx") for forced in FORMATS_OF_AMX if "amx" in ISAS]


@pytest.mark.parametrize(("forced", "isa"), FORCED)
def test_forced_format(forced: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSERT_FORMAT", forced)
    used = set()
    for case in CASES:
        model = sparsert.load(case.file, isa=isa, threads=1)
        for feeds, wanted in case.runs:
            for got, want in zip(model.run(None, feeds), wanted, strict=True):
                assert_close(got, want, case.tolerance, case.name)
        rows = model.explain().to_dict()["rows"]
        used.update(row["kernel"] for row in rows if row["kernel"].startswith("spmm"))
    assert used
    assert all(kernel.startswith(f"spmm_{forced}_f32_") for kernel in used), used
    assert all(runs_on(kernel, isa) for kernel in used), used


@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
@pytest.mark.parametrize("forced", VECTOR_FORMATS)
def test_forced_format_of_vectors(forced: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if forced == "perm" and isa != "avx512":
        pytest.skip("perm is of AVX-512 alone")
    monkeypatch.setenv("SPARSERT_FORMAT", forced)
    used = set()
    for case in VECTOR_CASES:
        model = sparsert.load(case.file, isa=isa, threads=1)
        for feeds, wanted in case.runs:
            for got, want in zip(model.run(None, feeds), wanted, strict=True):
                assert_close(got, want, case.tolerance, case.name)
            rows = (row for row in model.explain().to_dict()["rows"] if row["weights"])
            used.update((row["kernel"], row["reason"].split(" at ")[0]) for row in rows)
    vectors = {kernel for kernel, _ in used if kernel.startswith("spmv")}
    assert vectors
    assert all(kernel.startswith(f"spmv_{forced}_f32_") for kernel in vectors), used
    assert all(runs_on(kernel, isa) for kernel in vectors), used
    assert {why for kernel, why in used if kernel in vectors} == {"forced by SPARSERT_FORMAT"}


@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
@pytest.mark.parametrize("forced", ["any4", "dense16", "bits16", "perm"])
def test_a_format_that_a_layer_does_not_have(
    forced: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner chooses then, and explain() says so."""
    monkeypatch.setenv("SPARSERT_FORMAT", forced)
    case = test_conv.weight_cases()[0]
    model = sparsert.load(case.file, isa=isa, threads=1)
    for feeds, wanted in case.runs:
        for got, want in zip(model.run(None, feeds), wanted, strict=True):
            assert_close(got, want, case.tolerance, case.name)
    (row,) = [row for row in model.explain().to_dict()["rows"] if row["weights"]]
    assert row["compute_format"] != forced
    assert f"SPARSERT_FORMAT={forced} is no format of this layer here" in row["reason"]
    assert not row["reason"].startswith("forced")


def test_unknown_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSERT_FORMAT", "ellpack")
    case = next(case for case in CASES if isinstance(case, Case))
    with pytest.raises(sparsert.errors.SparsertError, match="ellpack"):
        sparsert.load(case.file)
