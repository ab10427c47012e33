"""A model shares no memory with its caller: feeds, outputs and the source of its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, numpy_helper

import sparsert
from sparsert.errors import UnsupportedOpError
from sparsert.importers import import_model
from sparsert.modelfile import write_aligned
from sparsert.passes import canonicalise
from tests.suite.harness import build

X = np.array([[1, -2, 3], [4, 5, -6]], np.float32)
BACKENDS = ("native", "numpy", "numba")
ELEMS = 2000  # too many for what is copied in any case

pytestmark = pytest.mark.filterwarnings("ignore:.*fallback")
on_each_backend = pytest.mark.parametrize("backend", BACKENDS)


@on_each_backend
@pytest.mark.parametrize("has_fallback", [False, True])
def test_outputs_are_no_views_of_feeds(backend: str, has_fallback: bool) -> None:
    nodes = ["a = Identity(x)", "b = Relu(x)", "c = Transpose(x)", "d = Unsqueeze(x, axes)"]
    nodes += ["e = NonZero(x)"] if has_fallback else []
    outputs = ["x", *"abcde"[: len(nodes)]]
    model = sparsert.load(
        build(nodes, {"x": ["n", 3]}, {"axes": np.array([0])}, outputs=outputs), backend=backend
    )
    for _ in range(2):
        x = X.copy()
        found = model.run(None, {"x": x})
        for name, y in zip(outputs, found, strict=True):
            assert not np.may_share_memory(x, y), name
        assert found[0].tolist() == X.tolist()
        assert found[3].tolist() == X.T.tolist()


@on_each_backend
@pytest.mark.parametrize("elems", [3, ELEMS])
def test_outputs_are_no_views_of_constants(backend: str, elems: int) -> None:
    constant = np.arange(elems, dtype=np.float32)
    model = sparsert.load(
        build(["y = Relu(x)", "z = Identity(k)"], {"x": (3,)}, {"k": constant}, outputs=("y", "z")),
        backend=backend,
    )
    for _ in range(2):
        y, z = model(X[0])
        assert z.tolist() == constant.tolist()
        y[:] = z[:] = 7


def times_weight(constant: np.ndarray) -> onnx.ModelProto:
    """No .sprt file is made of it, for it is not native as a whole."""
    nodes = ["y = Mul(x, w)", "z = NonZero(y)"]
    return build(nodes, {"x": (1,)}, {"w": constant}, outputs=("y", "z"))


def of_bytes(constant: np.ndarray) -> tuple[Any, Callable[[], None]]:
    data = bytearray(times_weight(constant).SerializeToString())
    start = data.find(constant.tobytes())

    def change() -> None:
        data[start : start + constant.nbytes] = bytes(constant.nbytes)

    return data, change


def of_sprt(constant: np.ndarray) -> tuple[Any, Callable[[], None]]:
    proto = build(["y = Mul(x, w)"], {"x": (1,)}, {"w": constant})
    file = write_aligned(canonicalise(import_model(proto)))
    room = np.zeros(file.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64  # where a model would be read in place
    aligned = room[start : start + file.nbytes]
    aligned[:] = np.frombuffer(file, np.uint8)
    return memoryview(aligned), lambda: aligned.fill(0)


def of_ir(constant: np.ndarray) -> tuple[Any, Callable[[], None]]:
    model = ir.from_proto(times_weight(constant))
    held = constant.copy()
    model.graph.initializers["w"].const_value = ir.Tensor(held, name="w")
    return model, lambda: held.fill(0)


def of_proto(constant: np.ndarray) -> tuple[Any, Callable[[], None]]:
    proto = times_weight(constant)
    zeros = numpy_helper.from_array(np.zeros_like(constant), "w")
    return proto, lambda: proto.graph.initializer[0].CopyFrom(zeros)


@on_each_backend
@pytest.mark.parametrize("elems", [3, ELEMS])
@pytest.mark.parametrize("source", [of_bytes, of_sprt, of_ir, of_proto])
def test_a_source_that_changes_later(source: Any, elems: int, backend: str) -> None:
    constant = np.arange(elems, dtype=np.float32)
    src, change = source(constant)
    model = sparsert.load(src, backend=backend)
    one = np.ones(1, np.float32)
    assert model.run(["y"], {"x": one})[0].tolist() == constant.tolist()
    change()
    assert model.run(["y"], {"x": one})[0].tolist() == constant.tolist()


class Net(torch.nn.Module):
    def __init__(self, has_fallback: bool) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)
        self.has_fallback = has_fallback

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.linear(x)
        return (y, torch.nonzero(y > 0)) if self.has_fallback else (y,)


@on_each_backend
@pytest.mark.parametrize("has_fallback", [False, True])
def test_a_module_that_changes_later(backend: str, has_fallback: bool) -> None:
    net = Net(has_fallback).eval()
    x = torch.randn(2, 64)
    model = sparsert.load(net, example_inputs=x, backend=backend)
    before = model.run(None, {model.inputs[0].name: x})[0].tolist()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    assert model.run(None, {model.inputs[0].name: x})[0].tolist() == before


@on_each_backend
def test_an_ir_model_stays_as_it_is(backend: str) -> None:
    model = ir.from_proto(build(["t = MatMul(x, w)", "y = Relu(t)"], {"x": ["n", 3]}, {"w": X.T}))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    for _ in range(2):
        y = sparsert.load(model, backend=backend)(X)
        np.testing.assert_allclose(y, np.maximum(X @ X.T, 0), rtol=1e-6)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("where", ["input", "output"])
def test_sequences_are_refused(where: str) -> None:
    nodes = {"input": "y = SequenceLength(s)", "output": "s = SequenceConstruct(x)"}
    proto = build([nodes[where]], {"x": (3,)}, outputs=("y" if where == "input" else "s",))
    kind = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    if where == "input":
        proto.graph.input[0].CopyFrom(onnx.ValueInfoProto(name="s", type=kind))
    else:
        proto.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="s", type=kind))
    with pytest.raises(UnsupportedOpError, match=f"graph {where} 's' is no tensor"):
        sparsert.load(proto)
