"""Recurrent layers as torch and Keras export them: native, and the same results."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import sparsert
from tests.suite.harness import make_session, random_weights

torch = pytest.importorskip("torch")

CLASSES = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "bidirectional": {"bidirectional": True},
    "deep": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "no_bias": {"bias": False},
}


def flat(outputs: Any) -> list[np.ndarray]:
    if isinstance(outputs, tuple | list):
        return [array for each in outputs for array in flat(each)]
    return [np.asarray(outputs.detach())]


def ops_of(model: Any) -> list[str]:
    return [row["op"] for row in model.explain().to_dict()["rows"]]


def make_layer(op: str, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return CLASSES[op](5, 7, **options).eval(), torch.randn(4, 2, 5)


@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("op", list(CLASSES))
def test_torch_modules(op: str, options: str) -> None:
    layer, x = make_layer(op, **OPTIONS[options])
    model = sparsert.load(layer, example_inputs=x, strict=True)
    for got, want in zip(flat(model(x)), flat(layer(x)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    if op != "RNN":  # which torch.export writes out step by step
        assert "Recurrent" in ops_of(model)


@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("op", list(CLASSES))
@pytest.mark.filterwarnings("ignore")
def test_files_of_the_older_exporter(op: str, options: str) -> None:
    layer, x = make_layer(op, **OPTIONS[options])
    file = io.BytesIO()
    axes = {"x": {0: "a", 1: "b"}}
    torch.onnx.export(layer, (x,), file, input_names=["x"], dynamic_axes=axes, dynamo=False)
    model = sparsert.load(onnx.load_from_string(file.getvalue()), strict=True)
    assert "Recurrent" in ops_of(model)
    for shape in ((4, 2, 5), (3, 17, 5)):
        x = torch.randn(shape)
        found = model.run(None, {"x": x.numpy()})
        for got, want in zip(found, flat(layer(x)), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_initial_states_are_inputs() -> None:
    layer, x = make_layer("GRU")
    h = torch.randn(1, 2, 7)
    model = sparsert.load(layer, example_inputs=(x, h), strict=True)
    for got, want in zip(flat(model(x, h)), flat(layer(x, h)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


class Cells(torch.nn.Module):
    """A cell called step by step: the exporters write all steps out."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.cell = getattr(torch.nn, f"{op}Cell")(5, 7)

    def forward(self, x: Any) -> Any:
        state = None
        for step in range(4):
            state = self.cell(x[step], state)
        return state


@pytest.mark.parametrize("op", list(CLASSES))
def test_torch_cells(op: str) -> None:
    torch.manual_seed(0)
    module, x = Cells(op).eval(), torch.randn(4, 2, 5)
    model = sparsert.load(module, example_inputs=x, strict=True)
    for got, want in zip(flat(model(x)), flat(module(x)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def unrolled_lstm(steps: int, size: int, sparsity: float) -> onnx.ModelProto:
    """An LSTM written out as Keras does: two products with shared weights per step."""
    arrays = {
        "wx": random_weights(size, 4 * size, sparsity=sparsity, scale=size**-0.5),
        "wh": random_weights(size, 4 * size, sparsity=sparsity, scale=size**-0.5, seed=1),
        "b": random_weights(4 * size, scale=0.1),
        "parts": np.full(4, size),
        "two": np.array([2, size]),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("ConstantOfShape", ["two"], ["h"]),
        helper.make_node("Identity", ["h"], ["c"]),
    ]
    h, c = "h", "c"
    for t in range(steps):
        arrays[f"t{t}"] = np.array(t)
        for op, inputs, outputs in (
            ("Gather", ["xt", f"t{t}"], ["x"]),
            ("MatMul", [f"x{t}", "wx"], ["a"]),
            ("MatMul", [h, "wh"], ["r"]),
            ("Add", [f"a{t}", f"r{t}"], ["s"]),
            ("Add", [f"s{t}", "b"], ["z"]),
            ("Split", [f"z{t}", "parts"], ["i", "f", "g", "o"]),
            ("Sigmoid", [f"i{t}"], ["is"]),
            ("Sigmoid", [f"f{t}"], ["fs"]),
            ("Sigmoid", [f"o{t}"], ["os"]),
            ("Tanh", [f"g{t}"], ["gs"]),
            ("Mul", [f"fs{t}", c], ["kept"]),
            ("Mul", [f"is{t}", f"gs{t}"], ["new"]),
            ("Add", [f"kept{t}", f"new{t}"], ["c"]),
            ("Tanh", [f"c{t}"], ["ct"]),
            ("Mul", [f"os{t}", f"ct{t}"], ["h"]),
        ):
            named = [f"{name}{t}" for name in outputs]
            attributes = {"axis": 1} if op == "Split" else {}
            nodes.append(helper.make_node(op, inputs, named, **attributes))
        h, c = f"h{t}", f"c{t}"
    graph = helper.make_graph(
        nodes,
        "unrolled",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, steps, size])],
        [helper.make_tensor_value_info(h, onnx.TensorProto.FLOAT, [2, size])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_unrolled_steps_share_their_weights(sparsity: float, tmp_path: Path) -> None:
    size = 64
    source = unrolled_lstm(6, size, sparsity)
    model = sparsert.load(source, strict=True)
    x = np.random.default_rng(0).standard_normal((2, 6, size)).astype(np.float32)
    (wanted,) = make_session(source).run(None, {"x": x})
    np.testing.assert_allclose(model(x), wanted, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "m.sprt")
    weights = 2 * size * 4 * size * 4
    bytes_per_weight = 1.0 if sparsity == 0.0 else 0.2
    assert os.path.getsize(tmp_path / "m.sprt") < weights * bytes_per_weight + 64000


@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"return_state": True}])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "SimpleRNN"])
def test_keras_layers(op: str, options: dict[str, bool], tmp_path: Path) -> None:
    """Runs where Keras is installed, with torch as its backend."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip(f"Keras runs on {keras.backend.backend()}")
    x = np.random.default_rng(0).standard_normal((2, 6, 5)).astype(np.float32)
    inputs = keras.Input((6, 5), batch_size=2)
    layer = getattr(keras.layers, op)(7, **options)
    module = keras.Model(inputs, layer(inputs))
    wanted = flat(module(x))
    module.export(str(tmp_path / "m.onnx"), format="onnx", verbose=False)
    model = sparsert.load(tmp_path / "m.onnx", strict=True)
    found = model.run(None, {model.inputs[0].name: x})
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
