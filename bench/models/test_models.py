"""Whole networks through sparsert on every instruction set, next to dense ONNX Runtime.

`make bench` runs it; --benchmark-json=FILE keeps the numbers. Threads: SPARSERT_BENCH_THREADS (1).
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bench.models import ENCODERS, LINEAR, MODELS, build_model, make_feeds

sparsert = pytest.importorskip("sparsert")
ort = pytest.importorskip("onnxruntime")

THREADS = int(os.environ.get("SPARSERT_BENCH_THREADS", "1"))
ISAS = ["scalar", "avx2", "avx512", "neon"]
SPARSITIES = [0.0, 0.9]
# The scalar kernels are there to be right; these networks would take minutes.
TOO_LONG_FOR_SCALAR = {"resnet50", "vgg16", "bert_base_128"}
NAMES = [*MODELS, *LINEAR, *ENCODERS]


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes the ONNX file of a model; one at a time is kept, for VGG-16 takes 553 MB."""
    folder = tmp_path_factory.mktemp("models")

    path = folder / "model.onnx"
    there: list[tuple[str, float]] = []

    def get(name: str, sparsity: float) -> Path:
        if there != [(name, sparsity)]:
            onnx.save(build_model(name, sparsity)[0], path)
            there[:] = [(name, sparsity)]
        return path

    return get


def reference_session(path: Path) -> Any:
    """ONNX Runtime with as many threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


CASES = list(itertools.product(NAMES, SPARSITIES, ["onnxruntime", *ISAS]))


@pytest.mark.parametrize(
    ("name", "sparsity", "engine"), CASES, ids=[f"{n}-{s:.0%}-{e}" for n, s, e in CASES]
)
def test_model(name: str, sparsity: float, engine: str, onnx_file: Any, benchmark: Any) -> None:
    if engine == "scalar" and name in TOO_LONG_FOR_SCALAR:
        pytest.skip("too long with scalar kernels")
    path, feeds = onnx_file(name, sparsity), make_feeds(name)
    model = reference = reference_session(path)
    if engine != "onnxruntime":
        try:
            model = sparsert.load(path, threads=THREADS, isa=engine)
        except sparsert.errors.BackendError as error:
            pytest.skip(str(error))
        wanted = reference.run(None, feeds)
        for y, expected in zip(model.run(None, feeds), wanted, strict=True):
            assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()
    benchmark.group = f"{name} {sparsity:.0%} zeros, {THREADS} thread(s)"
    benchmark.extra_info.update(engine=engine, threads=THREADS, sparsity=sparsity)
    benchmark.pedantic(model.run, (None, feeds), rounds=9, warmup_rounds=2)
