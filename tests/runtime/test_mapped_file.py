"""A mapped .sprt file: what only planning reads does not stay in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsert
from tests.suite.harness import build

WORDS, WIDTH, HIDDEN = 20000, 256, 2048


def resident_bytes(path: Path) -> int:
    """Of this process's mappings of a file."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if "-" in fields[0] and not fields[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and fields[0] == "Rss:":
            total += int(fields[1]) * 1024
    return total


@pytest.fixture(name="path", scope="module")
def fixture_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 20 MB and a matrix of 2 MB, with half of it zeros."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((WIDTH, HIDDEN), dtype=np.float32)
    matrix[np.abs(matrix) < 0.67] = 0
    constants = {"words": rng.standard_normal((WORDS, WIDTH), dtype=np.float32), "matrix": matrix}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "ids"], ["x"]),
            helper.make_node("MatMul", ["x", "matrix"], ["y"]),
        ],
        "words",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", HIDDEN])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("mapped") / "words.sprt"
    sparsert.convert(model, path)
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_do_not_stay(path: Path) -> None:
    model = sparsert.load(path)
    assert path.stat().st_size > 4 * WORDS * WIDTH
    assert resident_bytes(path) < path.stat().st_size / 8
    model.run(None, {"ids": np.arange(40).reshape(1, 40)})
    # Neighbouring rows of the table, and whatever the system reads around them.
    assert resident_bytes(path) < path.stat().st_size / 4
    model.run(None, {"ids": np.linspace(0, WORDS - 1, 20).astype(np.int64).reshape(1, 20)})
    # Rows from all over it bring in as much as was written at a time.
    assert resident_bytes(path) < path.stat().st_size / 2


def test_results_are_those_of_the_bytes(path: Path) -> None:
    mapped, whole = sparsert.load(path), sparsert.load(path.read_bytes())
    rng = np.random.default_rng(1)
    for tokens in (1, 3, 40, 17):
        ids = rng.integers(0, WORDS, (2, tokens), np.int64)
        (got,), (want,) = (m.run(None, {"ids": ids}) for m in (mapped, whole))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def network(factor: float) -> onnx.ModelProto:
    weights = np.full((64, 64), factor, np.float32)
    return build(["y = MatMul(x, w)"], {"x": ["n", 64]}, {"w": weights})


def test_a_file_in_use_is_replaced_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "m.sprt"
    sparsert.convert(network(1), path)
    model = sparsert.load(path)
    one = np.ones((1, 64), np.float32)
    assert model(one)[0, 0] == 64
    sparsert.convert(network(2), path)
    assert model(one)[0, 0] == 64
    assert model(np.repeat(one, 5, 0))[4, 0] == 64
    model.save(path)
    assert model(np.repeat(one, 6, 0))[5, 0] == 64
    assert sparsert.load(path)(one)[0, 0] == 64


@pytest.mark.parametrize("backend", ["native", "numba", "numpy"])
def test_bytes_are_not_mapped(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "m.sprt"
    sparsert.convert(network(1), path)
    model = sparsert.load(path.read_bytes(), backend=backend)
    path.write_bytes(b"")
    assert model(np.ones((3, 64), np.float32))[2, 0] == 64
