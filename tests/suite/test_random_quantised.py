"""Random quantised graphs: every engine gives the interpreter's bytes, and ONNX's to few units."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import sparsert
from sparsert.modelfile.lower_node import PACKED_OPS
from tests.passes.quantised_checks import definition
from tests.suite.harness import ENGINES_OF_BYTES
from tests.suite.random_quantised import QuantisedGraph

# Each layer may be one unit off where a value lies in the middle; later layers hand it on.
_MOST_UNITS, _MOST_OFTEN = 4, 0.25
# Operators that compute no floats, and so the same on all instruction sets.
_EXACT = {*PACKED_OPS, "Concat", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "MaxPool"}


def check(seed: int) -> None:
    """Compares one graph; what it says of a failure has the seed."""
    random = QuantisedGraph(seed)
    proto, feeds = random.model(), random.feeds()
    (want,) = definition(proto, feeds)
    exact = sparsert.load(proto, backend="numpy", strict=True)
    file = bytes(exact._native_file())
    (bytes_of_interpreter,) = exact.run(None, feeds)
    assert bytes_of_interpreter.dtype == want.dtype
    _assert_units(bytes_of_interpreter, want, random.unit, f"seed {seed}: the interpreter")
    for engine in ENGINES_OF_BYTES:
        if engine.name == "numpy":
            continue
        model = sparsert.load(file, **dict(engine.options))
        (got,) = model.run(None, feeds)
        what = f"seed {seed} on {engine}"
        if {row["op"] for row in model.explain().to_dict()["rows"]} <= _EXACT:
            np.testing.assert_array_equal(got, bytes_of_interpreter, err_msg=what)
        else:
            _assert_units(got, bytes_of_interpreter, random.unit, what)


def _assert_units(got: np.ndarray, want: np.ndarray, unit: float, what: str) -> None:
    assert got.shape == want.shape, what
    units = np.rint(np.abs(got.astype(np.float64) - want.astype(np.float64)) / unit)
    assert units.max(initial=0) <= _MOST_UNITS, f"{what}: {units.max()} units off"
    assert (units > 0).mean() <= _MOST_OFTEN, f"{what}: {(units > 0).mean():.0%} differ"


@pytest.mark.parametrize("seed", range(24))
def test_random_quantised_graph(seed: int) -> None:
    check(seed)


@pytest.mark.fuzz
def test_more_random_quantised_graphs() -> None:
    end = time.monotonic() + float(os.environ.get("SPARSERT_FUZZ_SECONDS", "1"))
    seed = 1000
    while time.monotonic() < end:
        check(seed)
        seed += 1
