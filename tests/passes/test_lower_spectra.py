"""lower_spectra: DFT and STFT against NumPy's transforms."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from sparsert.passes import native_report
from sparsert.runtime.numpy_backend import NumpyBackend
from tests.passes.pass_checks import apply, build, node, ops


def compare(proto, model, feeds):
    (wanted,) = ReferenceEvaluator(proto).run(None, feeds)
    found = NumpyBackend(model).run(feeds)["y"]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("axis", [1, 2, -2])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("length", [None, 4, 7, 9, 16])
@pytest.mark.parametrize("kind", ["forward", "onesided", "inverse"])
def test_dft(axis, parts, length, kind):
    if kind == "onesided" and parts == 2:
        pytest.skip("one side is of real signals")
    attributes = {"forward": {}, "onesided": {"onesided": 1}, "inverse": {"inverse": 1}}[kind]
    constants = {"a": np.array(axis)}
    if length is not None:
        constants["l"] = np.array(length)
    proto = build(
        [node("DFT", ["x", "l" if length else "", "a"], ["y"], **attributes)],
        {"x": (2, 9, 7, parts)},
        ["y"],
        constants,
    )
    model = apply(proto)
    assert native_report(model) == []
    x = np.random.default_rng(1).standard_normal((2, 9, 7, parts)).astype(np.float32)
    compare(proto, model, {"x": x})


@pytest.mark.parametrize("length", [None, 7, 8, 12])
def test_inverse_of_one_side(length):
    constants = {"a": np.array(1)}
    if length is not None:
        constants["l"] = np.array(length)
    proto = build(
        [node("DFT", ["x", "l" if length else "", "a"], ["y"], inverse=1, onesided=1)],
        {"x": (3, 5, 2)},
        ["y"],
        constants,
    )
    model = apply(proto)
    assert native_report(model) == []
    x = np.random.default_rng(2).standard_normal((3, 5, 2)).astype(np.float32)
    compare(proto, model, {"x": x})


@pytest.mark.parametrize("windowed", [True, False])
@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("batch", [2, "n"])
def test_stft(windowed, onesided, batch):
    """As a convolution whose stride is the step."""
    constants = {"s": np.array(5), "l": np.array(16)}
    if windowed:
        constants["w"] = np.hanning(16).astype(np.float32)
    proto = build(
        [node("STFT", ["x", "s", "w" if windowed else "", "l"], ["y"], onesided=onesided)],
        {"x": (batch, 64, 1)},
        ["y"],
        constants,
    )
    model = apply(proto)
    assert native_report(model) == []
    assert "sparsert.Conv" in ops(model)
    x = np.random.default_rng(3).standard_normal((2, 64, 1)).astype(np.float32)
    frames = 1 + (64 - 16) // 5
    window = constants.get("w", np.ones(16, np.float32))
    cut = np.stack([x[:, 5 * f : 5 * f + 16, 0] * window for f in range(frames)], axis=1)
    bins = np.fft.rfft(cut) if onesided else np.fft.fft(cut)
    wanted = np.stack([bins.real, bins.imag], axis=-1)
    found = NumpyBackend(model).run({"x": x})["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_is_left_alone():
    """Lengths that a run gives, and complex signals."""
    proto = build([node("DFT", ["x"], ["y"])], {"x": (2, "n", 1)}, ["y"])
    assert len(native_report(apply(proto))) == 1
    proto = build(
        [node("STFT", ["x", "s", "", "l"], ["y"])],
        {"x": (2, 32, 2)},
        ["y"],
        {"s": np.array(4), "l": np.array(8)},
    )
    assert len(native_report(apply(proto))) == 1
