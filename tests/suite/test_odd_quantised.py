"""Odd quantised graphs: every engine gives ONNX Runtime's numbers to one unit, or a clear error."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.errors import SparsertError, UnsupportedOpError
from tests.passes.quantised_checks import definition
from tests.suite.harness import ENGINES_OF_BYTES
from tests.suite.odd_quantised import OddGraph

_RELATIVE, _ABSOLUTE, _HALF = 1e-5, 2e-5, 2e-3
_BACKENDS = dict.fromkeys(dict(e.options).get("backend", "native") for e in ENGINES_OF_BYTES)
_LARGE = 1e36  # sums of such numbers may be infinite in one order and not in another


def check(seed: int) -> None:
    """Compares one graph on all engines; what it says of a failure has the seed."""
    random = OddGraph(seed)
    proto, feeds = random.model(), random.feeds()
    try:
        want = definition(proto, feeds)
    except Exception:  # onnxruntime's own: what it refuses may be refused
        want = None
    problems = []
    for engine, model in _models(proto):
        try:
            if isinstance(model, SparsertError):
                raise model
            got = model.run(None, feeds)
        except SparsertError as error:
            if want is not None:
                problems.append(f"seed {seed} on {engine}: refused: {error}")
            continue
        for output, found, wanted in zip(proto.graph.output, got, want or (), strict=False):
            what = f"seed {seed} on {engine}"
            problems += _differences(found, wanted, random.units[output.name], what)
    assert not problems, "\n".join(problems)


def _models(proto: onnx.ModelProto) -> Iterator[tuple[str, Any]]:
    """The model on each engine, or why it was refused; with a fallback on the best ones only."""
    try:
        exact = sparsert.load(proto, backend="numpy", strict=True)
    except UnsupportedOpError:
        for backend in _BACKENDS:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    yield f"{backend} with a fallback", sparsert.load(proto, backend=backend)
            except SparsertError as error:
                yield backend, error
        return
    except SparsertError as error:
        yield "every engine", error
        return
    file = bytes(exact._native_file())
    for engine in ENGINES_OF_BYTES:
        yield str(engine), exact if engine.name == "numpy" else _load(file, engine)


def _load(file: bytes, engine: Any) -> Any:
    try:
        return sparsert.load(file, **dict(engine.options))
    except SparsertError as error:
        return error


def _differences(got: Any, want: Any, unit: float, what: str) -> Iterator[str]:
    if want.dtype == np.uint8 and got.dtype.name.startswith("float8"):
        want = want.view(got.dtype)  # onnxruntime's arrays have no such type
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        yield f"{what}: {got.dtype} {got.shape}, expected {want.dtype} {want.shape}"
        return
    is_float = want.dtype.kind == "f"
    a, b = got.astype(np.float64), want.astype(np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        yield f"{what}: {np.isnan(a).sum()} NaN, expected {np.isnan(b).sum()}"
        return
    sizes = np.where(np.isfinite(b), np.abs(b), 0)
    with np.errstate(all="ignore"):
        room = 1.01 * unit + _RELATIVE * np.abs(b)
        if is_float:
            room = room + _ABSOLUTE * np.clip(sizes.max(initial=0), 1, _LARGE)
        if want.dtype == np.float16:
            room = room + _HALF * np.abs(b)
        is_close = (np.abs(a - b) <= room) | (a == b) | np.isnan(b)
        is_close |= is_float & (np.abs(a) > _LARGE) & (np.abs(b) > _LARGE)
    if not is_close.all():
        where = tuple(int(i[0]) for i in np.nonzero(~is_close))
        yield f"{what}: {got[where]} at {where}, expected {want[where]}; one unit is {unit:g}"


@pytest.mark.parametrize("seed", range(40))
def test_odd_quantised_graph(seed: int) -> None:
    check(seed)


@pytest.mark.fuzz
def test_more_odd_quantised_graphs() -> None:
    end = time.monotonic() + float(os.environ.get("SPARSERT_FUZZ_SECONDS", "1"))
    seed = 1000
    while time.monotonic() < end:
        check(seed)
        seed += 1
