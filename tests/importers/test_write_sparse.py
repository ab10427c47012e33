"""convert to ONNX: sparse initializers, which onnx and onnxruntime read, and a smaller file."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import sparsert
from sparsert.errors import ModelFormatError
from tests.passes import pass_checks
from tests.passes.pass_checks import node, weights
from tests.suite.harness import make_session


def build(*args: Any) -> onnx.ModelProto:
    """With the shapes of the outputs, which the checker wants."""
    return onnx.shape_inference.infer_shapes(pass_checks.build(*args), data_prop=True)


def pruned_cnn() -> onnx.ModelProto:
    """Weights of all densities: 10 % and 90 % zeros, and nothing but zeros."""
    return build(
        [
            node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
            node("Relu", ["a"], ["b"]),
            node("GlobalAveragePool", ["b"], ["c"]),
            node("Flatten", ["c"], ["d"]),
            node("Gemm", ["d", "fc", "fb"], ["e"], transB=1),
            node("MatMul", ["e", "dense"], ["f"]),
            node("Add", ["f", "nothing"], ["y"]),
        ],
        {"x": ("N", 16, "H", "W")},
        ["y"],
        {
            "w": weights(32, 16, 3, 3, sparsity=0.9),
            "fc": weights(70, 32, sparsity=0.9),
            "fb": weights(70, sparsity=0.1),
            "dense": weights(70, 80, sparsity=0.1),
            "nothing": np.zeros(80, np.float32),
        },
        17,
    )


X = np.random.default_rng(0).standard_normal((2, 16, 9, 7)).astype(np.float32)


def written(tmp_path, src, **options) -> onnx.ModelProto:
    path = tmp_path / "sparse.onnx"
    sparsert.convert(src, path, **options)
    onnx.checker.check_model(path)
    return onnx.load(path)


def test_initializers_are_sparse_where_that_is_smaller(tmp_path):
    proto = pruned_cnn()
    before = proto.SerializeToString()
    found = written(tmp_path, proto)
    assert proto.SerializeToString() == before
    assert [s.values.name for s in found.graph.sparse_initializer] == ["w", "fc", "nothing"]
    assert [t.name for t in found.graph.initializer] == ["fb", "dense"]
    assert list(found.graph.node) == list(proto.graph.node)
    # A value takes four bytes, its place two or less; the tensors at 90 % are most of the file.
    wanted = proto.ByteSize() - 0.8 * 4 * (32 * 16 * 9 + 70 * 32)
    assert found.ByteSize() < wanted
    want = make_session(proto).run(None, {"x": X})[0]
    np.testing.assert_array_equal(make_session(found).run(None, {"x": X})[0], want)
    for source in (found, found.SerializeToString(), tmp_path / "sparse.onnx"):
        np.testing.assert_allclose(sparsert.load(source, strict=True)(X), want, 1e-5, 1e-5)
    # Written once more, it stays as it is.
    assert written(tmp_path, found).graph == found.graph


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int32, np.uint8, np.int64])
def test_every_type_comes_back(tmp_path, dtype):
    rng = np.random.default_rng(1)
    array = (rng.integers(1, 100, (40, 50)) * (rng.random((40, 50)) < 0.05)).astype(dtype)
    if array.dtype.kind == "f":
        array[3, 7], array[39, 49] = np.nan, -0.0
    name = helper.np_dtype_to_tensor_dtype(array.dtype)
    proto = build([node("Identity", ["w"], ["y"])], {}, ["y"], {"w": array}, 17, name)
    found = written(tmp_path, proto)
    assert len(found.graph.sparse_initializer) == 1
    back = sparsert.importers.import_model(found).graph.initializers["w"].const_value.numpy()
    assert back.tobytes() == array.tobytes()
    assert make_session(found).run(None, {})[0].tobytes() == array.tobytes()


def test_inputs_with_defaults_and_small_tensors_stay_dense(tmp_path):
    proto = build(
        [node("Add", ["x", "small"], ["a"]), node("Add", ["a", "w"], ["y"])],
        {"x": (100,), "w": (100,)},
        ["y"],
        {"w": np.zeros(100, np.float32), "small": np.zeros(1, np.float32)},
        17,
    )
    assert not written(tmp_path, proto).graph.sparse_initializer


def test_an_old_file_gets_a_version_that_has_sparse_initializers(tmp_path):
    proto = pruned_cnn()
    proto.ir_version = 4
    assert written(tmp_path, proto).ir_version == 5


def test_external_data_and_torch(tmp_path):
    external = tmp_path / "external.onnx"
    onnx.save(pruned_cnn(), external, save_as_external_data=True, location="w.bin")
    found = written(tmp_path, external)
    np.testing.assert_array_equal(
        make_session(found).run(None, {"x": X})[0],
        make_session(pruned_cnn()).run(None, {"x": X})[0],
    )
    layer = torch.nn.Linear(60, 50)
    with torch.no_grad():
        layer.weight *= torch.rand(50, 60) < 0.1
    found = written(tmp_path, layer, example_inputs=torch.zeros(1, 60))
    assert [tuple(s.dims) for s in found.graph.sparse_initializer] == [(50, 60)]


def test_metadata(tmp_path):
    found = written(tmp_path, pruned_cnn(), metadata={"by": "test", "sparsity": [0.9]})
    props = {p.key: p.value for p in found.metadata_props}
    assert props["by"] == "test"
    assert json.loads(props["sparsity"]) == [0.9]


def test_what_cannot_become_onnx(tmp_path):
    out = tmp_path / "x.onnx"
    out.write_bytes(b"old")
    sparsert.convert(pruned_cnn(), tmp_path / "m.sprt")
    with pytest.raises(ModelFormatError, match="cannot become an ONNX file"):
        sparsert.convert(tmp_path / "m.sprt", out)
    with pytest.raises(ValueError, match=r"is for \.sprt files only"):
        sparsert.convert(pruned_cnn(), out, weights="f16")
    with pytest.raises(ModelFormatError, match="No such file"):
        sparsert.convert(tmp_path / "none.onnx", out)
    broken = pruned_cnn()
    broken.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ModelFormatError, match="defined nowhere"):
        sparsert.convert(broken, out)
    assert out.read_bytes() == b"old"


def test_coordinates_and_places_are_the_same(tmp_path):
    found = written(tmp_path, pruned_cnn())
    want = make_session(found).run(None, {"x": X})[0]
    for sparse in found.graph.sparse_initializer:
        places = numpy_helper.to_array(sparse.indices)
        rows = np.stack(np.unravel_index(places, tuple(sparse.dims)), -1).astype(np.int64)
        sparse.indices.CopyFrom(numpy_helper.from_array(rows))
    onnx.checker.check_model(found)
    np.testing.assert_array_equal(make_session(found).run(None, {"x": X})[0], want)
    np.testing.assert_allclose(sparsert.load(found, strict=True)(X), want, 1e-5, 1e-5)
