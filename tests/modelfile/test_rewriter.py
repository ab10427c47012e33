"""replace_weights: the same file with other weights, as large as a real conversion."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.formats import F32
from sparsert.modelfile import read, replace_weights
from tests.suite.harness import build, random_weights


@functools.cache
def model(sparsity: float = 0.0) -> onnx.ModelProto:
    """Weights of two kinds, a bias, a shape and a constant that is no weight."""
    return build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, w1, b1)",
            "b = Relu(a)",
            "c = Mul(b, table)",
            "d = ConvTranspose<strides=[2,2]>(c, w2)",
            "e = GlobalAveragePool(d)",
            "f = Reshape(e, shape)",
            "y = Gemm<transB=1>(f, w3)",
        ],
        {"x": ["n", 3, 8, 8]},
        {
            "w1": random_weights(16, 3, 3, 3, sparsity=sparsity),
            "b1": random_weights(16, scale=1.0),
            "table": random_weights(16, 8, 8, sparsity=0.9),
            "w2": random_weights(16, 24, 2, 2, sparsity=sparsity, seed=1),
            "shape": np.array([0, 24], np.int64),
            "w3": random_weights(40, 24, sparsity=sparsity, seed=2),
        },
    )


def convert(source, tmp_path, weights: str = "f32") -> bytes:
    sparsert.convert(source, tmp_path / "m.sprt", weights=weights)
    return (tmp_path / "m.sprt").read_bytes()


@pytest.mark.parametrize("weights", ["f32", "f16"])
@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.95])
def test_the_file_is_that_of_a_conversion(tmp_path, sparsity, weights):
    dense = convert(model(), tmp_path)
    wanted = convert(model(sparsity), tmp_path, weights)
    content = read(dense)
    values = {
        t.name: t.decode()
        for t in read(convert(model(sparsity), tmp_path)).tensors
        if t.data is not None
    }
    arrays = {
        i: values[t.name] for i, t in enumerate(content.tensors) if t.name in ("w1", "w2", "w3")
    }
    assert len(arrays) == 3
    found = b"".join(replace_weights(dense, content, arrays, weights))
    assert found == wanted


def test_nothing_replaced_is_the_same_file(tmp_path):
    for weights in ("f32", "f16"):
        file = convert(model(0.5), tmp_path, weights)
        assert b"".join(replace_weights(file, read(file), {}, weights)) == file


def test_weights_change_their_dtype_both_ways(tmp_path):
    f32, f16 = (convert(model(0.5), tmp_path, weights) for weights in ("f32", "f16"))
    assert b"".join(replace_weights(f32, read(f32), {}, "f16")) == f16
    widened = read(b"".join(replace_weights(f16, read(f16), {}, "f32")))
    for tensor in widened.tensors:
        if tensor.data is not None and tensor.name.startswith("w"):
            assert tensor.value_dtype == F32
    assert widened.file_bytes == len(f32)


def test_metadata_stays(tmp_path):
    sparsert.convert(model(), tmp_path / "m.sprt", metadata={"by": "test"})
    file = (tmp_path / "m.sprt").read_bytes()
    content = read(file)
    index = next(i for i, t in enumerate(content.tensors) if t.name == "w1")
    array = np.zeros((16, 3, 3, 3), np.float32)
    found = b"".join(replace_weights(file, content, {index: array}))
    assert len(found) < len(file)
    assert read(found).metadata == {"by": "test"}
    x = np.ones((1, 3, 8, 8), np.float32)
    changed = sparsert.load(found, threads=1)(x)
    assert np.isfinite(changed).all()
    assert (changed != sparsert.load(file, threads=1)(x)).any()
