"""Winograd's convolution, forced by $SPARSERT_FORMAT: right, chosen where it fits, and as exact."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from tests.suite import test_conv
from tests.suite.harness import (
    FUNCTION,
    ISAS_OF_FLOATS,
    SUM,
    Case,
    assert_close,
    op_text,
    random_weights,
    runs_on,
)
from tests.suite.random_graphs import random_case
from tests.suite.test_conv import conv

PADS = {"pads": [1, 1, 1, 1]}
PLANES = [
    *(
        conv(f"winograd_{h}x{w}", (1, 7, h, w), 9, (3, 3), **PADS)
        for h, w in ((2, 2), (2, 5), (3, 2), (7, 7), (13, 29), (14, 14), (5, 61), (37, 41))
    ),
    conv("winograd_valid", (1, 5, 9, 10), 6, (3, 3)),
    conv("winograd_one_output", (1, 5, 3, 3), 6, (3, 3)),
    conv("winograd_uneven_pads", (1, 5, 8, 9), 6, (3, 3), pads=[0, 1, 2, 0]),
    conv("winograd_wide_pads", (1, 5, 8, 9), 6, (3, 3), pads=[5, 4, 3, 7]),
    conv("winograd_one_channel", (2, 1, 12, 11), 1, (3, 3), **PADS),
    conv("winograd_no_zeros", (1, 64, 28, 28), 48, (3, 3), sparsity=0.0, **PADS),
    conv("winograd_deep", (1, 300, 7, 9), 150, (3, 3), sparsity=0.0, **PADS),
    *(conv(f"winograd_batch{n}", (n, 8, 7, 7), 12, (3, 3), **PADS) for n in (2, 3, 16)),
]
OTHERS = [
    *test_conv.weight_cases()[::3],
    *test_conv.group_cases()[::5],
    *test_conv.fusion_cases()[::2],
    *test_conv.window_cases(),
    *(random_case(seed) for seed in range(100, 106)),
]


def kernels(model: sparsert.Model) -> list[str]:
    return [row["kernel"] for row in model.explain().to_dict()["rows"]]


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSERT_FORMAT", "winograd")


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
def test_planes(isa: str, threads: int) -> None:
    for case in PLANES:
        model = sparsert.load(case.file, isa=isa, threads=threads)
        for feeds, wanted in case.runs:
            assert_close(model(*feeds.values()), wanted[0], case.tolerance, case.name)
        rows = [row for row in model.explain().to_dict()["rows"] if row["weights"]]
        assert [row["compute_format"] for row in rows] == ["winograd"], case.name
        assert rows[0]["kernel"].startswith("winograd_f32_")
        assert runs_on(rows[0]["kernel"], isa)
        assert rows[0]["reason"].startswith("forced by SPARSERT_FORMAT")
        # 16 values for each filter of 9, the last panel's rows filled up.
        assert rows[0]["packed_bytes"] * 9 >= rows[0]["weights"] * 4 * 16


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
def test_other_layers_keep_their_choice(isa: str) -> None:
    used = set()
    for case in OTHERS:
        model = sparsert.load(case.file, isa=isa, threads=1)
        for feeds, wanted in case.runs:
            for got, want in zip(model.run(None, feeds), wanted, strict=True):
                assert_close(got, want, case.tolerance, case.name)
        used.update(kernels(model))
    families = {kernel.split("_")[0] for kernel in used}
    assert {"winograd", "spmm", "dwconv"} <= families


@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
def test_candidate(isa: str) -> None:
    """A dense layer is measured both ways; one with few weights left does not use winograd."""
    for sparsity in (0.0, 0.97):
        case = conv("winograd_choice", (1, 64, 28, 28), 64, (3, 3), sparsity=sparsity, **PADS)
        for tune in (True, False):
            model = sparsert.load(case.file, isa=isa, threads=1, tune=tune)
            (row,) = (row for row in model.explain().to_dict()["rows"] if row["weights"])
            assert "winograd" in {c["format"] for c in row["candidates"]}
            if sparsity > 0:
                assert row["compute_format"] != "winograd"
            elif not tune and isa != "scalar":
                assert row["compute_format"] == "winograd"
                assert "dense" in row["reason"]


@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
def test_residual_in_place_and_activation(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    w = random_weights(40, 40, 3, 3)
    text = op_text("Conv", "p, w, b", **PADS)
    case = Case(
        "winograd_residual",
        ["p = Abs(x)", f"c = {text}", "s = Add(c, p)", "y = Sigmoid(s)"],
        {"x": (2, 40, 15, 17)},
        {"w": w, "b": random_weights(40, scale=1.0)},
        tolerance=FUNCTION,
    )
    monkeypatch.setenv("SPARSERT_FORMAT", "winograd")
    model = sparsert.load(case.file, isa=isa, threads=2)
    assert any(kernel.startswith("winograd") for kernel in kernels(model))
    for feeds, wanted in case.runs:
        assert_close(model(*feeds.values()), wanted[0], case.tolerance, case.name)


def exact(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution with padding 1 in float64."""
    n, _, height, width = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((n, w.shape[0], height, width))
    for i in range(3):
        for j in range(3):
            part = padded[:, :, i : i + height, j : j + width]
            y += np.einsum("nchw,mc->nmhw", part, w[:, :, i, j].astype(np.float64))
    return y


@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
def test_error_is_at_most_that_of_dense(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On non-negative activations, as a Relu leaves them, and on signed ones."""
    shape = (1, 128, 14, 14)
    w = random_weights(64, 128, 3, 3)
    case = Case(
        "winograd_error", [f"y = {op_text('Conv', 'x, w', **PADS)}"], {"x": shape}, {"w": w}
    )
    signed = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    for x in (signed, np.maximum(signed, 0)):
        want = exact(x, w)
        error = {}
        for form in ("dense", "winograd"):
            monkeypatch.setenv("SPARSERT_FORMAT", form)
            model = sparsert.load(case.file, isa=isa, threads=1)
            assert any(f"{form}_f32" in kernel for kernel in kernels(model))
            error[form] = float(np.abs(model(x) - want).max() / np.abs(want).max())
        assert 0 < error["winograd"] <= error["dense"]
        assert error["winograd"] < SUM.absolute
