"""External data of tensors inside of nodes, subgraphs and functions: found, checked, read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import sparsert
from sparsert.errors import ModelFormatError
from tests.passes.pass_checks import build, node, weights

OPSET = 17
SMALL, LARGE = (3, 4), (30, 40)
KINDS = ("constant", "branch", "body", "function")


def external(shape: tuple[int, int], location: str = "w.bin", **entries: int) -> TensorProto:
    """A weight whose data are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def model_of(kind: str, weight: TensorProto) -> onnx.ModelProto:
    """A product with w, which is in a node, in a branch, in the body of a Loop or in a function."""
    size = list(weight.dims)
    product = node("MatMul", ["x", "w"], ["y"])
    constant = node("Constant", [], ["w"], value=weight)
    if kind == "constant":
        return build([constant, product], {"x": ("n", size[0])}, ["y"], opset=OPSET)
    if kind == "function":
        proto = build([], {"x": ("n", size[0])}, ["y"], opset=OPSET)
        proto.graph.node.add(op_type="Layer", domain="mine", input=["x"], output=["y"])
        opsets = [helper.make_opsetid("", OPSET)]
        proto.functions.append(
            helper.make_function("mine", "Layer", ["x"], ["y"], [constant, product], opsets)
        )
        proto.opset_import.append(helper.make_opsetid("mine", 1))
        return proto
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    inner = node("MatMul", ["x", "w"], ["o"])
    if kind == "branch":
        other = helper.make_graph([node("MatMul", ["x", "v"], ["p"])], "else", [], [])
        other.output.add(name="p", type=out.type)
        other.initializer.append(numpy_helper.from_array(np.zeros(size, np.float32), "v"))
        then = helper.make_graph([inner], "then", [], [out], [weight])
        branch = node("If", ["c"], ["y"], then_branch=then, else_branch=other)
        proto = build([branch], {"x": ("n", size[0])}, ["y"], opset=OPSET)
        proto.graph.input.add(name="c", type=helper.make_tensor_type_proto(TensorProto.BOOL, []))
        return proto
    flags = [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("go", "went")]
    step = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    nodes = [inner, node("Identity", ["go"], ["went"])]
    body = helper.make_graph(nodes, "body", [step, flags[0]], [flags[1], out], [weight])
    loop = node(
        "Loop",
        [
            "one",
            "",
        ],
        ["all"],
        body=body,
    )
    first = node("Squeeze", ["all", "zero"], ["y"])
    constants = {"one": np.array(1), "zero": np.array([0])}
    return build([loop, first], {"x": ("n", size[0])}, ["y"], constants, OPSET)


def feeds_of(proto: onnx.ModelProto, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    feeds = {"x": weights(2, shape[0], sparsity=0, seed=1)}
    return feeds | ({"c": np.array(True)} if len(proto.graph.input) > 1 else {})


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*fallback")
def test_it_is_read_from_the_folder_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, shape: tuple[int, int]
) -> None:
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    weight = weights(*shape, sparsity=0)
    (folder / "w.bin").write_bytes(b"pad." + weight.tobytes())
    (elsewhere / "w.bin").write_bytes(b"\0" * (weight.nbytes + 4))
    proto = model_of(kind, external(shape, offset=4, length=weight.nbytes))
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    feeds = feeds_of(proto, shape)
    want = feeds["x"] @ weight
    for backend in ("native", "numpy"):
        (found,) = sparsert.load(folder / "m.onnx", backend=backend).run(None, feeds)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
    sparsert.convert(folder / "m.onnx", "whole.onnx")
    (found,) = sparsert.load("whole.onnx", backend="numpy").run(None, feeds)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"location": "/etc/passwd"}, "below the model's folder"),
        ({"location": "../w.bin"}, "below the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": "absent.bin"}, "no such file"),
        ({"location": "sparsert:nested"}, "below the model's folder"),
        ({"offset": 9}, "but the file has 48"),
        ({"offset": -1}, "needs bytes -1"),
        ({"length": 44}, r"shape \[3, 4\] needs 48"),
    ],
)
def test_it_is_checked(tmp_path: Path, kind: str, change: dict, message: str) -> None:
    data = weights(*SMALL).tobytes()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(data)
    (tmp_path / "w.bin").write_bytes(data)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    proto = model_of(kind, external(SMALL, **change))
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelFormatError, match=message) as caught:
        sparsert.load(folder / "m.onnx")
    assert "'w'" in str(caught.value) or "'value'" in str(caught.value)


@pytest.mark.parametrize("offset", [0, 99999999, -5])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_no_file_says_that_data_are_in_the_importer(offset: int, as_bytes: bool) -> None:
    proto = build([node("MatMul", ["x", "w"], ["y"])], {"x": ("n", 3)}, ["y"])
    proto.graph.initializer.append(external(SMALL, "sparsert:self", offset=offset, length=48))
    with pytest.raises(ModelFormatError, match="below the model's folder"):
        sparsert.load(proto.SerializeToString() if as_bytes else proto)


def test_short_data_inside_of_a_node() -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=SMALL, raw_data=b"\0" * 44)
    with pytest.raises(ModelFormatError, match=r"'Constant_w'.*44 bytes of data.*needs 48"):
        sparsert.load(model_of("constant", weight))


def test_a_graph_that_onnx_ir_does_not_read() -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "v")
    places = numpy_helper.from_array(np.array([2]), "i")
    proto = build([node("Constant", [], ["w"])], {"x": (3,)}, ["y"], opset=OPSET)
    proto.graph.node.append(node("Mul", ["x", "w"], ["y"]))
    attribute = proto.graph.node[0].attribute.add(name="sparse_value")
    attribute.type = AttributeProto.SPARSE_TENSOR
    attribute.sparse_tensor.CopyFrom(helper.make_sparse_tensor(values, places, [3]))
    with pytest.raises(ModelFormatError, match="Sparse tensors"):
        sparsert.load(proto)
