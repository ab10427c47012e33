"""Casts of floats to integers that do not hold them: all backends saturate, and NaN is 0."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import sparsert
from tests.suite.harness import build

INTEGERS = ("UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "UINT32", "UINT64")
FLOATS = {
    "FLOAT": [-1.5, -1, -0.5, 0.5, 254.5, 300.7, 7e4, -7e4, 3e9, -3e9, 1e20, -1e20],
    "FLOAT16": [-1.5, -0.5, 127.5, 128, -129, 255.5, 256, 40000, -40000, 65504],
}


@pytest.mark.parametrize("backend", ["native", "numpy", "numba"])
@pytest.mark.parametrize("to", INTEGERS)
@pytest.mark.parametrize("kind", FLOATS)
def test_floats_beyond_the_range(kind: str, to: str, backend: str) -> None:
    number = TensorProto.DataType.Value(to)
    source = TensorProto.DataType.Value(kind)
    model = sparsert.load(
        build([f"y = Cast<to = {number}>(x)"], {"x": (source, ["n"])}), backend=backend
    )
    dtype = helper.tensor_dtype_to_np_dtype(number)
    x = np.array([*FLOATS[kind], np.nan, np.inf, -np.inf], helper.tensor_dtype_to_np_dtype(source))
    info = np.iinfo(dtype)
    wanted = [max(info.min, min(info.max, int(v))) for v in x[:-3]] + [0, info.max, info.min]
    found = model(x)
    assert found.dtype == dtype
    assert found.tolist() == wanted


@pytest.mark.parametrize("backend", ["native", "numpy", "numba"])
def test_integers_keep_their_low_bits(backend: str) -> None:
    source = {"x": (TensorProto.INT64, ["n"])}
    model = sparsert.load(build(["y = Cast<to = 2>(x)"], source), backend=backend)
    assert model(np.array([-1, 300, 2**40 + 5])).tolist() == [255, 44, 5]
