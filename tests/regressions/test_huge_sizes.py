"""Small models whose constants ask for huge tensors took all memory while they were imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.errors import BackendError
from tests.passes.pass_checks import apply, build, node, weights

# Address space that an import may take beyond what the packages do.
_LIMITED = """
import resource, sys
import onnxruntime, onnxscript, sparsert
from sparsert.passes import canonicalise
from sparsert.importers import import_model
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
canonicalise(import_model(sys.argv[1]))
"""


def _imports(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save(proto, path / "m.onnx")
    command = [sys.executable, "-c", _LIMITED, str(path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("step", [-(2**40), 2**40])
def test_slice_of_huge_steps(step, tmp_path):
    bounds = {"s": [-3], "e": [-(2**62) if step < 0 else 2**62], "a": [0], "p": [step]}
    constants = {name: np.array(value, np.int64) for name, value in bounds.items()}
    proto = build([node("Slice", ["x", "s", "e", "a", "p"], ["y"])], {"x": (2,)}, ["y"], constants)
    _imports(proto, tmp_path)


_SOURCES = {
    "Range": (["zero", "n", "one"], {"zero": 0, "n": 2**34, "one": 1}),
    "ConstantOfShape": (["n"], {"n": [2**34]}),
    "HannWindow": (["n"], {"n": 2**34}),
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("op", list(_SOURCES))
def test_huge_constants(op, tmp_path):
    inputs, values = _SOURCES[op]
    nodes = [
        node(op, inputs, ["r"]),
        node("Cast", ["r"], ["f"], to=1),
        node("ReduceSum", ["f"], ["t"], keepdims=0),
        node("Add", ["x", "t"], ["y"]),
    ]
    constants = {name: np.array(value, np.int64) for name, value in values.items()}
    _imports(build(nodes, {"x": (2,)}, ["y"], constants), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_huge_eye(tmp_path):
    nodes = [
        node("ConstantOfShape", ["n"], ["r"]),
        node("EyeLike", ["r"], ["e"]),
        node("ReduceSum", ["e"], ["t"], keepdims=0),
        node("Add", ["x", "t"], ["y"]),
    ]
    constants = {"n": np.array([2**16, 2**16], np.int64)}
    _imports(build(nodes, {"x": (2,)}, ["y"], constants), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(("length", "kernel", "pads"), [(10**6, 501, 250), (2, 1, 2**30)])
def test_long_convolutions(length, kernel, pads, tmp_path):
    conv = node("Conv", ["x", "w"], ["y"], pads=[pads, pads])
    constants = {"w": np.ones((1, 1, kernel), np.float32)}
    _imports(build([conv], {"x": (1, 1, length)}, ["y"], constants), tmp_path)


def test_too_little_memory_names_the_model(monkeypatch):
    def fails(model):
        raise MemoryError("no room")

    monkeypatch.setattr("sparsert.passes.canonicalise", fails)
    proto = build([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    with pytest.raises(BackendError, match="ModelProto: not enough memory to import it: no room"):
        sparsert.load(proto)


def _live_taps(size, kernel, stride, dilation, begin, end):
    starts = np.arange(-begin, size + end - (kernel - 1) * dilation, stride)
    at = starts[:, None] + np.arange(kernel) * dilation
    taps = np.flatnonzero(np.any((at >= 0) & (at < size), axis=0))
    return int(taps[-1] - taps[0]) + 1 if taps.size else kernel


def test_taps_in_padding_are_found():
    """Against a search of all outputs."""
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 40:
        size, kernel, stride, dilation, begin, end = (
            int(rng.integers(low, high))
            for low, high in ((1, 9), (1, 8), (1, 4), (1, 5), (0, 12), (0, 12))
        )
        if size + begin + end < (kernel - 1) * dilation + 1:
            continue
        attributes = {"strides": [stride], "dilations": [dilation], "pads": [begin, end]}
        proto = build(
            [node("Conv", ["x", "w"], ["y"], **attributes)],
            {"x": (1, 1, size)},
            ["y"],
            {"w": weights(1, 1, kernel)},
        )
        (conv,) = apply(proto, "lower_convs").graph
        taps = _live_taps(size, kernel, stride, dilation, begin, end)
        kept = conv.inputs[1].shape[2]
        assert kept in (taps, kernel), attributes
        tried += kept < kernel
