"""import_model on ONNX sources: opsets, external data, and every kind of bad input."""

from __future__ import annotations

import gc
import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsert
from sparsert.errors import ModelFormatError, UnsupportedOpError
from sparsert.importers import import_model
from sparsert.passes import canonicalise, native_report
from tests.passes.pass_checks import NEWEST, assert_same, build, node, ops, weights


def small_cnn(opset: int) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, residual, pools, Squeeze, Gemm, Softmax in that opset."""
    rng = np.random.default_rng(0)
    constants = {
        "w0": weights(8, 3, 3, 3),
        "w1": weights(8, 8, 3, 3, seed=1),
        "fc": weights(5, 8, seed=2),
        "fb": weights(5, seed=3),
        **{f"bn_{k}": rng.uniform(0.5, 1.5, 8).astype(np.float32) for k in "gbmv"},
    }
    bn = [f"bn_{k}" for k in "gbmv"]
    nodes = [
        node("Conv", ["x", "w0"], ["a"], pads=[1] * 4, strides=[2, 2]),
        node("BatchNormalization", ["a", *bn], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("Conv", ["c", "w1"], ["d"], pads=[1] * 4),
        node("Add", ["d", "c"], ["e"]),
        node("Clip", ["e", "lo", "hi"], ["f"]),
        node("MaxPool", ["f"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Dropout", ["g"], ["h"]),
        node("GlobalAveragePool", ["h"], ["i"]),
        node("Gemm", ["j", "fc", "fb"], ["k"], transB=1),
        node("Softmax", ["k"], ["y"], axis=1),
    ]
    constants["lo"], constants["hi"] = np.float32(0), np.float32(6)
    if opset < 13:
        squeeze = node("Squeeze", ["i"], ["j"], axes=[2, 3])
    else:
        constants["axes"] = np.array([2, 3])
        squeeze = node("Squeeze", ["i", "axes"], ["j"])
    nodes.insert(9, squeeze)
    return build(nodes, {"x": ("N", 3, 16, 16)}, ["y"], constants, opset)


@pytest.mark.parametrize("opset", [11, 13, 17, 21, NEWEST])
def test_opsets(opset):
    proto = small_cnn(opset)
    before = proto.SerializeToString()
    model = canonicalise(import_model(proto))
    assert proto.SerializeToString() == before
    assert native_report(model) == []
    assert ops(model) == [
        "sparsert.Conv",
        "sparsert.Conv",
        "MaxPool",
        "GlobalAveragePool",
        "Squeeze",
        "sparsert.Linear",
        "Softmax",
    ]
    assert model.graph.inputs[0].shape[0].value == "N"
    assert_same(proto, model)


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "bytearray", "memoryview", "proto"])
def test_sources(tmp_path, kind):
    proto = small_cnn(17)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    data = path.read_bytes()
    sources = {"path": path, "str": str(path), "bytes": data, "proto": proto}
    sources |= {"bytearray": bytearray(data), "memoryview": memoryview(data)}
    assert_same(proto, canonicalise(import_model(sources[kind])))


def external(tmp_path) -> tuple[onnx.ModelProto, str]:
    proto = small_cnn(17)
    path = str(tmp_path / "m.onnx")
    onnx.save(
        onnx.ModelProto.FromString(proto.SerializeToString()),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=64,
    )
    return proto, path


def test_external_data(tmp_path):
    proto, path = external(tmp_path)
    assert_same(proto, canonicalise(import_model(path)))


def test_no_file_stays_open(tmp_path):
    _, path = external(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("no /proc on this platform")
    model = canonicalise(import_model(path))
    for value in model.graph.initializers.values():
        value.const_value.numpy()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_missing_external_data(tmp_path):
    _, path = external(tmp_path)
    os.remove(tmp_path / "weights.bin")
    with pytest.raises(ModelFormatError) as error:
        import_model(path)
    assert "'w0'" in str(error.value)
    assert "'w1'" in str(error.value)
    assert "weights.bin" in str(error.value)
    assert "m.onnx" in str(error.value)


def test_truncated_external_data(tmp_path):
    _, path = external(tmp_path)
    os.truncate(tmp_path / "weights.bin", 100)
    with pytest.raises(ModelFormatError, match=r"'w1'.*but the file has 100"):
        import_model(path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "a/../../w.bin", ""])
def test_external_data_elsewhere(tmp_path, location):
    _, path = external(tmp_path)
    shutil.copy(tmp_path / "weights.bin", tmp_path.parent / "w.bin")
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    onnx.save(proto, path)
    with pytest.raises(ModelFormatError, match="below the model's folder"):
        import_model(path)


def test_changed_file(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(small_cnn(17), path)
    model = import_model(path)
    os.truncate(path, 200)
    with pytest.raises(ModelFormatError, match="changed"):
        model.graph.initializers["w1"].const_value.numpy()


def test_missing_file(tmp_path):
    with pytest.raises(ModelFormatError, match="no such file"):
        import_model(tmp_path / "absent.onnx")


def test_folder(tmp_path):
    with pytest.raises(ModelFormatError, match="folder"):
        import_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04zip",
        b"{}",
        b"\x89SPRT\r\n\x1a",
        b"hello world" * 9,
        b"\x00" * 64,
        b"\x08\x07",
    ],
)
def test_wrong_type(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"m\.onnx"):
        import_model(path)


def test_every_truncation(tmp_path):
    data = small_cnn(17).SerializeToString()
    for end in [*range(1, 200), *range(200, len(data), 97)]:
        with pytest.raises((ModelFormatError, UnsupportedOpError)):
            import_model(data[:end])


def test_flipped_bytes_raise_or_import():
    data = bytearray(small_cnn(17).SerializeToString())
    rng = np.random.default_rng(0)
    for _ in range(300):
        copy = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            copy[at] = rng.integers(0, 256)
        try:
            import_model(bytes(copy))
        except (ModelFormatError, UnsupportedOpError):
            pass


@pytest.mark.parametrize("source", [None, 3, [1], np.zeros(3), object])
def test_unknown_source(source):
    with pytest.raises(ModelFormatError, match="cannot import a model from"):
        import_model(source)


def test_all_problems_are_listed():
    proto = build(
        [
            node("Relu", ["nowhere"], ["a"]),
            node("Conv", ["x"], ["b"]),
            node("Concat", ["a", "b"], ["c"]),
            node("Relu", ["c"], ["a"]),
        ],
        {"x": (1, 3)},
        ["y"],
    )
    with pytest.raises(ModelFormatError) as error:
        import_model(proto)
    text = str(error.value)
    assert "'nowhere' is defined nowhere" in text
    assert "'Conv_b' (Conv): it has 1 inputs; expected 2 to 3" in text
    assert "its attribute 'axis' is missing" in text
    assert "its output 'a' is already defined" in text
    assert "graph output 'y' is produced by no node" in text


def test_a_location_that_is_said_explicitly():
    # Field 14 (data_location) after raw_data, as quantisers write it, although it is the default.
    weight = numpy_helper.from_array(weights(20, 20, sparsity=0), "w")
    weight.data_location = TensorProto.DEFAULT
    assert weight.SerializeToString().endswith(b"\x70\x00")
    proto = build([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 20)}, ["y"])
    proto.graph.initializer.append(weight)
    for source in (proto, proto.SerializeToString()):
        found = import_model(source).graph.initializers["w"].const_value.numpy()
        np.testing.assert_array_equal(found, numpy_helper.to_array(weight))


def sparse_model(values=None, indices=None, dims=(3, 4)) -> onnx.ModelProto:
    """Y = x @ w with a sparse w."""
    proto = build([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 3)}, ["y"])
    made = numpy_helper.from_array(np.array([5, -7] if values is None else values, np.float32), "w")
    places = numpy_helper.from_array(np.array([1, 11] if indices is None else indices), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(made, places, dims))
    return proto


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("indices", [[1, 11], [[0, 1], [2, 3]]])
def test_sparse_initializers(as_bytes, indices):
    proto = sparse_model(indices=indices)
    model = import_model(proto.SerializeToString() if as_bytes else proto)
    dense = np.zeros((3, 4), np.float32)
    dense[0, 1], dense[2, 3] = 5, -7
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), dense)
    canonical = canonicalise(model)
    assert ops(canonical) == ["sparsert.Linear"]
    assert len(proto.graph.sparse_initializer) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": [1, 12]}, "outside of its shape"),
        ({"indices": [-1, 3]}, "outside of its shape"),
        ({"indices": [[0, 1], [3, 0]]}, "outside of its shape"),
        ({"indices": [11, 1]}, "not in ascending order"),
        ({"indices": [4, 4]}, "not in ascending order"),
        ({"indices": [[2, 3], [0, 1]]}, "not in ascending order"),
        ({"indices": [1]}, "for 2 values"),
        ({"indices": [[0, 1, 0], [0, 0, 0]]}, "for 2 values"),
        ({"indices": np.array([1, 2], np.int32)}, "indices int64"),
        ({"values": [[1, 2]]}, "must be a vector"),
        ({"dims": (-3, 4)}, "its shape is"),
        ({"dims": (1 << 40, 1 << 40)}, "its shape is"),
    ],
)
def test_bad_sparse_initializers(change, message):
    with pytest.raises(ModelFormatError, match=message):
        import_model(sparse_model(**change))


def test_cycle():
    proto = build(
        [
            node("Add", ["x", "c"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Exp", ["b"], ["c"]),
            node("Neg", ["c"], ["y"]),
        ],
        {"x": (3,)},
        ["y"],
    )
    with pytest.raises(ModelFormatError, match="cyclic") as error:
        import_model(proto)
    text = str(error.value)
    assert all(name in text for name in ("Add_a", "Relu_b", "Exp_c"))
    assert "Neg_y" not in text


def test_unsorted_nodes_are_sorted():
    proto = build([node("Relu", ["a"], ["y"]), node("Exp", ["x"], ["a"])], {"x": (3,)}, ["y"])
    assert ops(canonicalise(import_model(proto))) == ["Exp", "Relu"]


def test_ill_typed():
    proto = build([node("Add", ["x", "k"], ["y"])], {"x": (3,)}, ["y"], {"k": np.arange(3)})
    with pytest.raises(ModelFormatError, match="Add"):
        import_model(proto)


def test_contradicting_shapes():
    proto = build(
        [node("Conv", ["x", "w"], ["y"])], {"x": (1, 3, 5, 5)}, ["y"], {"w": weights(4, 2, 3, 3)}
    )
    with pytest.raises(ModelFormatError, match="Conv"):
        import_model(proto)


def test_wrong_attribute_type():
    proto = build([node("Concat", ["x", "x"], ["y"], axis=0.5)], {"x": (3,)}, ["y"])
    with pytest.raises(ModelFormatError, match="'axis' is FLOAT; expected INT"):
        import_model(proto)


def test_short_weights():
    proto = small_cnn(17)
    proto.graph.initializer[0].raw_data = b"\0" * 12
    with pytest.raises(ModelFormatError, match=r"'w0'.*12 bytes"):
        import_model(proto)
    proto.graph.initializer[0].raw_data = b"\0" * 5000
    with pytest.raises(ModelFormatError, match=r"'w0'.*5000 bytes"):
        import_model(proto.SerializeToString())


def test_unknown_operator():
    proto = build([node("Frobnicate", ["x"], ["y"])], {"x": (3,)}, ["y"])
    with pytest.raises(UnsupportedOpError, match="Frobnicate"):
        import_model(proto)


def test_future_opset():
    proto = small_cnn(17)
    proto.opset_import[0].version = 999
    with pytest.raises(ModelFormatError, match="opset 999"):
        import_model(proto)


def test_initializer_listed_as_input():
    proto = small_cnn(11)
    proto.graph.input.append(helper.make_tensor_value_info("w0", 1, [8, 3, 3, 3]))
    model = canonicalise(import_model(proto))
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_typed_data_fields():
    proto = small_cnn(17)
    tensor = proto.graph.initializer[0]
    floats = numpy_helper.to_array(tensor).reshape(-1)
    tensor.ClearField("raw_data")
    tensor.float_data.extend(floats)
    assert_same(proto, canonicalise(import_model(proto)))
    assert_same(proto, canonicalise(import_model(proto.SerializeToString())))


def test_wrong_declared_shapes_are_only_hints():
    proto = small_cnn(17)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5]))
    import_model(proto)


@pytest.mark.parametrize("batch", [-1, "?", "None", ""])
def test_unknown_dimensions_are_independent(batch):
    # PaddlePaddle's converter writes sizes of -1, and "?" for each unknown size.
    proto = build([node("Relu", ["x"], ["y"])], {"x": (batch, 3, "?", "?")}, ["y"])
    model = sparsert.load(proto, strict=True)
    assert model.inputs[0].shape == ("x_dim0", 3, "x_dim2", "x_dim3")
    for shape in ((1, 3, 4, 5), (2, 3, 7, 1)):
        x = weights(*shape)
        np.testing.assert_array_equal(model(x), np.maximum(x, 0))


def test_sizes_that_torch_could_not_name_are_unknown():
    proto = build([node("Concat", ["p", "x"], ["y"], axis=1)], {"p": ("n", "m"), "x": ("n", 3)}, [])
    dims = ["Concaty_dim_0", "Concaty_dim_1"]
    proto.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, dims))
    model = sparsert.load(proto, strict=True)
    assert model.outputs[0].shape[0] == "n"
    assert model.outputs[0].shape[1] not in ("m", *dims)
