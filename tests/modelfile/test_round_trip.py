"""What is written is read back: by the Python reader, by the C++ reader, as the same graph."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from sparsert.errors import ModelFormatError, UnsupportedOpError
from sparsert.formats import Encoding
from sparsert.modelfile import read, to_ir, write_bytes, write_file
from tests.modelfile import driver
from tests.modelfile.sample_models import (
    ONE_NODE,
    activation,
    constant,
    make_model,
    network,
    one_node_model,
    weights,
)


@pytest.fixture(scope="module")
def one_node_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("ops")
    paths = []
    for i, (op, *_) in enumerate(ONE_NODE):
        paths.append(directory / f"{i}_{op}.sprt")
        write_file(one_node_model(i), paths[-1])
    return paths


@pytest.mark.parametrize("index", range(len(ONE_NODE)), ids=lambda i: f"{i}_{ONE_NODE[i][0]}")
def test_each_op_comes_back(index: int) -> None:
    model = one_node_model(index)
    data = write_bytes(model)
    back = to_ir(read(data))
    op_type, domain, _, attributes = ONE_NODE[index]
    node = back.graph[0]
    assert (node.op_type, node.domain) == (op_type, domain)
    for name, value in attributes.items():
        if value not in ("VALID", "relu6"):
            found = node.attributes[name].value
            expected = value if isinstance(value, str | list) else pytest.approx(value)
            assert (list(found) if isinstance(value, list) else found) == expected
    assert write_bytes(back) == data
    shape = back.graph.inputs[0].shape
    assert shape is not None
    assert [str(dim) for dim in shape] == ["N", "3", "8", "x_dim3"]


def test_c_reader_accepts_each_op(one_node_files: list[Path]) -> None:
    lines = driver.run("read", *one_node_files)
    wrong = [(p.name, line) for p, line in zip(one_node_files, lines, strict=True) if line != "ok"]
    assert not wrong


@pytest.mark.parametrize("density", [0.0, 0.03, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_c_and_python_decode_the_same(density: float, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "network.sprt"
    write_file(network(density), path, kind, {"title": "a name: ü"})
    file = read(path)
    assert file.metadata == {"title": "a name: ü"}
    expected = []
    for tensor in file.tensors:
        if tensor.is_constant:
            values = np.ascontiguousarray(tensor.decode())
            nonzeros = np.count_nonzero(values)
            expected.append(f"{tensor.name} {nonzeros} {zlib.crc32(values.data):08x}")
    assert driver.run("dump", path) == expected


def test_weights_keep_their_values() -> None:
    model = network()
    for kind in ("f32", "f16"):
        file = read(write_bytes(model, kind))
        encodings = set()
        for tensor in file.tensors:
            if not tensor.is_constant:
                continue
            assert tensor.layout is not None
            encodings.add(tensor.layout.encoding)
            original = model.graph.initializers[tensor.name].const_value
            assert original is not None
            array = original.numpy()
            is_weight = tensor.name.startswith("w") and array.ndim >= 2
            expected = array.astype(np.float16) if kind == "f16" and is_weight else array
            np.testing.assert_array_equal(tensor.decode(), expected.astype(np.float32))
        assert encodings == set(Encoding) or encodings == {Encoding.DENSE, Encoding.BLOCK}


def test_blocks_are_found() -> None:
    file = read(write_bytes(network()))
    layouts = {tensor.name: tensor.layout for tensor in file.tensors}
    found = layouts["w3"]
    assert found is not None
    assert (found.encoding, found.block_rows, found.block_cols) == (Encoding.BLOCK, 4, 1)


def test_weights_beyond_f16_stay_f32() -> None:
    x, y = activation("x", ["N", 2]), activation("y")
    big = constant("w", np.array([[1e6, 0.1]], np.float32))
    model = make_model([x], [y], [ir.node("Linear", [x, big], domain="sparsert", outputs=[y])])
    tensor = read(write_bytes(model, "f16")).tensors[1]
    np.testing.assert_array_equal(tensor.decode(), [[np.float32(1e6), np.float32(0.1)]])


def test_other_constants_stay_exact_with_f16() -> None:
    x, y, z = activation("x", [1, 2]), activation("y"), activation("z")
    nodes = [
        ir.node("Add", [x, constant("eps", np.array([[1e-12, 1e-7]], np.float32))], outputs=[y]),
        ir.node("Gather", [y, constant("i", np.array([1, 0]))], {"axis": 1}, outputs=[z]),
    ]
    file = read(write_bytes(make_model([x], [z], nodes), "f16"))
    by_name = {tensor.name: tensor for tensor in file.tensors}
    np.testing.assert_array_equal(by_name["eps"].decode(), np.array([[1e-12, 1e-7]], np.float32))
    np.testing.assert_array_equal(by_name["i"].decode(), [1, 0])


def test_the_graph_computes_the_same() -> None:
    x, y, z, out = activation("x", [2, 6]), activation("y"), activation("z"), activation("out")
    nodes = [
        ir.node("Clip", [x, constant("low", np.float32(-0.5))], outputs=[y]),
        ir.node("Gelu", [y], {"approximate": "tanh"}, outputs=[z]),
        ir.node("ReduceLogSumExp", [z, constant("axes", np.array([1]))], outputs=[out]),
    ]
    model = make_model([x], [out], nodes)
    feeds = {"x": weights(2, 6, density=1)}
    before = ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)
    after = ReferenceEvaluator(ir.to_proto(to_ir(read(write_bytes(model))))).run(None, feeds)
    np.testing.assert_array_equal(before[0], after[0])


def test_constant_of_shape_keeps_its_dtype() -> None:
    y = activation("y", [2])
    for fill in (np.array([7], np.int32), np.array([True]), np.array([0.5], np.float32)):
        shape = constant("shape", np.array([2]))
        node = ir.node("ConstantOfShape", [shape], {"value": ir.tensor(fill)}, outputs=[y])
        back = to_ir(read(write_bytes(make_model([], [y], [node]))))
        value = back.graph[0].attributes["value"].value.numpy()
        assert value.dtype == fill.dtype
        np.testing.assert_array_equal(value, fill)
        y = activation("y", [2])


def test_all_unsupported_nodes_are_named() -> None:
    x, a, b, c = (activation(name, [1]) for name in ("x", "a", "b", "c"))
    nodes = [
        ir.node("STFT", [x], outputs=[a], name="first"),
        ir.node("Relu", [a], outputs=[b], name="fine"),
        ir.node("Resize", [b], {"mode": "spline"}, outputs=[c], name="second"),
    ]
    with pytest.raises(UnsupportedOpError, match=r"(?s)'first' \(STFT\).*'second' \(Resize\)"):
        write_bytes(make_model([x], [c], nodes))


def test_dynamic_weights_are_unsupported() -> None:
    x, w, y = activation("x", [1, 4]), activation("w", [3, 4]), activation("y")
    node = ir.node("Linear", [x, w], domain="sparsert", outputs=[y], name="layer")
    with pytest.raises(UnsupportedOpError, match="input 1 must be a constant"):
        write_bytes(make_model([x, w], [y], [node]))


def test_cyclic_graph_is_an_error() -> None:
    x, a, b = activation("x", [1]), activation("a"), activation("b")
    nodes = [
        ir.node("Add", [x, b], outputs=[a], name="one"),
        ir.node("Relu", [a], outputs=[b], name="two"),
    ]
    with pytest.raises(ModelFormatError, match=r"'one'.*'b' is used before it is produced"):
        write_bytes(make_model([x], [b], nodes))


def test_unknown_weights_option() -> None:
    with pytest.raises(ValueError, match="f32, f16"):
        write_bytes(network(), "i4")


def test_same_model_same_bytes() -> None:
    assert write_bytes(network()) == write_bytes(network())
