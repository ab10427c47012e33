"""The Numba backend: formats, memory, threads, forks, the cache, and what it says of itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.errors import BackendError, LevelError
from tests.api.models import small_cnn, with_fallback
from tests.runtime.callers import expect_from_many_callers_and_a_fork
from tests.suite.harness import NETWORK, SUM, assert_close, build, i64, make_session, random_weights

pytest.importorskip("numba")


def image(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def small(**options: object) -> sparsert.Model:
    return sparsert.load(small_cnn(), backend="numba", **options)  # type: ignore[arg-type]


def want_of_small(x: np.ndarray) -> np.ndarray:
    return make_session(small_cnn()).run(None, {"x": x})[0]


def of_format(name: str, rows: int, columns: int) -> np.ndarray:
    """Weights whose zeros suit a format; the third to the sixth row are all zero."""
    rng = np.random.default_rng(rows * 1000 + columns)
    w = rng.standard_normal((rows, columns)).astype(np.float32)
    if name == "csr":
        w[rng.random(w.shape) < 0.9] = 0
    elif name == "bits":
        w[rng.random(w.shape) < 0.55] = 0
    elif name == "bsr4":
        keep = rng.random((-(-rows // 4), columns)) < 0.2
        w *= np.repeat(keep, 4, axis=0)[:rows]
    elif name == "1x8":
        keep = rng.random((rows, columns // 8)) < 0.2
        w *= np.repeat(keep, 8, axis=1)
    if name != "dense":
        w[2:6] = 0
    return w


@pytest.mark.parametrize("count", [1, 2, 37, 300])
@pytest.mark.parametrize("shape", [(1, 8), (7, 200), (61, 72), (530, 520)], ids=str)
@pytest.mark.parametrize("name", ["dense", "csr", "bits", "bsr4", "1x8"])
def test_products(name: str, shape: tuple[int, int], count: int) -> None:
    from sparsert.runtime import numba_layers, numba_weights
    from sparsert.runtime.numba_ops import Node
    from sparsert.runtime.numba_room import Crew, Room

    w, x = of_format(name, *shape), image(count, shape[1])
    packers = {
        "dense": lambda: numba_weights.pack_blocks(w, np.ones((-(-len(w) // 4), w.shape[1]), bool)),
        "csr": lambda: numba_weights.pack_csr(w),
        "bits": lambda: numba_weights.pack_bits(w),
        "bsr4": lambda: numba_weights.pack_blocks(w),
        "1x8": lambda: numba_weights.pack_wide(w, 8),
    }
    packed = packers[name]()
    assert packed.format in (name, "dense"), "an empty matrix of blocks is as good as dense"
    bias, residual = image(shape[0]), image(count, shape[0])
    node = Node("Linear", {"act": "relu"}, [None, w, bias, None], [None] * 4, 1)
    step = numba_layers.Linear(node, w, packed)
    (y,) = step.run([x, residual], Room(Crew(2)))
    want = np.maximum(x.astype("d") @ w.T.astype("d") + bias + residual, 0)
    assert_close(y, want.astype("f"), SUM, packed.format)


@pytest.mark.parametrize("name", ["dense", "csr", "bsr4"])
def test_formats_are_chosen_by_the_zeros(name: str) -> None:
    proto = build(["y = Gemm<transB=1>(x, w)"], {"x": (3, 96)}, {"w": of_format(name, 64, 96)})
    (row,) = sparsert.load(proto, backend="numba").explain().to_dict()["rows"]
    assert (row["compute_format"], row["kernel"].split("_")[1]) == (name, name)
    assert row["nonzeros"] == np.count_nonzero(of_format(name, 64, 96))
    assert "%" in row["reason"]


def test_outputs_and_feeds_are_left_alone() -> None:
    model = small()
    frozen = image(2, 3, 12, 12)
    frozen.flags.writeable = False
    first = model(frozen)
    before = first.copy()
    wide = image(2, 3, 9, 22)[:, :, :, ::2]
    assert_close(model(wide), want_of_small(np.ascontiguousarray(wide)), NETWORK)
    for n in (1, 4):
        x = image(n, 3, 7, 30)
        assert_close(model(x), want_of_small(x), NETWORK)
    assert first.tobytes() == before.tobytes()
    assert_close(first, want_of_small(frozen), NETWORK)


def test_threads_forks_and_pickles() -> None:
    model = small(threads=2)
    x = image(2, 3, 130, 130)  # enough work for threads
    want = model(x).tobytes()
    expect_from_many_callers_and_a_fork(model, x, want, runs=10)
    copy = pickle.loads(pickle.dumps(model))
    assert type(copy._backend) is type(model._backend)
    assert copy(x).tobytes() == want


def test_tables() -> None:
    model = small()
    model(image(1, 3, 8, 8))
    table = model.explain()
    assert "in Numba's kernels" in str(table)
    kernels = {row["name"]: row["kernel"] for row in table.to_dict()["rows"]}
    assert any(kernel.startswith("conv_") for kernel in kernels.values())
    assert "numpy" in kernels.values()
    rows = model.profile(image(1, 3, 8, 8), runs=2).to_dict()["rows"]
    assert [row["name"] for row in rows] == list(kernels)
    assert all(row["time_ns"] > 0 for row in rows)


def test_what_only_numpy_runs() -> None:
    x = image(2, 3, 8, 8)
    model = sparsert.load(with_fallback(), backend="numba")
    want = make_session(with_fallback()).run(None, {"x": x})[0]
    assert_close(model(x), want, NETWORK)
    reasons = [r["reason"] for r in model.explain().to_dict()["rows"] if r["kernel"] == "numpy"]
    assert any("Shrink" in reason for reason in reasons)


def test_bad_options_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="NUMBA_CPU_NAME"):
        small(isa="avx2")
    file = bytes(small()._native_file())
    with pytest.raises(LevelError):
        sparsert.load(file, backend="numba", level="fast")
    window = build(["y = Conv(x, w)"], {"x": (1, 1, "n", 5)}, {"w": random_weights(1, 1, 3, 3)})
    with pytest.raises(BackendError, match=r"Conv_0.*does not fit"):
        sparsert.load(window, backend="numba")(image(1, 1, 1, 5))
    monkeypatch.setitem(sys.modules, "sparsert.runtime.numba_layers", None)
    with pytest.raises(BackendError, match=r"sparsert\[numba\]"):
        small()


@pytest.mark.parametrize("backend", ["capi", "numba", "numpy"])
def test_without_the_extension(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = image(1, 3, 9, 9)
    monkeypatch.setitem(sys.modules, "sparsert.runtime._core", None)
    if backend != "capi":
        monkeypatch.setitem(sys.modules, "sparsert.capi", None)
    if backend == "numpy":
        monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.warns(UserWarning, match=f'backend="{backend}" runs the model'):
        model = sparsert.load(small_cnn())
    assert model._options["backend"] == backend
    assert_close(model(x), want_of_small(x), NETWORK)


def sparse_cnn() -> onnx.ModelProto:
    """Convolutions and a linear layer that all run as csr: few kernels to compile."""
    return build(
        [
            "a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1)",
            "b = Relu(a)",
            "c = Conv(b, w2)",
            "d = ReduceMax<keepdims=0>(c, axes)",
            "y = Gemm<transB=1>(d, w3)",
        ],
        {"x": ["n", 3, 9, 41]},
        {
            "w1": random_weights(24, 3, 3, 3, sparsity=0.9),
            "w2": random_weights(40, 24, 1, 1, sparsity=0.9),
            "w3": random_weights(10, 40, sparsity=0.9),
            "axes": i64(2, 3),
        },
    )


PROCESS = """
import numpy as np, sparsert
from sparsert.kernels import rows
from sparsert.kernels.lanes import LANES
from tests.runtime.test_numba_backend import image, sparse_cnn
from tests.runtime.callers import expect_from_many_callers_and_a_fork
from tests.suite.harness import NETWORK, assert_close, make_session
for n in (1, 3):
    x = image(n, 3, 9, 41)
    y = sparsert.load(sparse_cnn(), backend="numba", threads=1)(x)
    assert_close(y, make_session(sparse_cnn()).run(None, {"x": x})[0], NETWORK)
stats = rows.rows_csr.stats
print(LANES, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def in_process(**environment: str) -> list[int]:
    """Runs a network in a new process; (floats in a vector, kernels from the cache, compiled)."""
    command = [sys.executable, "-c", PROCESS]
    result = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


def test_kernels_are_compiled_once() -> None:
    for n in (1, 3):
        sparsert.load(sparse_cnn(), backend="numba", threads=1)(image(n, 3, 9, 41))
    _, hits, misses = in_process()
    assert hits > 0 and misses == 0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names of x86 processors")
def test_narrow_vectors() -> None:
    found = in_process(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx,+avx2,+fma")
    assert found[0] == 8
